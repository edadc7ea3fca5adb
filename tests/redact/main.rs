//! `bpfrec redact`: nothing of what it replaces is left in any byte, the result is whole, and all figures are the same.
// What it shares with tests that record needs what they need.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

#[path = "../../format-spec/tests/common/mod.rs"]
mod builder;
#[path = "../common/mod.rs"]
mod common;
mod figures;
mod hostile;
mod names;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use builder::TRACE_ID;
use common::{Scratch, bpfrec, texts};
use figures::figures;
use hostile::{SECRET, STAYS};
use names::{assert_gone, each_text, has, originals};

const KEY: &[u8] = b"a key for tests, never a real one";

/// Options that leave nothing.
const EVERYTHING: [&str; 2] = ["--functions", "--build-ids"];

/// Redacts and returns the exit code and what was said.
fn redact(scratch: &Scratch, trace: &Path, output: &Path, options: &[&str]) -> (i32, String) {
    let key = scratch.path("key");
    fs::write(&key, KEY).unwrap();
    let mut args = vec!["redact".into(), trace.to_owned(), "-o".into(), output.to_owned(), "--key".into(), key];
    args.extend(options.iter().map(PathBuf::from));
    let output = bpfrec(args);
    let (out, err) = texts(&output);
    (output.status.code().unwrap(), out + &err)
}

fn assert_whole(trace: &Path) {
    let output = bpfrec([Path::new("verify"), trace]);
    assert_eq!(output.status.code(), Some(0), "verify: {:?}", texts(&output));
}

fn testdata() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1");
    let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|e| e == "bpr"));
    all.sort();
    assert!(all.len() >= 6);
    all
}

/// A whole trace of each in testdata: what was killed is recovered first, as redact asks.
fn whole(scratch: &Scratch, trace: &Path) -> PathBuf {
    if bpfrec([Path::new("verify"), trace]).status.code() == Some(0) {
        return trace.to_owned();
    }
    let (code, said) = redact(scratch, trace, &scratch.path("refused.bpr"), &[]);
    assert!(code == 1 && said.contains("let `bpfrec recover` make a whole trace of it first"), "{said}");
    let new = scratch.path("recovered.bpr");
    let output = bpfrec([Path::new("recover"), trace, Path::new("--force"), Path::new("-o"), &new]);
    assert_eq!(output.status.code(), Some(3));
    new
}

#[test]
fn nothing_is_left_of_the_names_in_testdata() {
    let scratch = Scratch::new();
    for trace in testdata() {
        let trace = whole(&scratch, &trace);
        let output = scratch.path(&format!("new-{}", trace.file_name().unwrap().to_str().unwrap()));
        let (code, said) = redact(&scratch, &trace, &output, &EVERYTHING);
        assert_eq!(code, 0, "{said}");
        assert_whole(&output);
        assert_gone(&output, &originals(&trace));
        let file =
            if output.is_dir() { fs::read_dir(&output).unwrap().next().unwrap().unwrap().path() } else { output };
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn nothing_is_left_of_hostile_names_of_any_kind() {
    let scratch = Scratch::new();
    let trace = hostile::trace(&scratch);
    assert!(has(&trace, SECRET) && has(&trace, STAYS));
    let (some, all) = (scratch.path("some.bpr"), scratch.path("all.bpr"));
    let (code, said) = redact(&scratch, &trace, &some, &[]);
    assert!(code == 0 && said.contains("names of functions (--functions) and build ids (--build-ids) stay"), "{said}");
    assert!(!has(&some, SECRET) && has(&some, STAYS));
    assert_whole(&some);
    assert_eq!(redact(&scratch, &trace, &all, &EVERYTHING).0, 0);
    assert!(!has(&all, SECRET) && !has(&all, STAYS));
    assert_whole(&all);
    // The function in the name of compiled code is what is analysed: only its file goes.
    let mut compiled = Vec::new();
    each_text(&some, |kind, field, text| {
        if (kind, field) == ("jit_symbol", "name") {
            compiled.push(String::from_utf8_lossy(text).into_owned());
        }
    });
    assert!(compiled.iter().any(|name| name.starts_with("JS:*f /") && name.ends_with(":1:2")), "{compiled:?}");

    let refused = redact(&scratch, &trace, &all, &[]);
    assert!(refused.0 == 1 && refused.1.contains("all.bpr exists"), "{refused:?}");
    assert_eq!(redact(&scratch, &trace, &all, &["--force"]).0, 0);
}

#[test]
fn one_name_one_token_and_another_one_with_another_key() {
    let scratch = Scratch::new();
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1/burn-5.10.bpr");
    let names = |trace: &Path| {
        let mut names = Vec::new();
        each_text(trace, |_, field, text| names.extend((field == "comm").then(|| text.to_vec())));
        names
    };
    let (a, b, c) = (scratch.path("a.bpr"), scratch.path("b.bpr"), scratch.path("c.bpr"));
    redact(&scratch, &trace, &a, &[]);
    redact(&scratch, &trace, &b, &[]);
    let (trace_arg, c_arg) = (trace.to_str().unwrap(), c.to_str().unwrap());
    common::bpfrec_ok(&["redact", trace_arg, "-o", c_arg]);
    assert_eq!(names(&a), names(&b));
    let pairs: HashSet<_> = names(&trace).into_iter().zip(names(&a)).collect();
    let firsts: HashSet<_> = pairs.iter().map(|(name, _)| name).collect();
    let seconds: HashSet<_> = pairs.iter().map(|(_, token)| token).collect();
    assert!(pairs.len() > 10 && pairs.len() == firsts.len() && pairs.len() == seconds.len());
    let others: HashSet<_> = names(&c).into_iter().collect();
    assert!(!others.is_empty() && others.iter().all(|token| !seconds.contains(token)));
}

/// What a later version wrote and nobody can read is left out, and counted.
#[test]
fn what_is_not_understood_is_left_out_and_counted() {
    let scratch = Scratch::new();
    let trace = scratch.path("later.bpr");
    fs::write(&trace, &builder::trace(TRACE_ID)[2]).unwrap();
    let output = scratch.path("new.bpr");
    let (code, said) = redact(&scratch, &trace, &output, &EVERYTHING);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("rows of 3 blocks are not understood and were left out"), "{said}");
    assert_whole(&output);
    for word in ["käse", "böx", "opaque to this version", "[31m"] {
        assert!(has(&trace, word) && !has(&output, word), "{word}");
    }
    let (old, new) = (common::info(&trace), common::info(&output));
    let number = |info: &serde_json::Value, name: &str| info[name].as_u64().unwrap();
    assert_eq!(number(&old, "events") + number(&old, "lost"), number(&new, "events") + number(&new, "lost"));
    assert_eq!(new["not_understood_rows"], 0);
    assert!(number(&new, "lost") > number(&old, "lost"));
}

#[test]
fn reports_give_the_same_figures() {
    const REPORTS: [&str; 8] = [
        "summary",
        "runqlat -P",
        "biolatency -D",
        "profile --top 10000",
        "offcputime --top 10000",
        "wakeups --top 10000",
        "memleak -T 10000 -o 0",
        "cpudist --per-cgroup",
    ];
    let scratch = Scratch::new();
    for trace in testdata() {
        let trace = whole(&scratch, &trace);
        for (name, options) in [("some", &[][..]), ("all", &EVERYTHING[..])] {
            let output = scratch.path(&format!("{name}-{}", trace.file_name().unwrap().to_str().unwrap()));
            assert_eq!(redact(&scratch, &trace, &output, options).0, 0);
            for report in REPORTS {
                assert_eq!(figures(&trace, report), figures(&output, report), "{report} {name} {}", trace.display());
            }
        }
    }
}
