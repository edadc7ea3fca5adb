//! `bpfrec analyze`.

/// Arguments of `bpfrec analyze`.
#[derive(clap::Args, Debug)]
pub struct AnalyzeArgs {
    /// Trace file or directory
    pub trace: std::path::PathBuf,
}

/// Runs the command.
pub fn run(_args: AnalyzeArgs) -> anyhow::Result<u8> {
    anyhow::bail!("analyze: not built yet")
}
