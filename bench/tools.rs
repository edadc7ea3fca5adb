//! What is measured, and how: the recorder, the peers that are here, the size of loads.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process::find;
use crate::scratch::Scratch;
use crate::{RunArgs, machine};

/// What all parts need.
pub struct Bench {
    /// The recorder and analyzer.
    pub bpfrec: PathBuf,
    /// `perf`, where it is installed.
    pub perf: Option<PathBuf>,
    /// libbpf-tools' `runqlat`, likewise.
    pub runqlat: Option<PathBuf>,
    /// Shows what of a file is in the page cache, likewise.
    pub fincore: Option<PathBuf>,
    /// Rounds.
    pub rounds: usize,
    /// Whether loads are tiny.
    pub short: bool,
    /// Events to analyse.
    pub events: u64,
    /// For traces.
    pub scratch: Scratch,
}

/// Events of `perf record` that tell what the default sources tell.
pub const PERF_EVENTS: &str = "sched:sched_switch,sched:sched_wakeup,sched:sched_wakeup_new,sched:sched_migrate_task,\
                               block:block_rq_insert,block:block_rq_issue,block:block_rq_complete";

impl Bench {
    /// As asked.
    pub fn new(args: &RunArgs) -> Result<Bench> {
        ensure!(args.bpfrec.exists(), "{} is not built: cargo build --release", args.bpfrec.display());
        ensure!(args.rounds > 0, "--rounds 0: nothing would be measured");
        Ok(Bench {
            bpfrec: args.bpfrec.canonicalize()?,
            perf: find("perf"),
            runqlat: find("runqlat"),
            fincore: find("fincore"),
            rounds: if args.short { 1 } else { args.rounds },
            short: args.short,
            events: if args.short { 200_000 } else { args.events },
            scratch: Scratch::new(&args.dir)?,
        })
    }

    /// What is not installed, a line each.
    pub fn missing(&self) -> Vec<String> {
        let tools = [
            (self.perf.is_some(), "perf", "linux-perf"),
            (self.runqlat.is_some(), "runqlat", "libbpf-tools"),
            (self.fincore.is_some(), "fincore", "util-linux-extra"),
        ];
        let missing = tools.iter().filter(|(here, ..)| !here);
        missing.map(|(_, name, package)| format!("not installed: {name} (Debian package {package})")).collect()
    }

    /// `perf`, for what cannot be without it.
    pub fn need_perf(&self) -> Result<&Path> {
        self.perf.as_deref().context("perf is not installed, and the load is its own: install linux-perf")
    }

    /// `long`, or `short` in a smoke run.
    pub fn of(&self, long: u64, short: u64) -> u64 {
        if self.short { short } else { long }
    }

    /// Said below tables.
    pub fn rounds_text(&self) -> String {
        match self.rounds {
            1 => "one round only: no figure to rely on".into(),
            n => format!("medians of {n} interleaved rounds on {} CPUs", machine::cpus()),
        }
    }
}
