//! Reports of traces whose answers are known.

mod common;

use bpfrec_analyze::{Filter, Meta};
use bpfrec_format::Source;
use common::{Builder, S, T0, V, json, loss, open, report, report_of};
use serde_json::json;

const US: u64 = 1000;

fn buckets(value: &serde_json::Value) -> Vec<(u64, u64, u64)> {
    let n = |b: &serde_json::Value, key: &str| b[key].as_u64().unwrap();
    let of = |b| (n(b, "low"), n(b, "high"), n(b, "count"));
    value["buckets"].as_array().unwrap().iter().map(of).filter(|b| b.2 > 0).collect()
}

fn waits() -> Builder {
    let mut b = Builder::new();
    b.task(1, 1, "one").task(2, 2, "two").task(4000, 4000, "bpfrec");
    // A wait of 5 us; the second wakeup begins it anew.
    b.wakeup(1, T0, 1).wakeup(1, T0 + 10 * US, 1).switch(0, T0 + 15 * US, 0, 0, 1);
    // Preempted while runnable: 100 us. In a state, but preempted: 200 us. Asleep: none.
    b.switch(0, T0 + 20 * US, 1, 0, 2).switch(0, T0 + 120 * US, 2, 1, 1);
    b.event(0, "sched_switch", T0 + 130 * US, &[("prev_tid", 1), ("prev_state", 1), ("preempt", 1), ("next_tid", 0)]);
    b.switch(0, T0 + 330 * US, 0, 0, 1);
    b.switch(0, T0 + 340 * US, 1, 1, 0);
    // The recorder's own.
    b.wakeup(0, T0 + 400 * US, 4000).switch(0, T0 + 401 * US, 0, 0, 4000).switch(0, T0 + 402 * US, 4000, 1, 0);
    b
}

#[test]
fn known_waits() {
    let trace = waits().trace();
    let all = json(&trace, "runqlat", &[]);
    assert_eq!(all["report"], "runqlat");
    assert_eq!((&all["unit"], &all["lost"]), (&json!("usecs"), &json!(0)));
    // Thread 2 had no wakeup. 5, 100 and 200 us.
    assert_eq!(buckets(&all["groups"][0]), [(4, 7, 1), (64, 127, 1), (128, 255, 1)]);
    assert_eq!((all["groups"][0]["count"].as_u64(), all["groups"][0]["sum_ns"].as_u64()), (Some(3), Some(305 * US)));
    assert_eq!(all["unpaired"], json!({"no_start": 1, "open": 0, "lost": 0}));

    let by = json(&trace, "runqlat", &["pids"]);
    assert_eq!(by["groups"].as_array().unwrap().len(), 1);
    assert_eq!(by["groups"][0]["key"], json!({"pid": 1, "comm": "one"}));
    let text = report(&trace, "runqlat", &["pids"], false).output;
    assert!(text.starts_with("\npid = 1 one\n     usecs               : count    distribution\n"), "{text}");
    let text = report(&trace, "runqlat", &["milliseconds"], false).output;
    assert!(
        text.starts_with("     msecs               : count    distribution\n         0 -> 1          : 3  "),
        "{text}"
    );

    let meta = Meta::load(&trace).unwrap();
    let recorder = Filter::new(&meta, None, None, Some(4000), None).unwrap();
    let own = report_of(&trace, "runqlat", &[], false, &recorder).output;
    assert!(own.contains(": 1        |"), "{own}");
}

#[test]
fn windows_take_what_ends_in_them() {
    let trace = waits().trace();
    let meta = Meta::load(&trace).unwrap();
    let count = |from: Option<&str>, to: Option<&str>| {
        let filter = Filter::new(&meta, from, to, None, None).unwrap();
        let text = report_of(&trace, "runqlat", &[], true, &filter).output;
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["groups"][0]["count"].as_u64().unwrap()
    };
    assert_eq!(count(Some("100us"), None), 2);
    assert_eq!(count(Some("100us"), Some("200us")), 1);
    assert_eq!(count(None, Some("10us")), 0);
    assert!(Filter::new(&meta, Some("9s"), None, None, None).is_err());
    assert!(Filter::new(&meta, Some("2us"), Some("1us"), None, None).is_err());
}

#[test]
fn unpaired_are_those_of_the_part() {
    let mut b = Builder::new();
    // Process 1 waits beyond the end, 2 came from before, 3 waits from 100 to 300 us.
    b.event(0, "sched_wakeup", T0 + 50 * US, &[("tid", 1), ("pid", 1), ("cgroup_id", 10)]).switch(
        0,
        T0 + 60 * US,
        0,
        0,
        2,
    );
    b.wakeup(0, T0 + 100 * US, 3).switch(0, T0 + 300 * US, 2, 1, 3);
    // Of cgroup 20: one is done, one is not, one was not even issued. Of 30: one from before the trace.
    for (name, at, rq, cgroup) in [
        ("block_issue", 100, 1, 20),
        ("block_issue", 110, 2, 20),
        ("block_insert", 120, 3, 20),
        ("block_complete", 130, 4, 30),
        ("block_complete", 200, 1, 20),
    ] {
        b.block(name, T0 + at * US, rq, &[("cgroup_id", cgroup)]);
    }
    for (id, path) in [(10, "/ten"), (20, "/twenty"), (30, "/thirty")] {
        b.row("cgroup", &[("ts_ns", V::N(T0)), ("cgroup_id", V::N(id)), ("path", V::T(path))]);
    }
    let trace = b.trace();
    let meta = Meta::load(&trace).unwrap();
    let unpaired = |name: &str, from: Option<&str>, to: Option<&str>, pid, cgroup: Option<&str>| {
        let filter = Filter::new(&meta, from, to, pid, cgroup).unwrap();
        let all: serde_json::Value = serde_json::from_str(&report_of(&trace, name, &[], true, &filter).output).unwrap();
        let n = |what: &str| all["unpaired"][what].as_u64().unwrap();
        (n("no_start"), n("open"), n("lost"))
    };
    assert_eq!(unpaired("runqlat", None, None, None, None), (1, 1, 0));
    assert_eq!(unpaired("runqlat", None, None, Some(1), None), (0, 1, 0));
    assert_eq!(unpaired("runqlat", None, None, Some(2), None), (1, 0, 0));
    assert_eq!(unpaired("runqlat", None, None, Some(3), None), (0, 0, 0));
    assert_eq!(unpaired("runqlat", None, None, None, Some("/ten")), (0, 1, 0));
    assert_eq!(unpaired("runqlat", Some("90us"), None, None, None), (0, 0, 0));
    assert_eq!(unpaired("runqlat", None, Some("55us"), None, None), (0, 1, 0));
    // What ends after the window did not end in it.
    assert_eq!(unpaired("runqlat", Some("90us"), Some("200us"), None, None), (0, 1, 0));
    assert_eq!(unpaired("biolatency", None, None, None, None), (1, 2, 0));
    assert_eq!(unpaired("biolatency", None, None, None, Some("/twenty")), (0, 2, 0));
    assert_eq!(unpaired("biolatency", None, None, None, Some("/thirty")), (1, 0, 0));
    assert_eq!(unpaired("biolatency", None, Some("150us"), None, Some("/twenty")), (0, 3, 0));
    let by = json(&trace, "biolatency", &["per-cgroup"]);
    let group = |i: usize| {
        let g = &by["groups"][i];
        [&g["issued"], &g["count"], &g["unpaired"]["open"], &g["unpaired"]["no_start"]].map(|n| n.as_u64().unwrap())
    };
    assert_eq!((group(0), group(1)), ([2, 1, 2, 0], [0, 0, 0, 1]));
    let text = report(&trace, "biolatency", &["per-cgroup"], false).output;
    assert!(text.contains("\nissued: 2, completed: 1, did not end: 2\n"), "{text}");
    assert!(text.contains("cgroup = /thirty\n\nissued: 0, completed: 0, did not end: 0, began before: 1\n"), "{text}");
}

#[test]
fn waits_across_a_loss_are_not_believed() {
    let mut b = Builder::new();
    b.wakeup(0, T0, 1).switch(0, T0 + S, 0, 0, 1).switch(0, T0 + S + 1, 1, 1, 0);
    b.wakeup(0, T0 + 2 * S, 1).switch(0, T0 + 2 * S + 3000, 0, 0, 1);
    b.wakeup(0, T0 + 3 * S, 2);
    loss(&mut b, Source::Sched, T0 + S / 2, T0 + S / 2 + 5, 17);
    loss(&mut b, Source::Block, T0 + 2 * S, T0 + 3 * S, 1);
    let trace = b.trace();
    let all = json(&trace, "runqlat", &[]);
    assert_eq!(all["groups"][0]["count"], 1);
    assert_eq!(all["unpaired"], json!({"no_start": 0, "open": 1, "lost": 1}));
    assert_eq!(all["lost"], 17);
    let outcome = report(&trace, "runqlat", &[], false);
    assert!(outcome.lossy && outcome.output.contains("\n# lost: 17 events (sched 17)\n"), "{}", outcome.output);
}

#[test]
fn groups_by_cgroup_and_namespace() {
    let mut b = Builder::new();
    for (id, path) in [(10, "/a.slice"), (20, "/a.slice/b.service"), (30, "/a.slicer")] {
        b.row("cgroup", &[("ts_ns", V::N(T0)), ("cgroup_id", V::N(id)), ("path", V::T(path))]);
    }
    b.row("task", &[("tid", V::N(1)), ("pid", V::N(1)), ("pid_ns", V::N(4026531836)), ("start_ns", V::N(S))]);
    for tid in 1..=3 {
        b.wakeup(0, T0 + tid * 1000, tid).switch(0, T0 + tid * 5000, 0, 0, tid);
    }
    let trace = b.trace();
    let by = json(&trace, "runqlat", &["per-cgroup"]);
    let paths: Vec<_> = by["groups"].as_array().unwrap().iter().map(|g| g["key"]["cgroup"].clone()).collect();
    assert_eq!(paths, ["/a.slice", "/a.slice/b.service", "/a.slicer"]);
    assert_eq!(json(&trace, "runqlat", &["pidnss"])["groups"][1]["key"]["pid_ns"], 4026531836u64);
    let meta = Meta::load(&trace).unwrap();
    for (path, count) in [("/a.slice", 2), ("/a.slice/b.service/", 1), ("/sys/fs/cgroup/a.slicer", 1), ("/", 3)] {
        let filter = Filter::new(&meta, None, None, None, Some(path)).unwrap();
        let text = report_of(&trace, "runqlat", &[], true, &filter).output;
        assert!(text.contains(&format!("\"count\":{count},\"sum_ns\"")), "{path}: {text}");
    }
    assert!(Filter::new(&meta, None, None, None, Some("/nowhere")).is_err());
}

#[test]
fn containers_are_those_of_the_file_and_of_old_files_those_of_the_path() {
    let id = "4f8a".repeat(16);
    let path = format!("/docker/{id}");
    let mut b = Builder::new();
    let row = |cgroup, more: &[(&'static str, V<'static>)], b: &mut Builder| {
        b.row("cgroup", &[&[("ts_ns", V::N(T0)), ("cgroup_id", V::N(cgroup)), ("path", V::T(&path))], more].concat());
    };
    row(1, &[("runtime", V::T("new runtime")), ("container_id", V::T("abcdef"))], &mut b);
    row(2, &[], &mut b);
    let meta = Meta::load(&b.trace()).unwrap();
    let names = |cgroup| {
        let names = meta.cgroups.get(cgroup).unwrap().names.clone();
        (names.runtime.unwrap(), names.container_id.unwrap())
    };
    assert_eq!(names(1), ("new runtime".into(), "abcdef".into()));
    assert_eq!(names(2), ("docker".into(), id.clone()));
    assert!(Filter::new(&meta, None, None, None, Some("abcd")).is_ok());
}

#[test]
fn io_with_requeue_merge_and_partial_completion() {
    let mut b = Builder::new();
    b.task(50, 50, "dd");
    let sync_read = 1 << 11;
    // Queued 100 us, at the device 1 ms.
    b.block("block_insert", T0, 1, &[("cmd_flags", sync_read)]);
    b.block("block_issue", T0 + 100 * US, 1, &[("cmd_flags", sync_read)]);
    b.block("block_complete", T0 + 1100 * US, 1, &[]);
    // Given back by the device: the second issue counts. 8 us.
    b.block("block_issue", T0 + 2000 * US, 2, &[("cmd_flags", 1)]).block("block_requeue", T0 + 2010 * US, 2, &[]);
    b.block("block_issue", T0 + 2020 * US, 2, &[("cmd_flags", 1)]).block("block_complete", T0 + 2028 * US, 2, &[]);
    // Merged away.
    b.block("block_insert", T0 + 3000 * US, 3, &[]).block("block_merge", T0 + 3001 * US, 3, &[]);
    // In two parts: the first ends it.
    b.block("block_issue", T0 + 4000 * US, 4, &[("bytes", 8192)]);
    b.block("block_complete", T0 + 4032 * US, 4, &[("bytes", 4096)]);
    b.block("block_complete", T0 + 4999 * US, 4, &[("bytes", 4096)]);
    // From before the trace; and still open.
    b.block("block_complete", T0 + 5000 * US, 5, &[]).block("block_issue", T0 + 5001 * US, 6, &[]);
    let trace = b.trace();
    let all = json(&trace, "biolatency", &[]);
    assert_eq!(buckets(&all["groups"][0]), [(8, 15, 1), (32, 63, 1), (512, 1023, 1)]);
    assert_eq!(all["unpaired"], json!({"no_start": 1, "open": 1, "lost": 0}));
    let queued = json(&trace, "biolatency", &["queued"]);
    assert_eq!(queued["groups"][0]["sum_ns"].as_u64(), Some((1100 + 8 + 32) * US));
    let flags = json(&trace, "biolatency", &["flags", "disks", "per-process"]);
    let keys: Vec<_> = flags["groups"].as_array().unwrap().iter().map(|g| g["key"].clone()).collect();
    let key = |flags: &str| json!({"disk": "sda", "flags": flags, "pid": 50, "comm": "dd"});
    assert_eq!(keys, [key("Read"), key("Write"), key("Sync-Read")]);
    let text = report(&trace, "biolatency", &["disks", "extension"], false).output;
    assert!(text.starts_with("\ndisk = sda\t\n     usecs               : count"), "{text}");
    assert!(text.contains("\navg = 346 usecs, total: 1040 usecs, count: 3\n"), "{text}");
    assert_eq!(json(&trace, "biolatency", &["disk=8:0"])["groups"][0]["count"], 3);
    assert_eq!(json(&trace, "biolatency", &["disk=sdb"])["groups"][0]["count"], 0);
}

#[test]
fn a_request_whose_end_was_not_seen_lends_nothing_to_the_next() {
    let mut b = Builder::new();
    b.block("block_issue", T0, 1, &[("pid", 7), ("cgroup_id", 70)]);
    // The kernel used the request again, and no scheduler said so.
    b.block("block_issue", T0 + 100 * US, 1, &[("pid", 8), ("cgroup_id", 80)]);
    b.block("block_complete", T0 + 150 * US, 1, &[("pid", 8), ("cgroup_id", 80)]);
    let by = json(&b.trace(), "biolatency", &["per-cgroup"]);
    let group = |i: usize| {
        let g = &by["groups"][i];
        [&g["key"]["cgroup_id"], &g["issued"], &g["count"], &g["unpaired"]["open"]].map(|n| n.as_u64().unwrap())
    };
    assert_eq!((group(0), group(1)), ([70, 1, 0, 1], [80, 1, 1, 0]));
}

fn samples() -> Builder {
    let mut b = Builder::new();
    b.task(60, 60, "burn").task(61, 60, "a;b\x1b");
    for (addr, name) in [(0xffff_0000u64, "do_syscall"), (0xffff_1000, "vfs_read")] {
        b.row("kernel_symbol", &[("addr", V::N(addr)), ("type", V::N(u64::from(b't'))), ("name", V::T(name))]);
    }
    b.row(
        "mapping",
        &[
            ("ts_ns", V::N(T0)),
            ("pid", V::N(60)),
            ("start_addr", V::N(0x40_0000)),
            ("len_bytes", V::N(0x1000)),
            ("offset_bytes", V::N(0x2000)),
            ("path", V::T("/usr/lib/libfoo.so")),
        ],
    );
    let stack = |b: &mut Builder, id, space, frames: &[u64]| {
        let fields = [("ts_ns", V::N(T0)), ("stack_id", V::N(id)), ("space", V::N(space)), ("pid", V::N(60))];
        b.row("stack", &[&fields[..], &[("frames", V::L(frames))]].concat());
    };
    stack(&mut b, 7, 0, &[0xffff_1010, 0xffff_0020]);
    stack(&mut b, 8, 1, &[0x40_0123, 0x9999_0000]);
    for (i, tid, user) in [(0, 60, 8), (1, 60, 8), (2, 61, 99)] {
        let fields = [("tid", tid), ("pid", 60), ("kernel_stack_id", 7), ("user_stack_id", user)];
        b.event(0, "cpu_sample", T0 + i, &fields);
    }
    b
}

#[test]
fn profiles() {
    let trace = samples().trace();
    let text = report(&trace, "profile", &["delimited"], false).output;
    let first = "    vfs_read
    do_syscall
    --
    [libfoo.so+0x2123]
    [unknown]
    -                burn (60)
        2

";
    assert!(text.starts_with(first), "{text}");
    assert!(text.contains("    [Missed User Stack]\n    -                a;b\\u{1b} (60)\n        1\n"), "{text}");
    let folded = report(&trace, "profile", &["folded"], false);
    assert_eq!(
        folded.output,
        "burn;[unknown];[libfoo.so+0x2123];do_syscall;vfs_read 2\na:b\\u{1b};[Missed User Stack];do_syscall;vfs_read 1\n"
    );
    assert!(folded.notes.iter().any(|n| n.contains("1 samples have a stack whose definition is missing")));
    let kernel = report(&trace, "profile", &["folded", "kernel-stacks-only", "top=1"], false).output;
    assert_eq!(kernel, "burn;do_syscall;vfs_read 2\n");
    let all = json(&trace, "profile", &[]);
    assert_eq!((&all["samples"], &all["frames"], &all["frames_named"]), (&json!(3), &json!(11), &json!(6)));
    assert_eq!(all["stacks"][0]["user"], json!(["[libfoo.so+0x2123]", "[unknown]"]));
    let svg = &report(&trace, "profile", &["svg=x.svg"], false).files[0];
    assert!(svg.0 == "x.svg" && String::from_utf8_lossy(&svg.1).contains("<title>vfs_read"));
}

#[test]
fn a_damaged_block_costs_only_itself() {
    let mut b = Builder::new();
    for second in 0..4u64 {
        let t = T0 + second * S;
        b.wakeup(0, t, 1).switch(0, t + 5000, 0, 0, 1).switch(0, t + 6000, 1, 1, 0).flush();
    }
    let mut bytes = b.bytes();
    let blocks = open(bytes.clone()).segments[0].1.blocks.clone();
    let second = blocks.iter().filter(|b| b.header.block_type == 3).nth(1).unwrap();
    bytes[second.offset as usize + 100] ^= 1;
    let trace = open(bytes);
    let outcome = report(&trace, "runqlat", &[], true);
    let all: serde_json::Value = serde_json::from_str(&outcome.output).unwrap();
    assert_eq!((&all["groups"][0]["count"], &all["damaged_blocks"]), (&json!(3), &json!(1)));
    assert!(outcome.lossy);
    assert!(report(&trace, "summary", &[], false).output.contains("damaged block at offset"));
}

#[test]
fn a_missing_source_is_said() {
    let trace = Builder::new().trace();
    assert_eq!(json(&trace, "runqlat", &[])["groups"][0]["count"], 0);
    let mut none = Builder::new().trace();
    none.segments[0].1.items.retain(|(key, _)| key != "sources");
    let meta = Meta::load(&none).unwrap();
    let kind = bpfrec_analyze::reports::find("runqlat").unwrap();
    let filter = Filter::everything(&meta);
    let error = bpfrec_analyze::reports::run(&none, &meta, kind, &Default::default(), &filter, false, &|_, _| {});
    assert!(error.unwrap_err().to_string().contains("record it with `-e sched`"));
}

#[test]
fn summary_names_the_busiest() {
    let mut b = samples();
    b.task(1, 1, "one").task(2, 2, "two");
    b.wakeup(0, T0, 1).switch(0, T0 + 1000, 0, 0, 1).switch(0, T0 + S, 1, 0, 2).switch(0, T0 + 3 * S, 2, 1, 0);
    let text = report(&b.trace(), "summary", &[], false).output;
    let at = |needle: &str| text.find(needle).unwrap_or_else(|| panic!("{needle} in {text}"));
    assert!(at("two (2)") < at("one (1)"), "{text}");
    assert!(text.contains("run-queue latency, 1 in all\n  p50"), "{text}");
    assert!(text.contains("recorded  sched,block,profile on box 6.1.0"), "{text}");
}
