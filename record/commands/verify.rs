//! `bpfrec verify`: every checksum, every row, and what they say about each other.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use bpfrec_format::meta::{self, reason};
use bpfrec_format::{BlockRef, BlockType, Column, EndReason, Error, Registry, Segment, Table};

use super::progress::{Of, Progress};
use super::{DAMAGED, DONE, Out};
use crate::cli::VerifyArgs;

/// Runs the command.
pub fn run(args: VerifyArgs) -> anyhow::Result<u8> {
    let trace = super::walk(&args.trace)?;
    super::to_stdout(|out| {
        let (progress, bytes) = (Progress::new(Of::Bytes), trace.bytes());
        let mut check = Check { out, progress, bytes, done: 0, problems: 0, notes: 0, blocks: 0, rows: 0 };
        for (path, error) in &trace.refused {
            check.problem(path, 0, &error.to_string())?;
        }
        let mut next = None;
        for (path, segment) in &trace.segments {
            let first = segment.blocks[0].header;
            if let Some((seq, number)) = next.filter(|(seq, _)| *seq != first.seq) {
                let what = format!(
                    "expected block {seq} of segment {number} here, found block {} of segment {}: a segment is missing or cut",
                    first.seq, first.segment
                );
                check.problem(path, 0, &what)?;
            }
            check.segment(path, segment)?;
            let last = segment.blocks.last().map_or(first, |b| b.header);
            next = Some((last.seq.wrapping_add(1), first.segment.wrapping_add(1)));
        }
        // A segment that was named alone is whole by itself.
        if let Some((path, segment)) = trace.segments.last()
            && segment.end == Some(EndReason::Rotate)
            && args.trace.is_dir()
        {
            check.problem(path, segment.len, "the recording went on in a segment that is not here")?;
        }
        let Check { out, progress, problems, notes, blocks, rows, .. } = check;
        progress.end();
        let state = if problems == 0 { "whole" } else { "damaged or unfinished" };
        write!(out, "{}: {state}: {blocks} blocks, {rows} rows", args.trace.display())?;
        if problems > 0 {
            write!(out, ", {problems} problems")?;
        }
        if notes > 0 {
            write!(out, ", {notes} notes")?;
        }
        writeln!(out)?;
        Ok(if problems == 0 { DONE } else { DAMAGED })
    })
}

struct Check<'a> {
    out: &'a mut Out,
    progress: Progress,
    /// Bytes of the trace, and how many of them are checked.
    bytes: u64,
    done: u64,
    problems: u64,
    notes: u64,
    blocks: u64,
    rows: u64,
}

impl Check<'_> {
    fn problem(&mut self, path: &Path, offset: u64, what: &str) -> std::io::Result<()> {
        self.problems += 1;
        writeln!(self.out, "{}: offset {offset}: {what}", path.display())
    }

    /// Nothing wrong, but worth knowing.
    fn note(&mut self, path: &Path, offset: u64, what: &str) -> std::io::Result<()> {
        self.notes += 1;
        writeln!(self.out, "{}: offset {offset}: note: {what}", path.display())
    }

    fn segment(&mut self, path: &Path, segment: &Segment) -> anyhow::Result<()> {
        const TRY: &str = "`bpfrec recover` keeps the rest";
        for d in &segment.damage {
            self.problem(path, d.offset, &format!("{}: {} bytes; {TRY}", d.what, d.len))?;
        }
        for pair in segment.blocks.windows(2) {
            let (before, seq) = (pair[0].header.seq, pair[1].header.seq);
            if seq != before + 1 {
                let what = format!("blocks {} to {} are missing before this one; {TRY}", before + 1, seq - 1);
                self.problem(path, pair[1].offset, &what)?;
            }
        }
        let first = segment.blocks[0].header.block_type;
        if first != BlockType::Header as u8 {
            self.problem(path, 0, &format!("expected a HEADER block first, found type {first:#04x}; {TRY}"))?;
        }
        if segment.end.is_none() {
            let what = "the segment has no END: the recording was cut off or still runs; `bpfrec recover` makes a finished copy";
            self.problem(path, segment.len, what)?;
        }
        let mut defined = HashSet::new();
        for block in segment.blocks_of(BlockType::Stacks) {
            for table in segment.read(block, &|id| id == meta::STACK).map(|rows| rows.tables).unwrap_or_default() {
                defined.extend(ints(segment, &table, "stack_id"));
            }
        }
        for block in &segment.blocks {
            self.blocks += 1;
            self.rows += u64::from(block.header.rows);
            self.block(path, segment, block, &defined)?;
            self.done += block.header.total_len();
            self.progress.show(self.done, self.bytes);
        }
        Ok(())
    }

    fn block(
        &mut self,
        path: &Path,
        segment: &Segment,
        block: &BlockRef,
        defined: &HashSet<u64>,
    ) -> anyhow::Result<()> {
        let h = &block.header;
        let Some(block_type) = BlockType::from_number(h.block_type) else {
            match segment.read_stored(block) {
                Ok(_) if h.block_type >= 0x80 => {}
                Ok(_) => {
                    let what = format!(
                        "block type {:#04x} with {} rows is not understood; try a newer bpfrec",
                        h.block_type, h.rows
                    );
                    self.note(path, block.offset, &what)?;
                }
                Err(error) => self.problem(path, block.offset, &error.to_string())?,
            }
            return Ok(());
        };
        let rows = match segment.read(block, &|_| true) {
            Ok(rows) => rows,
            Err(error @ Error::NotUnderstood { .. }) => {
                return Ok(self.note(path, block.offset, &error.to_string())?);
            }
            Err(error) => {
                return Ok(self.problem(path, block.offset, &format!("{} block: {error}", block_type.name()))?);
            }
        };
        if rows.unknown_rows > 0 {
            self.note(
                path,
                block.offset,
                &format!("{} rows are not understood; try a newer bpfrec", rows.unknown_rows),
            )?;
        }
        let found = rows.unknown_rows + rows.tables.iter().map(|t| t.rows() as u64).sum::<u64>();
        if found != u64::from(h.rows) {
            self.problem(path, block.offset, &format!("expected {} rows as the header says, found {found}", h.rows))?;
        }
        self.times(path, block, segment, &rows.tables)?;
        self.stacks(path, block, segment, &rows.tables, defined)?;
        for table in &rows.tables {
            match table.kind {
                meta::SCHEMA_FIELD => {
                    if let Err(error) = Registry::default().learn(table) {
                        self.problem(path, block.offset, &error.to_string())?;
                    }
                }
                meta::INDEX_ENTRY => self.index(path, block, segment, table)?,
                meta::END => self.end(path, block, segment, table)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn times(&mut self, path: &Path, block: &BlockRef, segment: &Segment, tables: &[Table]) -> anyhow::Result<()> {
        let h = &block.header;
        let events = tables.iter().filter(|t| segment.registry.get(t.kind).is_some_and(|k| k.is_event()));
        let times: Vec<u64> = events.flat_map(|t| ints(segment, t, "ts_ns")).collect();
        let outside = times.iter().filter(|ts| **ts < h.ts_min_ns || **ts > h.ts_max_ns).count();
        if outside > 0 {
            let what =
                format!("{outside} events lie outside of the header's time from {} to {} ns", h.ts_min_ns, h.ts_max_ns);
            self.problem(path, block.offset, &what)?;
        }
        Ok(())
    }

    /// A stack that was lost and counted is no damage.
    fn stacks(
        &mut self,
        path: &Path,
        block: &BlockRef,
        segment: &Segment,
        tables: &[Table],
        defined: &HashSet<u64>,
    ) -> anyhow::Result<()> {
        let mut missing = HashSet::new();
        for table in tables {
            let Some(kind) = segment.registry.get(table.kind).filter(|k| k.is_event()) else { continue };
            for field in kind.fields.iter().filter(|f| f.name.ends_with("_stack_id")) {
                missing.extend(ints(segment, table, &field.name).filter(|id| *id != 0 && !defined.contains(id)));
            }
        }
        if let Some(id) = missing.iter().min() {
            let what = format!("{} stack ids such as {id:#x} are not defined in this segment", missing.len());
            if stacks_were_lost(segment) {
                self.note(path, block.offset, &format!("{what}; definitions were lost while it was recorded"))?;
            } else {
                self.problem(path, block.offset, &what)?;
            }
        }
        Ok(())
    }

    fn index(&mut self, path: &Path, block: &BlockRef, segment: &Segment, table: &Table) -> anyhow::Result<()> {
        let [Column::Int(offsets), Column::Text(headers), ..] = &table.columns[..] else { return Ok(()) };
        for (row, offset) in offsets.iter().enumerate() {
            let found =
                segment.blocks.binary_search_by_key(offset, |b| b.offset).ok().map(|i| segment.blocks[i].header);
            if found.is_none_or(|h| h.encode() != headers.get(row)) {
                let what = format!("the index lists a block at offset {offset} that is not there as listed");
                self.problem(path, block.offset, &what)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, path: &Path, block: &BlockRef, segment: &Segment, table: &Table) -> anyhow::Result<()> {
        let events = segment.blocks_of(BlockType::Events).map(|b| u64::from(b.header.rows)).sum::<u64>();
        let index = segment.blocks_of(BlockType::Index).next().map_or(block.offset, |b| b.offset);
        for (name, expected) in [
            ("index_offset_bytes", index),
            ("offset_bytes", block.offset),
            ("blocks", segment.blocks.len() as u64),
            ("events", events),
            ("lost", segment.lost()),
        ] {
            for found in ints(segment, table, name).filter(|v| *v != expected) {
                self.problem(path, block.offset, &format!("END says {name} is {found}, the segment has {expected}"))?;
            }
        }
        if block.offset + block.header.total_len() != segment.len {
            self.problem(path, block.offset, "END is not the last block")?;
        }
        Ok(())
    }
}

/// Values of an integer field.
fn ints<'a>(segment: &Segment, table: &'a Table, name: &str) -> impl Iterator<Item = u64> + use<'a> {
    let kind = segment.registry.get(table.kind);
    kind.and_then(|k| table.column(k, name)).map_or(&[][..], Column::ints).iter().copied()
}

fn stacks_were_lost(segment: &Segment) -> bool {
    segment.blocks_of(BlockType::Loss).any(|block| {
        let tables = segment.read(block, &|id| id == meta::LOSS).map(|rows| rows.tables).unwrap_or_default();
        let reasons = tables.iter().flat_map(|t| ints(segment, t, "reason"));
        reasons.into_iter().any(|r| r == reason::STACK_RING_FULL || r == reason::STACK_UNDEFINED)
    })
}
