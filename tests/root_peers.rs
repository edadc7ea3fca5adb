//! Needs root: histograms agree with those that libbpf-tools take of the same seconds.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::*;
use rustix::process::{Pid, Signal, kill_process};

/// A peer at work, its probes attached since a moment of CLOCK_MONOTONIC.
struct Peer {
    child: Child,
    attached_ns: u64,
}

/// What a peer saw: lower bound to count, from a moment to another.
struct Seen {
    buckets: BTreeMap<u64, u64>,
    from_ns: u64,
    to_ns: u64,
}

impl Peer {
    fn start(name: &str, options: &[&str]) -> Option<Peer> {
        let path = ["/usr/sbin", "/usr/bin"].map(|dir| format!("{dir}/{name}"));
        let path = path.iter().find(|p| fs::metadata(p).is_ok())?;
        let child =
            Command::new(path).args(options).arg("1000").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut peer = Peer { child, attached_ns: monotonic_ns() };
        let started_ns = peer.attached_ns;
        let mut links = 0;
        // Attached when the links have not changed for a while; since when they last changed.
        while links < 2 || monotonic_ns() - peer.attached_ns < 300_000_000 {
            if let Some(status) = peer.child.try_wait().unwrap() {
                panic!("{name} ended at once: {status}");
            }
            assert!(monotonic_ns() - started_ns < 20_000_000_000, "{name} does not attach");
            let now = peer.links();
            if now != links {
                (links, peer.attached_ns) = (now, monotonic_ns());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Some(peer)
    }

    /// BPF links that it holds.
    fn links(&self) -> usize {
        let Ok(infos) = fs::read_dir(format!("/proc/{}/fdinfo", self.child.id())) else { return 0 };
        infos.flatten().filter(|f| fs::read_to_string(f.path()).is_ok_and(|text| text.contains("link_type"))).count()
    }

    /// Ends it and reads its histogram.
    fn finish(mut self) -> Seen {
        let (from_ns, to_ns) = (self.attached_ns, monotonic_ns());
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.child.stdout.take().unwrap(), &mut text).unwrap();
        self.child.wait().unwrap();
        let bucket = |line: &str| {
            let (low, rest) = line.split_once("->")?;
            let count = rest.split(':').nth(1)?.split_whitespace().next()?;
            Some((low.trim().parse().ok()?, count.parse().ok()?))
        };
        Seen { buckets: text.lines().filter_map(bucket).collect(), from_ns, to_ns }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The report of the peer's name and seconds has what the peer saw.
fn assert_agree(name: &str, trace: &std::path::Path, seen: &Seen) {
    let window = window(trace, seen);
    let window: Vec<&str> = window.iter().map(String::as_str).collect();
    let (ours, theirs) = (&buckets(&report(name, trace, &window)), &seen.buckets);
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
fn root_runqlat_agrees_with_libbpf_tools() {
    let test = "agreement with runqlat of libbpf-tools";
    let Some(_alone) = alone_as_root(test) else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let recording = Attached::start(&scratch, &trace, &["-e", "sched"]);
    // The recorder leaves itself out; a second runqlat says what to leave out of the first.
    let own = recording.pid().to_string();
    let (Some(runqlat), Some(own)) = (Peer::start("runqlat", &[]), Peer::start("runqlat", &["-p", &own])) else {
        return skip(test, "runqlat of libbpf-tools is not here");
    };
    // Of two tools on one tracepoint the second one's stamp is late by the run time of the first, 0.2 to 0.3 us, and
    // not by the same at a wakeup and at a switch. Waits of about that length (an idle CPU, a ping-pong through pipes)
    // fall into other buckets then, also those of a runqlat beside another runqlat. So both CPUs are kept busy, nobody
    // preempts by waking (SCHED_BATCH), and waits spread over microseconds to tens of milliseconds.
    let load = Command::new("chrt")
        .args(["-b", "0", "sh", "-c", r#""$burn" 6 >/dev/null & "$burn" 6 >/dev/null & "$crowd" 6 200 & wait"#])
        .env("burn", load("burn"))
        .env("crowd", load("crowd"))
        .status()
        .unwrap();
    assert!(load.success(), "the load: {load}");
    let (mut runqlat, own) = (runqlat.finish(), own.finish());
    for (low, count) in own.buckets {
        runqlat.buckets.entry(low).and_modify(|all| *all = all.saturating_sub(count));
    }
    recording.finish();
    assert_no_loss(&trace);
    assert_agree("runqlat", &trace, &runqlat);
}

#[test]
fn root_biolatency_agrees_with_libbpf_tools() {
    let test = "agreement with biolatency of libbpf-tools";
    let Some(_alone) = alone_as_root(test) else { return };
    let scratch = Scratch::new();
    // In memory: the recorder leaves out what it writes itself, biolatency cannot.
    let memory = Tmpfs::mount(scratch.path("memory"), "size=1g");
    let trace = memory.0.join("t.bpr");
    let recording = Attached::start(&scratch, &trace, &["-e", "sched,block"]);
    let Some(biolatency) = Peer::start("biolatency", &[]) else {
        return skip(test, "biolatency of libbpf-tools is not here");
    };
    let load = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/bench/load/mixed.sh"))
        .args(["6".as_ref(), scratch.path("").as_os_str()])
        .status()
        .unwrap();
    assert!(load.success(), "the load: {load}");
    let biolatency = biolatency.finish();
    recording.finish();
    assert_no_loss(&trace);
    assert_agree("biolatency", &trace, &biolatency);
}

/// `--from` and `--to` for what a peer saw.
fn window(trace: &std::path::Path, seen: &Seen) -> Vec<String> {
    let info = info(trace);
    let start: u64 = info["header"]["start_mono_ns"].as_str().and_then(|s| s.parse().ok()).expect("start_mono_ns");
    let offset = |ns: u64| format!("{}us", ns.saturating_sub(start) / 1000);
    vec!["--from".into(), offset(seen.from_ns), "--to".into(), offset(seen.to_ns)]
}
