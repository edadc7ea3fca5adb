//! The commands that read files: info, verify, recover, replay; and the Python reader, which knows only SPEC.md.

#[path = "../format-spec/tests/common/mod.rs"]
mod builder;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use builder::{Random, TRACE_ID, long_segment, trace};
use serde_json::Value;

/// A directory that goes when the test is over.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("bpfrec-files-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The builder's trace as a directory of segments.
    fn trace(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        for (i, bytes) in trace(TRACE_ID).iter().enumerate() {
            fs::write(path.join(format!("seg-{i:06}.bpr")), bytes).unwrap();
        }
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bpfrec(args: &[&str], path: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfrec"));
    command.arg(args[0]).arg(path).args(&args[1..]).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit code and stdout.
fn run(args: &[&str], path: &Path) -> (i32, String) {
    let output = bpfrec(args, path);
    (output.status.code().unwrap(), text(&output.stdout))
}

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the Python reader prints. `scripts/test` makes an interpreter with the package zstandard.
fn python(path: &Path) -> Vec<Value> {
    let python = std::env::var_os("BPFREC_PYTHON").unwrap_or_else(|| "python3".into());
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/format-spec/tests/reader.py");
    let output = Command::new(python).arg(reader).arg(path).output().unwrap();
    let error = text(&output.stderr);
    assert!(output.status.success(), "is BPFREC_PYTHON a Python with zstandard? {error}");
    events(&text(&output.stdout))
}

fn agree(path: &Path, what: &str) -> usize {
    let (_, replay) = run(&["replay", "--json"], path);
    let (ours, theirs) = (events(&replay), python(path));
    assert_eq!(ours.len(), theirs.len(), "{what}: events");
    for (line, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(a, b, "{what}: line {line}");
    }
    ours.len()
}

#[test]
fn the_python_reader_agrees_event_by_event() {
    let dir = Dir::new("python");
    assert_eq!(agree(&dir.trace("whole"), "whole"), 3 * 43);
    let bytes = long_segment(TRACE_ID, 40, 30);
    assert!(agree(&dir.file("long.bpr", &bytes), "long") > 1000);
    // Without END both walk: an index may save a block whose header is damaged, a walk one that stands in a wrong place.
    const END: usize = 160;
    let (small, bytes) = (&trace(TRACE_ID)[0], &bytes[..bytes.len() - END]);
    let small = &small[..small.len() - END];
    let mut random = Random(7);
    for i in 0..12 {
        let mut bad = small.to_vec();
        bad[random.next(small.len() as u64) as usize] ^= 1 << (i % 8);
        agree(&dir.file("bad.bpr", &bad), "flipped");
        agree(&dir.file("bad.bpr", &small[..1500 + random.next(small.len() as u64 - 1500) as usize]), "cut");
        let mut bad = bytes.to_vec();
        let pages = bytes.len() as u64 / 4096;
        let (a, b) = (random.next(pages) as usize * 4096, random.next(pages) as usize * 4096);
        bad[a..a + 4096].copy_from_slice(&bytes[b..b + 4096]);
        bad[b..b + 4096].copy_from_slice(&bytes[a..a + 4096]);
        agree(&dir.file("bad.bpr", &bad), "swapped");
    }
}

#[test]
fn replay_is_in_order_and_can_be_narrowed() {
    let dir = Dir::new("replay");
    let path = dir.trace("t");
    let (code, all) = run(&["replay", "--json"], &path);
    assert_eq!(code, 0);
    let times: Vec<u64> = events(&all).iter().map(|e| e["ts_ns"].as_u64().unwrap()).collect();
    assert!(times.is_sorted());
    assert!(!all.contains(|c| matches!(c, '\u{0}'..='\u{9}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}')));
    let (_, some) = run(&["replay", "--json", "--kind", "sched_fork", "--from", "1ms", "--to", "1999us"], &path);
    let some = events(&some);
    assert_eq!(some.len(), 3);
    assert!(some.iter().all(|e| e["kind"] == "sched_fork"));
    let (_, lines) = run(&["replay"], &path);
    assert_eq!(lines.lines().count(), times.len());
    assert!(!lines.contains('\u{1b}') && !lines.contains('\u{7f}'));
    let switch = lines.lines().find(|l| l.contains("cpu_sample")).unwrap();
    assert!(switch.starts_with("0.00000") && switch.contains(" kernel_stack_id=0x"), "{switch}");
    let wrong = bpfrec(&["replay", "--kind", "nonsense"], &path);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("no kind is called nonsense: there are sched_fork"));
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let dir = Dir::new("pipe");
    let path = dir.file("t.bpr", &long_segment(TRACE_ID, 200, 200));
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfrec"));
    let mut child = command.arg("replay").arg(path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn info_tells_what_is_there() {
    let dir = Dir::new("info");
    let path = dir.trace("t");
    let (code, json) = run(&["info", "--json"], &path);
    let info: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(code, 0);
    assert_eq!((&info["format"], &info["complete"], &info["ended"]), (&"1.0".into(), &true.into(), &"exit".into()));
    assert_eq!((&info["events"], &info["lost"]), (&(3 * 37).into(), &(3 * 41).into()));
    assert_eq!((&info["stacks"], &info["not_understood_rows"]), (&3.into(), &(3 * (3 + 4)).into()));
    let names: Vec<_> = info["sources"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["sched", "block", "profile", "task"]);
    assert_eq!(info["sources"][0]["lost"], 3 * 41);
    let size = fs::read_dir(&path).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum::<u64>();
    assert_eq!(info["bytes"], size);
    assert!(info["recorder"]["cpu_ns"].is_u64() && info["duration_ns"].as_u64().unwrap() > 2_000_000);
    let (_, words) = run(&["info"], &path);
    assert!(words.contains("ended              exit (complete)") && words.contains("ring full"), "{words}");
}

#[test]
fn verify_names_place_and_problem() {
    let dir = Dir::new("verify");
    let (code, words) = run(&["verify"], &dir.trace("t"));
    assert_eq!(code, 0, "{words}");
    assert!(
        words.contains("whole") && words.contains("note: block type 0x7e with 2 rows is not understood"),
        "{words}"
    );
    let bytes = long_segment(TRACE_ID, 60, 20);
    assert_eq!(run(&["verify"], &dir.file("long.bpr", &bytes)).0, 0);

    let mut bad = bytes.clone();
    bad[bytes.len() / 2] ^= 4;
    let (code, words) = run(&["verify"], &dir.file("bad.bpr", &bad));
    assert_eq!(code, 3);
    assert!(words.contains("bad.bpr: offset ") && words.contains("bpfrec recover"), "{words}");
    let (code, words) = run(&["verify"], &dir.file("cut.bpr", &bytes[..bytes.len() - 10]));
    assert_eq!(code, 3);
    assert!(words.contains("has no END"), "{words}");

    let path = dir.trace("hole");
    fs::remove_file(path.join("seg-000001.bpr")).unwrap();
    let (code, words) = run(&["verify"], &path);
    assert_eq!(code, 3);
    assert!(words.contains("a segment is missing"), "{words}");
    fs::remove_file(path.join("seg-000002.bpr")).unwrap();
    assert!(run(&["verify"], &path).1.contains("the recording went on in a segment that is not here"));
}

#[test]
fn errors_name_the_file() {
    let dir = Dir::new("errors");
    let script = dir.file("script", b"#!/bin/sh\n");
    for command in ["info", "verify", "replay"] {
        let output = bpfrec(&[command], &script);
        assert_eq!(output.status.code(), Some(1));
        let error = text(&output.stderr);
        assert!(error.contains("script: not a .bpr trace") && error.lines().count() == 1, "{error}");
    }
    let output = bpfrec(&["info"], &dir.0.join("absent.bpr"));
    assert!(text(&output.stderr).contains("absent.bpr: No such file"), "{}", text(&output.stderr));
}

#[test]
fn recover_makes_a_whole_trace() {
    let dir = Dir::new("recover");
    let bytes = long_segment(TRACE_ID, 60, 20);
    let new = dir.0.join("new.bpr");
    let to = new.to_str().unwrap();

    let (code, words) = run(&["recover", "-o", to], &dir.file("whole.bpr", &bytes));
    assert_eq!(code, 0, "{words}");
    assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(run(&["verify"], &new).0, 0);
    assert_eq!(run(&["replay"], &new), run(&["replay"], &dir.0.join("whole.bpr")));

    let mut bad = bytes.clone();
    bad[bytes.len() / 2] ^= 4;
    let bad = dir.file("bad.bpr", &bad);
    let refused = bpfrec(&["recover", "-o", to], &bad);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("new.bpr exists"));
    let (code, words) = run(&["recover", "-o", to, "--force"], &bad);
    assert_eq!(code, 3);
    assert!(words.contains("lost 1 EVENTS blocks with "), "{words}");
    assert_eq!(run(&["verify"], &new).0, 0);
    let (_, json) = run(&["info", "--json"], &new);
    let info: Value = serde_json::from_str(&json).unwrap();
    assert!(info["lost"].as_u64().unwrap() > 0 && info["complete"] == false, "{json}");

    assert_eq!(bpfrec(&["recover", "-o", to, "--force"], &dir.file("none.bpr", b"nothing")).status.code(), Some(1));
    assert_eq!(bpfrec(&["recover", "-o", to, "--force"], &new).status.code(), Some(1), "onto itself");
    assert_eq!(run(&["verify"], &new).0, 0, "the old file is still there");
}

#[cfg(feature = "analyze")]
#[test]
fn a_report_replaces_a_file_only_by_force() {
    let dir = Dir::new("report");
    let (trace, page) = (dir.trace("trace"), dir.file("mine.html", b"mine"));
    for (args, file) in [(&["report", "html", "-o"][..], &page), (&["report", "profile", "--svg"], &page)] {
        let of = |more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_bpfrec"));
            let output = command.args(args).arg(file).args(more).arg(&trace).output().unwrap();
            (output.status.code(), text(&output.stderr))
        };
        let (code, error) = of(&[]);
        assert_eq!(code, Some(1), "{error}");
        assert!(error.contains("mine.html exists") && error.contains("--force"), "{error}");
        assert_eq!(fs::read(file).unwrap(), b"mine");
        let (_, error) = of(&["--force"]);
        assert_ne!(fs::read(file).unwrap(), b"mine", "{error}");
        fs::write(file, b"mine").unwrap();
    }
}

#[test]
fn recover_of_a_directory() {
    let dir = Dir::new("recover-dir");
    let path = dir.trace("old");
    let last = path.join("seg-000002.bpr");
    let cut = fs::read(&last).unwrap();
    fs::write(path.join("seg-000002.bpr.part"), &cut[..cut.len() - 500]).unwrap();
    fs::remove_file(last).unwrap();
    let new = dir.0.join("new");
    let (code, words) = run(&["recover", "-o", new.to_str().unwrap()], &path);
    assert_eq!(code, 3, "{words}");
    let (code, words) = run(&["verify"], &new);
    assert_eq!(code, 0, "{words}");
    assert!(new.join("seg-000002.bpr").exists());
    assert_eq!(run(&["replay", "--json"], &new).1, run(&["replay", "--json"], &path).1);
    assert_eq!(bpfrec(&["recover", "-o", new.to_str().unwrap()], &path).status.code(), Some(1));
    assert_eq!(run(&["recover", "--force", "-o", new.to_str().unwrap()], &path).0, 3);
}

#[test]
fn a_directory_takes_each_segment_once_and_no_foreign_one() {
    let dir = Dir::new("directory");
    let path = dir.trace("t");
    let whole = run(&["replay"], &path);
    let finished = fs::read(path.join("seg-000001.bpr")).unwrap();
    fs::write(path.join("seg-000001.bpr.part"), &finished[..finished.len() / 2]).unwrap();
    fs::write(path.join("seg-000009.bpr"), &trace(1)[2]).unwrap();
    let (code, lines) = run(&["replay"], &path);
    assert_eq!((code, lines), (3, whole.1));
    let (code, words) = run(&["verify"], &path);
    assert_eq!(code, 3);
    assert!(words.contains("segment 1 stands here a second time"), "{words}");
    assert!(words.contains("seg-000009.bpr") && words.contains("belongs to another trace"), "{words}");
}
