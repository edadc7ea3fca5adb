//! `bpfrec diff` on the real traces of testdata, and its page in a real browser.
#![cfg(feature = "analyze")]

#[path = "../analyze/tests/common/mod.rs"]
mod traces;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use traces::{Builder, T0};

const MIXED: &str = "mixed-6.18.bpr";
const BURN: &str = "burn-5.10.bpr";

/// A folder that goes when the test is over.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("bpfrec-diff-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1")
}

fn diff(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfrec"));
    command.arg("diff").args(args).arg("--trace-only").current_dir(testdata()).output().unwrap()
}

fn text(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&text(&diff(&[args, &["--json"]].concat()))).unwrap()
}

#[test]
fn a_recording_does_not_differ_from_itself() {
    for trace in [MIXED, BURN, "memory-6.18.bpr", "segments-6.1.bpr"] {
        let json = json(&[trace, trace]);
        assert_eq!(json["changes"].as_array().map(Vec::len), Some(0), "{trace}");
        let tables = json["tables"].as_array().unwrap();
        let changed = |t: &&Value| !t["rows"].as_array().unwrap().is_empty();
        assert!(!tables.is_empty() && tables.iter().find(changed).is_none(), "{trace}: {tables:?}");
    }
}

#[test]
fn recordings_of_different_loads_do() {
    let json = json(&[MIXED, BURN, "--by", "samples"]);
    let rows = |what: &str, by: &str| {
        let mut tables = json["tables"].as_array().unwrap().iter();
        tables.find(|t| t["what"] == what && t["by"] == by).unwrap()["rows"].as_array().unwrap().clone()
    };
    let io = rows("CPU time", "cgroup").into_iter().find(|row| row["name"] == "/io").unwrap();
    assert_eq!((&io["status"], &io["verdict"]), (&"gone".into(), &"more than noise".into()));
    let burn = &rows("CPU samples", "stack")[0];
    assert!(burn["name"].as_str().unwrap().starts_with("burn: ") && burn["percent"].as_f64() > Some(100.0), "{burn}");
    let notes = json["notes"].to_string();
    assert!(notes.contains("`block` was recorded only before: not compared"), "{notes}");
    assert!(notes.contains("sampled 199 times a second before, 99 after"), "{notes}");
}

/// Written anew by `BPFREC_UPDATE=1 cargo test -p bpfrec --test diff`.
#[test]
fn text_of_two_recordings() {
    let path = testdata().join("../expected/diff.txt");
    let text = ["time", "samples"].map(|by| {
        let args = [MIXED, BURN, "--by", by, "--top", "5"];
        format!("$ bpfrec diff {}\n{}", args.join(" "), text(&diff(&args)))
    });
    let text = text.join("\n");
    if std::env::var_os("BPFREC_UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for (line, (got, want)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(got, want, "{}:{}: BPFREC_UPDATE=1 writes it anew", path.display(), line + 1);
    }
    assert_eq!(text.lines().count(), expected.lines().count());
}

#[test]
fn threads_change_nothing() {
    for more in [&["--json"][..], &["--by", "samples", "--top", "3"]] {
        let by = |threads| text(&diff(&[&[MIXED, BURN, "--threads", threads], more].concat()));
        assert_eq!(by("1"), by("2"));
    }
}

#[test]
fn filters_hold_for_both_sides() {
    let part = json(&[MIXED, MIXED, "--from", "1s", "--to", "2500ms", "--cgroup", "/io"]);
    for side in ["before", "after"] {
        assert_eq!(part[side]["duration_ns"], 1_500_000_000u64);
    }
    let mut report = Command::new(env!("CARGO_BIN_EXE_bpfrec"));
    report.args(["report", "runqlat", MIXED, "--from", "1s", "--to", "2500ms", "--cgroup", "/io", "--json"]);
    let report: Value = serde_json::from_slice(&report.current_dir(testdata()).output().unwrap().stdout).unwrap();
    let (found, expected) = (&part["latencies"][0]["counts"]["after"], &report["groups"][0]["count"]);
    assert!(found == expected && expected.as_u64() > Some(100), "{found} {expected}");
    let error = diff(&[MIXED, BURN, "--cgroup", "/io"]);
    let error = (error.status.code(), String::from_utf8(error.stderr).unwrap());
    assert!(
        error.0 == Some(1) && error.1.starts_with("bpfrec: burn-5.10.bpr: no cgroup `/io` in the trace"),
        "{error:?}"
    );
}

#[test]
fn what_is_missing_is_said() {
    let dir = Dir::new("missing");
    let svg = dir.0.join("x.svg");
    let output = diff(&[MIXED, BURN, "--offcpu-svg", svg.to_str().unwrap()]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && !svg.exists(), "{error}");
    assert!(error.contains("not both traces have `offcpu`: record with -e offcpu"), "{error}");
    // The recorder was killed: what it had written says so.
    let output = diff(&[MIXED, "killed-6.18.bpr"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("# after: damaged: 1 segments without an end"));
}

/// Chromium; without it says that `test` is left out.
fn chromium(test: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut names = std::env::split_paths(&paths).flat_map(|dir| ["chromium", "chromium-browser"].map(|n| dir.join(n)));
    let found = names.find(|path| path.is_file());
    if found.is_none() {
        let mut terminal = std::io::stderr();
        writeln!(terminal, "SKIPPED: {test}: no chromium: scripts/deps test").unwrap();
    }
    found
}

/// What a page becomes when its script has run.
fn drawn(chromium: &Path, dir: &Dir, page: &Path) -> String {
    let mut command = Command::new(chromium);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", dir.0.join("profile").display())).arg("--virtual-time-budget=10000");
    let output = command.arg(format!("file://{}", page.display())).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_page_draws_itself() {
    let Some(chromium) = chromium("the_page_draws_itself") else { return };
    let dir = Dir::new("page");
    let (page, svg) = (dir.0.join("diff.html"), dir.0.join("diff.svg"));
    text(&diff(&[MIXED, BURN, "--html", page.to_str().unwrap(), "--svg", svg.to_str().unwrap()]));
    let dom = drawn(&chromium, &dir, &page);
    assert!(dom.contains("data-ready=\"yes\"") && dom.contains("mixed-6.18.bpr → burn-5.10.bpr</h1>"), "{dom}");
    for title in ["Run-queue latency", "CPU samples", "CPU time by cgroup", "CPU samples by stack"] {
        assert!(dom.contains(&format!("<h2>{title}</h2>")), "{title}: {dom}");
    }
    assert!(dom.contains("<canvas") && dom.contains("gone") && dom.contains("more than noise (p "), "{dom}");
    let svg = std::fs::read_to_string(&svg).unwrap();
    assert!(svg.contains("CPU samples: mixed-6.18.bpr to burn-5.10.bpr") && svg.contains("burn ("));
}

#[test]
fn names_of_the_host_are_text_in_the_page() {
    let Some(chromium) = chromium("names_of_the_host_are_text_in_the_page") else { return };
    let dir = Dir::new("hostile");
    let evil = "<img src=x onerror=\"document.title='hacked'\">";
    let mut b = Builder::new();
    b.task(1, 1, evil).task(2, 2, "</script><script>document.title='hacked'</script>");
    for i in 0..3000u64 {
        let (ts, tid) = (T0 + i * 1_000_000, 1 + i % 2);
        b.wakeup(0, ts, tid).switch(0, ts + 5000 + i, 0, 0, tid).switch(0, ts + 90_000, tid, 1, 0);
        b.event(0, "cpu_sample", ts + 9_000, &[("tid", tid), ("pid", tid), ("cgroup_id", 9)]);
    }
    let (trace, page) = (dir.0.join("</h1><b>.bpr".replace('/', "_")), dir.0.join("diff.html"));
    std::fs::write(&trace, b.bytes()).unwrap();
    let trace = trace.to_str().unwrap();
    text(&diff(&[trace, trace, "--html", page.to_str().unwrap()]));
    let dom = drawn(&chromium, &dir, &page);
    assert!(dom.contains("data-ready=\"yes\""), "{dom}");
    assert!(!dom.contains("<img") && !dom.contains("<title>hacked") && !dom.contains("<b>.bpr"), "{dom}");
    assert!(dom.contains("<title>bpfrec diff: "), "{dom}");
}
