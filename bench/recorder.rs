//! A recorder under way: bpfrec or perf, around a command that ends when it is told to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{self, Ended};
use crate::scratch::Scratch;

/// Longest time that probes take to be attached.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running recorder, killed with its owner.
pub struct Recorder {
    child: Option<Child>,
    start: Instant,
}

impl Recorder {
    /// Starts `program` with `args`, which it takes before `-- COMMAND`, and waits until it records: it has started the
    /// command then. That waits for the end of its input, so that it makes no events.
    pub fn start(scratch: &Scratch, program: &Path, args: &[&str]) -> Result<Recorder> {
        let marker = scratch.fresh("recording");
        let mut command = Command::new(program);
        command.args(args).args(["--", "sh", "-c", ">\"$MARKER\"; read line || :"]).env("MARKER", &marker);
        Self::spawn(command, &|_| marker.exists())
    }

    /// Starts libbpf-tools' `program`, which prints a histogram at its end, and waits until its `probes` are attached.
    pub fn histogram(program: &Path, probes: usize) -> Result<Recorder> {
        Self::spawn(Command::new(program), &|pid| links(pid) >= probes)
    }

    fn spawn(mut command: Command, records: &dyn Fn(u32) -> bool) -> Result<Recorder> {
        let name = format!("{:?}", command.get_program());
        let start = Instant::now();
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut recorder = Recorder { child: Some(child.with_context(|| format!("cannot run {name}"))?), start };
        while !records(recorder.pid()) {
            let ended = recorder.child.as_mut().is_some_and(|c| c.try_wait().is_ok_and(|status| status.is_some()));
            if ended || start.elapsed() > PATIENCE {
                let mut said = String::new();
                if let Some(mut stderr) = recorder.child.as_mut().filter(|_| ended).and_then(|c| c.stderr.take()) {
                    let _ = std::io::Read::read_to_string(&mut stderr, &mut said);
                }
                bail!("{name} does not record after {:.1} s: {}", start.elapsed().as_secs_f64(), said.trim());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(recorder)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Ends the command, and with it the recording. Returns how long that took, too, in seconds.
    pub fn stop(mut self) -> Result<(Ended, f64)> {
        let child = self.child.take().context("it was stopped already")?;
        let asked = Instant::now();
        let ended = process::wait(child, self.start)?.ok()?;
        Ok((ended, asked.elapsed().as_secs_f64()))
    }

    /// Interrupts one that runs no command.
    pub fn interrupt(self) -> Result<()> {
        self.child.iter().for_each(process::interrupt);
        self.stop().map(drop)
    }

    /// CPU time so far of all its threads that live, ns.
    pub fn cpu_ns(&self) -> u64 {
        let ran =
            |task: PathBuf| fs::read_to_string(task.join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok();
        self.tasks().into_iter().filter_map(ran).sum()
    }

    /// Of [`Recorder::cpu_ns`] that in user space, which the kernel tells in hundredths of a second.
    pub fn user_ns(&self) -> u64 {
        // utime is the 14th field, of which the second, a name in parentheses, may have blanks of its own.
        let user = |task: PathBuf| {
            let stat = fs::read_to_string(task.join("stat")).ok()?;
            stat.rsplit_once(')')?.1.split_whitespace().nth(11)?.parse::<u64>().ok()
        };
        self.tasks().into_iter().filter_map(user).sum::<u64>() * 10_000_000
    }

    /// How often its threads went to sleep so far, each of which takes a wakeup.
    pub fn sleeps(&self) -> u64 {
        let slept = |task: PathBuf| field(&fs::read_to_string(task.join("status")).ok()?, "voluntary_ctxt_switches");
        self.tasks().into_iter().filter_map(slept).sum()
    }

    /// Its resident memory at the most so far, bytes.
    pub fn peak_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        field(&status, "VmHWM").unwrap_or(0) * 1024
    }

    fn tasks(&self) -> Vec<PathBuf> {
        let dir = fs::read_dir(format!("/proc/{}/task", self.pid()));
        dir.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The number behind `name:` in a text of lines, as in /proc.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What /proc tells of the descriptors of a process.
pub fn descriptors(pid: u32) -> Vec<String> {
    let dir = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    dir.into_iter().flatten().flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect()
}

fn links(pid: u32) -> usize {
    descriptors(pid).iter().filter(|info| info.contains("link_type:")).count()
}

/// `bpfrec info --json`.
pub fn info(bpfrec: &Path, trace: &Path) -> Result<Value> {
    let ended = process::run(Command::new(bpfrec).arg("info").arg(trace).arg("--json"))?.ok()?;
    Ok(serde_json::from_str(&ended.stdout)?)
}

/// Events in a perf.data file, and how often perf says that some were lost.
pub fn perf_events(perf: &Path, data: &Path) -> Result<(u64, u64)> {
    let ended = process::run(Command::new(perf).args(["report", "--stats", "-i"]).arg(data))?.ok()?;
    let count = |name: &str| {
        let lines = ended.stdout.lines().map(str::trim);
        lines.filter_map(|line| field(line, name)).next().unwrap_or(0)
    };
    Ok((count("SAMPLE events"), count("LOST events") + count("LOST_SAMPLES events")))
}
