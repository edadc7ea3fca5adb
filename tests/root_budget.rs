//! Needs root: a recording that costs more than it may gives up step by step what it says, and ends whole.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::*;
use serde_json::Value;

/// Threads that hand the CPU to each other, stopped with their owner.
struct Switches(Child);

impl Switches {
    /// For `seconds`, `rate` times a second on each of two CPUs; 0: as often as they can.
    fn start(seconds: u32, rate: u32) -> Switches {
        let args = [seconds.to_string(), rate.to_string(), "2".into()];
        Switches(Command::new(load("switches")).args(args).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Switches {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was given up (or, with `restored`, taken back): names of steps or sources, and when, CLOCK_MONOTONIC.
fn changes(info: &Value, restored: bool) -> Vec<(String, u64)> {
    let start: u64 = info["header"]["start_mono_ns"].as_str().unwrap().parse().unwrap();
    let rows = info["shed"].as_array().unwrap().iter().filter(|row| row["restored"] == restored);
    let name = |row: &Value| row["source"].as_str().or(row["step"].as_str()).unwrap().to_owned();
    rows.map(|row| (name(row), start + row["ns"].as_u64().unwrap())).collect()
}

fn names(changes: &[(String, u64)]) -> Vec<&str> {
    changes.iter().map(|(name, _)| name.as_str()).collect()
}

/// An event that has stacks, or a switch: kind, begin, kernel stack, user stack.
struct Row(String, u64, u64, u64);

fn rows(trace: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    replay(trace, |event| {
        let kind = event["kind"].as_str().unwrap();
        if ["offcpu_wait", "cpu_sample", "sched_switch"].contains(&kind) {
            let number = |field: &str| event[field].as_u64().unwrap_or(0);
            // The user stack of a wait is of its begin.
            let began = number("ts_ns") - number("wait_ns");
            rows.push(Row(kind.into(), began, number("kernel_stack_id"), number("user_stack_id")));
        }
    });
    rows
}

/// Those of a kind that begin between two moments; what comes while the page is told may be either.
fn between<'a>(rows: &'a [Row], kind: &str, from: u64, to: u64) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.0 == kind && row.1 > from + 1_000_000 && row.1 < to).collect()
}

#[test]
fn root_a_load_beyond_the_budget_is_shed_and_comes_back() {
    let Some(_alone) = alone_as_root("budget of CPU time") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let recording = Attached::start(&scratch, &trace, &["-e", "sched,offcpu", "--max-cpu", "2%"]);
    drop({
        let mut switches = Switches::start(14, 0);
        switches.0.wait().unwrap();
        switches
    });
    std::thread::sleep(Duration::from_secs(24));
    recording.finish();
    bpfrec_ok(&["verify", trace.to_str().unwrap()]);
    let info = info(&trace);
    let shed = changes(&info, false);
    assert_eq!(names(&shed)[..2], ["user stacks", "kernel stacks"], "{info}");
    for row in info["shed"].as_array().unwrap().iter().filter(|row| row["restored"] == false) {
        assert_eq!((&row["cause"], row["limit"].as_u64()), (&"cpu".into(), Some(20_000)), "{row}");
        assert!(row["value"].as_u64().unwrap() > 20_000, "{row}");
    }
    // Step by step, with time to see what each does.
    assert!(shed.windows(2).all(|w| w[1].1 - w[0].1 > 2_500_000_000), "{shed:?}");
    let restored = changes(&info, true);
    let (first, at) = restored.first().unwrap_or_else(|| panic!("nothing came back: {info}"));
    let last = shed.iter().rfind(|(_, ts_ns)| ts_ns < at).unwrap();
    assert_eq!(*first, last.0, "the last is the first to come back: {info}");

    // The recorded command sleeps a tenth of a second again and again, and what it did while nobody looked is no long wait.
    if let (Some(from), Some(to)) = (shed.iter().find(|s| s.0 == "offcpu"), restored.iter().find(|s| s.0 == "offcpu")) {
        let pid: u64 = info["header"]["command_pid"].as_str().unwrap().parse().unwrap();
        let (mut waits, mut longest) = (0, 0);
        replay(&trace, |event| {
            if event["kind"] == "offcpu_wait" && event["pid"] == pid {
                (waits, longest) = (waits + 1, longest.max(event["wait_ns"].as_u64().unwrap()));
            }
        });
        assert!(waits > 20 && longest < (to.1 - from.1) / 2, "{waits} waits, one of {longest} ns: {info}");
    } else {
        println!("offcpu itself was not shed and restored: {shed:?} {restored:?}");
    }

    // Every report that it touches says so; the two of sched have no stacks.
    for (name, says) in [("offcputime", true), ("wakeups", true), ("summary", true)] {
        let report = report(name, &trace, &[]);
        assert_eq!(report["shed"].as_array().is_some_and(|s| s[0]["step"] == "user stacks"), says, "{name}");
    }
    let output = bpfrec(["report", "offcputime", trace.to_str().unwrap(), "--top", "3"]);
    let (text, _) = texts(&output);
    assert!(text.contains("# user stacks were shed from"), "{text}");
    // The cost stands in the file by source and by step.
    let steps = &info["recorder"]["steps"];
    for step in ["drain_ns", "encode_ns", "compress_ns", "write_ns"] {
        assert!(steps[step].as_u64().unwrap() > 0, "{step}: {info}");
    }
    let bpf = info["recorder"]["sources"].as_array().unwrap().iter().find(|s| s["name"] == "offcpu").unwrap();
    assert!(bpf["bpf_ns"].as_u64().unwrap() > 0 && bpf["bpf_runs"].as_u64().unwrap() > 10_000, "{info}");
}

#[test]
fn root_beyond_all_help_everything_is_shed_and_nothing_of_it_is_recorded() {
    let Some(_alone) = alone_as_root("budget of memory") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let _load = Switches::start(40, 300);
    // No recorder is as small as that: all steps are taken, one after the other.
    let options = ["record", "-q", "-d", "25s", "--max-rss", "1M", "-e", "sched,offcpu,profile"];
    bpfrec_ok(&[&options[..], &["-o", trace.to_str().unwrap()]].concat());
    let info = info(&trace);
    let shed = changes(&info, false);
    let expected = ["user stacks", "kernel stacks", "sampling rate", "offcpu", "profile", "sched"];
    assert_eq!(names(&shed), expected, "{info}");
    assert_eq!(changes(&info, true), [], "{info}");
    assert!(info["shed"].as_array().unwrap().iter().all(|row| row["cause"] == "rss"), "{info}");
    let since = |name: &str| shed.iter().find(|(n, _)| n == name).unwrap().1;

    // Before, there were stacks; after, events go on without them, and sources end one by one.
    let rows = rows(&trace);
    let waits = |from: u64, to: u64| between(&rows, "offcpu_wait", from, to);
    assert!(waits(0, since("user stacks")).iter().any(|row| row.2 > 0 && row.3 > 0));
    let without_user = waits(since("user stacks"), since("offcpu"));
    assert!(without_user.iter().any(|row| row.2 > 0) && without_user.iter().all(|row| row.3 == 0));
    let without_any = waits(since("kernel stacks"), since("offcpu"));
    assert!(!without_any.is_empty() && without_any.iter().all(|row| row.2 == 0 && row.3 == 0));
    for (source, kind) in [("offcpu", "offcpu_wait"), ("profile", "cpu_sample"), ("sched", "sched_switch")] {
        let left = between(&rows, kind, since(source), u64::MAX).len();
        assert!(left == 0, "{left} rows of {kind} although {source} was shed");
    }
    assert!(
        !between(&rows, "sched_switch", since("profile"), since("sched")).is_empty(),
        "sched goes on without profile"
    );
}

#[test]
fn root_a_file_stays_below_its_size() {
    let Some(_alone) = alone_as_root("size of the file") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let _load = Switches::start(120, 0);
    let options = ["record", "-d", "100s", "--max-size", "12M", "-e", "sched,offcpu,profile"];
    let output = bpfrec([&options[..], &["-o", trace.to_str().unwrap()]].concat());
    let (_, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    assert!(err.contains("--max-size"), "{err}");
    let bytes = fs::metadata(&trace).unwrap().len();
    assert!((6 << 20..=12 << 20).contains(&bytes), "{bytes} bytes");
    let info = info(&trace);
    assert_eq!((&info["ended"], &info["complete"]), (&"size limit".into(), &true.into()), "{info}");
    bpfrec_ok(&["verify", trace.to_str().unwrap()]);
}

#[test]
fn root_a_disk_keeps_what_it_is_to_keep() {
    let Some(_alone) = alone_as_root("free space") else { return };
    let scratch = Scratch::new();
    let mount = Tmpfs::mount(scratch.path("small"), "size=24m");
    let trace = mount.0.join("t.bpr");
    let _load = Switches::start(120, 0);
    let record = |keep: &str| {
        let options = ["record", "-q", "-d", "100s", "-e", "sched,offcpu", "--keep-free", keep, "-o"];
        Command::new(BPFREC).args(options).arg(&trace).output().unwrap()
    };
    let refused = record("100%");
    assert_eq!(refused.status.code(), Some(1));
    assert!(texts(&refused).1.contains("--keep-free asks for") && !trace.exists(), "{}", texts(&refused).1);

    let output = record("25%");
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(4), "{err}");
    assert!(err.contains("--keep-free"), "{err}");
    let df = Command::new("df").args(["-B1", "--output=avail"]).arg(&mount.0).output().unwrap();
    let free: u64 = texts(&df).0.lines().nth(1).unwrap().trim().parse().unwrap();
    assert!((6 << 20..20 << 20).contains(&free), "{free} bytes are free");
    let info = info(&trace);
    assert_eq!((&info["ended"], &info["complete"]), (&"disk full".into(), &true.into()), "{info}");
    assert!(info["shed"].as_array().unwrap().iter().all(|row| row["cause"] == "free"), "{info}");
    bpfrec_ok(&["verify", trace.to_str().unwrap()]);
}
