//! `bpfrec recover`: a new, whole trace from what can still be read of a damaged or unfinished one.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use bpfrec_format::recover::{Recovered, recover_as};
use bpfrec_format::{BlockType, Trace};

use super::progress::{Of, Progress};
use super::{DAMAGED, DONE, Out, beside};
use crate::cli::RecoverArgs;

/// Runs the command.
pub fn run(args: RecoverArgs) -> anyhow::Result<u8> {
    let trace = super::walk(&args.trace)?;
    beside::may_write(&args.trace, &args.output, args.force)?;
    super::to_stdout(|out| {
        let mut clean = trace.refused.is_empty() && trace.missing_blocks() == 0;
        for (path, error) in &trace.refused {
            writeln!(out, "{}: left out: {error}", path.display())?;
        }
        let directory = args.trace.is_dir();
        if directory {
            beside::directory_of_segments(&args.output)?;
        }
        // Numbers go on from segment to segment, but for segments that are missing as a whole.
        let (mut old_next, mut new_next) = (None, 0u64);
        let mut counter = Counter { progress: Progress::new(Of::Bytes), done: 0, total: trace.bytes() };
        for (path, segment) in &trace.segments {
            let first = segment.blocks[0].header.seq;
            let first_seq = old_next.map_or(first, |old: u64| new_next.wrapping_add(first.saturating_sub(old)));
            let target = if directory { args.output.join(beside::file_name(path)) } else { args.output.clone() };
            let result = beside::write(&target, |out| {
                Ok(recover_as(segment, first_seq, Counted { out, counter: &mut counter })?)
            })?;
            old_next = segment.blocks.last().map(|b| b.header.seq.saturating_add(1));
            new_next = result.next_seq;
            clean &= result.is_clean();
            report(out, path, &trace, &result)?;
        }
        counter.progress.end();
        writeln!(out, "{}: {}", args.output.display(), if clean { "nothing was lost" } else { "the rest is lost" })?;
        Ok(if clean { DONE } else { DAMAGED })
    })
}

/// Shows how much of the trace is copied: what is whole becomes as large as it was.
struct Counter {
    progress: Progress,
    done: u64,
    total: u64,
}

struct Counted<'a, W> {
    out: &'a mut W,
    counter: &'a mut Counter,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.counter.done += n as u64;
        self.counter.progress.show(self.counter.done, self.counter.total);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

fn report(out: &mut Out, path: &Path, trace: &Trace, result: &Recovered) -> std::io::Result<()> {
    let name = if trace.segments.len() > 1 {
        beside::file_name(path).display().to_string()
    } else {
        path.display().to_string()
    };
    writeln!(out, "{name}: kept {} blocks with {} events", result.blocks, result.events)?;
    if !result.had_end {
        writeln!(out, "{name}: it had no end: what was not yet written then is lost")?;
    }
    let mut lost = BTreeMap::<u8, (u64, u64)>::new();
    let damaged = result.damaged.iter().map(|(_, ty, rows, _)| (*ty, *rows));
    for (block_type, rows) in damaged.chain(result.missing.iter().copied()) {
        let sum = lost.entry(block_type).or_default();
        *sum = (sum.0 + 1, sum.1 + u64::from(rows));
    }
    for (block_type, (blocks, rows)) in lost {
        let type_name =
            BlockType::from_number(block_type).map_or(format!("type {block_type:#04x}"), |t| t.name().into());
        let rows_are = if block_type == BlockType::Events as u8 { "events" } else { "rows" };
        writeln!(out, "{name}: lost {blocks} {type_name} blocks with {rows} {rows_are}")?;
    }
    for (offset, _, _, what) in result.damaged.iter().take(20) {
        writeln!(out, "{name}: offset {offset}: {what}")?;
    }
    if result.damaged.len() > 20 {
        writeln!(out, "{name}: ... and {} more damaged blocks", result.damaged.len() - 20)?;
    }
    if result.bytes_skipped > 0 {
        writeln!(out, "{name}: skipped {} bytes that are no block of this trace", result.bytes_skipped)?;
    }
    if result.out_of_order > 0 {
        writeln!(out, "{name}: put {} blocks into their place", result.out_of_order)?;
    }
    Ok(())
}
