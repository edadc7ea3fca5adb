//! `analyze` as a whole: the same bytes at any number of threads, tables of kinds nobody has heard of, slabs of any size.

mod common;

use std::collections::BTreeMap;

use bpfrec_analyze::pipeline::{Need, Options, Visitor, visit};
use bpfrec_analyze::slab::Slab;
use bpfrec_analyze::{Meta, Result};
use bpfrec_format::{Field, Kind, Registry, Table, Type, meta};
use common::{Builder, S, T0, V, analyze};
use proptest::prelude::*;

/// A busy trace of some thousand events in many blocks, with times that go back and forth a little.
fn busy(blocks: u64) -> Builder {
    let mut b = Builder::with(with_future(), &[]);
    for tid in 1..9 {
        b.task(tid, tid, &format!("task{tid}"));
    }
    let mut x = 12345u64;
    let mut random = |n: u64| {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 33) % n
    };
    for block in 0..blocks {
        for cpu in 0..3u32 {
            let mut prev = 0;
            for i in 0..60 {
                let ts = T0 + block * S / 10 + i * 1_500_000 + random(900_000);
                let next = random(9);
                b.wakeup(cpu, ts.saturating_sub(random(50_000)), 1 + random(8));
                b.switch(cpu, ts, prev, random(2), next);
                prev = next;
                if i % 7 == 0 {
                    let rq = random(5);
                    b.event(cpu, "block_issue", ts, &[("rq", rq), ("dev", 8 << 20), ("bytes", 4096)]);
                    b.event(cpu, "block_complete", ts + 300, &[("rq", rq), ("bytes", 4096)]);
                    b.event(cpu, "cpu_sample", ts, &[("tid", next), ("pid", next), ("kernel_stack_id", 7 + random(2))]);
                    b.event(cpu, "future_event", ts, &[("tid", next), ("answer", u64::MAX), ("cpu", 99)]);
                }
            }
        }
        b.flush();
    }
    b.row("kernel_symbol", &[("addr", V::N(4096)), ("name", V::T("f")), ("type", V::N(u64::from(b't')))]);
    b.row("stack", &[("ts_ns", V::N(T0)), ("stack_id", V::N(7)), ("frames", V::L(&[4100, 4200]))]);
    b.row("sched_fork", &[("ts_ns", V::N(T0 + 5)), ("tid", V::N(9)), ("cpu", V::N(1)), ("comm", V::T("c\u{202e}"))]);
    b
}

/// This version's kinds and one of the future, as a trace's schema would teach it.
fn with_future() -> Registry {
    with_kind("future_event")
}

fn with_kind(name: &str) -> Registry {
    let mut registry = Registry::default();
    let mut kind = Kind { id: 0x90, name: name.into(), source: 77, row_size: 40, fields: Vec::new() };
    for (name, ty, at, width) in [
        ("ts_ns", Type::U64, 0, 8),
        ("tid", Type::U32, 12, 4),
        ("answer", Type::U64, 16, 8),
        ("cpu", Type::U32, 24, 4),
        ("note", Type::Text, 28, 8),
    ] {
        kind.fields.push(Field::new(name, ty, at, width));
    }
    let mut table = Table::new(&meta::kind(meta::SCHEMA_FIELD));
    for f in &kind.fields {
        table.push(&[
            u32::from(kind.id).into(),
            kind.name.as_str().into(),
            u32::from(kind.source).into(),
            kind.row_size.into(),
            f.name.as_str().into(),
            (f.ty as u32).into(),
            u32::from(f.offset).into(),
            u32::from(f.width).into(),
            "".into(),
        ]);
    }
    registry.learn(&table).unwrap();
    registry
}

#[test]
fn same_bytes_at_any_number_of_threads() {
    let trace = busy(12).trace();
    let (one, files) = analyze(&trace, 1);
    for threads in [2, 5] {
        let (other, same) = analyze(&trace, threads);
        assert_eq!(one.text, other.text);
        assert_eq!(files.keys().collect::<Vec<_>>(), same.keys().collect::<Vec<_>>());
        for (name, bytes) in &files {
            assert!(same[name] == *bytes, "{name} differs with {threads} threads");
        }
    }
    let expected = [
        "parquet/sched_switch.parquet",
        "parquet/future_event.parquet",
        "parquet/sched_slice.parquet",
        "parquet/block_io.parquet",
        "parquet/runq_wait.parquet",
        "parquet/stack.parquet",
        "parquet/frame.parquet",
        "parquet/task.parquet",
        "parquet/sched_fork.parquet",
        "profile.svg",
        "report.txt",
        "views.sql",
    ];
    for name in expected {
        assert!(files.get(name).is_some_and(|bytes| !bytes.is_empty()), "{name}");
    }
    // For a look from outside: DuckDB, a browser.
    if let Some(dir) = std::env::var_os("BPFREC_KEEP") {
        for (name, bytes) in &files {
            let path = std::path::Path::new(&dir).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}

/// Everything that goes by, in the order in which it does.
#[derive(Default)]
struct Seen {
    rows: BTreeMap<String, Vec<(u64, u32, Vec<u64>)>>,
    waits: Vec<bpfrec_analyze::sched::Wait>,
    ios: Vec<bpfrec_analyze::block_io::Io>,
    slices: Vec<bpfrec_analyze::sched::Slice>,
}

impl Visitor for Seen {
    fn wants(&self, _: &Need<'_>) -> bool {
        true
    }
    fn slab(&mut self, _: &Meta, slab: &Slab) -> Result<()> {
        for table in &slab.tables {
            let rows = self.rows.entry(table.kind.name.clone()).or_default();
            let ints = |row: usize| table.columns.iter().map(|c| c.ints().get(row).copied().unwrap_or(0)).collect();
            rows.extend((0..table.rows()).map(|r| (table.ts[r], table.cpu[r], ints(r))));
        }
        self.waits.extend_from_slice(&slab.waits);
        self.ios.extend_from_slice(&slab.ios);
        self.slices.extend_from_slice(&slab.slices);
        Ok(())
    }
}

fn seen(trace: &bpfrec_format::Trace, slab_rows: u64) -> Seen {
    let meta = Meta::load(trace).unwrap();
    let mut seen = Seen::default();
    let options = Options { slab_rows, ..Options::default() };
    visit(trace, &meta, &options, &mut [&mut seen]).unwrap();
    // The orders that the tables declare, over all slabs.
    assert!(seen.waits.is_sorted_by_key(|w| (w.ts_ns, w.cpu)));
    assert!(seen.ios.is_sorted_by_key(|io| (io.complete_ns, io.cpu)));
    assert!(seen.slices.is_sorted_by_key(|s| s.ts_ns + s.dur_ns));
    seen.slices.sort_by_key(|s| (s.ts_ns, s.cpu, s.dur_ns));
    seen
}

#[test]
fn slabs_of_any_size_give_the_same_rows_in_order() {
    let trace = busy(12).trace();
    let whole = seen(&trace, u64::MAX);
    let total: usize = whole.rows.values().map(Vec::len).sum();
    assert_eq!(total as u64, Meta::load(&trace).unwrap().events);
    for rows in whole.rows.values() {
        assert!(rows.is_sorted_by_key(|r| (r.0, r.1)));
    }
    assert!(whole.waits.len() > 100 && whole.ios.len() > 100 && whole.slices.len() > 100);
    for slab_rows in [1, 200, 1000] {
        let cut = seen(&trace, slab_rows);
        assert_eq!(whole.rows, cut.rows);
        assert_eq!((&whole.waits, &whole.ios, &whole.slices), (&cut.waits, &cut.ios, &cut.slices));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is damaged: no panic, and the whole rows that are left are right ones.
    #[test]
    fn damage_never_panics(at in 0.0f64..1.0, bit in 0u8..8, cut in 0.3f64..1.0) {
        let mut bytes = busy(2).bytes();
        let whole = seen(&common::open(bytes.clone()), u64::MAX);
        let at = (bytes.len() as f64 * at) as usize;
        bytes[at] ^= 1 << bit;
        bytes.truncate((bytes.len() as f64 * cut) as usize);
        if let Ok(segment) = bpfrec_format::Segment::open(Box::new(bytes)) {
            let trace = bpfrec_format::Trace { segments: vec![("x".into(), segment)], refused: Vec::new() };
            let left = seen(&trace, 500);
            for (kind, rows) in &left.rows {
                let known = &whole.rows[kind];
                prop_assert!(rows.iter().all(|row| known.contains(row)));
            }
            let _ = analyze(&trace, 2);
        }
    }
}

#[test]
fn a_kind_with_a_hostile_name_writes_nowhere_else() {
    for name in ["../evil", "/evil", "task", "block_io", "sched_switch", "sched_fork", "a\"b", "Evil", "select"] {
        let mut b = Builder::with(with_kind(name), &[]);
        b.event(0, "sched_wakeup", T0, &[("tid", 1)]).row("sched_fork", &[("ts_ns", V::N(T0))]);
        let mut b2 = Builder::with(with_kind(name), &[]);
        if name != "sched_switch" && name != "sched_fork" {
            b2.event(0, name, T0, &[("tid", 1)]);
        }
        for b in [b, b2] {
            let (_, files) = analyze(&b.trace(), 2);
            let own = |f: &&String| f.contains("evil") || f.contains("Evil") || f.contains('"');
            assert_eq!(files.keys().find(own), None);
            assert_eq!(files.contains_key("parquet/select.parquet"), name == "select");
            if name == "select" {
                assert!(String::from_utf8_lossy(&files["views.sql"]).contains("VIEW \"select\" AS"));
            }
        }
    }
}

#[test]
fn slices_from_edge_to_edge() {
    let mut b = Builder::new();
    b.switch(0, T0 + 100, 5, 1, 0).wakeup(1, T0 + 250, 6).switch(0, T0 + 300, 0, 0, 6).switch(0, T0 + 350, 6, 0, 7);
    b.switch(1, T0 + 400, 0, 0, 8).switch(1, T0 + 1000, 8, 2, 0);
    let slices = seen(&b.trace(), u64::MAX).slices;
    let short = |s: &bpfrec_analyze::sched::Slice| (s.tid, s.ts_ns - T0, s.dur_ns, s.end, s.runq_ns);
    let expected = [
        // What ran before the first switch of its CPU has run since the first switch of all.
        (5, 100, 0, Some((1, false)), None),
        (6, 300, 50, Some((0, false)), Some(50)),
        // Still there at the end.
        (7, 350, 650, None, None),
        (8, 400, 600, Some((2, false)), None),
    ];
    assert_eq!(slices.iter().map(short).collect::<Vec<_>>(), expected);
}

#[test]
fn a_recorder_that_was_killed_leaves_an_uncertain_tail() {
    let build = || {
        let mut b = Builder::new();
        b.wakeup(0, T0, 1).switch(0, T0 + 10, 0, 0, 1).flush();
        b.switch(1, T0 + 5 * S, 0, 0, 9).flush();
        b.wakeup(0, T0 + 5 * S + 1, 2).switch(0, T0 + 5 * S + 7, 1, 1, 2).wakeup(0, T0 + 6 * S, 3).flush();
        b.bytes()
    };
    let whole = common::open(build());
    assert_eq!(seen(&whole, u64::MAX).waits.len(), 2);
    let end = whole.segments[0].1.blocks.iter().find(|b| b.header.block_type == 11).unwrap().offset as usize;
    let mut cut = build();
    cut.truncate(end);
    let trace = common::open(cut);
    assert_eq!(seen(&trace, u64::MAX).waits.len(), 1);
    let all = common::json(&trace, "runqlat", &[]);
    assert_eq!(all["unpaired"], serde_json::json!({"no_start": 0, "open": 0, "lost": 3}));
}
