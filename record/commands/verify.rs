//! `bpfrec verify`.

use crate::cli::VerifyArgs;

/// Runs the command.
pub fn run(_args: VerifyArgs) -> anyhow::Result<u8> {
    anyhow::bail!("verify: not built yet")
}
