//! Needs root: `report memleak` of real programs and of the kernel says what they leak, from which functions.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::path::Path;

use common::*;
use serde_json::Value;

/// What `leaks LEAKS ROUNDS` leaks: pieces and bytes of `leak_small` and `leak_large`.
fn truth(leaks: u64) -> [(&'static str, u64, u64); 2] {
    [("leak_small", leaks, 24 * leaks), ("leak_large", leaks / 10, 5000 * (leaks / 10))]
}

/// Records `leaks LEAKS 300` and returns the report on its process.
fn memleak(options: &[&str], leaks: u64) -> Value {
    let scratch = Scratch::new();
    let (trace, out) = (scratch.path("t.bpr"), scratch.path("out"));
    let script = format!("{} {leaks} 300 >{}", load("leaks").display(), out.display());
    record_while(&scratch, &trace, &[&["-e", "malloc"], options].concat(), &script);
    assert_no_loss(&trace);
    let output = std::fs::read_to_string(out).unwrap();
    report("memleak", &trace, &["--pid", printed(&output, "pid"), "--user"])
}

/// Outstanding count, bytes and the errors of both, in the stacks through `function`.
fn through(report: &Value, function: &str) -> [f64; 4] {
    let stacks = report["groups"].as_array().unwrap().iter().flat_map(|g| g["stacks"].as_array().unwrap());
    let mine = stacks.filter(|s| s["stack"].as_array().is_some_and(|f| f.iter().any(|f| f == function)));
    mine.fold([0.0; 4], |sum, s| {
        let of = ["count", "bytes", "count_error", "bytes_error"].map(|name| s[name].as_f64().unwrap());
        std::array::from_fn(|i| sum[i] + of[i])
    })
}

fn outstanding(report: &Value) -> (u64, u64) {
    let of = &report["groups"][0]["outstanding"];
    (of["count"].as_u64().unwrap(), of["bytes"].as_u64().unwrap())
}

#[test]
fn root_exactly_the_leaks_are_reported() {
    let Some(_alone) = alone_as_root("leaks by function") else { return };
    let report = memleak(&[], 400);
    for (function, count, bytes) in truth(400) {
        assert_eq!(through(&report, function)[..2], [count as f64, bytes as f64], "{function}: {report}");
    }
    let (count, bytes) = truth(400).iter().fold((0, 0), |sum, (_, count, bytes)| (sum.0 + count, sum.1 + bytes));
    assert_eq!(outstanding(&report), (count, bytes), "{report}");
    assert_eq!(report["groups"][0]["estimate"], false);
}

#[test]
fn root_a_program_without_leaks_has_none() {
    let Some(_alone) = alone_as_root("no leaks") else { return };
    let report = memleak(&[], 0);
    assert_eq!(outstanding(&report), (0, 0), "{report}");
    // It was watched all the same.
    assert!(through(&report, "churn")[0] == 0.0 && report.to_string().contains("\"churn\""), "{report}");
}

#[test]
fn root_of_a_sample_the_leaks_are_within_the_error() {
    let Some(_alone) = alone_as_root("leaks of a sample") else { return };
    let report = memleak(&["--sample", "16"], 4000);
    assert_eq!(report["groups"][0]["estimate"], true, "{report}");
    for (function, count, bytes) in truth(4000) {
        let [found, found_bytes, error, bytes_error] = through(&report, function);
        assert!(error > 0.0 && bytes_error > 0.0, "{function}: {report}");
        // The error is of 95 %, 1.96 sigma; what fails here once in 15,000 runs is 4 sigma.
        assert!((found - count as f64).abs() <= error * 4.0 / 1.96, "{function}: {found} ± {error} of {count}");
        let off = (found_bytes - bytes as f64).abs();
        assert!(off <= bytes_error * 4.0 / 1.96, "{function}: {found_bytes} ± {bytes_error} of {bytes}");
    }
    assert_eq!(through(&report, "churn")[0], 0.0, "what is freed again is sampled with its free: {report}");
}

#[test]
fn root_objects_that_a_program_holds_in_the_kernel_show_with_their_stack() {
    let Some(_alone) = alone_as_root("objects held in the kernel") else { return };
    let n = 300;
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    // It opens them when it is sent a byte, holds them, and gives up when there is no second one.
    let script = format!("(printf x; sleep 1.5) | {} {n} >/dev/null || true", load("holds").display());
    record_while(&scratch, &trace, &["-e", "kmem"], &script);
    let at = held_until(&trace);
    let report = report("memleak", &trace, &["--kernel", "--to", &at, "-o", "0"]);
    // An allocation in a hundred may be left out by the kernel when an interrupt comes in the midst of one; it is counted.
    for function in ["alloc_pipe_info", "sock_alloc_inode", "do_epoll_create"] {
        let [count, ..] = through(&report, function);
        assert!(count >= 0.95 * f64::from(n), "{function}: {count} of {n} held");
    }
}

#[test]
fn root_both_kinds_of_memory_at_once() {
    let Some(_alone) = alone_as_root("memory of processes and of the kernel") else { return };
    let n = 200;
    let scratch = Scratch::new();
    let (trace, out) = (scratch.path("t.bpr"), scratch.path("out"));
    let script = format!(
        "{} 400 100 >{}; (printf x; sleep 1.5) | {} {n} >/dev/null || true",
        load("leaks").display(),
        out.display(),
        load("holds").display()
    );
    record_while(&scratch, &trace, &["-e", "malloc,kmem"], &script);
    let output = std::fs::read_to_string(out).unwrap();
    let user = report("memleak", &trace, &["--pid", printed(&output, "pid"), "--user"]);
    for (function, count, bytes) in truth(400) {
        assert_eq!(through(&user, function)[..2], [count as f64, bytes as f64], "{function}: {user}");
    }
    let at = held_until(&trace);
    let kernel = report("memleak", &trace, &["--kernel", "--to", &at, "-o", "0"]);
    for function in ["alloc_pipe_info", "sock_alloc_inode", "do_epoll_create"] {
        let [count, ..] = through(&kernel, function);
        assert!(count >= 0.95 * f64::from(n), "{function}: {count} of {n} held");
    }
    // Together each side stands for itself.
    let both = report("memleak", &trace, &["--to", &at, "-o", "0"]);
    assert_eq!(through(&both, "do_epoll_create")[0], through(&kernel, "do_epoll_create")[0]);
    assert_eq!(through(&both, "leak_small")[..2], through(&user, "leak_small")[..2]);
}

/// Half a second before the process `holds` ends, as an option.
fn held_until(trace: &Path) -> String {
    let start = info(trace)["header"]["start_mono_ns"].as_str().unwrap().parse::<u64>().unwrap();
    let mut end = 0;
    replay(trace, |event| {
        if event["kind"] == "sched_exit" && event["comm"] == "holds" {
            end = event["ts_ns"].as_u64().unwrap();
        }
    });
    format!("{}ms", (end - start) / 1_000_000 - 500)
}
