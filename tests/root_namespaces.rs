//! Needs root: a process that goes to other namespaces without an exec is known to be there from then on.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

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
