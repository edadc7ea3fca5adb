//! Needs root: operator new and delete of allocators that have their own are recorded, and exceptions pass.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::path::{Path, PathBuf};

use common::memory::{Memory, Truth, build};
use common::*;

/// Numbers of `call` in format-spec/events/malloc.rs.
const NEW: u64 = 14;
const DELETE: u64 = 15;
const FREE: u64 = 10;

#[test]
fn root_an_exception_passes() {
    let Some(_alone) = alone_as_root("exception") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let program = build(&scratch, "throws", "throws.cc", &[]);
    let options = ["-e", "malloc", "--prefix", "pf_", "--lib", program.to_str().unwrap()];
    let out = record_while(&scratch, &trace, &options, &format!("exec {}", program.display()));
    assert_eq!(out, "caught\n");
    let mut calls = Vec::new();
    replay(&trace, |e| calls.extend(e["call"].as_u64()));
    // The allocator's own malloc stands in for what operator new was called for, and gave nothing in the end.
    // The compiler may have put operator delete, which is but a call of free, into its caller.
    assert!(calls == [NEW, DELETE] || calls == [NEW, FREE], "{calls:?}");
    assert_no_loss(&trace);
}

/// Where this machine has a library; `None` after a line that says that it has not.
fn library(test: &str, name: &str) -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib/x86_64-linux-gnu").ok()?.flatten().map(|e| e.path());
    let found = found.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(name))).min();
    if found.is_none() {
        skip(test, &format!("no {name} here (scripts/deps test installs it)"));
    }
    found
}

fn allocator(test: &str, name: &str, throws: u64) {
    let Some(_alone) = alone_as_root(test) else { return };
    let Some(library) = library(test, name) else { return };
    let scratch = Scratch::new();
    let program = build(&scratch, "news", "news.cc", &[library.to_str().unwrap()]);
    let direct = record_news(&scratch, &program, &["400", "40", &throws.to_string()], &[]);
    let (truth, memory) = &direct;
    assert_eq!((truth.leaks.len() as u64, truth.sum), (400, throws), "the program ran as it does alone");
    let new = |memory: &Memory| memory.live.iter().filter(|(addr, _)| truth.leaks.contains_key(addr)).count();
    assert_eq!(new(memory), 400, "all leaks are outstanding");
    // Libraries hold some memory that they got from malloc.
    let others: Vec<_> = memory.live.iter().filter(|(addr, _)| !truth.leaks.contains_key(addr)).collect();
    assert!(others.len() <= 8, "nothing else that came and went is: {others:?}");
    assert_eq!(memory.twice, 0);
    for (addr, (bytes, ..)) in memory.live.iter().filter(|(addr, _)| truth.leaks.contains_key(addr)) {
        assert_eq!(Some(bytes), truth.leaks.get(addr));
    }
    // Each of 40 rounds makes 65 pieces and deletes them. An exception lies in memory that was got inside of operator new.
    // Libraries make some of their own.
    assert!((400 + 40 * 65..=410 + 40 * 65).contains(&memory.calls[&NEW]), "{:?}", memory.calls);
    assert!(memory.strange.len() as u64 <= throws, "{:?}", memory.strange);
    let sampled = record_news(&scratch, &program, &["4000", "40", "0"], &["--sample", "16"]);
    let (truth, memory) = &sampled;
    assert!(memory.live.keys().filter(|a| truth.leaks.contains_key(a)).count() > 100);
    assert!(memory.live.len() < 600 && memory.strange.is_empty(), "{} {:?}", memory.live.len(), memory.strange);
}

fn record_news(scratch: &Scratch, program: &Path, args: &[&str], options: &[&str]) -> (Truth, Memory) {
    let trace = scratch.path(&format!("{}.bpr", options.len()));
    let mut command = vec!["record", "-q", "-e", "malloc", "-o", trace.to_str().unwrap()];
    command.extend(options);
    command.extend(["--", program.to_str().unwrap()]);
    command.extend(args);
    let (out, err) = texts(&bpfrec(command));
    assert_eq!(err, "", "operator new is watched without a word");
    let truth = Truth::of(&out);
    assert_no_loss(&trace);
    let memory = Memory::of(&trace, truth.pid);
    (truth, memory)
}

#[test]
fn root_operator_new_of_jemalloc() {
    allocator("operator new of jemalloc", "libjemalloc.so", 40);
}

#[test]
fn root_operator_new_of_tcmalloc() {
    allocator("operator new of tcmalloc", "libtcmalloc_minimal.so", 40);
}

#[test]
fn root_operator_new_of_mimalloc() {
    // It is C: it ends the program instead of throwing.
    allocator("operator new of mimalloc", "libmimalloc.so", 0);
}
