//! Needs root: what a recorder may still do while it records, and that it records all the same.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bpfrec_format::meta;
use common::foreign::Foreign;
use common::nobody::Open;
use common::refused::assert_one_sentence;
use common::*;

/// CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF.
const THREE: u64 = 1 << 19 | 1 << 38 | 1 << 39;

/// A field of a /proc/PID/status.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

fn capabilities(status: &str, name: &str) -> u64 {
    u64::from_str_radix(field(status, name), 16).unwrap()
}

/// Status of each thread of a process, by the thread's name.
fn threads(pid: u32) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    statuses.map(|status| (field(&status, "Name").to_owned(), status)).collect()
}

#[test]
fn root_all_threads_have_only_three_capabilities() {
    let Some(_alone) = alone_as_root("capabilities of threads") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("segments");
    let options = ["--unwind", "dwarf", "--rotate-time", "500ms"];
    let recording = Attached::start(&scratch, &trace, &options);
    let mut seen: Vec<String> = Vec::new();
    wait_until("all threads were seen", Duration::from_secs(60), || {
        for (name, status) in threads(recording.pid()) {
            for set in ["CapPrm", "CapEff", "CapBnd"] {
                assert_eq!(capabilities(&status, set), THREE, "{name}: {set}\n{status}");
            }
            for set in ["CapInh", "CapAmb"] {
                assert_eq!(capabilities(&status, set), 0, "{name}: {set}");
            }
            assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"), "{name}");
            seen.push(name);
        }
        // The one that takes snapshots lives as long as a snapshot takes.
        let names = ["bpfrec", "bpfrec-writer", "bpfrec-watch", "bpfrec-jit", "bpfrec-unwind", "bpfrec-snapshot"];
        names.iter().all(|name| seen.iter().any(|seen| name.starts_with(seen.as_str())))
    });
    recording.finish();
    let info = info(&trace).to_string();
    assert!(info.contains("sys_ptrace,perfmon,bpf") && info.contains("sandbox"), "{info}");
}

#[test]
fn root_the_command_keeps_the_callers_rights() {
    let Some(_alone) = alone_as_root("rights of the command") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let inside = record_while(&scratch, &trace, &["-e", "sched"], "cat /proc/self/status");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"] {
        assert_eq!(field(&inside, name), field(&own, name), "{name}");
    }
    // Whether it could be run is known only when the recorder has nothing more to lose.
    let missing = scratch.path("missing");
    let output =
        bpfrec(["record", "-q", "-o", scratch.path("u.bpr").to_str().unwrap(), "--", missing.to_str().unwrap()]);
    let (_, err) = texts(&output);
    assert!(!output.status.success() && err.contains("cannot run") && err.contains("No such file"), "{err}");
}

#[test]
fn root_programs_that_start_later_are_named() {
    let Some(_alone) = alone_as_root("names of later programs") else { return };
    let scratch = Scratch::new();
    for (rights, library) in [("least", false), ("read", true)] {
        let trace = scratch.path(&format!("{rights}.bpr"));
        let recording = Attached::start(&scratch, &trace, &["-e", "profile", "-F", "499", "--rights", rights]);
        // Other files each time: what was seen once is known.
        let (there, deleted) =
            (Foreign::start(&format!("t-{rights}"), false), Foreign::start(&format!("d-{rights}"), true));
        std::thread::sleep(Duration::from_millis(1500));
        recording.finish();
        // A deleted library is opened within a moment of its mapping where that is permitted, and so is the other one.
        assert_eq!((there.named(&trace), deleted.named(&trace)), ((true, library), (true, library)), "{rights}");
        assert_eq!(info(&trace).to_string().contains("binaries_refused"), !library, "{rights}");
    }
}

/// Kernel symbols in each segment whose address is known.
fn addresses(trace: &Path) -> Vec<usize> {
    let trace = bpfrec_format::Trace::open(trace).unwrap();
    let mut known = vec![0; trace.segments.len()];
    for (segment, block) in trace.blocks() {
        let tables = trace.segments[segment].1.read(block, &|kind| kind == meta::KERNEL_SYMBOL).unwrap().tables;
        for table in tables.iter().filter(|table| table.kind == meta::KERNEL_SYMBOL) {
            known[segment] += table.columns[0].ints().iter().filter(|addr| **addr != 0).count();
        }
    }
    known
}

#[test]
fn root_each_segment_has_the_kernels_addresses() {
    let Some(_alone) = alone_as_root("kernel's addresses") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("segments");
    record_while(&scratch, &trace, &["-e", "sched", "--rotate-time", "1s"], "sleep 4");
    let known = addresses(&trace);
    assert!(known.len() >= 2, "{known:?}");
    assert!(known.iter().all(|n| *n > 10_000), "{known:?}");
}

#[test]
fn root_three_capabilities_are_enough_for_every_source() {
    let Some(_alone) = alone_as_root("three capabilities") else { return };
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
    if paranoid.trim().parse::<i32>().unwrap() > 2 {
        skip("three capabilities", "kernel.perf_event_paranoid is more than 2 here: CAP_SYS_ADMIN is needed");
        return;
    }
    let open = Open::new();
    let sources = ["sched", "offcpu", "block", "malloc", "kmem", "profile"];
    let script = "./burn 1; ./leaks 50 20 >leaks.txt; sleep 0.1; \
                  dd if=/dev/zero of=x bs=64k count=32 oflag=direct 2>/dev/null";
    let args = ["-e", &sources.join(","), "-o", "t.bpr", "--", "sh", "-c", script];
    let output = open.record(&["bpf", "perfmon", "sys_ptrace"], &args);
    let (_, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    // What is missing is said.
    assert!(err.contains("CAP_SYS_ADMIN") && err.contains("kernel frames will have no names"), "{err}");
    let trace = open.0.join("t.bpr");
    assert_eq!(fs::metadata(&trace).unwrap().permissions().mode() & 0o777, 0o600);
    let info = info(&trace);
    for source in sources {
        let found = info["sources"].as_array().unwrap().iter().find(|s| s["name"] == source);
        let events = found.and_then(|s| s["events"].as_u64());
        assert!(events.is_some_and(|n| n > 0), "{source}: {info}");
    }
    assert!(samples_in(&folded(&trace, &["--trace-only"]), "burn_seventy") > 20);
}

#[test]
fn root_without_them_the_way_out_is_said() {
    let Some(_alone) = alone_as_root("no capabilities") else { return };
    let open = Open::new();
    for capabilities in [&["bpf", "perfmon"][..], &[]] {
        let output = open.record(capabilities, &["-d", "1s"]);
        assert_one_sentence(&output, 1, &["setcap cap_bpf,cap_perfmon,cap_sys_ptrace", "AmbientCapabilities="]);
    }
}

#[test]
fn root_a_folder_of_others_is_no_place_for_segments() {
    let Some(_alone) = alone_as_root("folder of others") else { return };
    let open = Open::new();
    let folder = open.0.to_str().unwrap();
    let output = bpfrec(["record", "-q", "-d", "1s", "--rotate-time", "200ms", "-o", folder]);
    let (_, err) = texts(&output);
    assert!(!output.status.success() && err.contains("--rights all"), "{err}");
    // One file is made before rights are given up.
    bpfrec_ok(&["record", "-q", "-d", "1s", "-o", open.0.join("one.bpr").to_str().unwrap()]);
    let segments = open.0.join("segments/");
    bpfrec_ok(&["record", "-q", "-d", "2s", "--rotate-time", "500ms", "-o", segments.to_str().unwrap()]);
    bpfrec_ok(&["record", "-q", "-d", "2s", "--rights", "all", "--rotate-time", "500ms", "-o", folder]);
}

#[test]
fn root_without_seccomp_one_line_says_so() {
    use std::os::unix::process::CommandExt;

    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let Some(_alone) = alone_as_root("no seccomp") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    // As a kernel without it, or a container whose own filter keeps others out.
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let machine = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new([(libc::SYS_seccomp, Vec::new())].into(), SeccompAction::Allow, missing, machine);
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    let mut command = Command::new(BPFREC);
    command.args(["record", "-d", "1s", "-e", "sched", "-o"]).arg(&trace);
    // SAFETY: the filter was made before; installing it makes two system calls.
    unsafe { command.pre_exec(move || seccompiler::apply_filter(&filter).map_err(std::io::Error::other)) };
    let output = command.output().unwrap();
    let (_, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    assert_eq!(err.lines().filter(|line| line.contains("without a sandbox")).count(), 1, "{err}");
    bpfrec_ok(&["verify", trace.to_str().unwrap()]);
}
