//! `analyze` on the real traces of testdata: DuckDB reads every table, finds the same histograms as the reports, and
//! answers the questions of README and docs/cookbook.md; the notebook draws; one and two threads write the same bytes.
#![cfg(feature = "analyze")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const TRACES: [&str; 5] =
    ["burn-5.10.bpr", "killed-6.18.bpr", "mixed-6.18.bpr", "null-blk-6.1.bpr", "segments-6.1.bpr"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A directory that goes when the test is over.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn analyze(trace: &Path, threads: &str, name: &str) -> Dir {
    let file = trace.file_name().unwrap().to_string_lossy();
    let out = Dir(std::env::temp_dir().join(format!("bpfrec-{name}-{file}-{threads}-{}", std::process::id())));
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfrec"));
    command.arg("analyze").arg(trace).arg("-o").arg(&out.0).args(["--trace-only", "--threads", threads]);
    let output = command.output().unwrap();
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 3)), "{code:?}: {}", String::from_utf8_lossy(&output.stderr));
    out
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(contents(&path)),
            path => drop(files.insert(path.strip_prefix(dir).unwrap().into(), std::fs::read(&path).unwrap())),
        }
    }
    files
}

/// An interpreter with the package duckdb; `scripts/test` makes it.
fn python() -> PathBuf {
    std::env::var_os("BPFREC_PYTHON").map_or_else(|| root().join("target/venv/bin/python"), PathBuf::from)
}

#[test]
fn duckdb_agrees_with_the_reports() {
    let python = python();
    for name in TRACES {
        let trace = root().join("testdata/v1").join(name);
        let out = analyze(&trace, "2", "duckdb");
        let mut command = Command::new(&python);
        command.arg(root().join("tests/duckdb_check.py")).arg(&out.0).arg(env!("CARGO_BIN_EXE_bpfrec"));
        let output = command.arg(&trace).arg(root()).output();
        let output = output.unwrap_or_else(|e| panic!("{} with duckdb (scripts/deps test): {e}", python.display()));
        let text = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.ends_with("checks done\n"), "{name}:\n{text}{error}");
    }
}

#[test]
fn the_notebook_draws_what_the_tables_hold() {
    let pictures = Dir(std::env::temp_dir().join(format!("bpfrec-notebook-{}", std::process::id())));
    let has_matplotlib =
        Command::new(python()).args(["-c", "import matplotlib"]).output().is_ok_and(|o| o.status.success());
    if !has_matplotlib {
        let mut terminal = std::io::stderr();
        writeln!(terminal, "SKIPPED: notebook: no Python package matplotlib here").unwrap();
        return;
    }
    for name in TRACES {
        let out = analyze(&root().join("testdata/v1").join(name), "2", "notebook");
        let mut command = Command::new(python());
        command.arg(root().join("tests/notebook_check.py")).arg(root().join("docs/notebook.ipynb")).arg(&out.0);
        let output = command.arg(&pictures.0).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && output.stdout.ends_with(b" pictures\n"), "{name}: {error}");
    }
}

#[test]
fn one_and_two_threads_write_the_same_bytes() {
    for name in TRACES {
        let trace = root().join("testdata/v1").join(name);
        let (one, two) = (analyze(&trace, "1", "threads"), analyze(&trace, "2", "threads"));
        let (one, two) = (contents(&one.0), contents(&two.0));
        assert!(one.len() > 10, "{name}: {} files", one.len());
        assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>(), "{name}");
        for (file, bytes) in &one {
            assert!(bytes == &two[file], "{name}: {} differs", file.display());
        }
    }
}
