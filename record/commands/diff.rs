//! `bpfrec diff`: two traces beside each other.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bpfrec_analyze::diff::{By, Diff, Side, Stacks, length_ns};
use bpfrec_analyze::{Filter, Meta};
use bpfrec_format::Trace;
use clap::ValueEnum;

use super::analyze::{open, with_threads};
use super::beside;
use super::names::FrameArgs;
use super::progress::{Of, Progress};
use super::terminal::Screen;

/// Arguments of `bpfrec diff`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  bpfrec diff before.bpr after.bpr                          what changed, amounts a second
  bpfrec diff before.bpr after.bpr --by samples --top 20    as shares of all: more work alone is no change
  bpfrec diff before.bpr after.bpr --html diff.html         a page with flamegraphs
  bpfrec diff before.bpr after.bpr -c system.slice --to 1m  of a cgroup, and only the first minute")]
pub struct DiffArgs {
    /// Trace file or directory from before the change
    before: PathBuf,
    /// Trace file or directory from after it
    after: PathBuf,
    /// Tell amounts a second of recorded time, or as shares of all
    #[arg(long, value_enum, default_value = "time", value_name = "time|samples")]
    by: ByArg,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Also write a differential flamegraph of CPU samples
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Also write a differential flamegraph of time off the CPU
    #[arg(long, value_name = "FILE")]
    offcpu_svg: Option<PathBuf>,
    /// Also write everything as one page to look at
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
    /// Rows of each table in the text
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// From this time after the start of each trace on, as 2s or 500ms
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Up to this time after the start of each trace
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only this process, in both
    #[arg(short, long, value_name = "PID")]
    pid: Option<u32>,
    /// Only this cgroup and those below, or a container by its id, in both
    #[arg(short, long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Threads (all CPUs)
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    names: FrameArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ByArg {
    Time,
    Samples,
}

impl DiffArgs {
    /// The part of a trace that was asked for.
    fn part(&self, path: &Path, trace: &Trace) -> Result<(Meta, Filter)> {
        let part = || -> Result<_> {
            let mut meta = Meta::load(trace)?;
            meta.names = self.names.options()?;
            let (from, to) = (self.from.as_deref(), self.to.as_deref());
            let filter = Filter::new(&meta, from, to, self.pid, self.cgroup.as_deref())?;
            Ok((meta, filter))
        };
        part().with_context(|| path.display().to_string())
    }

    fn compare(&self) -> Result<Diff> {
        let (before, after) = (open(&self.before)?, open(&self.after)?);
        let (before_part, after_part) = (self.part(&self.before, &before)?, self.part(&self.after, &after)?);
        let length = length_ns(before_part.1.duration_ns, after_part.1.duration_ns);
        let read = |path: &Path, trace: &Trace, (meta, filter): &(Meta, Filter)| {
            let progress = Progress::new(Of::Events);
            let show = |done, total| progress.show(done, total);
            let name = path.display().to_string();
            Side::read(trace, meta, filter, &name, length.ok(), &show).with_context(|| name.clone())
        };
        let before = read(&self.before, &before, &before_part)?;
        let after = read(&self.after, &after, &after_part)?;
        let by = match self.by {
            ByArg::Time => By::Time,
            ByArg::Samples => By::Samples,
        };
        Ok(Diff::new(before, after, by, length.err())?)
    }
}

/// Runs the command.
pub fn run(args: DiffArgs, screen: Screen) -> Result<u8> {
    with_threads(args.threads, || {
        let diff = args.compare()?;
        let write = |path: &Path, bytes: Vec<u8>| beside::put(path, &bytes, args.force);
        for (path, stacks, source) in
            [(&args.svg, Stacks::Cpu, "profile"), (&args.offcpu_svg, Stacks::OffCpu, "offcpu")]
        {
            if let Some(path) = path {
                let missing =
                    || format!("{}: not both traces have `{source}`: record with -e {source}", path.display());
                write(path, diff.svg(stacks).with_context(missing)??)?;
            }
        }
        if let Some(path) = &args.html {
            write(path, diff.html()?)?;
        }
        super::to_stdout(|out| {
            match args.json {
                true => writeln!(out, "{}", diff.json())?,
                false => out.write_all(screen.show(&diff.text(args.top, screen.width())).as_bytes())?,
            }
            Ok(if diff.lossy() { super::DAMAGED } else { super::DONE })
        })
    })?
}
