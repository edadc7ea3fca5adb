//! `bpfrec analyze` of several files: recordings of one host and of several, and segments of one recording, given one by one.
#![cfg(feature = "analyze")]

#[path = "../analyze/tests/common/mod.rs"]
mod traces;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bpfrec_format::Registry;
use traces::{Builder, S, T0};

/// A folder that goes when the test is over.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("bpfrec-several-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn testdata(name: &str) -> PathBuf {
    root().join("testdata/v1").join(name)
}

fn analyze(traces: &[PathBuf], out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfrec"));
    command.arg("analyze").args(traces).arg("-o").arg(out).arg("--trace-only").args(more).output().unwrap()
}

fn ok(output: &Output) -> String {
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn folders(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).unwrap().flatten().filter(|e| e.path().is_dir());
    entries.map(|e| e.file_name().into_string().unwrap()).collect()
}

fn segments() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(testdata("segments-6.1.bpr")).unwrap().flatten();
    let mut all: Vec<PathBuf> = entries.map(|e| e.path()).collect();
    all.sort();
    all
}

/// A trace of another host, in which three threads wait for a CPU.
fn other_host(dir: &Dir) -> PathBuf {
    let mut b = Builder::with(Registry::default(), &[("host", "other"), ("sources", "sched")]);
    for tid in 1..4 {
        b.task(tid, tid, "w");
        b.wakeup(0, T0 + tid * S, tid).switch(0, T0 + tid * S + 5000, 0, 0, tid).switch(
            0,
            T0 + tid * S + 9000,
            tid,
            1,
            0,
        );
    }
    let path = dir.0.join("other.bpr");
    std::fs::write(&path, b.bytes()).unwrap();
    path
}

#[test]
fn duckdb_reads_the_tables_of_all_together() {
    let dir = Dir::new("all");
    let out = dir.0.join("out");
    let mut traces = vec![testdata("mixed-6.18.bpr"), testdata("memory-6.18.bpr"), other_host(&dir)];
    let text = ok(&analyze(&traces, &out, &[]));
    for name in ["mixed-6.18", "memory-6.18", "other"] {
        assert!(text.contains(&format!("== {name}\n")), "{text}");
    }
    assert!(text.ends_with("views.sql, of the tables of all 3\n"), "{text}");
    assert_eq!(folders(&out), ["memory-6.18", "mixed-6.18", "other"].map(String::from).into());
    let python = std::env::var_os("BPFREC_PYTHON").map_or_else(|| root().join("target/venv/bin/python"), PathBuf::from);
    let check = Command::new(&python).arg(root().join("tests/several_check.py")).arg(&out).output().unwrap();
    let (said, error) = (String::from_utf8_lossy(&check.stdout), String::from_utf8_lossy(&check.stderr));
    assert!(check.status.success() && said.ends_with("checks done\n"), "{said}{error}");

    // What was there is not replaced unasked; tables of a trace that is no more among them would be read with the others.
    traces.remove(1);
    let again = analyze(&traces, &out, &[]);
    assert!(again.status.code() == Some(1) && String::from_utf8_lossy(&again.stderr).contains("give --force"));
    ok(&analyze(&traces, &out, &["--force"]));
    assert_eq!(std::fs::read_dir(out.join("memory-6.18/parquet")).unwrap().count(), 0);
    assert!(std::fs::read_dir(out.join("other/parquet")).unwrap().count() > 5);
}

#[test]
fn segments_of_one_recording_are_one_trace() {
    let dir = Dir::new("segments");
    let (whole, files) = (dir.0.join("whole"), dir.0.join("files"));
    ok(&analyze(&[testdata("segments-6.1.bpr")], &whole, &[]));
    let mut given = segments();
    assert!(given.len() > 1);
    given.reverse();
    ok(&analyze(&given, &files, &[]));
    // One trace, and so one folder, as that of the directory.
    let read = |dir: &Path, name: &str| std::fs::read(dir.join(name)).unwrap();
    for name in ["report.txt", "parquet/block_io.parquet", "parquet/trace.parquet", "views.sql"] {
        assert!(read(&whole, name) == read(&files, name), "{name}");
    }
    given.push(testdata("burn-5.10.bpr"));
    let both = dir.0.join("both");
    ok(&analyze(&given, &both, &[]));
    assert_eq!(folders(&both), ["burn-5.10", "segments-6.1"].map(String::from).into());
    assert!(read(&whole, "report.txt") == read(&both.join("segments-6.1"), "report.txt"));
}

#[test]
fn nothing_is_analysed_twice_or_mixed_up() {
    let dir = Dir::new("twice");
    let burn = testdata("burn-5.10.bpr");
    let twice = analyze(&[burn.clone(), burn.clone()], &dir.0.join("twice"), &[]);
    let error = String::from_utf8(twice.stderr).unwrap();
    assert!(twice.status.code() == Some(1) && error.contains("are the same part of the same recording"), "{error}");
    assert!(!dir.0.join("twice").exists());
    // Files of the same name, from two hosts.
    let place = dir.0.join("elsewhere");
    std::fs::create_dir_all(&place).unwrap();
    let copy = place.join("burn-5.10.bpr");
    std::fs::copy(testdata("mixed-6.18.bpr"), &copy).unwrap();
    ok(&analyze(&[burn, copy], &dir.0.join("names"), &[]));
    let names = folders(&dir.0.join("names"));
    assert!(
        names.len() == 2 && names.iter().all(|name| name.starts_with("burn-5.10-") && name.len() == 26),
        "{names:?}"
    );
}
