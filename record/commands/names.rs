//! Where names are looked for, as the command line says: the same for all commands that need them.

use std::path::PathBuf;

use anyhow::{Result, bail};
use bpfrec_analyze::symbols::{Debuginfod, Options};

/// Arguments of all commands that name functions.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Names of functions")]
pub struct NameArgs {
    /// Look for binaries and debug files below this folder; may be given more than once
    #[arg(long, value_name = "DIR")]
    pub symfs: Vec<PathBuf>,
    /// Ask this debuginfod server; may be given more than once (DEBUGINFOD_URLS)
    #[arg(long, value_name = "URL")]
    pub debuginfod: Vec<String>,
    /// Take names from the trace alone, not from files of this machine
    #[arg(long, conflicts_with_all = ["symfs", "debuginfod"])]
    pub trace_only: bool,
}

/// Arguments of the commands that show frames.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Names of functions")]
pub struct FrameArgs {
    #[command(flatten)]
    names: NameArgs,
    /// Source file and line of each frame, from debugging information
    #[arg(long)]
    lines: bool,
    /// Functions that were inlined as frames of their own, from debugging information
    #[arg(long)]
    inlines: bool,
}

impl NameArgs {
    /// As the library has it.
    pub fn options(&self) -> Result<Options> {
        if let Some(dir) = self.symfs.iter().find(|dir| !dir.is_dir()) {
            bail!("--symfs {}: no such folder", dir.display());
        }
        if self.trace_only {
            return Ok(Options { trace_only: true, ..Options::default() });
        }
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = || var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|home| home.join(".cache")));
        let own = home().map(|cache| cache.join("bpfrec/debuginfod"));
        // What gdb, perf and elfutils fetched is good too.
        let client = var("DEBUGINFOD_CACHE_PATH").or_else(|| home().map(|cache| cache.join("debuginfod_client")));
        let mut urls = self.debuginfod.clone();
        if urls.is_empty() {
            let listed = std::env::var("DEBUGINFOD_URLS").unwrap_or_default();
            let servers = listed.split_whitespace().filter(|url| url.starts_with("http"));
            urls.extend(servers.map(str::to_owned));
        }
        let debuginfod = match (&own, urls.is_empty()) {
            (_, true) => None,
            (Some(cache), false) => Some(Debuginfod::new(urls, cache.clone())),
            (None, false) => bail!("debuginfod: no folder for its files: set XDG_CACHE_HOME or HOME"),
        };
        if !cfg!(feature = "debuginfod") && !self.debuginfod.is_empty() {
            bail!("--debuginfod: this bpfrec is built without it (cargo feature `debuginfod`)");
        }
        let debuginfod = debuginfod.filter(|_| cfg!(feature = "debuginfod"));
        let caches = own.into_iter().chain(client).collect();
        Ok(Options { symfs: self.symfs.clone(), caches, debuginfod, ..Options::default() })
    }
}

impl FrameArgs {
    /// As the library has it.
    pub fn options(&self) -> Result<Options> {
        Ok(Options { lines: self.lines, inlines: self.inlines, ..self.names.options()? })
    }
}
