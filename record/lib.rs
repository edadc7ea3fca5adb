//! The recorder. Empty unless the feature `record` is on and the target is Linux.
#![cfg(recorder)]

pub mod args;

/// Runs `bpfrec record`; returns the exit code.
pub fn run(_args: args::RecordArgs) -> anyhow::Result<u8> {
    anyhow::bail!("record: not built yet")
}
