//! `bpfrec recover`: a new, whole trace from what can still be read of a damaged or unfinished one.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bpfrec_format::recover::{Recovered, recover_as};
use bpfrec_format::{BlockType, Segment, Trace};

use super::progress::{Of, Progress};
use super::{DAMAGED, DONE, Out};
use crate::cli::RecoverArgs;

/// Runs the command.
pub fn run(args: RecoverArgs) -> anyhow::Result<u8> {
    let trace = super::walk(&args.trace)?;
    if let (Ok(from), Ok(to)) = (args.trace.canonicalize(), args.output.canonicalize())
        && (from == to || from.starts_with(&to))
    {
        bail!("{} is the trace itself: give another --output", args.output.display());
    }
    let exists = fs::symlink_metadata(&args.output).is_ok();
    if exists && !args.force {
        bail!("{} exists: give another --output, or --force to replace it", args.output.display());
    }
    super::to_stdout(|out| {
        let mut clean = trace.refused.is_empty() && trace.missing_blocks() == 0;
        for (path, error) in &trace.refused {
            writeln!(out, "{}: left out: {error}", path.display())?;
        }
        let directory = args.trace.is_dir();
        if directory {
            prepare(&args.output)?;
        }
        // Numbers go on from segment to segment, but for segments that are missing as a whole.
        let (mut old_next, mut new_next) = (None, 0u64);
        let mut counter = Counter { progress: Progress::new(Of::Bytes), done: 0, total: trace.bytes() };
        for (path, segment) in &trace.segments {
            let first = segment.blocks[0].header.seq;
            let first_seq = old_next.map_or(first, |old: u64| new_next.wrapping_add(first.saturating_sub(old)));
            let target = if directory { args.output.join(file_name(path)) } else { args.output.clone() };
            let result = write(&target, segment, first_seq, &mut counter)?;
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

/// Name of a finished segment.
fn file_name(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.strip_suffix(".part").unwrap_or(&name).into()
}

/// An empty directory, or one without segments.
fn prepare(path: &Path) -> anyhow::Result<()> {
    let context = || format!("{} cannot be made", path.display());
    if fs::symlink_metadata(path).is_ok_and(|m| !m.is_dir()) {
        fs::remove_file(path).with_context(context)?;
    }
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path).with_context(context)?;
    for entry in fs::read_dir(path).with_context(context)? {
        let entry = entry.with_context(context)?.path();
        let name = entry.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.starts_with("seg-") && (name.ends_with(".bpr") || name.ends_with(".part")) {
            fs::remove_file(&entry).with_context(|| format!("{} cannot be replaced", entry.display()))?;
        }
    }
    Ok(())
}

/// Writes beside `target` under a name of its own, so that an older file is there until the new one is whole.
fn write(target: &Path, segment: &Segment, first_seq: u64, counter: &mut Counter) -> anyhow::Result<Recovered> {
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = create(&part).with_context(|| {
        format!("{} cannot be made; remove it if an earlier recovery left it behind", part.display())
    })?;
    let done = (|| {
        let mut out = BufWriter::with_capacity(1 << 20, Counted { file: &file, counter });
        let result = recover_as(segment, first_seq, &mut out)?;
        out.flush()?;
        drop(out);
        file.sync_all()?;
        fs::rename(&part, target)?;
        anyhow::Ok(result)
    })();
    if done.is_err() {
        let _ = fs::remove_file(&part);
    }
    done.with_context(|| format!("{} cannot be written", target.display()))
}

/// Shows how much of the trace is copied: what is whole becomes as large as it was.
struct Counter {
    progress: Progress,
    done: u64,
    total: u64,
}

struct Counted<'a> {
    file: &'a File,
    counter: &'a mut Counter,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.counter.done += n as u64;
        self.counter.progress.show(self.counter.done, self.counter.total);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Only for the owner, and never through a link or over another file.
fn create(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn report(out: &mut Out, path: &Path, trace: &Trace, result: &Recovered) -> std::io::Result<()> {
    let name =
        if trace.segments.len() > 1 { file_name(path).display().to_string() } else { path.display().to_string() };
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
