//! Needs root: the source malloc tells the truth about programs whose leaks are known, and harms none.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::memory::{FAILED, Memory, Truth, build};
use common::*;
use rustix::process::Signal;

/// `leaks`, waiting.
struct Leaks(Child);

impl Leaks {
    fn start(args: &[&str]) -> Leaks {
        let mut command = Command::new(load("leaks"));
        Leaks(command.args(args).arg("wait").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    }

    /// Reads up to the sum: the work is done then, and the process waits once more.
    fn work(&mut self) -> Truth {
        self.go();
        let mut lines = BufReader::new(self.0.stdout.as_mut().unwrap());
        let mut output = String::new();
        while !output.lines().last().is_some_and(|l| l.starts_with("sum ")) {
            assert!(lines.read_line(&mut output).unwrap() > 0, "leaks ended early: {output}");
        }
        Truth::of(&output)
    }

    fn finish(mut self) {
        self.go();
        assert!(self.0.wait().unwrap().success());
    }
}

/// Path of the C library that this process maps, and a process's mapping of it: start and length, offset in the file.
fn libc_of(pid: u32) -> (PathBuf, u64, u64, u64) {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = maps.lines().find(|l| l.contains("r-xp") && l.contains("/libc.so")).expect("it maps the C library");
    let (start, rest) = line.split_once('-').unwrap();
    let hex = |s: &str| u64::from_str_radix(s, 16).unwrap();
    let end = rest.split(' ').next().unwrap();
    let offset = line.split(' ').nth(2).unwrap();
    (line[line.find('/').unwrap()..].into(), hex(start), hex(end) - hex(start), hex(offset))
}

/// Whether the C library's code in a process is that of the file: a probe is a breakpoint in it.
fn has_probes(pid: u32) -> bool {
    let (path, start, len, offset) = libc_of(pid);
    let mut code = vec![0; len as usize];
    fs::File::open(format!("/proc/{pid}/mem")).unwrap().read_exact_at(&mut code, start).unwrap();
    let mut file = vec![0; len as usize];
    // The mapping's last page may lie partly behind the file's end.
    let n = fs::File::open(path).unwrap().read_at(&mut file, offset).unwrap();
    code[..n] != file[..n]
}

#[test]
fn root_leaks_are_exactly_what_is_outstanding() {
    let Some(_alone) = alone_as_root("leaks") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let script = format!("exec {} 100 100", load("leaks").display());
    let truth = Truth::of(&record_while(&scratch, &trace, &["-e", "malloc"], &script));
    assert_no_loss(&trace);
    let memory = Memory::of(&trace, truth.pid);
    assert_eq!(truth.leaks.len(), 110);
    truth.assert_is(&memory);
    let stacks = |bytes: u64| memory.live.values().filter(|p| p.0 == bytes).map(|p| p.2).collect::<BTreeSet<_>>();
    for bytes in [24, 5000] {
        assert!(
            stacks(bytes).len() == 1 && !stacks(bytes).contains(&0),
            "one place leaks {bytes}: {memory:?}",
            memory = stacks(bytes)
        );
    }
    // Two rounds do all the rest; each realloc and mremap that fails is told, and each call by its own name.
    assert_eq!(memory.calls[&FAILED], 4);
    for (call, count) in [(2, 12), (4, 2), (5, 4), (7, 2), (8, 2), (11, 2)] {
        // calloc also makes a thread's table; glibc has aligned_alloc and memalign in one.
        assert!(memory.calls[&call] >= count, "call {call}: {} instead of {count}", memory.calls[&call]);
    }
    // A child's memory is its own: it has events, and nothing of it is counted for the parent.
    let mut of_others = 0;
    replay(&trace, |e| of_others += u64::from(e["kind"] == "malloc_free" && e["pid"] != truth.pid));
    assert!(of_others >= 64, "{of_others} frees by the child");
}

#[test]
fn root_sampling_keeps_pairs_whole() {
    let Some(_alone) = alone_as_root("sampling") else { return };
    let scratch = Scratch::new();
    let script = format!("exec {} 1000 100", load("leaks").display());
    for (name, options) in [("n", ["--sample", "16"]), ("bytes", ["--sample-bytes", "4K"])] {
        let trace = scratch.path(name);
        let options = [&["-e", "malloc"][..], &options].concat();
        let truth = Truth::of(&record_while(&scratch, &trace, &options, &script));
        assert_no_loss(&trace);
        let memory = Memory::of(&trace, truth.pid);
        // A thread that ends also frees its own table, which the library made without a call.
        let mut threads: BTreeSet<u64> = [truth.pid].into();
        assert!(memory.strange.iter().all(|(tid, _)| threads.insert(*tid)), "{name}: {:?}", memory.strange);
        assert_eq!(memory.twice, 0, "{name}");
        let leaked = |(addr, piece): (&u64, &(u64, u64, u64))| truth.leaks.get(addr) == Some(&piece.0);
        assert!(memory.live.iter().all(leaked), "{name}: {:?} is outstanding, but no leak", memory.live);
        assert!(!memory.live.is_empty() && memory.live.len() < 500, "{name}: {} sampled", memory.live.len());
        // 1,000 of 24 bytes and 100 of 5,000. The standard error is 36 % at 1/16, 7 % by bytes.
        let estimate: u64 = memory.live.values().map(|(bytes, weight, _)| bytes * weight / 1000).sum();
        let leaked: u64 = truth.leaks.values().sum();
        let within = if name == "n" { 20..leaked * 3 } else { leaked / 2..leaked * 2 };
        assert!(within.contains(&estimate), "{name}: {estimate} bytes estimated, {leaked} leaked");
        assert!(memory.allocs < 8000 && memory.frees < 12000, "{name}: {} and {}", memory.allocs, memory.frees);
    }
}

#[test]
fn root_a_static_program_with_a_prefix() {
    let Some(_alone) = alone_as_root("prefix") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let program = build(&scratch, "static", "leaks.c", &["-DPREFIX", "-static"]);
    let script = format!("exec {} 50 20", program.display());
    let truth = Truth::of(&record_while(&scratch, &trace, &["-e", "malloc", "--prefix", "pf_"], &script));
    // The shell that execs it does not map it: its probes come when it is mapped, and what was before is not seen.
    let memory = Memory::of(&trace, truth.pid);
    assert!(memory.live.keys().all(|addr| truth.leaks.contains_key(addr)), "{:?}", memory.live);

    let trace = scratch.path("direct.bpr");
    let output = Command::new(BPFREC)
        .args(["record", "-q", "-e", "malloc", "--prefix", "pf_", "-o"])
        .arg(&trace)
        .arg("--")
        .arg(&program)
        .args(["50", "20"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{:?}", texts(&output));
    let truth = Truth::of(&texts(&output).0);
    assert_no_loss(&trace);
    // The C library is in it, too, and keeps some pieces for itself, on the heap.
    let mut memory = Memory::of(&trace, truth.pid);
    let (first, last) = (truth.leaks.keys().next().unwrap(), truth.leaks.keys().last().unwrap());
    memory.live.retain(|addr, _| (first..=last).contains(&addr));
    truth.assert_is(&memory);
}

#[test]
fn root_a_process_and_a_library_by_path() {
    let Some(_alone) = alone_as_root("library by path") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let mut leaks = Leaks::start(&["30", "30"]);
    wait_until("it maps the C library", Duration::from_secs(5), || {
        fs::read_to_string(format!("/proc/{}/maps", leaks.pid())).unwrap().contains("/libc.so")
    });
    let mut bystander = Leaks::start(&["1", "1"]);
    let (libc, pid) = (libc_of(std::process::id()).0, leaks.pid().to_string());
    let options = ["-e", "malloc", "-p", &pid, "--lib", libc.to_str().unwrap()];
    let mut recording = Recording::start(&trace, &options);
    assert!(has_probes(leaks.pid()), "no probe in the process");
    assert!(!has_probes(bystander.pid()), "a probe in another process");
    bystander.work();
    let truth = leaks.work();
    leaks.finish();
    bystander.finish();
    assert_eq!(recording.stop(), Some(0));
    assert_no_loss(&trace);
    truth.assert_is(&Memory::of(&trace, truth.pid));
    replay(&trace, |e| assert!(!e["kind"].as_str().unwrap().starts_with("malloc") || e["pid"] == truth.pid, "{e}"));
}

#[test]
fn root_only_the_memory_of_a_cgroup() {
    let Some(_alone) = alone_as_root("memory of a cgroup") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let group = format!("bpfrec-malloc-{}", std::process::id());
    let path = cgroup_mount().join(&group);
    fs::create_dir_all(path.join("inner")).unwrap();
    let (mut inside, mut outside) = (Leaks::start(&["60", "40"]), Leaks::start(&["60", "40"]));
    fs::write(path.join("inner/cgroup.procs"), inside.pid().to_string()).unwrap();
    wait_until("both map the C library", Duration::from_secs(5), || {
        let maps = |pid: u32| fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        [inside.pid(), outside.pid()].iter().all(|pid| maps(*pid).contains("/libc.so"))
    });
    let recording = Attached::start(&scratch, &trace, &["-e", "malloc", "--cgroup", &format!("/{group}")]);
    let (truth, _) = (inside.work(), outside.work());
    recording.finish();
    inside.finish();
    outside.finish();
    fs::remove_dir(path.join("inner")).unwrap();
    fs::remove_dir(&path).unwrap();
    assert_no_loss(&trace);
    truth.assert_is(&Memory::of(&trace, truth.pid));
    // Its child was born in the group, and nobody else was.
    let mut pids = BTreeSet::new();
    replay(&trace, |event| {
        if event["kind"].as_str().unwrap().starts_with("malloc_") {
            pids.insert(event["pid"].as_u64().unwrap());
        }
    });
    assert!(pids.contains(&truth.pid) && pids.len() == 2, "{pids:?}");
}

#[test]
fn root_a_killed_recorder_leaves_no_probe() {
    let Some(_alone) = alone_as_root("killed recorder") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let sum = {
        let mut alone = Leaks::start(&["30", "400"]);
        let sum = alone.work().sum;
        alone.finish();
        sum
    };
    let mut leaks = Leaks::start(&["30", "400"]);
    let pid = leaks.pid();
    wait_until("it maps the C library", Duration::from_secs(5), || {
        fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().contains("/libc.so")
    });
    let mut recording = Recording::start(&trace, &["-e", "malloc", "-p", &pid.to_string()]);
    assert!(has_probes(pid), "no probe in the process");
    leaks.go();
    // In the middle of its work.
    std::thread::sleep(Duration::from_millis(30));
    recording.signal(Signal::KILL);
    recording.0.wait().unwrap();
    wait_until("the probes are gone", Duration::from_secs(20), || !has_probes(pid));
    leaks.go();
    let mut output = String::new();
    leaks.0.stdout.as_mut().unwrap().read_to_string(&mut output).unwrap();
    assert!(leaks.0.wait().unwrap().success());
    assert_eq!(Truth::of(&output).sum, sum);
}

#[test]
fn root_unloaded_forked_executed() {
    let Some(_alone) = alone_as_root("unload, fork, exec") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let library = build(&scratch, "liballoc.so", "unload.c", &["-DLIBRARY", "-shared", "-fPIC"]);
    let options = ["-e", "malloc", "--prefix", "pf_", "--lib", library.to_str().unwrap()];
    let script = format!("exec {} {}", load("unload").display(), library.display());
    let out = record_while(&scratch, &trace, &options, &script);
    assert!(out.ends_with("right\n"), "{out}");
    assert_no_loss(&trace);
    let (mut allocs, mut frees, mut pids) = (0, 0, BTreeSet::new());
    replay(&trace, |event| {
        let kind = event["kind"].as_str().unwrap();
        allocs += u64::from(kind == "malloc_alloc");
        frees += u64::from(kind == "malloc_free");
        if kind == "malloc_alloc" {
            pids.insert(event["pid"].as_u64().unwrap());
        }
    });
    assert_eq!((allocs, frees, pids.len()), (1500, 1500, 2));
}

#[test]
fn root_whose_memory_must_be_said() {
    let Some(_alone) = alone_as_root("whose memory") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let record = |options: &[&str]| {
        let output =
            bpfrec([&["record", "-q", "-d", "1s", "-e", "malloc", "-o", trace.to_str().unwrap()], options].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(!trace.exists());
        texts(&output).1
    };
    let err = record(&[]);
    assert!(
        err.contains("-p") && err.contains("--cgroup") && err.contains("--lib") && err.lines().count() == 1,
        "{err}"
    );
    let err = record(&["--lib", "/no/such/library.so"]);
    assert!(err.contains("/no/such/library.so"), "{err}");
    let err = record(&["--lib", load("sleeper").to_str().unwrap()]);
    assert!(err.contains("no malloc in it"), "{err}");
}
