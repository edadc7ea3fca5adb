//! `bpfrec export` on the real traces of testdata and on one with hostile names: readers of others find what the reports tell
//! (`export_check.py`). Files are the owner's alone and never written over another.
#![cfg(all(target_os = "linux", feature = "analyze"))]

#[path = "../analyze/tests/common/mod.rs"]
mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bpfrec_format::Registry;
use common::{Builder, S, T0, V, loss};

const FORMATS: [&str; 7] = ["perfetto", "pprof", "speedscope", "firefox", "folded", "chrome", "csv"];
/// Formats that need stacks refuse the last two.
const TRACES: [&str; 4] = ["burn-5.10.bpr", "memory-6.18.bpr", "null-blk-6.1.bpr", "killed-6.18.bpr"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A directory that goes when the test is over.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("bpfrec-export-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn export(format: &str, trace: &Path, file: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfrec"));
    command.args(["export", format]).arg(trace).arg("-o").arg(file).arg("--trace-only").args(options);
    command.output().unwrap()
}

/// An interpreter with what the check needs; `scripts/test` makes it.
fn python() -> PathBuf {
    std::env::var_os("BPFREC_PYTHON").map_or_else(|| root().join("target/venv/bin/python"), PathBuf::from)
}

/// Lets the readers of others compare a file with the reports.
fn check(format: &str, trace: &Path, file: &Path, options: &[&str]) {
    let node = std::env::var_os("BPFREC_NODE_MODULES");
    let node = node.map_or_else(|| root().join("target/node/node_modules"), PathBuf::from);
    let mut command = Command::new(python());
    command
        .arg(root().join("tests/export_check.py"))
        .arg(env!("CARGO_BIN_EXE_bpfrec"))
        .arg(trace)
        .arg(format)
        .arg(file);
    let output = command.arg(node).args(options).output();
    let output = output.unwrap_or_else(|e| panic!("{} (scripts/deps test): {e}", python().display()));
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let whole = output.status.success() && text.ends_with("checks done\n");
    assert!(whole, "{format} of {} {options:?}:\n{text}{error}", trace.display());
    let mut terminal = std::io::stderr();
    text.lines().filter(|line| line.starts_with("SKIPPED: ")).for_each(|line| writeln!(terminal, "{line}").unwrap());
}

fn export_and_check(format: &str, trace: &Path, dir: &Dir, options: &[&str]) {
    let file = dir.0.join(format!("{}.{format}", trace.file_name().unwrap().to_string_lossy()));
    let output = export(format, trace, &file, &[options, &["--force"]].concat());
    let (code, error) = (output.status.code(), String::from_utf8_lossy(&output.stderr));
    assert!(matches!(code, Some(0 | 3)), "{format} {options:?}: {code:?}: {error}");
    assert_eq!(code == Some(3), error.contains("# lost: ") || error.contains("# damaged: "), "{format}: {error}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{format}");
    check(format, trace, &file, options);
}

fn possible(format: &str, trace: &str) -> bool {
    let has_stacks = !trace.starts_with("null-blk") && !trace.starts_with("killed");
    has_stacks || !matches!(format, "pprof" | "folded" | "speedscope")
}

fn of_testdata(format: &str) {
    let dir = Dir::new(format);
    for name in TRACES.into_iter().filter(|name| possible(format, name)) {
        export_and_check(format, &root().join("testdata/v1").join(name), &dir, &[]);
    }
    let burn = root().join("testdata/v1/burn-5.10.bpr");
    export_and_check(format, &burn, &dir, &["--from", "2s", "--to", "3s"]);
    export_and_check(format, &burn, &dir, &["--cgroup", "/"]);
}

#[test]
fn perfetto_agrees_with_the_reports() {
    of_testdata("perfetto");
}

#[test]
fn pprof_agrees_with_the_reports() {
    of_testdata("pprof");
}

#[test]
fn speedscope_agrees_with_the_reports() {
    of_testdata("speedscope");
}

#[test]
fn firefox_agrees_with_the_reports() {
    of_testdata("firefox");
}

#[test]
fn chrome_agrees_with_the_reports() {
    of_testdata("chrome");
}

#[test]
fn csv_agrees_with_the_reports() {
    of_testdata("csv");
}

#[test]
fn folded_agrees_with_the_reports() {
    let dir = Dir::new("folded");
    let path = |name: &str| root().join("testdata/v1").join(name);
    for (trace, weights) in [("burn-5.10.bpr", &["cpu"][..]), ("memory-6.18.bpr", &["offcpu", "live", "allocated"])] {
        for weight in weights {
            export_and_check("folded", &path(trace), &dir, &["--of", weight]);
        }
    }
    // Line by line what `report profile -f` prints.
    let file = dir.0.join("mixed.folded");
    assert!(export("folded", &path("mixed-6.18.bpr"), &file, &[]).status.success());
    let mut report = Command::new(env!("CARGO_BIN_EXE_bpfrec"));
    report.args(["report", "profile", "-f", "--trace-only"]).arg(path("mixed-6.18.bpr"));
    assert_eq!(fs::read(&file).unwrap(), report.output().unwrap().stdout);
}

/// Names that break what is not escaped.
const HOSTILE: [&str; 6] =
    ["a\"b\\c", "x\ny\tz", "<script>alert(1)</script>", "=1+1,\"q\"", "\u{202e}\u{feff}né;\u{1}", "';--\r\n"];

/// A trace of all kinds of things, by threads with hostile names, with a loss and a process whose pid is used again.
fn hostile(path: &Path) {
    let mut b = Builder::with(
        Registry::default(),
        &[("sources", "sched,block,profile"), ("host", HOSTILE[0]), ("disk.8:0", HOSTILE[2])],
    );
    for (tid, name) in (100..).zip(HOSTILE) {
        b.task(tid, 100 + tid % 2, name);
        b.row("cgroup", &[("ts_ns", V::N(T0)), ("cgroup_id", V::N(tid * 10)), ("path", V::T(&format!("/{name}")))]);
    }
    for (addr, name) in (0x1000..).step_by(0x100).zip(HOSTILE) {
        b.row("kernel_symbol", &[("addr", V::N(addr)), ("type", V::N(b't'.into())), ("name", V::T(name))]);
    }
    let frames: Vec<u64> = (0..HOSTILE.len() as u64).map(|i| 0x1004 + i * 0x100).collect();
    b.row("stack", &[("ts_ns", V::N(T0)), ("stack_id", V::N(7)), ("frames", V::L(&frames))]);
    let mut ts = T0 + S / 100;
    for round in 0..40 {
        for tid in 100..106 {
            ts += 1_000_003;
            b.event(
                0,
                "sched_wakeup",
                ts,
                &[("tid", tid), ("pid", 100 + tid % 2), ("waker_tid", 100 + round % 6), ("cgroup_id", tid * 10)],
            );
            ts += 70_001;
            let next = [("next_tid", tid), ("next_pid", 100 + tid % 2), ("next_cgroup_id", tid * 10)];
            b.event(0, "sched_switch", ts, &next);
            let sample = [
                ("tid", tid),
                ("pid", 100 + tid % 2),
                ("kernel_stack_id", if round % 5 == 0 { 8 } else { 7 }),
                ("cgroup_id", tid * 10),
            ];
            b.event(0, "cpu_sample", ts + 5, &sample);
            ts += 300_007;
            let prev =
                [("prev_tid", tid), ("prev_pid", 100 + tid % 2), ("prev_state", 1), ("prev_cgroup_id", tid * 10)];
            b.event(0, "sched_switch", ts, &prev);
        }
        // Three requests at once.
        let who = [("tid", 101), ("pid", 101), ("cgroup_id", 1010)];
        for i in 0..3 {
            b.block("block_issue", ts + i * 10, 9 + i, &who);
            b.block("block_complete", ts + 2000 - i * 10, 9 + i, &[]);
        }
    }
    loss(&mut b, bpfrec_format::Source::Sched, ts + S, ts + 2 * S, 42);
    loss(&mut b, bpfrec_format::Source::Profile, ts + S, ts + 2 * S, 7);
    b.event(1, "cpu_sample", ts + 3 * S, &[("tid", 100), ("pid", 100), ("kernel_stack_id", 7), ("cgroup_id", 1000)]);
    fs::write(path, b.bytes()).unwrap();
}

#[test]
fn hostile_names_and_losses_come_through() {
    let dir = Dir::new("hostile");
    let trace = dir.0.join("hostile.bpr");
    hostile(&trace);
    for format in FORMATS {
        let file = dir.0.join(format);
        let output = export(format, &trace, &file, &[]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && error.contains("profile 7)"), "{format}: {error}");
        check(format, &trace, &file, &[]);
        export_and_check(format, &trace, &dir, &["--pid", "101"]);
        export_and_check(format, &trace, &dir, &["--from", "100ms", "--to", "150ms"]);
        // A loss of a source is one of what is made of it.
        assert_eq!(
            error.contains("(sched 42, "),
            !matches!(format, "pprof" | "folded" | "speedscope"),
            "{format}: {error}"
        );
    }
    let text = |format: &str| fs::read_to_string(dir.0.join(format)).unwrap();
    for format in ["chrome", "firefox"] {
        let json: serde_json::Value = serde_json::from_str(&text(format)).unwrap();
        let all = json.to_string();
        for name in HOSTILE {
            let as_json = serde_json::Value::from(name).to_string();
            assert!(all.contains(&as_json), "{format}: {name:?}");
        }
        assert!(all.contains("\"lost: sched\"") && all.contains("\"events\":42"), "{format}");
    }
    let json: serde_json::Value = serde_json::from_str(&text("speedscope")).unwrap();
    let frames = json["shared"]["frames"].as_array().unwrap();
    assert!(HOSTILE.iter().all(|name| frames.iter().any(|f| f["name"] == *name)), "{frames:?}");
    assert!(text("csv").lines().any(|line| line.starts_with("lost,") && line.ends_with(",sched,ring full,42,,")));
    // Bytes of names stand in the protobufs as they are.
    let perfetto = fs::read(dir.0.join("perfetto")).unwrap();
    let holds = |bytes: &[u8], name: &str| bytes.windows(name.len()).any(|w| w == name.as_bytes());
    assert!(HOSTILE.iter().all(|name| holds(&perfetto, name)) && holds(&perfetto, "lost: sched"));
}

#[test]
fn output_is_safe() {
    let dir = Dir::new("output");
    let trace = root().join("testdata/v1/burn-5.10.bpr");
    let file = dir.0.join("x");
    fs::write(&file, b"mine").unwrap();
    let output = export("csv", &trace, &file, &[]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("--force"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    assert!(export("csv", &trace, &file, &["--force"]).status.success());
    // To stdout the same bytes; what one thread writes is what two write.
    let stdout = export("csv", &trace, Path::new("-"), &["--threads", "1"]);
    assert!(stdout.status.success() && stdout.stdout == fs::read(&file).unwrap());
    for format in FORMATS {
        let of = |threads| export(format, &trace, Path::new("-"), &["--threads", threads]).stdout;
        assert!(of("1") == of("2"), "{format}: one and two threads differ");
    }
    let output = export("csv", &trace, &trace, &["--force"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("is the trace itself"), "{error}");
    let none = dir.0.join("none");
    let output = export("pprof", &root().join("testdata/v1/null-blk-6.1.bpr"), &none, &[]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("record it with") && !none.exists(), "{error}");
    let output = export("folded", &trace, &none, &["--of", "live"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("-e malloc"), "{error}");
}
