//! Arguments of `bpfrec record` that the sources `malloc` and `kmem` read.

use std::path::PathBuf;

use crate::args::parse_size;
use crate::layout::Config;

/// What of memory is recorded.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct MemoryArgs {
    /// malloc: this library or program only, not every allocator that is mapped; may be repeated
    #[arg(long, value_name = "PATH")]
    pub lib: Vec<PathBuf>,
    /// malloc: also functions that begin with this, as je_ in je_malloc
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// malloc, kmem: one address in N, chosen by its hash; allocation and free both, or neither
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sample: Option<u32>,
    /// malloc, kmem: about one allocation every SIZE bytes, large ones sooner (512K)
    #[arg(long, value_name = "SIZE", value_parser = parse_sample_bytes, conflicts_with = "sample")]
    pub sample_bytes: Option<u32>,
}

/// A size below 4 GiB.
fn parse_sample_bytes(text: &str) -> Result<u32, String> {
    u32::try_from(parse_size(text)?).map_err(|_| format!("{text} is out of range: at most 4095M"))
}

impl MemoryArgs {
    /// Tells the programs.
    pub fn configure(&self, config: &mut Config) {
        config.sample_every = self.sample.unwrap_or(1);
        config.sample_bytes = self.sample_bytes.unwrap_or(0);
    }

    /// Facts for the header: `malloc_sample 16` or `malloc_sample_bytes 524288`.
    pub fn items(&self, source: &str) -> Vec<(String, String)> {
        match self.sample_bytes {
            Some(bytes) => vec![(format!("{source}_sample_bytes"), bytes.to_string())],
            None => vec![(format!("{source}_sample"), self.sample.unwrap_or(1).to_string())],
        }
    }
}
