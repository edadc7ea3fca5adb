//! Two recorders of one process: one whose output or time is short, and one that has enough of both and so knows the truth.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{BPFREC, Recording, Scratch, info, load, wait_until};

/// Both, and the load that waits for its begin.
pub struct Twins {
    one: Recording,
    other: Recording,
    load: Child,
    trace: PathBuf,
}

/// What the one with enough of everything recorded.
pub struct Truth {
    events: u64,
}

const SOURCE: &str = "sched";

impl Twins {
    /// Starts both, the first one with `options`, before the load begins.
    pub fn start(scratch: &Scratch, options: &[&str], stdout: Stdio) -> Twins {
        let script = "kill -STOP $$; read seconds; exec \"$0\" $seconds 0 2";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(load("switches")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let load = command.spawn().unwrap();
        let pid = load.id().to_string();
        wait_until("the load waits", Duration::from_secs(5), || {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
        });
        let trace = scratch.path("truth.bpr");
        let record = |options: &[&str], stdout: Stdio| {
            let mut command = Command::new(BPFREC);
            command.args(["record", "-e", SOURCE, "-p", &pid]).args(options).stdin(Stdio::null()).stdout(stdout);
            Recording(command.stderr(Stdio::piped()).spawn().unwrap())
        };
        let other = record(&["-o", trace.to_str().unwrap(), "--ring-size", "64M"], Stdio::null());
        let one = record(options, stdout);
        for child in [&one.0, &other.0] {
            // The writer's thread comes last.
            wait_until("both record", Duration::from_secs(30), || {
                let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).into_iter().flatten().flatten();
                let mut names = tasks.filter_map(|t| std::fs::read_to_string(t.path().join("comm")).ok());
                names.any(|name| name.trim() == "bpfrec-writer")
            });
        }
        Twins { one, other, load, trace }
    }

    /// The first recorder.
    pub fn one(&mut self) -> &mut Child {
        &mut self.one.0
    }

    /// Lets the load run for so many seconds, and calls `meanwhile`.
    pub fn run(&mut self, seconds: u32, meanwhile: impl FnOnce(&mut Child)) {
        use std::io::Write as _;
        kill_process(Pid::from_child(&self.load), Signal::CONT).unwrap();
        writeln!(self.load.stdin.take().unwrap(), "{seconds}").unwrap();
        meanwhile(&mut self.one.0);
        let status = self.load.wait().unwrap();
        assert!(status.success(), "switches: {status}");
        // What it did last is drained within a second.
        std::thread::sleep(Duration::from_millis(1500));
    }

    /// Ends both; returns how the first one ended, what it said, and what the other one knows.
    pub fn finish(mut self) -> (Option<i32>, String, Truth) {
        for recording in [&self.one, &self.other] {
            recording.signal(Signal::INT);
        }
        let code = self.one.0.wait().unwrap().code();
        let mut err = String::new();
        std::io::Read::read_to_string(&mut self.one.0.stderr.take().unwrap(), &mut err).unwrap();
        assert_eq!(self.other.0.wait().unwrap().code(), Some(0));
        let truth = info(&self.trace);
        assert_eq!((lost(&truth), &truth["complete"]), (0, &true.into()), "the one that has enough of all: {truth}");
        (code, err, Truth { events: kept(&truth) })
    }
}

fn source(info: &Value, field: &str) -> u64 {
    let sources = info["sources"].as_array().unwrap();
    sources.iter().find(|s| s["name"] == SOURCE).unwrap_or_else(|| panic!("{info}"))[field].as_u64().unwrap()
}

fn kept(info: &Value) -> u64 {
    source(info, "events")
}

/// Also what no source is told of.
fn lost(info: &Value) -> u64 {
    info["lost"].as_u64().unwrap()
}

impl Truth {
    /// What is in a trace and what it counts as lost is all that was made; `least` is lost at least.
    pub fn assert_all_is_counted(&self, trace: &Path, least: u64) {
        let info = info(trace);
        let (kept, lost) = (kept(&info), lost(&info));
        println!("{kept} kept, {lost} lost, {} made", self.events);
        assert!(kept > 1000 && lost >= least, "{kept} kept, {lost} lost: {info}");
        assert_eq!(kept + lost, self.events, "{kept} kept, {lost} lost, {} made", self.events);
    }
}
