//! `bpfrec recover`.

use crate::cli::RecoverArgs;

/// Runs the command.
pub fn run(_args: RecoverArgs) -> anyhow::Result<u8> {
    anyhow::bail!("recover: not built yet")
}
