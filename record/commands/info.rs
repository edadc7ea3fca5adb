//! `bpfrec info`.

use crate::cli::InfoArgs;

/// Runs the command.
pub fn run(_args: InfoArgs) -> anyhow::Result<u8> {
    anyhow::bail!("info: not built yet")
}
