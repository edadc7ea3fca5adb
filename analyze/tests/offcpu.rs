//! Off-CPU reports of traces whose answers are known: `offcputime`, `wakeups`, `cpudist`.

mod common;

use std::collections::BTreeMap;

use bpfrec_analyze::{Filter, Meta};
use bpfrec_format::{Registry, Source, Trace};
use common::{Builder, S, T0, V, analyze, json, loss, report, report_of};
use proptest::prelude::*;
use serde_json::{Value, json};

const US: u64 = 1000;
const MS: u64 = 1_000_000;

fn builder(sources: &str) -> Builder {
    let mut b = Builder::with(Registry::default(), &[("sources", sources), ("offcpu_min_wait_ns", "10000")]);
    b.task(60, 60, "db").task(61, 60, "db;io").task(70, 70, "web").task(4000, 4000, "bpfrec");
    for (addr, name) in [(0x1000, "schedule"), (0x2000, "futex_wait"), (0x3000, "io_schedule"), (0x4000, "futex_wake")]
    {
        b.row("kernel_symbol", &[("addr", V::N(addr)), ("type", V::N(u64::from(b't'))), ("name", V::T(name))]);
    }
    let text = [
        ("path", V::T("/usr/bin/db")),
        ("pid", V::N(60)),
        ("start_addr", V::N(0x40_0000)),
        ("len_bytes", V::N(0x9000)),
    ];
    b.row("mapping", &[&[("ts_ns", V::N(T0))][..], &text].concat());
    for (id, space, pid, frames) in [
        (7, 0, 60, &[0x1010, 0x2020][..]),
        (8, 1, 60, &[0x40_0010, 0x40_0101]),
        (9, 0, 60, &[0x1010, 0x3020]),
        (10, 0, 70, &[0x4010]),
    ] {
        let fields = [("ts_ns", V::N(T0)), ("stack_id", V::N(id)), ("space", V::N(space)), ("pid", V::N(pid))];
        b.row("stack", &[&fields[..], &[("frames", V::L(frames))]].concat());
    }
    b
}

/// A row of source `offcpu` that ends at `T0 + end`.
fn off(b: &mut Builder, kind: &str, tid: u64, end: u64, wait: u64, more: &[(&str, u64)]) {
    let pid = if tid == 61 { 60 } else { tid };
    let mut fields = vec![("tid", tid), ("pid", pid), ("wait_ns", wait), ("cgroup_id", pid * 10)];
    if !more.iter().any(|(name, _)| *name == "count") {
        fields.push(("count", 1));
    }
    fields.extend_from_slice(more);
    b.event((end % 3) as u32, kind, T0 + end, &fields);
}

fn waits() -> Builder {
    let mut b = builder("offcpu");
    let lock = [("prev_state", 1), ("kernel_stack_id", 7), ("user_stack_id", 8)];
    let woken = [("waker_tid", 70), ("waker_pid", 70), ("waker_kernel_stack_id", 10)];
    let with = |queued: u64, flags: u64| [&lock[..], &woken, &[("queued_ns", queued), ("flags", flags)]].concat();
    off(&mut b, "offcpu_wait", 60, 30 * MS, 20 * MS, &with(2 * MS, 0));
    off(&mut b, "offcpu_wait", 60, 60 * MS, 10 * MS, &with(MS, 3));
    // Waits for a disk; the interrupt hit the idle thread.
    off(
        &mut b,
        "offcpu_wait",
        61,
        50 * MS,
        45 * MS,
        &[("prev_state", 2), ("kernel_stack_id", 9), ("queued_ns", 5 * US)],
    );
    // Preempted, and nothing but that is known.
    off(&mut b, "offcpu_wait", 70, 20 * MS, 3 * MS, &[("queued_ns", 3 * MS)]);
    off(&mut b, "offcpu_short", 70, 70 * MS, MS, &[("count", 200)]);
    off(&mut b, "offcpu_open", 60, 100 * MS, 40 * MS, &lock);
    // The recorder's own.
    off(&mut b, "offcpu_wait", 4000, 90 * MS, 80 * MS, &[("prev_state", 1)]);
    b
}

fn of_window(trace: &Trace, name: &str, flags: &[&'static str], from: Option<u64>, to: Option<u64>) -> Value {
    let meta = Meta::load(trace).unwrap();
    let text = |ns: Option<u64>| ns.map(|ns| format!("{ns}ns"));
    let filter = Filter::new(&meta, text(from).as_deref(), text(to).as_deref(), None, None).unwrap();
    serde_json::from_str(&report_of(trace, name, flags, true, &filter).output).unwrap()
}

#[test]
fn layout_of_offcputime() {
    let text = report(&waits().trace(), "offcputime", &["delimited"], false).output;
    let expected = "    schedule
    io_schedule
    -                db;io (61)
        45000

    [still off the CPU at the end]
    schedule
    futex_wait
    --
    [db+0x10]
    [db+0x100]
    -                db (60)
        40000

    schedule
    futex_wait
    --
    [db+0x10]
    [db+0x100]
    -                db (60)
        30000

    -                web (70)
        3000

    [waits shorter than --min-wait 10us]
    -                web (70)
        1000

# 119.00 ms off the CPU in 205 waits, 6.00 ms of it waiting for a CPU only
# by state: preempted 3.00 ms, short 1.00 ms, sleeping 70.00 ms, uninterruptible 45.00 ms
# stacks remembered, not walked: 28.6 %; 60.0 % of frames named
";
    assert_eq!(text, expected);
}

#[test]
fn folded_and_drawn() {
    let trace = waits().trace();
    let outcome = report(&trace, "offcputime", &["folded", "svg=x.svg"], false);
    let expected = "db:io;io_schedule;schedule 45000
db;[db+0x100];[db+0x10];futex_wait;schedule;[still off the CPU at the end] 40000
db;[db+0x100];[db+0x10];futex_wait;schedule 30000
web 3000
web;[waits shorter than --min-wait 10us] 1000
";
    assert_eq!(outcome.output, expected);
    let (name, svg) = &outcome.files[0];
    let svg = String::from_utf8_lossy(svg);
    assert_eq!(name, "x.svg");
    assert!(svg.contains("Off-CPU time of box") && svg.contains("119.00 ms in 205 waits"), "{svg}");
    assert!(svg.contains("(45,000 us, 37.82%)"), "{svg}");
    if let Some(dir) = std::env::var_os("BPFREC_KEEP") {
        std::fs::write(std::path::Path::new(&dir).join("offcputime.svg"), svg.as_bytes()).unwrap();
    }
    let user = report(&trace, "offcputime", &["folded", "user-stacks-only", "top=1"], false).output;
    assert_eq!(user, "db:io 45000\n");
    let kernel = report(&trace, "offcputime", &["folded", "kernel-stacks-only", "tid=60"], false).output;
    assert_eq!(kernel, "db;futex_wait;schedule;[still off the CPU at the end] 40000\ndb;futex_wait;schedule 30000\n");
}

#[test]
fn by_process_and_cgroup() {
    let trace = waits().trace();
    let by = json(&trace, "offcputime", &["pids"]);
    let of = |all: &Value, key: &str, value: u64| -> u64 {
        let mine = all["stacks"].as_array().unwrap().iter().filter(|s| s[key] == value);
        mine.map(|s| s["ns"].as_u64().unwrap()).sum()
    };
    assert_eq!((of(&by, "pid", 60), of(&by, "pid", 70)), (115 * MS, 4 * MS));
    assert_eq!(by["stacks"][0]["comm"], "db");
    let by = json(&trace, "offcputime", &["per-cgroup"]);
    assert_eq!((of(&by, "cgroup_id", 600), of(&by, "cgroup_id", 700)), (115 * MS, 4 * MS));
    let text = report(&trace, "offcputime", &["per-cgroup"], false).output;
    assert!(text.contains("    -                cgroup 600\n        45000\n"), "{text}");
    let both = report_error(&trace, &["pids", "per-cgroup"]);
    assert!(both.contains("cannot be used together"), "{both}");
    for flags in
        [&["state=x"][..], &["min-block-time=-1"], &["min-block-time=9", "max-block-time=8"], &["tid=99999999999"]]
    {
        assert!(!report_error(&trace, flags).is_empty());
    }
}

fn report_error(trace: &Trace, flags: &[&'static str]) -> String {
    let meta = Meta::load(trace).unwrap();
    let split = |f: &&'static str| f.split_once('=').map_or((*f, String::new()), |(f, v)| (f, v.to_owned()));
    let flags = bpfrec_analyze::reports::Flags(flags.iter().map(split).collect());
    let kind = bpfrec_analyze::reports::find("offcputime").unwrap();
    let filter = Filter::everything(&meta);
    let result = bpfrec_analyze::reports::run(trace, &meta, kind, &flags, &filter, false, &|_, _| {});
    result.unwrap_err().to_string()
}

#[test]
fn threads_of_the_kernel_and_of_programs() {
    let mut b = waits();
    let task = [("tid", V::N(33)), ("pid", V::N(33)), ("ppid", V::N(2)), ("comm", V::T("kworker/0:1"))];
    b.row("task", &[&[("ts_ns", V::N(T0)), ("start_ns", V::N(S))][..], &task].concat());
    off(&mut b, "offcpu_wait", 33, 80 * MS, 7 * MS, &[("prev_state", 0x402)]);
    let trace = b.trace();
    let ns = |flags: &[&'static str]| json(&trace, "offcputime", flags)["total"]["ns"].as_u64().unwrap();
    assert_eq!([ns(&[]), ns(&["user-threads-only"]), ns(&["kernel-threads-only"])], [126 * MS, 119 * MS, 7 * MS]);
    assert_eq!(json(&trace, "offcputime", &["kernel-threads-only"])["by_state"]["idle"]["waits"], 1);
    // Kernel threads, which wait for work, hide all else in a drawing.
    let (_, files) = analyze(&trace, 2);
    let svg = String::from_utf8_lossy(&files["offcpu.svg"]);
    assert!(
        svg.contains("Off-CPU time of box, threads of programs: 0.1 s, 119.00 ms") && !svg.contains("kworker"),
        "{svg}"
    );
    let text = String::from_utf8_lossy(&files["report.txt"]);
    assert!(text.contains("# only threads of programs\n"), "{text}");
}

#[test]
fn states_and_lengths() {
    let trace = waits().trace();
    let total = |flags: &[&'static str]| {
        let all = json(&trace, "offcputime", flags);
        let n = |v: &Value| v["ns"].as_u64().unwrap() / MS;
        (n(&all["total"]), n(&all["left_out"]))
    };
    assert_eq!(total(&[]), (119, 0));
    // Of short waits the state is not known.
    assert_eq!(total(&["ended"]), (79, 0));
    assert_eq!(total(&["state=1"]), (70, 1));
    assert_eq!(total(&["state=2"]), (45, 1));
    assert_eq!(total(&["state=0x3"]), (115, 1));
    assert_eq!(total(&["state=0"]), (3, 1));
    // They are shorter than 10 us, and no more is known of them.
    assert_eq!(total(&["min-block-time=10"]), (118, 0));
    assert_eq!(total(&["min-block-time=9"]), (118, 1));
    assert_eq!(total(&["min-block-time=10001"]), (105, 0));
    assert_eq!(total(&["min-block-time=10000"]), (115, 0));
    assert_eq!(total(&["max-block-time=10000"]), (14, 0));
    assert_eq!(total(&["max-block-time=9"]), (1, 0));
    assert_eq!(total(&["max-block-time=8"]), (0, 1));
    assert_eq!(total(&["min-block-time=3000", "max-block-time=20000", "state=1"]), (30, 0));
    let text = report(&trace, "offcputime", &["state=2"], false).output;
    assert!(text.contains("# left out: 200 short waits of 1.00 ms in all"), "{text}");
}

#[test]
fn json_of_offcputime() {
    let all = json(&waits().trace(), "offcputime", &[]);
    assert_eq!(all["total"], json!({"ns": 119 * MS, "queued_ns": 6 * MS + 5 * US, "waits": 205}));
    assert_eq!(all["open"], json!({"ns": 40 * MS, "queued_ns": 0, "waits": 1}));
    assert_eq!(all["short"], json!({"ns": MS, "queued_ns": 0, "waits": 200}));
    assert_eq!(all["by_state"]["uninterruptible"]["ns"], 45 * MS);
    assert_eq!((&all["stacks_walked"], &all["stacks_remembered"]), (&json!(5), &json!(2)));
    assert_eq!((&all["lost"], &all["min_wait_ns"], &all["unit"]), (&json!(0), &json!(10_000), &json!("ns")));
    assert_eq!(
        all["stacks"][1],
        json!({
            "tid": 60, "pid": 60, "comm": "db", "what": "open", "ns": 40 * MS, "queued_ns": 0, "waits": 1,
            "kernel": ["schedule", "futex_wait"], "user": ["[db+0x10]", "[db+0x100]"],
        })
    );
}

#[test]
fn windows_take_their_part() {
    let trace = waits().trace();
    let total = |from, to| {
        let all = of_window(&trace, "offcputime", &[], Some(from * MS), Some(to * MS));
        let n = |key: &str| all["total"][key].as_u64().unwrap();
        (n("ns") as f64 / 1e6, n("waits"))
    };
    // 61 waits from 5 on; 70 from 17 to 20 and is preempted; 60 waits from 10 to 30, from 50 to 60, and from 60 on.
    assert_eq!(total(0, 5), (0.0, 0));
    assert_eq!(total(0, 10), (5.0, 0));
    assert_eq!(total(11, 12), (2.0, 0));
    assert_eq!(total(18, 30), (26.0, 2));
    assert_eq!(total(60, 70), (11.0, 200));
    assert_eq!(total(99, 200), (1.0, 1));
    let queued = of_window(&trace, "offcputime", &[], Some(29 * MS), Some(31 * MS));
    assert_eq!(queued["total"]["queued_ns"], MS);
}

#[test]
fn what_began_before_the_trace_counts_from_its_begin() {
    let mut b = builder("offcpu");
    off(&mut b, "offcpu_wait", 60, 5 * MS, 500 * S, &[("prev_state", 1), ("flags", 4)]);
    assert_eq!(json(&b.trace(), "offcputime", &[])["total"]["ns"], 5 * MS);
}

#[test]
fn losses_and_missing_stacks_are_said() {
    let mut b = waits();
    off(&mut b, "offcpu_wait", 60, 75 * MS, MS, &[("prev_state", 1), ("kernel_stack_id", 99), ("user_stack_id", 98)]);
    loss(&mut b, Source::Offcpu, T0 + 80 * MS, T0 + 81 * MS, 17);
    loss(&mut b, Source::Sched, T0 + 80 * MS, T0 + 81 * MS, 4);
    let trace = b.trace();
    let outcome = report(&trace, "offcputime", &["delimited"], false);
    let text = &outcome.output;
    assert!(
        text.contains(
            "    [Missed Kernel Stack]\n    --\n    [Missed User Stack]\n    -                db (60)\n        1000\n"
        ),
        "{text}"
    );
    assert!(text.contains("# lost: 17 events (offcpu 17)\n"), "{text}");
    assert!(text.contains("# 1 waits have a stack whose definition is missing\n"), "{text}");
    assert!(outcome.lossy);
    let early = of_window(&trace, "offcputime", &[], None, Some(50 * MS));
    assert_eq!((&early["lost"], &early["lost_after"]), (&json!(0), &json!(17)));
    let meta = Meta::load(&trace).unwrap();
    let filter = Filter::new(&meta, None, Some("50ms"), None, None).unwrap();
    let text = report_of(&trace, "offcputime", &[], false, &filter).output;
    assert!(text.contains("# lost after the window: 17 events, among them perhaps"), "{text}");
    let wakeups = report(&trace, "wakeups", &[], false);
    assert!(wakeups.lossy && wakeups.output.contains("# lost: 17 events (offcpu 17)\n"), "{}", wakeups.output);
    // Only source `offcpu` was lost, which is not what cpudist is made of.
    assert!(!report(&builder("sched").trace(), "cpudist", &[], false).lossy);
}

#[test]
fn whom_an_interrupt_hit_is_no_waker() {
    let items = [("sources", "offcpu"), ("offcpu_interrupts", "told")];
    let mut b = Builder::with(Registry::default(), &items);
    b.task(60, 60, "db").task(70, 70, "web");
    for (end, flags) in [(30, 32), (60, 0)] {
        let woken = [("prev_state", 1), ("waker_tid", 70), ("waker_pid", 70), ("queued_ns", MS), ("flags", flags)];
        off(&mut b, "offcpu_wait", 60, end * MS, 10 * MS, &woken);
    }
    let trace = b.trace();
    let all = json(&trace, "wakeups", &[]);
    assert_eq!((&all["count"], &all["by_interrupt"]), (&json!(2), &json!(1)));
    let wakers: Vec<_> =
        (0..2).map(|i| (&all["pairs"][i]["waker"]["comm"], &all["pairs"][i]["waker"]["pid"])).collect();
    assert_eq!(wakers, [(&json!("[interrupt]"), &json!(0)), (&json!("web"), &json!(70))]);
    assert!(report(&trace, "wakeups", &[], false).output.contains("# 1 of them came from interrupts\n"));
}

#[test]
fn layout_of_wakeups() {
    let trace = waits().trace();
    let text = report(&trace, "wakeups", &[], false).output;
    let expected = "    waker:           swapper 0
    --               --
    schedule
    io_schedule
    target:          db;io 60
        44995  (1 wakeups, then 5 us for a CPU)

    waker:           web 70
    futex_wake
    --               --
    schedule
    futex_wait
    [db+0x10]
    [db+0x100]
    target:          db 60
        27000  (2 wakeups, then 3000 us for a CPU)

# 3 wakeups: 72.00 ms blocked before, 3.00 ms waiting for a CPU after
# which of them came from interrupts is not in the trace: a waker may be whom one hit
# without a wakeup: 1 preemptions, 200 short waits, 1 blocked to the end
";
    assert_eq!(text, expected);
    let folded = report(&trace, "wakeups", &["folded"], false).output;
    let expected = "db:io;io_schedule;schedule;--;swapper 44995
db;[db+0x100];[db+0x10];futex_wait;schedule;--;futex_wake;web 27000
";
    assert_eq!(folded, expected);
    let svg = &report(&trace, "wakeups", &["svg=w.svg"], false).files[0].1;
    assert!(String::from_utf8_lossy(svg).contains("Blocked time of box and who ended it"));
    if let Some(dir) = std::env::var_os("BPFREC_KEEP") {
        std::fs::write(std::path::Path::new(&dir).join("wakeups.svg"), svg).unwrap();
    }
    let all = json(&trace, "wakeups", &[]);
    assert_eq!((&all["source"], &all["count"], &all["not_seen"]), (&json!("offcpu"), &json!(3), &json!(0)));
    assert_eq!(all["without_wakeup"], json!({"preempted": 1, "short": 200, "open": 1}));
    assert_eq!(
        all["pairs"][1],
        json!({
            "waker": {"pid": 70, "comm": "web", "kernel": ["futex_wake"], "user": []},
            "target": {"pid": 60, "comm": "db", "kernel": ["schedule", "futex_wait"], "user": ["[db+0x10]", "[db+0x100]"]},
            "count": 2, "blocked_ns": 27 * MS, "queued_ns": 3 * MS,
        })
    );
}

fn wake(b: &mut Builder, at: u64, tid: u64, waker: u64) {
    b.event(1, "sched_wakeup", T0 + at, &[("tid", tid), ("pid", tid), ("waker_tid", waker)]);
}

#[test]
fn wakeups_of_plain_switches() {
    let mut b = builder("sched");
    // 60 sleeps from 1 to 5 ms; 70 wakes it at 4, and somebody else once more.
    b.switch(0, T0 + MS, 60, 1, 70);
    wake(&mut b, 4 * MS, 60, 61);
    wake(&mut b, 4 * MS + 500 * US, 60, 70);
    b.switch(0, T0 + 5 * MS, 70, 0, 60);
    // Preempted: no wakeup. Not seen: one.
    b.switch(0, T0 + 6 * MS, 60, 2, 70).switch(0, T0 + 8 * MS, 70, 1, 60);
    // A new thread had no wait; one that ends has none either.
    b.event(1, "sched_wakeup_new", T0 + 9 * MS, &[("tid", 61), ("pid", 61)]);
    b.switch(1, T0 + 10 * MS, 0, 0, 61).switch(1, T0 + 11 * MS, 61, 0x80, 0);
    let trace = b.trace();
    let all = json(&trace, "wakeups", &[]);
    assert_eq!((&all["source"], &all["count"], &all["not_seen"]), (&json!("sched"), &json!(2), &json!(1)));
    assert_eq!(all["without_wakeup"]["preempted"], 1);
    // 70 was there before; 60 came back last, so that 70 still sleeps.
    assert_eq!(all["unpaired"], json!({"no_start": 1, "open": 1, "lost": 0}));
    let pair = |i: usize| {
        let p = &all["pairs"][i];
        (
            p["waker"]["comm"].as_str().unwrap(),
            p["target"]["comm"].as_str().unwrap(),
            p["blocked_ns"].as_u64().unwrap(),
            p["queued_ns"].as_u64().unwrap(),
        )
    };
    assert_eq!(pair(0), ("db;io", "db", 3 * MS, MS));
    assert_eq!(pair(1), ("[wakeup not seen]", "db", 2 * MS, 0));
    let text = report(&trace, "wakeups", &[], false).output;
    assert!(text.contains("# no stacks: the trace has source `sched` only"), "{text}");
    assert!(text.contains("# 1 of them were not seen"), "{text}");
}

#[test]
fn a_missing_source_is_said() {
    let trace = builder("block").trace();
    let meta = Meta::load(&trace).unwrap();
    let error = |name: &str| {
        let kind = bpfrec_analyze::reports::find(name).unwrap();
        let filter = Filter::everything(&meta);
        let made = bpfrec_analyze::reports::run(&trace, &meta, kind, &Default::default(), &filter, false, &|_, _| {});
        made.unwrap_err().to_string()
    };
    assert!(error("wakeups").contains("no events of `offcpu` or `sched`: record it with `-e offcpu`"));
    assert!(error("offcputime").contains("no events of `offcpu`: record it with `-e offcpu`"));
}

/// A small machine, and what a naive model of BCC's cpudist makes of it: (thread, length), on and off the CPU.
struct Model {
    builder: Builder,
    on: Vec<(u64, u64)>,
    off: Vec<(u64, u64)>,
}

fn model(seed: u64, switches: u64) -> Model {
    let mut x = seed;
    let mut random = |n: u64| {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 33) % n
    };
    let mut b = Builder::new();
    let mut running = [0u64; 2];
    let (mut came, mut left): (BTreeMap<u64, u64>, BTreeMap<u64, u64>) = Default::default();
    let (mut on, mut off) = (Vec::new(), Vec::new());
    let mut ts = T0;
    for i in 0..switches {
        ts += STEP / 10 * (1 + random(300));
        let cpu = random(2) as usize;
        let (prev, mut next) = (running[cpu], random(7));
        if next == running[1 - cpu] {
            next = 0;
        }
        if next == prev {
            continue;
        }
        b.switch(cpu as u32, ts, prev, random(3), next);
        if prev != 0 {
            left.insert(prev, ts);
            if let Some(came) = came.remove(&prev) {
                on.push((prev, ts - came));
            }
        }
        if next != 0 {
            came.insert(next, ts);
            if let Some(left) = left.remove(&next) {
                off.push((next, ts - left));
            }
        }
        running[cpu] = next;
        if i % 50 == 0 {
            b.flush();
        }
    }
    Model { builder: b, on, off }
}

/// Buckets of powers of two, by hand.
fn naive(lengths: impl Iterator<Item = u64>, unit: u64) -> BTreeMap<u64, u64> {
    let mut all = BTreeMap::new();
    for ns in lengths {
        let mut low = 1;
        while low * 2 <= ns / unit {
            low *= 2;
        }
        *all.entry(if low == 1 { 0 } else { low }).or_default() += 1;
    }
    all
}

fn counted(group: &Value) -> BTreeMap<u64, u64> {
    let n = |b: &Value, key: &str| b[key].as_u64().unwrap();
    let all = group["buckets"].as_array().unwrap().iter().map(|b| (n(b, "low"), n(b, "count")));
    all.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn cpudist_against_a_naive_model() {
    for seed in 1..6 {
        let Model { builder, on, off } = model(seed, 2000);
        let trace = builder.trace();
        for (flag, lengths) in [(None, &on), (Some("offcpu"), &off)] {
            let flags = |more: &'static str| flag.into_iter().chain(Some(more)).collect::<Vec<_>>();
            let all = json(&trace, "cpudist", &flags("pidnss"));
            assert_eq!(counted(&all["groups"][0]), naive(lengths.iter().map(|l| l.1), 1000), "{flag:?}");
            assert_eq!(all["time"], flag.map_or("on", |_| "off"));
            let ms = json(&trace, "cpudist", &[flags("milliseconds"), flags("per-cgroup")].concat());
            assert_eq!((ms["unit"].as_str(), ms["groups"].as_array().unwrap().len()), (Some("msecs"), 6));
            for group in ms["groups"].as_array().unwrap() {
                let tid = group["key"]["cgroup_id"].as_u64().unwrap() / 10;
                let mine = lengths.iter().filter(|(t, _)| *t == tid).map(|l| l.1);
                assert_eq!(counted(group), naive(mine, MS), "{flag:?} {tid}");
            }
        }
    }
    let Model { builder, on, .. } = model(9, 300);
    let text = report(&builder.trace(), "cpudist", &["tids"], false).output;
    assert!(text.starts_with("\ntid = 1 \n     usecs               : count    distribution\n"), "{text}");
    assert!(text.contains("# unpaired times on the CPU: "), "{text}");
    assert!(on.len() > 50);
}

#[test]
fn cpudist_believes_nothing_across_a_loss() {
    let mut b = builder("sched");
    b.switch(0, T0, 0, 0, 60).switch(0, T0 + 10 * MS, 60, 1, 0).switch(0, T0 + 20 * MS, 0, 0, 60);
    b.switch(0, T0 + 21 * MS, 60, 1, 0);
    loss(&mut b, Source::Sched, T0 + 5 * MS, T0 + 6 * MS, 3);
    let trace = b.trace();
    let on = json(&trace, "cpudist", &[]);
    assert_eq!((&on["groups"][0]["count"], &on["unpaired"]["lost"]), (&json!(1), &json!(1)));
    let text = report(&trace, "cpudist", &[], false).output;
    assert!(text.contains("# lost: 3 events (sched 3)\n"), "{text}");
    let mut b = builder("sched");
    b.switch(0, T0, 60, 1, 0).switch(0, T0 + 10 * MS, 0, 0, 60).switch(0, T0 + 11 * MS, 60, 1, 0);
    loss(&mut b, Source::Sched, T0 + 5 * MS, T0 + 6 * MS, 3);
    let off = json(&b.trace(), "cpudist", &["offcpu"]);
    assert_eq!((&off["groups"][0]["count"], &off["unpaired"]["lost"]), (&json!(0), &json!(1)));
}

/// A trace of many waits of all kinds, in many blocks.
fn busy(seed: u64, rows: u64, sources: &str) -> Trace {
    let mut x = seed;
    let mut random = |n: u64| {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 33) % n
    };
    let mut b = builder(sources);
    let mut end = 50 * MS;
    for i in 0..rows {
        // Ends and cuts fall together now and then.
        end += STEP * (1 + random(20));
        let tid = [60, 61, 70][random(3) as usize];
        let wait = 10 * US + random(50 * MS - 10 * US);
        let (state, waker) = (random(3), [0, 60, 70][random(3) as usize]);
        let kind = ["offcpu_wait", "offcpu_wait", "offcpu_wait", "offcpu_short", "offcpu_open"][random(5) as usize];
        let queued = if state == 0 { wait } else { random(wait) };
        let more = [
            ("prev_state", state),
            ("queued_ns", queued),
            ("kernel_stack_id", [0, 7, 9, 99][random(4) as usize]),
            ("user_stack_id", [0, 8][random(2) as usize]),
            ("waker_tid", waker),
            ("waker_pid", waker),
            ("waker_kernel_stack_id", [0, 10][random(2) as usize]),
            ("flags", random(16)),
            ("count", if kind == "offcpu_short" { 1 + random(9) } else { 1 }),
        ];
        off(&mut b, kind, tid, end, wait, &more);
        if i % 100 == 99 {
            b.flush();
        }
    }
    b.trace()
}

/// Sums of a report that windows share among them.
fn sums(all: &Value) -> Vec<u64> {
    let n = |v: &Value| v.as_u64().unwrap();
    match all["report"].as_str().unwrap() {
        "offcputime" => {
            let per = |part: &str| ["ns", "queued_ns", "waits"].map(|key| n(&all[part][key]));
            ["total", "open", "short", "left_out"].into_iter().flat_map(per).collect()
        }
        "wakeups" => {
            let of = |key: &str| n(&all[key]);
            let without = ["preempted", "short", "open"].map(|key| n(&all["without_wakeup"][key]));
            ["count", "blocked_ns", "queued_ns", "not_seen"].map(of).into_iter().chain(without).collect()
        }
        _ => vec![n(&all["groups"][0]["count"]), n(&all["groups"][0]["sum_ns"])],
    }
}

/// Times of random traces are multiples of this, and so are cuts.
const STEP: u64 = 100 * US;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the cuts: the parts add up to the whole, and so do stacks to their total.
    #[test]
    fn windows_add_up(seed in any::<u64>(), cuts in proptest::collection::vec(1u64..5000, 0..6)) {
        let waits = busy(seed, 300, "offcpu");
        let switches = model(seed, 200).builder.trace();
        let reports: [(&Trace, &str, &[&'static str]); 6] = [
            (&waits, "offcputime", &[]),
            (&waits, "offcputime", &["state=2", "pids"]),
            (&waits, "offcputime", &["min-block-time=9", "max-block-time=30000", "per-cgroup"]),
            (&waits, "wakeups", &[]),
            (&switches, "wakeups", &[]),
            (&switches, "cpudist", &["offcpu"]),
        ];
        let mut cuts: Vec<u64> = cuts.into_iter().map(|cut| cut * STEP).collect();
        cuts.sort_unstable();
        cuts.dedup();
        for (trace, name, flags) in reports {
            let whole = of_window(trace, name, flags, None, None);
            let meta = Meta::load(trace).unwrap();
            let own: Vec<u64> = cuts.iter().copied().filter(|cut| meta.start_ns + cut < meta.end_ns).collect();
            // A histogram takes a moment that is a border twice, as all reports of moments do.
            let step = u64::from(name == "cpudist");
            let mut parts = vec![0; sums(&whole).len()];
            let begins = std::iter::once(None).chain(own.iter().map(|cut| Some(*cut + step)));
            let ends = own.iter().map(|cut| Some(*cut)).chain(std::iter::once(None));
            for (from, to) in begins.zip(ends) {
                let part = of_window(trace, name, flags, from, to);
                parts.iter_mut().zip(sums(&part)).for_each(|(sum, n)| *sum += n);
                if name == "offcputime" {
                    let ns = |v: &Value| v["ns"].as_u64().unwrap();
                    let stacks: u64 = part["stacks"].as_array().unwrap().iter().map(ns).sum();
                    prop_assert_eq!(stacks, ns(&part["total"]));
                }
            }
            prop_assert_eq!(parts, sums(&whole), "{} {:?} {:?}", name, flags, own);
        }
    }
}

#[test]
fn same_bytes_at_any_number_of_threads() {
    let trace = busy(3, 3000, "offcpu,sched");
    let (one, files) = analyze(&trace, 1);
    let (two, same) = analyze(&trace, 2);
    assert_eq!(one.text, two.text);
    assert!(files == same);
    let reports: [(&str, &[&'static str]); 5] = [
        ("offcputime", &["svg=a"]),
        ("offcputime", &["folded", "delimited"]),
        ("wakeups", &["svg=a"]),
        ("wakeups", &["folded"]),
        ("cpudist", &["offcpu", "tids"]),
    ];
    for (name, flags) in reports {
        for as_json in [false, true] {
            let made = [1, 2].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let made = pool.install(|| report(&trace, name, flags, as_json));
                (made.output, made.notes, made.files)
            });
            assert!(made[0] == made[1], "{name} {flags:?}");
        }
    }
}

#[test]
fn analyze_writes_table_drawing_and_text() {
    let (_, files) = analyze(&waits().trace(), 2);
    let svg = String::from_utf8_lossy(&files["offcpu.svg"]);
    assert!(svg.contains("Off-CPU time of box"), "{svg}");
    assert!(files.contains_key("parquet/offcpu.parquet"));
    assert!(files.keys().all(|name| !name.starts_with("parquet/offcpu_")), "{:?}", files.keys());
    let text = String::from_utf8_lossy(&files["report.txt"]);
    for part in ["== offcputime: ", "== wakeups: ", "    -                db (60)\n        30000\n"] {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("== cpudist: "), "source sched was not recorded");
    let views = String::from_utf8_lossy(&files["views.sql"]);
    assert!(views.contains("VIEW offcpu_waits") && views.contains("VIEW offcputime"));
    if let Some(dir) = std::env::var_os("BPFREC_KEEP") {
        for (name, bytes) in &files {
            let path = std::path::Path::new(&dir).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}

#[test]
fn a_recording_that_was_cut_off_says_what_it_cannot_know() {
    let mut b = builder("offcpu");
    off(&mut b, "offcpu_wait", 60, 5 * MS, MS, &[("prev_state", 1)]);
    let mut bytes = b.bytes();
    let end =
        common::open(bytes.clone()).segments[0].1.blocks.iter().find(|b| b.header.block_type == 11).unwrap().offset;
    bytes.truncate(end as usize);
    let trace = common::open(bytes);
    for name in ["offcputime", "wakeups"] {
        let text = report(&trace, name, &[], false).output;
        assert!(text.contains("# the recording was cut off: waits that lasted then are missing\n"), "{text}");
    }
}
