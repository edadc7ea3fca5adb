//! `bpfrec replay`.

use crate::cli::ReplayArgs;

/// Runs the command.
pub fn run(_args: ReplayArgs) -> anyhow::Result<u8> {
    anyhow::bail!("replay: not built yet")
}
