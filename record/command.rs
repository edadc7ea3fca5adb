//! The command that is run while recording.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A running command.
pub struct Running {
    child: Child,
    /// Can be read once it has ended.
    end: Option<OwnedFd>,
}

/// Its program's name, without the path and without the arguments, which may hold secrets.
pub fn name(command: &[OsString]) -> Option<String> {
    let program = Path::new(command.first()?);
    Some(program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned())
}

/// A command whose process is there and waits. It has the rights that the recorder was started with, and the recorder is about to
/// give up its own.
pub struct Waiting {
    /// Closed without a byte, it ends the process.
    gate: OwnedFd,
    spawning: JoinHandle<io::Result<Child>>,
    program: String,
}

impl Waiting {
    /// Makes the process.
    pub fn start(command: &[OsString]) -> Result<Option<Waiting>> {
        let Some((program, args)) = command.split_first() else { return Ok(None) };
        let name = Path::new(program).display().to_string();
        let (go, gate) = pipe_with(PipeFlags::CLOEXEC).context("a pipe for the command")?;
        let (there, tell) = pipe_with(PipeFlags::CLOEXEC).context("a pipe for the command")?;
        let mut command = Command::new(program);
        command.args(args);
        let others_end = gate.as_raw_fd();
        let wait = move || {
            // SAFETY: the copy that the fork made; nothing in this process, which runs another program soon, uses it.
            unsafe { rustix::io::close(others_end) };
            rustix::io::write(&tell, &[1])?;
            match rustix::io::retry_on_intr(|| rustix::io::read(&go, &mut [0u8; 1]))? {
                // The recording did not begin.
                0 => Err(io::ErrorKind::BrokenPipe.into()),
                _ => Ok(()),
            }
        };
        // SAFETY: between fork and exec only system calls are made; an error of a kind alone allocates nothing.
        unsafe { command.pre_exec(wait) };
        // It returns only when the program runs, so that a thread has to wait for it. Its rights end with it.
        let spawning = std::thread::Builder::new().name("bpfrec-command".into()).spawn(move || command.spawn())?;
        // Nothing, when it could not be made: then the thread's result says why.
        let _ = rustix::io::retry_on_intr(|| rustix::io::read(&there, &mut [0u8; 1]));
        Ok(Some(Waiting { gate, spawning, program: name }))
    }

    /// Runs the program.
    pub fn go(self) -> Result<Running> {
        let _ = rustix::io::write(&self.gate, &[1]);
        let child = self.spawning.join().map_err(|_| anyhow!("the thread that starts the command panicked"))?;
        let child = child.with_context(|| format!("cannot run {}", self.program))?;
        // Without one, which no kernel since 5.3 refuses, it is looked after now and then.
        let end = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok();
        Ok(Running { child, end })
    }
}

impl Running {
    /// Its process, as it is called here.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Can be read once it has ended, where the kernel has that.
    pub fn end(&self) -> Option<BorrowedFd<'_>> {
        self.end.as_ref().map(AsFd::as_fd)
    }

    /// Its exit code once it has ended: 128 plus the signal's number when a signal ended it, as in a shell.
    pub fn exit_code(&mut self) -> Result<Option<u8>> {
        let code = |status: ExitStatus| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)) as u8;
        Ok(self.child.try_wait().context("waiting for the command")?.map(code))
    }
}
