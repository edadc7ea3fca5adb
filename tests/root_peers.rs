//! Needs root: histograms agree with those that libbpf-tools take of the same seconds.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::*;
use rustix::process::{Pid, Signal, kill_process};

/// A peer at work, its probes attached.
struct Peer(Child);

impl Peer {
    fn start(name: &str) -> Option<Peer> {
        let path = ["/usr/sbin", "/usr/bin"].map(|dir| format!("{dir}/{name}"));
        let path = path.iter().find(|p| fs::metadata(p).is_ok())?;
        let child = Command::new(path).arg("1000").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut peer = Peer(child);
        let (mut links, mut unchanged) = (0, 0);
        wait_until(&format!("{name} is attached"), Duration::from_secs(20), || {
            if let Some(status) = peer.0.try_wait().unwrap() {
                panic!("{name} ended at once: {status}");
            }
            let now = peer.links();
            unchanged = if now == links && now >= 2 { unchanged + 1 } else { 0 };
            links = now;
            unchanged > 10
        });
        Some(peer)
    }

    /// BPF links that it holds.
    fn links(&self) -> usize {
        let Ok(infos) = fs::read_dir(format!("/proc/{}/fdinfo", self.0.id())) else { return 0 };
        infos.flatten().filter(|f| fs::read_to_string(f.path()).is_ok_and(|text| text.contains("link_type"))).count()
    }

    /// Its histogram: lower bound to count.
    fn finish(mut self) -> BTreeMap<u64, u64> {
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.0.stdout.take().unwrap(), &mut text).unwrap();
        self.0.wait().unwrap();
        let bucket = |line: &str| {
            let (low, rest) = line.split_once("->")?;
            let count = rest.split(':').nth(1)?.split_whitespace().next()?;
            Some((low.trim().parse().ok()?, count.parse().ok()?))
        };
        text.lines().filter_map(bucket).collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn assert_agree(name: &str, ours: &BTreeMap<u64, u64>, theirs: &BTreeMap<u64, u64>) {
    let (our_sum, their_sum): (u64, u64) = (ours.values().sum(), theirs.values().sum());
    println!("{name}: {our_sum} and {their_sum}\n  ours   {ours:?}\n  theirs {theirs:?}");
    assert!(their_sum > 1000, "{name} saw too little: {theirs:?}");
    assert_near(&format!("{name}: events"), our_sum as f64, their_sum as f64, 0.02);
    for (low, theirs) in theirs {
        // Below 1 % chance decides.
        if *theirs > their_sum / 100 {
            let ours = ours.get(low).copied().unwrap_or(0);
            assert_near(&format!("{name}: bucket from {low} us"), ours as f64, *theirs as f64, 0.1);
        }
    }
}

#[test]
fn root_runqlat_and_biolatency_agree_with_libbpf_tools() {
    let test = "agreement with libbpf-tools";
    let Some(_alone) = alone_as_root(test) else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let recording = Attached::start(&scratch, &trace, &["-e", "sched,block"]);
    let (Some(runqlat), Some(biolatency)) = (Peer::start("runqlat"), Peer::start("biolatency")) else {
        return skip(test, "runqlat and biolatency of libbpf-tools are not both here");
    };
    // The edges of the three intervals differ by little, and are idle.
    let from = monotonic_ns();
    let load = spread_load(&scratch);
    assert!(load.success(), "the load: {load}");
    let to = monotonic_ns();
    let (runqlat, biolatency) = (runqlat.finish(), biolatency.finish());
    recording.finish();
    assert_no_loss(&trace);

    let cut = window(&trace, from, to);
    let cut: Vec<&str> = cut.iter().map(String::as_str).collect();
    assert_agree("runqlat", &buckets(&report("runqlat", &trace, &cut)), &runqlat);
    assert_agree("biolatency", &buckets(&report("biolatency", &trace, &cut)), &biolatency);
}

/// Six seconds of a load whose waits for the CPU are spread over microseconds to tens of milliseconds. Waits all of
/// about the length of a probe (a ping-pong through pipes) fall into other buckets when two tools look on: runqlat
/// does not agree with a second runqlat then. So no pipes, and no preemption by wakeups (SCHED_BATCH).
fn spread_load(scratch: &Scratch) -> std::process::ExitStatus {
    let script = r#""$burn" 6 >/dev/null & "$crowd" 6 24 & "$mixed" 6 "$dir"; wait"#;
    Command::new("chrt")
        .args(["-b", "0", "sh", "-c", script])
        .env("burn", load("burn"))
        .env("crowd", load("crowd"))
        .env("mixed", concat!(env!("CARGO_MANIFEST_DIR"), "/bench/load/mixed.sh"))
        .env("dir", scratch.path(""))
        .env("MIXED_PIPES", "0")
        .status()
        .unwrap()
}

/// `--from` and `--to` for an interval of CLOCK_MONOTONIC.
fn window(trace: &std::path::Path, from_ns: u64, to_ns: u64) -> Vec<String> {
    let start = info(trace)["start_ns"].as_u64().expect("start_ns");
    let offset = |ns: u64| format!("{}us", ns.saturating_sub(start) / 1000);
    vec!["--from".into(), offset(from_ns), "--to".into(), offset(to_ns)]
}
