//! Needs root: what signals do to a recording, and who goes away while it runs.
#![cfg(all(feature = "record", target_os = "linux"))]

mod common;

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::twins::Twins;
use common::*;
use rustix::process::{Pid, Signal, kill_process};

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn root_each_of_three_signals_ends_a_recording_well() {
    let Some(_alone) = alone_as_root("signals") else { return };
    let scratch = Scratch::new();
    for (name, with) in [("int", Signal::INT), ("term", Signal::TERM), ("hup", Signal::HUP)] {
        let trace = scratch.path(&format!("{name}.bpr"));
        let mut recording = Recording::start(&trace, &["-e", "sched"]);
        std::thread::sleep(Duration::from_millis(300));
        recording.signal(with);
        assert_eq!(recording.0.wait().unwrap().code(), Some(0), "{name}");
        let info = info(&trace);
        assert_eq!((&info["complete"], &info["ended"]), (&true.into(), &"signal".into()), "{name}: {info}");
    }
}

#[test]
fn root_under_nohup_a_recording_outlives_its_terminal() {
    let Some(_alone) = alone_as_root("nohup") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let mut command = Command::new("nohup");
    command.args([BPFREC, "record", "-q", "-e", "sched", "-o"]).arg(&trace).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut recording = Recording(command.stdout(Stdio::null()).process_group(0).spawn().unwrap());
    wait_until("the trace has begun", Duration::from_secs(20), || std::fs::metadata(&trace).is_ok_and(|m| m.len() > 0));
    recording.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(recording.0.try_wait().unwrap(), None, "SIGHUP ended it");
    assert_eq!(recording.stop(), Some(0));
    let info = info(&trace);
    assert!(info["complete"] == true && info["duration_ns"].as_u64().unwrap() > 1_400_000_000, "{info}");
}

/// A terminal that is closed takes stderr with it, and then comes SIGHUP.
#[test]
fn root_without_stderr_the_file_is_whole() {
    let Some(_alone) = alone_as_root("stderr that is gone") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let mut command = heeding_hup();
    command.args(["record", "-e", "sched", "-o"]).arg(&trace).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut recording = Recording(command.spawn().unwrap());
    drop(recording.0.stderr.take());
    wait_until("the trace has begun", Duration::from_secs(20), || std::fs::metadata(&trace).is_ok_and(|m| m.len() > 0));
    recording.signal(Signal::HUP);
    assert_eq!(recording.0.wait().unwrap().code(), Some(0));
    assert_eq!(info(&trace)["complete"], true);
}

#[test]
fn root_a_reader_that_goes_away_is_told_of_and_has_what_it_took() {
    let Some(_alone) = alone_as_root("a reader that goes away") else { return };
    let scratch = Scratch::new();
    let _load = MixedLoad::start(&scratch, 30);
    let mut command = Command::new(BPFREC);
    command.args(["record", "-q", "-e", "sched", "-d", "60s", "-o", "-"]).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut bytes = vec![0; 1_400_000];
    let mut reader = child.stdout.take().unwrap();
    reader.read_exact(&mut bytes).unwrap();
    drop(reader);
    let output = child.wait_with_output().unwrap();
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("can be read") && err.contains("Broken pipe") && err.lines().count() <= 2, "{err}");
    let trace = scratch.path("t.bpr");
    std::fs::write(&trace, &bytes).unwrap();
    let info = info(&trace);
    assert!(info["events"].as_u64().unwrap() > 100 && info["damaged_blocks"].as_u64().unwrap() <= 1, "{info}");
}

#[test]
fn root_what_a_stopped_recorder_missed_is_counted() {
    let Some(_alone) = alone_as_root("SIGSTOP") else { return };
    let scratch = Scratch::new();
    let mut twins =
        Twins::start(&scratch, &["-o", scratch.path("t.bpr").to_str().unwrap(), "--ring-size", "64K"], Stdio::null());
    twins.run(7, |one| {
        std::thread::sleep(Duration::from_secs(1));
        signal(one, Signal::TSTP);
        std::thread::sleep(Duration::from_secs(3));
        signal(one, Signal::CONT);
    });
    let (code, err, truth) = twins.finish();
    assert_eq!(code, Some(0), "{err}");
    truth.assert_all_is_counted(&scratch.path("t.bpr"), 1000);
}
