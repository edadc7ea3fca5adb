//! Needs root: functions that runtimes compile are named, as they were at the time.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::path::Path;
use std::process::Command;

use common::*;

/// `NAME FROM TO` lines of tests/load/jit.c: when each phase ran, CLOCK_MONOTONIC ns.
fn phases(out: &str) -> Vec<(String, u64, u64)> {
    let phase = |line: &str| {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        name.starts_with("phase_")
            .then(|| (name, words.next().unwrap().parse().unwrap(), words.next().unwrap().parse().unwrap()))
    };
    out.lines().filter_map(phase).collect()
}

/// When the recording began, CLOCK_MONOTONIC ns: 0 of --from and --to.
fn start_ns(trace: &Path) -> u64 {
    let info = info(trace);
    let start = info["header"]["start_mono_ns"].as_str().and_then(|ns| ns.parse().ok());
    start.unwrap_or_else(|| panic!("no start_mono_ns in {info}"))
}

/// How long after a phase's begin, and how long before its end, its name holds. A line of a perf map has no time of its
/// own, only the file has one, which is of the kernel's tick; and the reader may come late.
const OF_A_MAP: (u64, u64) = (300_000_000, 20_000_000);

/// In each phase, but for the margins at its begin and end, its name and no other's.
fn assert_named_as_they_were(trace: &Path, phases: &[(String, u64, u64)], margin_ns: (u64, u64)) {
    let start = start_ns(trace);
    for (name, from, to) in phases {
        let window = [from + margin_ns.0 - start, to - margin_ns.1 - start].map(|ns| format!("{ns}ns"));
        let stacks = folded(trace, &["-U", "--from", &window[0], "--to", &window[1]]);
        let right = samples_in(&stacks, name);
        let wrong: u64 = phases.iter().filter(|(n, ..)| n != name).map(|(n, ..)| samples_in(&stacks, n)).sum();
        assert!(right > 50, "{name}: {right} samples in its time: {stacks:?}");
        assert_eq!(wrong, 0, "{name}: samples named after another phase: {stacks:?}");
    }
}

const OPTIONS: [&str; 4] = ["-e", "profile", "-F", "499"];

#[test]
fn root_a_reused_address_is_named_as_it_was_by_perf_map() {
    let Some(_alone) = alone_as_root("perf map") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let out = record_while(&scratch, &trace, &OPTIONS, &format!("{} map 3 1.2", load("jit").display()));
    let phases = phases(&out);
    assert_eq!(phases.len(), 3);
    assert_named_as_they_were(&trace, &phases, OF_A_MAP);
    let info = bpfrec_ok(&["report", "summary", trace.to_str().unwrap()]);
    assert!(info.contains("1 lines that could not be understood"), "{info}");
}

#[test]
fn root_a_reused_address_is_named_as_it_was_by_jitdump() {
    let Some(_alone) = alone_as_root("jitdump") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let script = format!("cd \"$dir\"; {} dump 6 0.3", load("jit").display());
    let phases = phases(&record_while(&scratch, &trace, &OPTIONS, &script));
    assert_eq!(phases.len(), 6);
    // Its records have their own time: nothing is left to when they were read.
    assert_named_as_they_were(&trace, &phases, (0, 0));
}

#[test]
fn root_in_a_container_that_is_gone_before_the_stop() {
    let Some(_alone) = alone_as_root("container") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    // A pid and a mount namespace and a /tmp of its own: the map is that of another pid, in a place that nobody else sees.
    let inner = format!("mount -t tmpfs none /tmp && {} map 2 1.2", load("jit").display());
    let script = format!("unshare --pid --fork --mount --mount-proc sh -euc '{inner}'; sleep 0.3");
    let phases = phases(&record_while(&scratch, &trace, &OPTIONS, &script));
    assert_eq!(phases.len(), 2);
    assert_named_as_they_were(&trace, &phases, OF_A_MAP);
}

#[test]
fn root_a_map_of_another_user_is_not_believed() {
    let Some(_alone) = alone_as_root("foreign map") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    // Somebody else laid the file there before: what it says may be anything.
    let inner = format!(
        "mount -t tmpfs -o mode=0755 none /tmp; : >/tmp/perf-$$.map; chown 65534 /tmp/perf-$$.map; exec {} map 1 1.2",
        load("jit").display()
    );
    let script = format!("unshare --mount sh -euc '{inner}'");
    let phases = phases(&record_while(&scratch, &trace, &OPTIONS, &script));
    assert_eq!(phases.len(), 1);
    let stacks = folded(&trace, &["-U"]);
    assert_eq!(samples_in(&stacks, "phase_1"), 0, "{stacks:?}");
    let summary = bpfrec_ok(&["report", "summary", trace.to_str().unwrap()]);
    assert!(summary.contains("1 files that are not the process's own"), "{summary}");
}

#[test]
fn root_names_are_found_in_later_segments_of_a_living_process() {
    let Some(_alone) = alone_as_root("segments") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("segments");
    let options = [&OPTIONS[..], &["--rotate-time", "1s"]].concat();
    let out = record_while(&scratch, &trace, &options, &format!("{} map 1 5", load("jit").display()));
    assert_eq!(phases(&out).len(), 1);
    let mut segments: Vec<_> = std::fs::read_dir(&trace).unwrap().map(|e| e.unwrap().path()).collect();
    segments.sort();
    assert!(segments.len() >= 4, "{segments:?}");
    let whole = samples_in(&folded(&trace, &["-U"]), "phase_1");
    assert!(whole > 200, "{whole} samples in all segments");
    // The line was written in the first segment; a flight recorder has dropped it by now.
    segments[..2].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let rest = samples_in(&folded(&trace, &["-U"]), "phase_1");
    assert!(rest > 50, "{rest} samples in the last segments");
}

/// Whether a command runs here.
fn has(command: &str, args: &[&str]) -> bool {
    Command::new(command).args(args).output().is_ok_and(|o| o.status.success())
}

#[test]
fn root_javascript_functions_of_node_are_named() {
    let Some(_alone) = alone_as_root("node") else { return };
    if !has("node", &["--version"]) {
        return skip("Node", "no node here");
    }
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let script = scratch.path("work.js");
    std::fs::write(
        &script,
        "function collatz_of_node(n) { let steps = 0; while (n !== 1) { n = n % 2 ? 3 * n + 1 : n / 2; steps++; } return steps; }\n\
         function drive_of_node() { let sum = 0; for (let i = 1; i < 30000; i++) sum += collatz_of_node(i); return sum; }\n\
         const end = Date.now() + 4000; while (Date.now() < end) drive_of_node();\n",
    )
    .unwrap();
    let command = "cd \"$dir\"; node --perf-basic-prof --no-turbo-inlining work.js & wait; rm -f /tmp/perf-$!.map";
    // V8 leaves a log where it runs.
    record_while(&scratch, &trace, &OPTIONS, command);
    let stacks: Vec<_> = folded(&trace, &["-U"]).into_iter().filter(|(f, _)| f[0].starts_with("node")).collect();
    let all: u64 = stacks.iter().map(|(_, n)| n).sum();
    let in_name =
        |name: &str| -> u64 { stacks.iter().filter(|(f, _)| f.iter().any(|f| f.contains(name))).map(|(_, n)| n).sum() };
    let (leaf, caller) = (in_name("collatz_of_node"), in_name("drive_of_node"));
    assert!(leaf * 10 > all * 6, "{leaf} of {all} samples are in the JavaScript function: {stacks:?}");
    assert!(caller * 10 > all * 6, "{caller} of {all} samples have its caller: {stacks:?}");
}

#[test]
fn root_functions_of_python_are_named() {
    let Some(_alone) = alone_as_root("python") else { return };
    let candidates = ["python3", "python3.14", "python3.13", "python3.12"].map(str::to_owned).into_iter();
    let pyenv = std::fs::read_dir("/root/.pyenv/versions").into_iter().flatten().flatten();
    let pyenv = pyenv.map(|e| e.path().join("bin/python3").display().to_string());
    let enough = "import sys; sys.exit(not hasattr(sys, 'activate_stack_trampoline'))";
    let Some(python) = candidates.chain(pyenv).find(|p| has(p, &["-X", "perf", "-c", enough])) else {
        return skip("Python", "no Python of 3.12 or later with -X perf here");
    };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let script = scratch.path("work.py");
    std::fs::write(
        &script,
        "import time\n\
         def inner_of_python(n):\n    s = 0\n    for i in range(n):\n        s += i * i\n    return s\n\
         def outer_of_python():\n    return inner_of_python(20000) + 1\n\
         end = time.monotonic() + 3\nwhile time.monotonic() < end:\n    outer_of_python()\n",
    )
    .unwrap();
    // Python itself may be built without frame pointers.
    let options = [&OPTIONS[..], &["--unwind", "dwarf"]].concat();
    record_while(
        &scratch,
        &trace,
        &options,
        &format!("{python} -X perf {} & wait; rm -f /tmp/perf-$!.map", script.display()),
    );
    let stacks: Vec<_> = folded(&trace, &["-U"]).into_iter().filter(|(f, _)| f[0].starts_with("python")).collect();
    let all: u64 = stacks.iter().map(|(_, n)| n).sum();
    let named: u64 =
        stacks.iter().filter(|(f, _)| f.iter().any(|f| f.contains("inner_of_python"))).map(|(_, n)| n).sum();
    assert!(all > 300, "{all} samples of Python");
    assert!(named * 2 > all, "{named} of {all} samples have the Python function: {stacks:?}");
}

#[test]
fn root_methods_of_java_are_named() {
    let Some(_alone) = alone_as_root("java") else { return };
    if !has("javac", &["-version"]) || !has("jcmd", &["-h"]) {
        return skip("Java", "no javac and jcmd here");
    }
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    std::fs::write(
        scratch.path("Work.java"),
        "public class Work {\n\
         static long collatzOfJava(long n) { long s = 0; while (n != 1) { n = n % 2 != 0 ? 3 * n + 1 : n / 2; s++; } return s; }\n\
         public static void main(String[] a) { long end = System.currentTimeMillis() + 8000, s = 0;\n\
         while (System.currentTimeMillis() < end) for (int i = 1; i < 10000; i++) s += collatzOfJava(i);\n\
         System.out.println(s); } }\n",
    )
    .unwrap();
    // The map is asked for once the code is compiled; its numbers begin with 0x.
    let script = "cd \"$dir\"; javac Work.java; java -XX:+PreserveFramePointer -XX:CompileCommand=quiet \
                  -XX:CompileCommand=dontinline,Work.collatzOfJava Work & \
                  sleep 5; jcmd $! Compiler.perfmap; wait; rm -f /tmp/perf-$!.map";
    record_while(&scratch, &trace, &OPTIONS, script);
    let stacks = folded(&trace, &["-U"]);
    let in_name: u64 =
        stacks.iter().filter(|(f, _)| f.iter().any(|f| f.contains("collatzOfJava"))).map(|(_, n)| n).sum();
    assert!(in_name > 500, "{in_name} samples are in the Java method: {stacks:?}");
}
