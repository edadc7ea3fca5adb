//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Records what a Linux host does into one file, and answers questions from that file elsewhere.
#[derive(Parser, Debug)]
#[command(name = "bpfrec", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Record this host into a file (needs root)
    #[cfg(recorder)]
    Record(bpfrec::args::RecordArgs),
    /// Everything at once: a summary, flamegraph, report and Parquet tables
    #[cfg(feature = "analyze")]
    Analyze(crate::commands::analyze::AnalyzeArgs),
    /// One report
    #[cfg(feature = "analyze")]
    Report(crate::commands::report::ReportArgs),
    /// What a trace holds, what was lost and what the recording cost
    Info(InfoArgs),
    /// Check every checksum; exit code 3 when the trace is damaged or unfinished
    Verify(VerifyArgs),
    /// Copy what is whole out of a damaged or unfinished trace
    Recover(RecoverArgs),
    /// Events in time order, one a line
    Replay(ReplayArgs),
}

/// Arguments of `bpfrec info`.
#[derive(Args, Debug)]
pub struct InfoArgs {
    /// Trace file or directory
    pub trace: PathBuf,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `bpfrec verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Trace file or directory
    pub trace: PathBuf,
}

/// Arguments of `bpfrec recover`.
#[derive(Args, Debug)]
pub struct RecoverArgs {
    /// Trace file or directory
    pub trace: PathBuf,
    /// File (or directory, for a directory) to write
    #[arg(short, long)]
    pub output: PathBuf,
    /// Replace the output if it exists
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `bpfrec replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// Trace file or directory
    pub trace: PathBuf,
    /// As JSON, one object a line
    #[arg(long)]
    pub json: bool,
}
