//! The command that is run while recording.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

use anyhow::{Context, Result};

/// A running command.
pub struct Running {
    child: Child,
}

/// Its program's name, without the path and without the arguments, which may hold secrets.
pub fn name(command: &[OsString]) -> Option<String> {
    let program = Path::new(command.first()?);
    Some(program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned())
}

impl Running {
    /// Starts it.
    pub fn start(command: &[OsString]) -> Result<Option<Running>> {
        let Some((program, args)) = command.split_first() else { return Ok(None) };
        let child = Command::new(program).args(args).spawn();
        let child = child.with_context(|| format!("cannot run {}", Path::new(program).display()))?;
        Ok(Some(Running { child }))
    }

    /// Its process, as it is called here.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit code once it has ended: 128 plus the signal's number when a signal ended it, as in a shell.
    pub fn exit_code(&mut self) -> Result<Option<u8>> {
        let code = |status: ExitStatus| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)) as u8;
        Ok(self.child.try_wait().context("waiting for the command")?.map(code))
    }
}
