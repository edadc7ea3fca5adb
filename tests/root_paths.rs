//! Needs root: where an output may be, where not, and who else is there.
#![cfg(all(feature = "record", target_os = "linux"))]

mod common;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bpfrec_format::Trace;
use common::diary::{Diary, missing};
use common::*;

fn record(path: &Path, options: &[&str]) -> Output {
    Command::new(BPFREC)
        .args(["record", "-q", "-e", "sched", "-d", "1s", "-o"])
        .arg(path)
        .args(options)
        .output()
        .unwrap()
}

fn assert_refused(path: &Path, options: &[&str], word: &str) {
    let output = record(path, options);
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{}: {err}", path.display());
    assert!(err.trim_end().lines().count() == 1 && err.contains(word), "{}: {err}", path.display());
}

fn assert_whole(path: &Path, output: &Output) {
    let (_, err) = texts(output);
    assert_eq!(output.status.code(), Some(0), "{}: {err}", path.display());
    bpfrec_ok(&["verify", path.to_str().unwrap()]);
    assert!(info(path)["complete"] == true, "{}", path.display());
}

#[test]
fn root_two_recorders_at_once_record_the_same() {
    let Some(_alone) = alone_as_root("two recorders") else { return };
    let scratch = Scratch::new();
    let diary = Diary::start(&scratch.path("diary"), 2, 60);
    let traces = [scratch.path("a.bpr"), scratch.path("b.bpr")];
    let mut recordings = traces.each_ref().map(|trace| Recording::start(trace, &["-e", "sched,offcpu,profile"]));
    std::thread::sleep(Duration::from_secs(3));
    let until = monotonic_ns();
    for (recording, trace) in recordings.iter_mut().zip(&traces) {
        assert_eq!(recording.stop(), Some(0));
        bpfrec_ok(&["verify", trace.to_str().unwrap()]);
        let trace = Trace::open(trace).unwrap();
        let from = trace.segments[0].1.item("start_mono_ns").unwrap().parse().unwrap();
        let (all, missing) = missing(&diary.sleeps(), &trace, (from, until));
        assert!(all > 500 && missing.is_empty(), "{} of {all} sleeps are missing", missing.len());
    }
}

#[test]
fn root_a_recording_is_never_written_over_by_another() {
    let Some(_alone) = alone_as_root("the same output") else { return };
    let scratch = Scratch::new();
    let (trace, segments) = (scratch.path("t.bpr"), scratch.path("segments"));
    let mut file = Recording::start(&trace, &["-e", "sched"]);
    let mut directory = Recording::start(&segments, &["-e", "sched", "--rotate-size", "64M"]);
    wait_until("the segment has begun", Duration::from_secs(20), || segments.join("seg-000000.bpr.part").exists());
    std::thread::sleep(Duration::from_secs(1));
    assert_refused(&trace, &[], "--force");
    assert_refused(&trace, &["--force"], "another recording");
    for options in [&["--rotate-size", "64M"][..], &["--rotate-size", "64M", "--force"]] {
        assert_refused(&segments, options, "another recording");
    }
    for (recording, path) in [(&mut file, &trace), (&mut directory, &segments)] {
        assert_eq!(recording.stop(), Some(0));
        bpfrec_ok(&["verify", path.to_str().unwrap()]);
        assert!(info(path)["duration_ns"].as_u64().unwrap() > 1_000_000_000, "{}", info(path));
        // It is over, and may go.
        let options: &[&str] = if path.is_dir() { &["--force", "--rotate-size", "64M"] } else { &["--force"] };
        assert_whole(path, &record(path, options));
    }
}

#[test]
fn root_symbolic_links_are_replaced_and_never_followed() {
    let Some(_alone) = alone_as_root("symbolic links") else { return };
    let scratch = Scratch::new();
    let (precious, link, nowhere) = (scratch.path("precious"), scratch.path("link"), scratch.path("nowhere"));
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, &link).unwrap();
    symlink(scratch.path("none"), &nowhere).unwrap();
    for link in [&link, &nowhere] {
        assert_refused(link, &[], "--force");
        assert!(fs::symlink_metadata(link).unwrap().is_symlink());
        assert_whole(link, &record(link, &["--force"]));
        assert!(fs::symlink_metadata(link).unwrap().is_file());
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert!(!scratch.path("none").exists());
    // On the way to a file a link is nothing special.
    fs::create_dir(scratch.path("folder")).unwrap();
    symlink(scratch.path("folder"), scratch.path("way")).unwrap();
    assert_whole(&scratch.path("folder/t.bpr"), &record(&scratch.path("way/t.bpr"), &[]));
}

#[test]
fn root_what_is_no_file_is_left_as_it_is() {
    let Some(_alone) = alone_as_root("devices and pipes") else { return };
    let scratch = Scratch::new();
    let fifo = scratch.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for options in [&[][..], &["--force"]] {
        assert_refused(&fifo, options, "pipe");
        assert_refused(Path::new("/dev/full"), options, "device");
        assert_refused(&scratch.path(""), options, "directory");
    }
    assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata("/dev/full").unwrap().file_type().is_char_device());
    // As the error says.
    let script = "\"$0\" record -q -e sched -d 1s -o - >\"$1\"";
    let mut child = Command::new("sh").args(["-c", script, BPFREC]).arg(&fifo).spawn().unwrap();
    let mut bytes = Vec::new();
    fs::File::open(&fifo).unwrap().read_to_end(&mut bytes).unwrap();
    assert!(child.wait().unwrap().success());
    fs::write(scratch.path("t.bpr"), &bytes).unwrap();
    bpfrec_ok(&["verify", scratch.path("t.bpr").to_str().unwrap()]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(BPFREC);
    let output =
        command.args(["record", "-q", "-e", "sched", "-d", "1s", "-o", "-"]).stdout(Stdio::from(full)).output();
    let (_, err) = texts(&output.unwrap());
    assert!(err.contains("No space") && err.trim_end().lines().count() == 1, "{err}");
}

/// A file system, unmounted with its owner.
struct Mount(std::path::PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// ramfs reserves no space, overlay opens files through another file system.
#[test]
fn root_plain_file_systems_are_enough() {
    let Some(_alone) = alone_as_root("other file systems") else { return };
    let scratch = Scratch::new();
    let (lower, upper) = (scratch.path("lower"), Tmpfs::mount(scratch.path("upper"), "size=64m"));
    fs::create_dir(&lower).unwrap();
    for folder in ["up", "work"] {
        fs::create_dir(upper.0.join(folder)).unwrap();
    }
    let (up, work) = (upper.0.join("up"), upper.0.join("work"));
    let overlay = format!("lowerdir={},upperdir={},workdir={}", lower.display(), up.display(), work.display());
    for (kind, options) in [("ramfs", "rw"), ("overlay", overlay.as_str())] {
        let at = scratch.path(kind);
        fs::create_dir(&at).unwrap();
        let status = Command::new("mount").args(["-t", kind, "-o", options, kind]).arg(&at).status().unwrap();
        if !status.success() {
            skip(&format!("root_plain_file_systems_are_enough on {kind}"), "it cannot be mounted here");
            continue;
        }
        let mount = Mount(at);
        let trace = mount.0.join("t.bpr");
        assert_whole(&trace, &record(&trace, &[]));
        let segments = mount.0.join("segments");
        bpfrec_ok(&[
            "record",
            "-q",
            "-e",
            "sched",
            "-d",
            "2s",
            "--rotate-time",
            "500ms",
            "-o",
            segments.to_str().unwrap(),
        ]);
        bpfrec_ok(&["verify", segments.to_str().unwrap()]);
        assert!(fs::read_dir(&segments).unwrap().count() > 1);
    }
}

/// A limit on the size of files ends the recording as a full disk does, and no signal ends the recorder.
#[test]
fn root_a_limit_on_files_is_a_full_disk() {
    let Some(_alone) = alone_as_root("ulimit -f") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let _load = MixedLoad::start(&scratch, 60);
    let script = "ulimit -f 4096; exec \"$0\" record -q -d 50s -e sched,offcpu -o \"$1\"";
    let output = Command::new("sh").args(["-c", script, BPFREC]).arg(&trace).output().unwrap();
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(4), "{err}");
    assert!(fs::metadata(&trace).unwrap().len() <= 4096 * 1024);
    let info = info(&trace);
    assert_eq!((&info["ended"], &info["complete"]), (&"disk full".into(), &true.into()), "{info}");
    bpfrec_ok(&["verify", trace.to_str().unwrap()]);
}
