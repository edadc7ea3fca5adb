//! `bpfrec report`.

/// Arguments of `bpfrec report`.
#[derive(clap::Args, Debug)]
pub struct ReportArgs {
    /// Trace file or directory
    pub trace: std::path::PathBuf,
}

/// Runs the command.
pub fn run(_args: ReportArgs) -> anyhow::Result<u8> {
    anyhow::bail!("report: not built yet")
}
