//! Needs root: a process that goes to other namespaces without an exec is known to be there from then on; a recorder in a
//! container, with the host's pid namespace and without, gives no process the name of another.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use bpfrec_analyze::Meta;
use bpfrec_analyze::tasks::NAMESPACES;
use bpfrec_format::{Segment, Trace};
use common::*;

/// Thread and inode that `namespaces` printed after a step.
fn said(output: &str, step: &str) -> (u32, u32) {
    let (tid, inode) = printed(output, step).split_once(' ').unwrap();
    (tid.parse().unwrap(), inode.parse().unwrap())
}

#[test]
fn root_other_namespaces_without_an_exec() {
    let Some(_alone) = alone_as_root("namespaces") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let out = record_while(&scratch, &trace, &["-e", "sched"], &format!("exec {}", load("namespaces").display()));
    let bytes = std::fs::read(&trace).unwrap();
    let segment = Segment::open(Box::new(bytes)).unwrap();
    let meta = Meta::load(&Trace { segments: vec![("t.bpr".into(), segment)], refused: Vec::new() }).unwrap();
    let (begin, own, back, thread) = (said(&out, "begin"), said(&out, "own"), said(&out, "back"), said(&out, "thread"));
    assert!(begin.1 == back.1 && own.1 != begin.1, "{out}");

    let of = |name: &str| NAMESPACES.iter().position(|n| *n == name).unwrap();
    let moves: Vec<_> = meta.tasks.moves().iter().filter(|m| m.pid == begin.0).collect();
    assert_eq!(moves.len(), 3, "unshare, setns, and a thread's unshare: {moves:?}");
    let mounts: Vec<_> = moves.iter().map(|m| (m.tid, m.inodes[of("mnt_ns")])).collect();
    assert_eq!(mounts, [(own.0, own.1), (back.0, back.1), (thread.0, back.1)]);
    assert_eq!((moves[2].tid, moves[2].inodes[of("uts_ns")]), thread);
    // The first thread stays where it is when the second one goes.
    assert_eq!(moves[1].inodes[of("uts_ns")], moves[0].inodes[of("uts_ns")]);
    assert!(moves[2].inodes[of("uts_ns")] != moves[1].inodes[of("uts_ns")] && thread.0 != begin.0);

    let at = |ts_ns: u64| meta.tasks.at(begin.0, ts_ns).map(|task| task.mount_ns(ts_ns));
    assert_eq!([at(moves[0].ts_ns - 1), at(moves[0].ts_ns), at(moves[1].ts_ns)], [begin.1, own.1, back.1].map(Some));
    let task = |tid: u32| meta.tasks.at(tid, moves[2].ts_ns).unwrap().mount_ns(moves[2].ts_ns);
    assert_eq!(task(thread.0), back.1, "a thread begins where its process is");
}

/// A program that burns for so long, under a name of its own; killed with its owner.
struct Burning(Child);

impl Burning {
    fn start(scratch: &Scratch, name: &str) -> Burning {
        std::fs::copy(load("burn"), scratch.path(name)).unwrap();
        Burning(Command::new(scratch.path(name)).arg("300").stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Burning {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The host's pid of the process that runs a program of that name.
fn hosts_pid(name: &str) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|e| e.file_name().to_str()?.parse().ok()).find(|pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
    })
}

/// Runs `script` for sh in namespaces of its own while `each` looks on. `$bpfrec` is the command, `$dir` is `scratch`.
fn contained(scratch: &Scratch, namespaces: &[&str], script: &str, mut each: impl FnMut()) -> Output {
    let mut child = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-euc", script])
        .env("bpfrec", BPFREC)
        .env("dir", scratch.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while child.try_wait().unwrap().is_none() {
        each();
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

/// Samples of `pid` in the functions of `burn`, and all of its samples.
fn samples_of(trace: &Path, pid: u32) -> (u64, u64) {
    let stacks = folded(trace, &["--pid", &pid.to_string()]);
    let all = stacks.iter().map(|(_, n)| n).sum();
    (samples_in(&stacks, "burn_seventy") + samples_in(&stacks, "burn_thirty"), all)
}

#[test]
fn root_in_a_pid_namespace_names_stay_with_their_processes() {
    let Some(_alone) = alone_as_root("pid namespace") else { return };
    let scratch = Scratch::new();
    let outside = Burning::start(&scratch, "burn-outside");
    for name in ["burn-before", "burn-inside"] {
        std::fs::copy(load("burn"), scratch.path(name)).unwrap();
    }
    let script = r#""$dir/burn-before" 60 >/dev/null & before=$!
        "$bpfrec" record -o "$dir/all.bpr" -e sched,profile -F 499 -- "$dir/burn-inside" 2 >/dev/null
        "$bpfrec" record -o "$dir/one.bpr" -e sched,profile -F 499 -p $before -d 2s
        "$bpfrec" record -o "$dir/none.bpr" -p 4194303 -d 1s || echo "refused $?"
        echo "before $before"
        kill $before"#;
    let (mut before, mut inside) = (None, None);
    let output = contained(&scratch, &["--pid", "--fork", "--mount-proc"], script, || {
        before = before.or_else(|| hosts_pid("burn-before"));
        inside = inside.or_else(|| hosts_pid("burn-inside"));
    });
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}{err}");
    let (before, inside) = (before.expect("burn-before ran"), inside.expect("burn-inside ran"));
    assert!(printed(&out, "before") != before.to_string(), "the namespace gives other numbers: {out}");
    assert!(err.contains("pid namespace") && err.contains("--pid=host"), "nothing says what is missing: {err}");
    assert!(out.contains("refused 1") && err.contains("no process 4194303 in this pid namespace"), "{out}{err}");

    // Known before the recorder began, and begun later: by the kernel's pids, with their functions.
    let all = scratch.path("all.bpr");
    for pid in [before, inside] {
        let (named, samples) = samples_of(&all, pid);
        assert!(named >= 100 && named * 10 >= samples * 8, "{named} of {samples} samples of {pid}");
    }
    // What runs outside is recorded. No name of a function is known of it, and none is made up.
    let (named, samples) = samples_of(&all, outside.0.id());
    assert!(samples >= 100 && named == 0, "{named} of {samples} samples outside have names");
    let meta = |trace: &Path| {
        let segment = Segment::open(Box::new(std::fs::read(trace).unwrap())).unwrap();
        Meta::load(&Trace { segments: vec![("t.bpr".into(), segment)], refused: Vec::new() }).unwrap()
    };
    assert_eq!(meta(&all).item("command_pid"), inside.to_string());
    // The pid of -p is the namespace's, and only that process is recorded.
    let one = scratch.path("one.bpr");
    assert_eq!(meta(&one).item("filter_pids"), before.to_string());
    let (named, samples) = samples_of(&one, before);
    assert!(named >= 100 && named * 10 >= samples * 8, "{named} of {samples} samples with -p");
    assert_eq!(samples_of(&one, outside.0.id()).1, 0, "a process outside was recorded");
}

#[test]
fn root_in_a_container_with_the_hosts_pids_all_have_names() {
    let Some(_alone) = alone_as_root("container with the host's pids") else { return };
    let scratch = Scratch::new();
    let outside = Burning::start(&scratch, "burn-outside");
    let script = r#""$bpfrec" record -q -o "$dir/t.bpr" -e profile -F 499 -d 2s"#;
    let output = contained(&scratch, &["--mount", "--uts", "--ipc", "--net", "--cgroup"], script, || {});
    assert!(output.status.success(), "{}", texts(&output).1);
    let (named, samples) = samples_of(&scratch.path("t.bpr"), outside.0.id());
    assert!(named >= 100 && named * 10 >= samples * 8, "{named} of {samples} samples");
}

#[test]
fn root_a_proc_of_another_pid_namespace_is_refused() {
    let Some(_alone) = alone_as_root("another namespace's /proc") else { return };
    let scratch = Scratch::new();
    let script = r#""$bpfrec" record -q -o "$dir/t.bpr" -d 1s"#;
    let output = contained(&scratch, &["--pid", "--fork"], script, || {});
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("another pid namespace") && err.contains("--mount-proc"), "{err}");
    assert!(!scratch.path("t.bpr").exists());
}
