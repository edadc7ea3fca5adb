//! Arguments of `bpfrec record`.

use std::path::PathBuf;

/// Arguments of `bpfrec record`.
#[derive(clap::Args, Debug, Clone)]
pub struct RecordArgs {
    /// File to write (a directory with --rotate-* or --max-size); - for stdout
    #[arg(short, long, default_value = "trace.bpr")]
    pub output: PathBuf,
}
