//! Large traces out of small ones: the events of a recording over and over, each time later.
//!
//! Forks, exits and new cgroups come again too, so that tasks grow in number as they do in a long recording. Stacks,
//! mappings and symbols stand in it once; totals of events are those of the whole.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bpfrec_format::codec::{Compressor, LEVEL};
use bpfrec_format::{
    Block, BlockHeader, BlockRef, BlockType, Column, EndReason, Kind, Registry, SegmentIds, SegmentWriter, Table,
    Trace, meta, section,
};
use rayon::prelude::*;

/// Fields that are moments.
const MOMENTS: [&str; 2] = ["ts_ns", "start_ns"];
/// Time between a repetition and the next.
const GAP_NS: u64 = 1_000_000;
/// Blocks that are made at once.
const BATCH: usize = 64;

/// Writes `to` with at least `events` events, the whole of `from` as often as it takes. Returns how many there are.
pub fn grow(from: &Path, to: &Path, events: u64) -> Result<u64> {
    let trace = Trace::open(from).with_context(|| from.display().to_string())?;
    let is = |block: &BlockRef, ty: BlockType| block.header.block_type == ty as u8;
    let (mut rows, mut first, mut last) = (0, u64::MAX, 0);
    for (_, block) in trace.blocks().filter(|(_, b)| is(b, BlockType::Events)) {
        rows += u64::from(block.header.rows);
        (first, last) = (first.min(block.header.ts_min_ns), last.max(block.header.ts_max_ns));
    }
    ensure!(rows > 0, "{} has no events", from.display());
    let (times, period) = (events.div_ceil(rows), last - first + GAP_NS);
    let segment = &trace.segments[0].1;
    let ids = SegmentIds { trace_id: segment.blocks[0].header.trace_id, segment: 0, first_seq: 0 };
    let out = BufWriter::with_capacity(1 << 20, File::create(to).with_context(|| to.display().to_string())?);
    let mut writer = SegmentWriter::new(out, ids, &segment.registry, &segment.items)?;
    for (number, block) in trace.blocks() {
        let own = [BlockType::Header, BlockType::Schema, BlockType::Index, BlockType::End, BlockType::Events];
        if own.iter().any(|ty| is(block, *ty)) {
            continue;
        }
        let from = &trace.segments[number].1;
        let mut tables = from.read(block, &|kind| kind != meta::INDEX_ENTRY)?.tables;
        tables.iter_mut().for_each(|table| total(from.registry.get(table.kind).map(AsRef::as_ref), table, times));
        let tables: Vec<&Table> = tables.iter().collect();
        match BlockType::from_number(block.header.block_type) {
            Some(BlockType::Checkpoint) => writer.checkpoint(&tables)?,
            Some(ty) => writer.write_tables(ty, &tables)?,
            None => {}
        }
    }
    let repeated = [BlockType::Events, BlockType::Tasks, BlockType::Cgroups];
    let blocks: Vec<_> = trace.blocks().filter(|(_, b)| repeated.iter().any(|ty| is(b, *ty))).collect();
    for shift in (0..times).map(|time| time * period) {
        for batch in blocks.chunks(BATCH) {
            let make = |zstd: &mut Option<Compressor>, (number, block): &(usize, &BlockRef)| -> Result<Option<Block>> {
                let segment = &trace.segments[*number].1;
                let tables = segment.read(block, &|_| true)?.tables;
                let zstd = match zstd {
                    Some(zstd) => zstd,
                    None => zstd.insert(Compressor::new(LEVEL)?),
                };
                later(tables, &segment.registry, &block.header, shift, zstd)
            };
            let made: Vec<_> = batch.par_iter().map_init(|| None, make).collect();
            for block in made {
                if let Some(block) = block? {
                    writer.write(block)?;
                }
            }
        }
    }
    let events = writer.events();
    writer.finish(EndReason::Exit)?;
    Ok(events)
}

/// What counts all events counts them as often as they come.
fn total(kind: Option<&Kind>, table: &mut Table, times: u64) {
    let kept = kind.filter(|kind| kind.id == meta::SOURCE_STATS).and_then(|kind| kind.index_of("kept"));
    if let Some(Column::Int(kept)) = kept.and_then(|i| table.columns.get_mut(i)) {
        kept.iter_mut().for_each(|n| *n *= times);
    }
}

/// The events in a block, `shift` later. What describes tasks and cgroups holds for all time but its events.
fn later(
    mut tables: Vec<Table>,
    registry: &Registry,
    old: &BlockHeader,
    shift: u64,
    zstd: &mut Compressor,
) -> Result<Option<Block>> {
    let is_events = old.block_type == BlockType::Events as u8;
    // The first time they are there already.
    tables.retain(|t| registry.get(t.kind).is_some_and(|kind| kind.is_event()) && (is_events || shift > 0));
    if tables.is_empty() {
        return Ok(None);
    }
    let mut raw = Vec::new();
    for table in &mut tables {
        let Some(kind) = registry.get(table.kind) else { continue };
        for (field, column) in kind.fields.iter().zip(&mut table.columns) {
            if let Column::Int(values) = column
                && MOMENTS.contains(&field.name.as_str())
            {
                values.iter_mut().for_each(|ns| *ns += shift);
            }
        }
        section::encode(table, &mut raw);
    }
    let header = BlockHeader {
        rows: tables.iter().map(|t| t.rows() as u32).sum(),
        ts_min_ns: old.ts_min_ns + shift,
        ts_max_ns: old.ts_max_ns + shift,
        lost_total: old.lost_total,
        encoding: bpfrec_format::Encoding::Columns as u8,
        ..BlockHeader::new(BlockType::from_number(old.block_type).unwrap_or(BlockType::Events), old.stream)
    };
    Ok(Some(Block::new(header, raw, Some(zstd))?))
}

#[cfg(test)]
mod tests {
    use bpfrec_analyze::reports::{self, Flags};
    use bpfrec_analyze::{Filter, Meta};

    use super::*;

    fn waits(trace: &Trace) -> u64 {
        let meta = Meta::load(trace).unwrap();
        let (kind, filter) = (reports::find("runqlat").unwrap(), Filter::everything(&meta));
        let text = reports::run(trace, &meta, kind, &Flags::default(), &filter, true, &|_, _| {}).unwrap().output;
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["groups"][0]["count"].as_u64().unwrap()
    }

    #[test]
    fn a_grown_trace_is_whole_and_holds_all_as_often() {
        let scratch = crate::scratch::Scratch::new(&std::env::temp_dir()).unwrap();
        let (from, to) = (crate::scratch::root().join("testdata/v1/mixed-6.18.bpr"), scratch.path("grown.bpr"));
        let trace = Trace::open(&from).unwrap();
        let one = Meta::load(&trace).unwrap();
        let events = grow(&from, &to, 2 * one.events + 1).unwrap();
        assert_eq!(events, 3 * one.events);
        let grown = Trace::open(&to).unwrap();
        let meta = Meta::load(&grown).unwrap();
        assert!(grown.is_complete() && !meta.damage.any(), "{:?}", meta.damage.places);
        assert_eq!((meta.events, meta.losses.all()), (events, 0));
        assert!(meta.tasks.all().len() > one.tasks.all().len(), "forks come again");
        assert_eq!(meta.stacks.len(), one.stacks.len());
        let kept = |meta: &Meta| meta.sources.values().map(|s| s.kept).sum::<u64>();
        assert_eq!(kept(&meta), 3 * kept(&one));
        // At the seams some waits begin in one repetition and would end in the next.
        let (all, expected) = (waits(&grown), 3 * waits(&trace));
        assert!(all.abs_diff(expected) < 50, "{all} waits, expected about {expected}");
    }
}
