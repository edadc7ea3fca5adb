//! What every report prints of the real traces in testdata, as text and as JSON, at one and at two threads. Expected
//! output is written anew by `BPFREC_UPDATE=1 cargo test --release -p bpfrec --test golden`.
#![cfg(feature = "analyze")]

use std::path::{Path, PathBuf};
use std::process::Command;

const TRACES: [&str; 6] =
    ["burn-5.10.bpr", "killed-6.18.bpr", "memory-6.18.bpr", "mixed-6.18.bpr", "null-blk-6.1.bpr", "segments-6.1.bpr"];

const REPORTS: [&str; 47] = [
    "summary",
    "runqlat",
    "runqlat -m",
    "runqlat -P",
    "runqlat -L --pid 1",
    "runqlat --pidnss",
    "runqlat --per-cgroup",
    "runqlat --from 200ms --to 400ms",
    "runqlat --cgroup /",
    "biolatency",
    "biolatency -m",
    "biolatency -Q",
    "biolatency -D",
    "biolatency -F",
    "biolatency -D -e",
    "biolatency --per-cgroup",
    "biolatency --per-process",
    "profile --top 5",
    "profile -U --top 3",
    "profile -K --top 3",
    "profile -f -U",
    "profile -f --from 100ms --to 300ms",
    "offcputime --top 5",
    "offcputime -f --state 1",
    "offcputime -P --top 3 --ended",
    "offcputime --per-cgroup --top 2 -m 1000 -M 5000000",
    "offcputime -K -u --top 3",
    "memleak -z 600 -T 8",
    "memleak -o 0 -T 3 --user",
    "memleak --newer 300 --sort count -T 3 --user",
    "memleak -z 24 -Z 24 -a --user",
    "memleak --combined-only --kernel -z 4000 -T 2",
    "memleak -P --user",
    "memleak --per-cgroup -T 2 --running --user",
    "memleak --user --from 500ms --to 1500ms",
    "wakeups --top 5",
    "wakeups -K --top 3",
    "wakeups -U --top 3 -d",
    "wakeups -f --from 200ms --to 900ms",
    "wakeups -f --from 100ms --to 200ms",
    "cpudist",
    "cpudist -m",
    "cpudist -P --from 200ms --to 400ms",
    "cpudist -O",
    "cpudist -O --per-cgroup",
    "cpudist -O -L --pid 1",
    "cpudist --pidnss --cgroup /",
];

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// Output and exit code of a report. Paths are given from testdata/v1 on, so that they are the same everywhere.
fn report(name: &str, trace: &str, json: bool, threads: &str) -> (String, i32) {
    let mut words = name.split(' ');
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfrec"));
    command.arg("report").arg(words.next().unwrap()).arg(trace).args(words);
    command.args(["--trace-only", "--threads", threads]).args(json.then_some("--json"));
    let output = command.current_dir(testdata().join("v1")).output().unwrap();
    let code = output.status.code().unwrap_or(-1);
    // A report whose source was not recorded says so; that too is expected.
    let text = if code == 1 { output.stderr } else { output.stdout };
    (String::from_utf8(text).unwrap(), code)
}

fn all(trace: &str, json: bool, threads: &str) -> String {
    let mut text = String::new();
    for name in REPORTS {
        let (output, code) = report(name, trace, json, threads);
        if json && code != 1 {
            serde_json::from_str::<serde_json::Value>(&output).unwrap_or_else(|e| panic!("{trace}: {name}: {e}"));
        }
        let flag = if json { " --json" } else { "" };
        text += &format!("$ bpfrec report {name}{flag} {trace}   # exit code {code}\n{}\n\n", output.trim_end());
    }
    text
}

fn compare(json: bool) {
    for trace in TRACES {
        let text = all(trace, json, "1");
        assert_eq!(text, all(trace, json, "2"), "{trace}: one and two threads differ");
        let name = format!("{}.{}", trace.trim_end_matches(".bpr"), if json { "json.txt" } else { "txt" });
        let path = testdata().join("expected").join(name);
        if std::env::var_os("BPFREC_UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for (line, (got, want)) in text.lines().zip(expected.lines()).enumerate() {
            assert_eq!(got, want, "{}:{}: BPFREC_UPDATE=1 writes it anew", path.display(), line + 1);
        }
        assert_eq!(text.lines().count(), expected.lines().count(), "{}", path.display());
    }
}

#[test]
fn reports_as_text() {
    compare(false);
}

#[test]
fn reports_as_json() {
    compare(true);
}
