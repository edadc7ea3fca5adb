//! The segments of a trace, one after the other: what the writer thread does with its messages.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::{fs, io};

use anyhow::{Context, Result, anyhow};
use bpfrec_format::codec::{Compressor, LEVEL};
use bpfrec_format::pack::Packer;
use bpfrec_format::writer::Chunk;
use bpfrec_format::{Block, BlockType, EndReason, Error, SegmentIds, SegmentWriter, Table, meta};

use crate::behind::Behind;
use crate::held::Held;
use crate::output::{self, Output};
use crate::queue::Receiver;
use crate::stacks::Stacks;
use crate::status::tell;
use crate::steps::thread_ns;
use crate::writer::{Message, Outcome, Plan, Progress};

#[cfg(test)]
mod faults;

/// Chunks that may wait: 16 MiB of rows.
pub const QUEUE: usize = 64;

/// Makes the file of a segment; with the second it may replace one.
type Create = Box<dyn Fn(&Path, bool) -> Result<Output> + Send>;

/// The segments of a trace.
pub struct Segments {
    plan: Plan,
    create: Create,
    /// Its lock tells other recordings that this one writes here.
    _directory: Option<fs::File>,
    /// What the other threads look at.
    pub progress: Arc<Progress>,
    current: Option<SegmentWriter<Output>>,
    number: u32,
    next_seq: u64,
    finished_bytes: u64,
    stacks: Stacks,
    compressor: Compressor,
    packer: Packer,
    held: Held,
}

impl Segments {
    /// Creates the first segment.
    ///
    /// # Errors
    /// When the output cannot be made, or its first blocks not written; then nothing is left of it.
    pub fn open(plan: Plan) -> Result<Self> {
        let behind = Behind::default();
        Segments::with(plan, Arc::default(), Box::new(move |path, force| output::create(path, force, Some(&behind))))
    }

    /// As [`Segments::open`], with another way to make files.
    fn with(plan: Plan, progress: Arc<Progress>, create: Create) -> Result<Self> {
        let directory = if plan.rotates { Some(make_directory(&plan.path, plan.force)?) } else { None };
        let mut segments = Segments {
            plan,
            create,
            _directory: directory,
            progress,
            current: None,
            number: 0,
            next_seq: 0,
            finished_bytes: 0,
            stacks: Stacks::default(),
            compressor: Compressor::new(LEVEL)?,
            packer: Packer::default(),
            held: Held::default(),
        };
        segments.begin()?;
        Ok(segments)
    }

    fn segment_path(&self, part: bool) -> PathBuf {
        let suffix = if part { ".part" } else { "" };
        self.plan.path.join(format!("seg-{:06}.bpr{suffix}", self.number))
    }

    fn begin(&mut self) -> Result<()> {
        let to_stdout = !self.plan.rotates && self.plan.path == Path::new("-");
        let path = if self.plan.rotates { self.segment_path(true) } else { self.plan.path.clone() };
        let force = self.plan.force && !self.plan.rotates;
        let out = if to_stdout { output::stdout()? } else { (self.create)(&path, force)? };
        let ids = SegmentIds { trace_id: self.plan.trace_id, segment: self.number, first_seq: self.next_seq };
        let mut items = self.plan.items.clone();
        if let Some(last) = self.next_seq.checked_sub(1) {
            items.push(("previous_segment_seq".into(), last.to_string()));
        }
        let writer = SegmentWriter::new(out, ids, &self.plan.registry, &items);
        if writer.is_err() && !to_stdout {
            // Nobody could read it, and it would be in the way of the next recording.
            let _ = fs::remove_file(&path);
        }
        self.current = Some(writer.with_context(|| format!("cannot write {}", path.display()))?);
        Ok(())
    }

    /// Takes messages until the last one.
    pub fn run(&mut self, messages: &Receiver<Message>) -> Result<Outcome> {
        while let Some((message, waiting)) = messages.next() {
            let finish = matches!(message, Message::Finish(_));
            match self.take(message, waiting) {
                Ok(()) => {}
                Err(error) => {
                    self.progress.failed.store(true, Ordering::Relaxed);
                    let full = is_full(&error);
                    self.end_early(if full { EndReason::DiskFull } else { EndReason::WriteError });
                    self.count_bytes();
                    return if full { Ok(Outcome::DiskFull) } else { Err(error) };
                }
            }
            self.count_bytes();
            if finish {
                return Ok(Outcome::Whole);
            }
        }
        Err(anyhow!("the end did not come through in time"))
    }

    fn take(&mut self, message: Message, waiting: usize) -> Result<()> {
        match message {
            Message::Chunk(chunk) => {
                self.chunk(&chunk, waiting)?;
                self.progress.wrote(chunk);
                Ok(())
            }
            Message::Tables(block_type, tables) => {
                if block_type == BlockType::Stacks {
                    tables.iter().for_each(|t| self.stacks.define(t));
                }
                if Held::takes(block_type) {
                    self.held.add(block_type, tables);
                    return if self.held.is_full() { self.release() } else { Ok(()) };
                }
                // Losses of what events refer to are no lost events.
                let of_events = |t: &Table| {
                    let rows = t.columns[4].ints().iter().zip(t.columns[5].ints());
                    rows.filter(|(reason, _)| meta::reason::loses_events(**reason)).map(|(_, lost)| lost).sum::<u64>()
                };
                let lost = tables.iter().filter(|t| t.kind == meta::LOSS).map(of_events).sum();
                let writer = self.writer()?;
                writer.count_lost(lost);
                writer.write_tables(block_type, &tables.iter().collect::<Vec<_>>())?;
                Ok(())
            }
            Message::Release => self.release(),
            Message::Block(block) => Ok(self.writer()?.write(block)?),
            Message::Checkpoint(tables) => Ok(self.writer()?.checkpoint(&tables.iter().collect::<Vec<_>>())?),
            Message::Rotate(snapshot) => self.rotate(&snapshot),
            Message::Finish(reason) => {
                self.end(reason)?;
                self.remove_oldest()
            }
        }
    }

    /// Writes the tables that waited.
    fn release(&mut self) -> Result<()> {
        for (block_type, tables) in self.held.take() {
            let tables: Vec<_> = tables.iter().collect();
            let block = Block::of_tables(block_type, &tables, Some(&mut self.compressor))?;
            self.writer()?.write(block)?;
        }
        Ok(())
    }

    fn writer(&mut self) -> Result<&mut SegmentWriter<Output>> {
        self.current.as_mut().ok_or_else(|| anyhow!("no segment is open"))
    }

    /// The ladder under pressure: columns with zstd, columns alone, rows as they are.
    fn chunk(&mut self, chunk: &Chunk, waiting: usize) -> Result<()> {
        let compressor = (waiting < QUEUE / 2).then_some(&mut self.compressor);
        let raw = waiting >= QUEUE * 3 / 4;
        let begin = thread_ns();
        let (header, payload) = chunk.lay(&self.plan.registry, &mut self.packer, raw)?;
        let encoded = thread_ns();
        let block = Block::new(header, payload, compressor)?;
        let steps = &self.progress.steps;
        steps.encode_ns.fetch_add(encoded - begin, Ordering::Relaxed);
        steps.compress_ns.fetch_add(thread_ns() - encoded, Ordering::Relaxed);
        let again = self.stacks.refer(chunk, &self.plan.registry);
        let writer = self.writer()?;
        if let Some(table) = again {
            writer.write_tables(BlockType::Stacks, &[&table])?;
        }
        let begin = thread_ns();
        writer.write(block)?;
        self.progress.steps.write_ns.fetch_add(thread_ns() - begin, Ordering::Relaxed);
        Ok(())
    }

    fn end(&mut self, reason: EndReason) -> Result<()> {
        self.progress.undefined_stacks.store(self.stacks.undefined(), Ordering::Relaxed);
        if self.current.is_some() {
            self.release()?;
        }
        let Some(mut writer) = self.current.take() else { return Ok(()) };
        if self.stacks.undefined() > 0 {
            let now = crate::clock::mono_ns();
            let table =
                crate::stats::loss_row(0, None, (now, now), meta::reason::STACK_UNDEFINED, self.stacks.undefined());
            writer.write_tables(BlockType::Loss, &[&table])?;
        }
        writer.get_mut().begin_end();
        let (out, next_seq) = writer.finish(reason)?;
        self.next_seq = next_seq;
        self.finished_bytes += out.written();
        if self.plan.rotates {
            let (part, path) = (self.segment_path(true), self.segment_path(false));
            fs::rename(&part, &path).with_context(|| format!("cannot rename {}", part.display()))?;
            fs::File::open(&self.plan.path)?.sync_all()?;
        }
        Ok(())
    }

    fn rotate(&mut self, snapshot: &[(BlockType, Table)]) -> Result<()> {
        self.end(EndReason::Rotate)?;
        self.number += 1;
        self.stacks.next_segment();
        self.begin()?;
        for (block_type, table) in snapshot {
            self.writer()?.write_tables(*block_type, &[table])?;
        }
        self.remove_oldest()
    }

    fn remove_oldest(&self) -> Result<()> {
        self.plan.max_bytes.map_or(Ok(()), |max| remove_oldest(&self.plan.path, max))
    }

    /// After an error the segment ends with its last whole block, where the disk lets it: in the space that was reserved for that.
    fn end_early(&mut self, reason: EndReason) {
        let Some(writer) = self.current.as_mut() else { return };
        let whole = writer.bytes();
        let rewound = writer.get_mut().rewind(whole);
        if let Err(error) = rewound.map_err(Into::into).and_then(|()| self.end(reason)) {
            self.current = None;
            tell(&format!("the end of the segment could not be written ({error:#}); all before it can be read"));
        }
    }

    fn count_bytes(&self) {
        let segment = self.current.as_ref().map_or(0, SegmentWriter::bytes);
        self.progress.segment_bytes.store(segment, Ordering::Relaxed);
        self.progress.bytes.store(self.finished_bytes + segment, Ordering::Relaxed);
        self.progress.steps.all_ns.store(thread_ns(), Ordering::Relaxed);
    }
}

fn is_full(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|e| match e.downcast_ref::<Error>() {
        Some(Error::Io(io)) => Some(io),
        _ => e.downcast_ref::<io::Error>(),
    });
    io.is_some_and(output::is_full)
}

/// An empty directory for segments, locked while it is open; with `force` the segments of an earlier recording go.
fn make_directory(path: &Path, force: bool) -> Result<fs::File> {
    use std::os::unix::fs::DirBuilderExt;
    if let Err(error) = fs::DirBuilder::new().mode(0o700).create(path)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error).with_context(|| format!("cannot create the directory {}", path.display()));
    }
    let directory = fs::File::open(path).with_context(|| format!("cannot read the directory {}", path.display()))?;
    output::lock(&directory, path)?;
    let old = segments_of(path)?;
    if !old.is_empty() && !force {
        return Err(anyhow!("{} holds a recording: --force replaces it", path.display()));
    }
    for (segment, _) in old {
        fs::remove_file(&segment).with_context(|| format!("cannot remove {}", segment.display()))?;
    }
    Ok(directory)
}

/// Segment files of a directory with their sizes, oldest first.
fn segments_of(path: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("cannot read the directory {}", path.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("seg-") && (name.ends_with(".bpr") || name.ends_with(".bpr.part")) {
            segments.push((entry.path(), entry.metadata().map_or(0, |m| m.len())));
        }
    }
    segments.sort();
    Ok(segments)
}

/// Deletes the oldest finished segments until all together are at most `max` bytes. The newest stays: it has the symbols.
fn remove_oldest(path: &Path, max: u64) -> Result<()> {
    let segments = segments_of(path)?;
    let mut total: u64 = segments.iter().map(|(_, len)| len).sum();
    let older = &segments[..segments.len().saturating_sub(1)];
    for (segment, len) in older.iter().filter(|(p, _)| p.extension().is_some_and(|e| e == "bpr")) {
        if total <= max {
            break;
        }
        fs::remove_file(segment).with_context(|| format!("cannot remove {}", segment.display()))?;
        total -= len;
    }
    Ok(())
}
