//! Needs root: hosts with little memory, with very many threads, cgroups, stacks. BPFREC_STRESS=1 makes the numbers those of a bad day:
//! 50,000 threads, 10,000 cgroups, a million stacks.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::*;

const MIB: u64 = 1 << 20;

fn is_stress() -> bool {
    std::env::var_os("BPFREC_STRESS").is_some()
}

/// Of the recorder, at its highest, bytes.
fn resident(trace: &Path) -> u64 {
    let info = info(trace);
    info["recorder"]["max_rss_bytes"].as_u64().unwrap_or_else(|| panic!("no max_rss_bytes: {info}"))
}

/// A cgroup whose processes get no more memory than that; removed with its owner.
struct Limited(PathBuf);

impl Limited {
    fn new(bytes: u64) -> Option<Limited> {
        let name = format!("bpfrec-memory-{}", std::process::id());
        for (mount, file) in
            [(PathBuf::from("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (cgroup_mount(), "memory.max")]
        {
            let group = Limited(mount.join(&name));
            if mount.is_dir()
                && fs::create_dir(&group.0).is_ok()
                && fs::write(group.0.join(file), bytes.to_string()).is_ok()
            {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn root_a_lack_of_memory_is_named() {
    let test = "lack of memory";
    let Some(_alone) = alone_as_root(test) else { return };
    let Some(group) = Limited::new(200 * MIB) else { return skip(test, "no memory controller for a cgroup here") };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let output = Command::new("sh")
        .args(["-euc", "echo $$ >\"$0/cgroup.procs\"; exec \"$@\""])
        .arg(&group.0)
        .args([BPFREC, "record", "-q", "-d", "1s", "--ring-size", "512M", "-o"])
        .arg(&trace)
        .output()
        .unwrap();
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(5), "{err}");
    assert!(err.contains("ring bpfrec_ring_") && err.contains("536870912 bytes"), "the map is not named: {err}");
    assert!(err.contains("--ring-size"), "nothing says what to try: {err}");
    assert!(!trace.exists(), "an empty trace was left behind");
}

/// As many pids as the kernel can have, until its owner is gone.
struct Pids(String);

const PID_MAX: &str = "/proc/sys/kernel/pid_max";

impl Pids {
    fn many() -> Pids {
        let before = fs::read_to_string(PID_MAX).unwrap();
        fs::write(PID_MAX, "4194304").unwrap();
        Pids(before)
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        let _ = fs::write(PID_MAX, &self.0);
    }
}

#[test]
fn root_thousands_of_threads_at_once() {
    let Some(_alone) = alone_as_root("threads") else { return };
    let _pids = is_stress().then(Pids::many);
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let count = if is_stress() { 50_000 } else { 8_000 };
    let load = load("threads");
    // Some are there before the recording, some begin in it.
    let mut before =
        Command::new(&load).arg((count / 2).to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(before.stdout.take().unwrap()), &mut line).unwrap();
    let script = format!("{} {} </dev/null", load.display(), count / 2);
    let out = record_while(&scratch, &trace, &["-e", "sched"], &script);
    let ready: u64 = printed(&line, "threads").parse().unwrap();
    let began: u64 = printed(&out, "threads").parse().unwrap();
    before.kill().unwrap();
    before.wait().unwrap();
    if ready + began < count {
        skip("50,000 threads", &format!("this host allows {}", ready + began));
    }
    assert!(ready >= 1000 && began >= 1000, "{ready} and {began} threads");
    let mut forks = 0;
    replay(&trace, |event| forks += u64::from(event["kind"] == "sched_fork"));
    let info = info(&trace);
    let lost =
        info["sources"].as_array().unwrap().iter().find(|s| s["name"] == "task").map(|s| s["lost"].as_u64().unwrap());
    assert!(forks >= began, "{forks} forks of {began}, lost: {lost:?}");
    assert!(info["tasks"].as_u64().unwrap() >= ready + began, "of {ready} and {began} threads: {}", info["tasks"]);
    let resident = resident(&trace);
    println!("{resident} bytes resident with {} threads", ready + began);
    assert!(resident <= 96 * MIB, "{resident} bytes resident with {} threads", ready + began);
}

#[test]
fn root_thousands_of_cgroups() {
    let Some(_alone) = alone_as_root("cgroups") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let top = cgroup_mount().join(format!("bpfrec-many-{}", std::process::id()));
    fs::create_dir(&top).unwrap();
    let count = if is_stress() { 10_000 } else { 2_000 };
    let made: Vec<PathBuf> =
        (0..count).map(|i| top.join(format!("g{i}"))).take_while(|p| fs::create_dir(p).is_ok()).collect();
    bpfrec_ok(&["record", "-q", "-d", "1s", "-e", "sched", "-o", trace.to_str().unwrap()]);
    made.iter().for_each(|group| drop(fs::remove_dir(group)));
    fs::remove_dir(&top).unwrap();
    assert_eq!(made.len(), count, "cgroups that could be made");
    let found = info(&trace)["cgroups"].as_u64().unwrap();
    assert!(found >= count as u64, "{found} of {count} cgroups");
    let resident = resident(&trace);
    println!("{resident} bytes resident with {count} cgroups");
    assert!(resident <= 96 * MIB, "{resident} bytes resident with {count} cgroups");
}

#[test]
fn root_a_flood_of_stacks_is_bounded_and_counted() {
    let Some(_alone) = alone_as_root("stacks") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let each = if is_stress() { 1_000_000 } else { 130_000 };
    let began = monotonic_ns();
    let script = format!("exec {} {each}", load("paths").display());
    let out = record_while(&scratch, &trace, &["-e", "offcpu"], &script);
    let seconds = (monotonic_ns() - began) as f64 / 1e9;
    let (pid, waits): (u64, u64) = (printed(&out, "pid").parse().unwrap(), printed(&out, "waits").parse().unwrap());
    let defined = stacks(&trace);
    let (mut kept, mut undefined) = (0, 0);
    let mut seen = std::collections::HashSet::new();
    replay(&trace, |event| {
        let fields = ["kernel_stack_id", "user_stack_id"].map(|field| event[field].as_u64().unwrap_or(0));
        undefined += fields.iter().filter(|id| **id != 0 && !defined.contains_key(id)).count() as u64;
        if event["kind"].as_str().unwrap().starts_with("offcpu_") && event["pid"] == pid {
            kept += event["count"].as_u64().unwrap_or(1);
            seen.insert(fields[1]);
        }
    });
    let info = info(&trace);
    let losses = info["losses"].as_array().unwrap();
    let lost = |reason: &str| -> u64 {
        losses.iter().filter(|l| l["reason"] == reason).map(|l| l["lost"].as_u64().unwrap()).sum()
    };
    let resident = resident(&trace);
    println!(
        "{waits} waits in {seconds:.1} s, {} stacks seen, {} defined, {resident} bytes resident, losses {losses:?}",
        seen.len(),
        defined.len()
    );
    let events_lost = info["lost"].as_u64().unwrap();
    assert!(kept + events_lost >= waits, "{kept} of {waits} waits are there, {events_lost} counted as lost");
    // Each way is another stack; it is there, or counted as missing.
    assert!(seen.len() as u64 + events_lost >= waits.min(1 << 18), "{} stacks of {waits}", seen.len());
    assert_eq!(undefined, lost("stack not defined"), "stacks that are not defined: {losses:?}");
    assert!(resident <= 128 * MIB, "{resident} bytes resident with {} stacks", seen.len());
}
