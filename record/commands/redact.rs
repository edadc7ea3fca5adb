//! `bpfrec redact`: a copy of a trace that can be shown to others, with tokens in the place of names.

mod copy;
mod names;
mod rules;
mod tokens;

use std::io::Write;
use std::path::PathBuf;

use super::progress::{Of, Progress};
use super::{DAMAGED, DONE, beside};
use copy::copy;
use rules::What;
use tokens::Tokens;

/// Arguments of `bpfrec redact`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  bpfrec redact trace.bpr -o shared.bpr
  bpfrec redact trace.bpr --functions --build-ids -o shared.bpr   names of functions and build ids, too")]
pub struct RedactArgs {
    /// Trace file or directory
    pub trace: PathBuf,
    /// File (or directory, for a directory) to write
    #[arg(short, long)]
    pub output: PathBuf,
    /// Replace the output if it exists
    #[arg(long)]
    pub force: bool,
    /// Names of functions and kernel modules too
    #[arg(long)]
    pub functions: bool,
    /// Build ids of binaries too: nobody can look up what they were, or name their functions later
    #[arg(long)]
    pub build_ids: bool,
    /// Key for the tokens, 16 random bytes or more: traces with the same key have the same tokens. Without it each run has a
    /// key of its own that is forgotten
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: RedactArgs) -> anyhow::Result<u8> {
    let trace = super::open(&args.trace)?;
    beside::may_write(&args.trace, &args.output, args.force)?;
    let broken = |path: &PathBuf, why: &str| {
        anyhow::anyhow!("{}: {why}: let `bpfrec recover` make a whole trace of it first", path.display())
    };
    if let Some((path, error)) = trace.refused.first() {
        return Err(broken(path, &error.to_string()));
    }
    if let Some((path, _)) = trace.segments.iter().find(|(_, segment)| !segment.is_complete()) {
        return Err(broken(path, "it is unfinished or damaged"));
    }
    let mut tokens = match &args.key {
        Some(path) => Tokens::of_file(path)?,
        None => Tokens::random()?,
    };
    let what = What { functions: args.functions, build_ids: args.build_ids };
    let directory = args.trace.is_dir();
    if directory {
        beside::directory_of_segments(&args.output)?;
    }
    let (progress, mut done) = (Progress::new(Of::Bytes), 0);
    let (mut rows, mut left_blocks, mut left_rows) = (0, 0, 0);
    // Numbers go on from segment to segment, but for segments that are missing as a whole.
    let (mut old_next, mut new_next) = (None, 0u64);
    for (path, segment) in &trace.segments {
        let first = segment.blocks[0].header.seq;
        let first_seq = old_next.map_or(first, |old: u64| new_next.wrapping_add(first.wrapping_sub(old)));
        let target = if directory { args.output.join(beside::file_name(path)) } else { args.output.clone() };
        let copied = beside::write(&target, |out| {
            copy(segment, first_seq, &mut tokens, what, out).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
        })?;
        old_next = segment.blocks.last().map(|block| block.header.seq.wrapping_add(1));
        new_next = copied.next_seq;
        rows += copied.rows;
        left_blocks += copied.left_blocks;
        left_rows += copied.left_rows;
        done += segment.len;
        progress.show(done, trace.bytes());
    }
    progress.end();
    super::to_stdout(|out| {
        let kept = match (args.functions, args.build_ids) {
            (true, true) => "",
            (true, false) => "; build ids stay (--build-ids)",
            (false, true) => "; names of functions stay (--functions)",
            (false, false) => "; names of functions (--functions) and build ids (--build-ids) stay",
        };
        writeln!(out, "{}: {rows} rows, all names replaced by tokens{kept}", args.output.display())?;
        if left_blocks == 0 {
            return Ok(DONE);
        }
        writeln!(
            out,
            "{left_rows} rows of {left_blocks} blocks are not understood and were left out, events among them counted as lost; \
             a newer bpfrec may understand them"
        )?;
        Ok(DAMAGED)
    })
}
