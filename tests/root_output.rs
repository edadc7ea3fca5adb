//! Needs root: every way to end a recording, and every kind of output, leaves a whole trace.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::*;
use rustix::process::{Signal, kill_process};

#[test]
fn root_the_file_is_for_its_owner_only() {
    let Some(_alone) = alone_as_root("mode of the file") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    record_while(&scratch, &trace, &[], "umask 000");
    assert_eq!(fs::metadata(&trace).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn root_to_a_pipe_goes_the_same_kind_of_file() {
    let Some(_alone) = alone_as_root("pipe") else { return };
    let scratch = Scratch::new();
    let output = bpfrec(["record", "-o", "-", "-e", "sched", "-d", "2s"]);
    let (_, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    let trace = scratch.path("t.bpr");
    fs::write(&trace, &output.stdout).unwrap();
    bpfrec_ok(&["verify", trace.to_str().unwrap()]);
    let info = info(&trace);
    assert_eq!(info["complete"], true, "{info}");
    assert!(info["events"].as_u64().unwrap() > 0, "{info}");
}

#[test]
fn root_the_commands_exit_code_is_passed_on() {
    let Some(_alone) = alone_as_root("exit code") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let output = bpfrec(["record", "-o", trace.to_str().unwrap(), "--", "sh", "-c", "echo hello; exit 7"]);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(7), "{err}");
    assert_eq!(out, "hello\n");
    bpfrec_ok(&["verify", trace.to_str().unwrap()]);
}

#[test]
fn root_an_interrupt_at_any_moment_leaves_a_whole_file() {
    let Some(_alone) = alone_as_root("interrupt") else { return };
    let scratch = Scratch::new();
    for (n, after_ms) in [0, 20, 60, 120, 200, 350, 600, 1500].into_iter().enumerate() {
        let trace = scratch.path(&format!("{n}.bpr"));
        let mut child = Command::new(BPFREC)
            .args(["record", "-q", "-d", "60s", "-o"])
            .arg(&trace)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(after_ms));
        let signal = if n % 2 == 0 { Signal::INT } else { Signal::TERM };
        kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap();
        // Before the first line of main nothing exists yet.
        if trace.exists() {
            bpfrec_ok(&["verify", trace.to_str().unwrap()]);
            assert_eq!(info(&trace)["complete"], true, "interrupted after {after_ms} ms");
        } else {
            assert!(after_ms < 500, "no file after {after_ms} ms");
        }
    }
}

#[test]
fn root_ctrl_c_ends_well() {
    let Some(_alone) = alone_as_root("Ctrl-C") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let mut recording = Recording::start(&trace, &["-e", "sched"]);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(recording.stop(), Some(0));
    bpfrec_ok(&["verify", trace.to_str().unwrap()]);
    let info = info(&trace);
    let duration = info["duration_ns"].as_u64().unwrap();
    assert!((1_500_000_000..20_000_000_000).contains(&duration), "{info}");
}

#[test]
fn root_segments_make_a_directory_that_every_command_takes() {
    let Some(_alone) = alone_as_root("rotation") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("segments");
    let mut load = MixedLoad::start(&scratch, 6);
    bpfrec_ok(&["record", "-q", "-d", "5s", "--rotate-size", "1M", "-o", trace.to_str().unwrap()]);
    load.wait();
    let files = fs::read_dir(&trace).unwrap().count();
    assert!(files >= 2, "{files} segments");
    let name = trace.to_str().unwrap();
    bpfrec_ok(&["verify", name]);
    assert_eq!(info(&trace)["complete"], true);
    let (whole, _) = totals(&report("runqlat", &trace, &[]));
    assert!(whole > 1000, "{whole} waits over all segments");

    // Every segment is a trace of its own.
    let mut alone = 0;
    for file in fs::read_dir(&trace).unwrap() {
        let file = file.unwrap().path();
        assert_eq!(info(&file)["damaged_blocks"], 0, "{}", file.display());
        alone += totals(&report("runqlat", &file, &[])).0;
    }
    // A wait that begins in one segment and ends in the next is paired only over both.
    assert!(alone <= whole && alone > whole * 9 / 10, "{alone} in single segments, {whole} over all");
}

#[test]
fn root_the_oldest_segments_go_beyond_the_size_in_all() {
    let Some(_alone) = alone_as_root("size in all") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("segments");
    let mut load = MixedLoad::start(&scratch, 7);
    let options = ["--rotate-size", "1M", "--max-size", "4M"];
    bpfrec_ok(&[&["record", "-q", "-d", "6s", "-o", trace.to_str().unwrap()][..], &options].concat());
    load.wait();
    let bytes: u64 = fs::read_dir(&trace).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 5 << 20, "{bytes} bytes are kept");
    bpfrec_ok(&["verify", trace.to_str().unwrap()]);
}
