//! Child processes, and what they cost.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// A process that has ended.
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// And to stderr.
    pub stderr: String,
    /// From start to end.
    pub wall_s: f64,
    /// CPU time of it and the children that it waited for, in user space and in the kernel.
    pub cpu_s: f64,
    /// Its resident memory, or a child's, at the most.
    pub max_rss_bytes: u64,
}

impl Ended {
    /// Itself, if it succeeded.
    pub fn ok(self) -> Result<Ended> {
        if self.status.success() {
            return Ok(self);
        }
        let last: Vec<&str> = self.stderr.lines().rev().take(3).collect();
        bail!("{}: {}", self.status, last.into_iter().rev().collect::<Vec<_>>().join(" / "))
    }
}

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Result<Ended> {
    run_to(command, Stdio::piped())
}

/// The same, and leaves what it writes to stdout to nobody: gigabytes that were kept here would count as memory of all that is started
/// afterwards, for a process begins with the high-water mark of the one that made it.
pub fn run_silent(command: &mut Command) -> Result<Ended> {
    run_to(command, Stdio::null())
}

fn run_to(command: &mut Command, stdout: Stdio) -> Result<Ended> {
    let name = format!("{:?}", command.get_program());
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn();
    let child = child.with_context(|| format!("cannot run {name}"))?;
    wait(child, start).with_context(|| name)
}

/// Waits for `child`, which was started at `start`, with its pipes if it has any.
pub fn wait(mut child: Child, start: Instant) -> Result<Ended> {
    drop(child.stdin.take());
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                // A pipe that breaks has told all that it will.
                let _ = pipe.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(child.stdout.take().map(|p| Box::new(p) as Box<dyn Read + Send>));
    let stderr = read(child.stderr.take().map(|p| Box::new(p) as Box<dyn Read + Send>));
    let (mut status, pid) = (0, child.id() as libc::pid_t);
    // SAFETY: `usage` is whole and zeroed, `status` an int; wait4 writes into both.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::wait4(pid, &mut status, 0, &mut usage) != pid {
            bail!("cannot wait for process {pid}: {}", std::io::Error::last_os_error());
        }
        usage
    };
    let wall_s = start.elapsed().as_secs_f64();
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    Ok(Ended {
        status: ExitStatus::from_raw(status),
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
        wall_s,
        cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        max_rss_bytes: usage.ru_maxrss as u64 * 1024,
    })
}

/// Interrupts `child` as Ctrl-C does.
pub fn interrupt(child: &Child) {
    // SAFETY: a system call without pointers; the child was not waited for, so its number is still its own.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
}

/// Path of a command on the PATH.
pub fn find(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
