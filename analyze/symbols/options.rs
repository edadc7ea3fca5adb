//! Where names are looked for, as the caller decides.

use std::path::PathBuf;
use std::time::Duration;

/// Where names are looked for beside the trace. The default: files of this machine at their recorded paths.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Nothing of this machine: no file, no cache.
    pub trace_only: bool,
    /// Folders with binaries and debug files, the first one first.
    pub symfs: Vec<PathBuf>,
    /// Folders with `BUILD-ID/debuginfo` and `BUILD-ID/executable`.
    pub caches: Vec<PathBuf>,
    /// Servers to ask.
    pub debuginfod: Option<Debuginfod>,
    /// Source files and lines, from debugging information.
    pub lines: bool,
    /// Inlined functions as frames, from debugging information.
    pub inlines: bool,
}

impl Options {
    /// Whether debugging information is needed.
    pub fn wants_dwarf(&self) -> bool {
        self.lines || self.inlines
    }
}

/// How to ask debuginfod servers.
#[derive(Clone, Debug)]
pub struct Debuginfod {
    /// Servers, the first one first.
    pub urls: Vec<String>,
    /// Where files are kept.
    pub cache: PathBuf,
    /// How long to wait for a connection and for the begin of an answer, each.
    pub wait: Duration,
    /// How long a file may take.
    pub download: Duration,
}

impl Debuginfod {
    /// With the usual limits.
    pub fn new(urls: Vec<String>, cache: PathBuf) -> Debuginfod {
        Debuginfod { urls, cache, wait: Duration::from_secs(10), download: Duration::from_secs(300) }
    }
}
