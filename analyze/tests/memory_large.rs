//! Five million live allocations: all of them are told, and the analyzer's memory is bounded by them.

mod common;

use std::collections::BTreeMap;

use bpfrec_analyze::Meta;
use bpfrec_format::Trace;
use common::{Builder, T0, json};

const LIVE: u64 = 5_000_000;
/// Every so many allocations one more comes and goes.
const CHURN: u64 = 4;
const STACKS: u64 = 100;
const BLOCK: u64 = 50_000;

/// Four processes that allocate and keep; sizes and stacks differ.
fn trace(live: u64) -> (Trace, BTreeMap<u64, (u64, u64)>) {
    let mut b = Builder::of_memory();
    let mut truth: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let alloc = ["ts_ns", "pid", "tid", "call", "weight_milli", "addr", "bytes", "user_stack_id", "cgroup_id"];
    let free = ["ts_ns", "pid", "tid", "call", "addr"];
    for block in 0..live.div_ceil(BLOCK) {
        let (mut allocs, mut frees) = (Vec::new(), Vec::new());
        for i in block * BLOCK..((block + 1) * BLOCK).min(live) {
            let (ts, pid, stack, bytes) = (T0 + i * 1000, 100 + i % 4, 1 + i % STACKS, 16 + i % 1000);
            // As an allocator gives addresses out: near each other, 16 bytes apart.
            allocs.push([ts, pid, pid, 1, 1000, 0x5000_0000_0000 + i * 48, bytes, stack, 10]);
            let of = truth.entry(stack).or_default();
            *of = (of.0 + bytes, of.1 + 1);
            if i % CHURN == 0 {
                allocs.push([ts + 10, pid, pid, 1, 1000, 0x7000_0000_0000 + i % 64 * 32, 24, stack, 10]);
                frees.push([ts + 500, pid, pid, 10, 0x7000_0000_0000 + i % 64 * 32]);
            }
        }
        b.block_of((block % 2) as u32, "malloc_alloc", &alloc, allocs.iter().map(|row| &row[..]));
        b.block_of((block % 2) as u32, "malloc_free", &free, frees.iter().map(|row| &row[..]));
    }
    (b.trace(), truth)
}

/// Bytes that the process has at the most, since it was last asked; 0 where nobody tells.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0);
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    kib * 1024
}

#[test]
fn five_million_live_allocations() {
    // Another number, to see what a live one costs.
    let live = std::env::var("BPFREC_LIVE").map_or(LIVE, |n| n.parse().unwrap());
    let (trace, truth) = trace(live);
    peak_bytes();
    let before = peak_bytes();
    let started = std::time::Instant::now();
    let all = json(&trace, "memleak", &["older=0", "user"]);
    let (after, took) = (peak_bytes(), started.elapsed());
    let number = |value: &serde_json::Value, key: &str| value[key].as_u64().unwrap();
    let stacks = all["groups"][0]["stacks"].as_array().unwrap();
    assert_eq!(stacks.len(), truth.len());
    let mut found: Vec<(u64, u64)> = stacks.iter().map(|s| (number(s, "bytes"), number(s, "count"))).collect();
    let mut expected: Vec<(u64, u64)> = truth.into_values().collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(number(&all["frees"]["user"], "known"), live.div_ceil(CHURN));
    assert_eq!(Meta::load(&trace).unwrap().events, live + 2 * live.div_ceil(CHURN));
    let grown = after.saturating_sub(before);
    println!(
        "{live} live of {} events: {took:.1?}, {} MiB at the most, {} bytes a live allocation with all else",
        live + 2 * live.div_ceil(CHURN),
        grown >> 20,
        grown / live.max(1)
    );
    // 40 bytes each, 5 a slot of a table that is at least half full, both again while they grow, and two slabs.
    if live == LIVE && before > 0 {
        assert!(grown < (300 << 20) + live * 100, "{grown} bytes");
    }
}
