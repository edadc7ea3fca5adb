//! `bpfrec symbolize`: a copy of a trace with the functions of its binaries.

use std::fs::File;
use std::io::{Write, copy};

use anyhow::Context;
use bpfrec_analyze::{Meta, symbolize};
use bpfrec_format::append::append;

use super::names::NameArgs;
use super::{DONE, analyze, beside, shown};

/// Arguments of `bpfrec symbolize`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  bpfrec symbolize trace.bpr -o named.bpr                  from this machine's files
  bpfrec symbolize trace.bpr --symfs build/ -o named.bpr   from a build")]
pub struct SymbolizeArgs {
    /// Trace file or directory
    pub trace: std::path::PathBuf,
    /// File (or directory, for a directory) to write
    #[arg(short, long)]
    pub output: std::path::PathBuf,
    /// Replace the output if it exists
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    names: NameArgs,
}

/// Runs the command.
pub fn run(args: SymbolizeArgs) -> anyhow::Result<u8> {
    let trace = super::open(&args.trace)?;
    beside::may_write(&args.trace, &args.output, args.force)?;
    let options = args.names.options()?;
    if let Some((path, error)) = trace.refused.first() {
        anyhow::bail!("{}: {error}: let `bpfrec recover` make a whole trace of it first", path.display());
    }
    let result = analyze::with_threads(None, || -> anyhow::Result<_> {
        let mut meta = Meta::load(&trace)?;
        meta.names = options;
        Ok(symbolize::symbolize(&meta))
    })??;
    let directory = args.trace.is_dir();
    if directory {
        beside::directory_of_segments(&args.output)?;
    }
    let last = trace.segments.len().saturating_sub(1);
    for (at, (path, segment)) in trace.segments.iter().enumerate() {
        let target = if directory { args.output.join(beside::file_name(path)) } else { args.output.clone() };
        beside::write(&target, |out| {
            if at == last {
                append(segment, &result.tables, out).with_context(|| path.display().to_string())?;
            } else {
                // Functions are the same in all segments: the others stay as they are, byte by byte.
                copy(&mut File::open(path)?, out)?;
            }
            Ok(())
        })?;
    }
    super::to_stdout(|out| {
        for added in &result.added {
            let (path, file, source) = (shown(&added.path), shown(&added.file), added.source.name());
            writeln!(out, "{path}: {} functions added from {file} ({source})", added.functions)?;
        }
        for lacking in &result.lacking {
            writeln!(out, "{}: not all of its functions are known, and no file with them was found", shown(lacking))?;
        }
        for note in &result.notes {
            writeln!(out, "# {}", shown(note))?;
        }
        let functions: usize = result.added.iter().map(|a| a.functions).sum();
        writeln!(out, "{}: {functions} functions of {} binaries added", args.output.display(), result.added.len())?;
        Ok(DONE)
    })
}
