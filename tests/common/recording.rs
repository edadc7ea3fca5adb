//! Recordings under way, and the load beside them.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{BPFREC, STRICT, Scratch, texts, wait_until};

/// bpfrec, which SIGHUP ends also where the tests run under nohup: what is ignored is inherited.
pub fn heeding_hup() -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", BPFREC]);
    command
}

/// `bpfrec record` into `trace`, under the strict filter.
fn recorder(trace: &Path, options: &[&str]) -> Command {
    let mut command = heeding_hup();
    command.arg("record").args(STRICT).args(["-q", "-o"]).arg(trace).args(options);
    command
}

/// Records while `script` (for sh) runs and returns the script's standard output. `$dir` is `scratch`.
pub fn record_while(scratch: &Scratch, trace: &Path, options: &[&str], script: &str) -> String {
    let output = recorder(trace, options)
        .args(["--", "sh", "-euc", script])
        .env("dir", &scratch.0)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = texts(&output);
    assert!(output.status.success(), "record {options:?}: {}\n{out}{err}", output.status);
    out
}

/// A recording under way, killed with its owner.
pub struct Recording(pub Child);

impl Recording {
    /// Starts a recording and waits until it has written something.
    pub fn start(trace: &Path, options: &[&str]) -> Recording {
        let child =
            recorder(trace, options).stdin(Stdio::null()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
        let mut recording = Recording(child);
        wait_until("the trace has begun", Duration::from_secs(20), || {
            if let Some(status) = recording.0.try_wait().unwrap() {
                panic!("record {options:?} ended at once: {status}");
            }
            fs::metadata(trace).is_ok_and(|m| m.is_dir() || m.len() > 0)
        });
        recording
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Interrupts the recording and returns its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::INT);
        self.0.wait().unwrap().code()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A recording whose probes are attached: it has started its command, which ends when the recording is to end.
pub struct Attached {
    child: Child,
    marker: PathBuf,
}

impl Attached {
    pub fn start(scratch: &Scratch, trace: &Path, options: &[&str]) -> Attached {
        let marker = scratch.path("recording");
        let child = recorder(trace, options)
            .args(["--", "sh", "-c", ">\"$marker\"; while [ -e \"$marker\" ]; do sleep 0.1; done"])
            .env("marker", &marker)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut attached = Attached { child, marker };
        wait_until("the probes are attached", Duration::from_secs(20), || {
            if let Some(status) = attached.child.try_wait().unwrap() {
                panic!("record {options:?} ended at once: {status}");
            }
            attached.marker.exists()
        });
        attached
    }

    /// The recorder's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn finish(mut self) {
        fs::remove_file(&self.marker).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "record: {status}");
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.marker);
        let _ = self.child.wait();
    }
}

/// The mixed load of `bench/load`, for `seconds`, stopped with its owner.
pub struct MixedLoad(Child);

impl MixedLoad {
    pub fn start(scratch: &Scratch, seconds: u32) -> MixedLoad {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/load/mixed.sh");
        MixedLoad(Command::new(script).arg(seconds.to_string()).arg(&scratch.0).spawn().unwrap())
    }

    pub fn wait(&mut self) {
        let status = self.0.wait().unwrap();
        assert!(status.success(), "mixed.sh: {status}");
    }
}

impl Drop for MixedLoad {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}
