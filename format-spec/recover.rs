//! Copies what is whole out of a damaged or unfinished segment.

use std::io::Write;

use rustc_hash::FxHashMap;

use crate::block::{BlockHeader, BlockType};
use crate::codec::Compressor;
use crate::error::{Error, Result};
use crate::kind::{Registry, Source};
use crate::meta::{self, reason};
use crate::reader::{BlockRef, Segment};
use crate::table::{Column, Table};
use crate::writer::{Block, EndReason, SegmentIds, SegmentWriter};

/// What a recovery kept and dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Blocks kept, those left out that are made anew.
    pub blocks: u64,
    /// Events kept.
    pub events: u64,
    /// Blocks whose payload was damaged, as (offset, type number, events, what).
    pub damaged: Vec<(u64, u8, u32, String)>,
    /// Blocks that are gone altogether but are listed in an index, as (type number, events).
    pub missing: Vec<(u8, u32)>,
    /// Bytes that were no block.
    pub bytes_skipped: u64,
    /// Blocks that stood in a wrong place, and are put right.
    pub out_of_order: u64,
    /// Whether the segment had its END.
    pub had_end: bool,
    /// Number of the block that follows the new segment.
    pub next_seq: u64,
}

impl Recovered {
    /// Whether the segment was whole.
    pub fn is_clean(&self) -> bool {
        let whole = self.damaged.is_empty() && self.missing.is_empty();
        whole && self.bytes_skipped == 0 && self.out_of_order == 0 && self.had_end
    }

    /// Events of the blocks that are known to be lost.
    pub fn events_lost(&self) -> u64 {
        let damaged = self.damaged.iter().map(|(_, ty, rows, _)| (*ty, *rows));
        let all = damaged.chain(self.missing.iter().copied());
        all.filter(|(ty, _)| *ty == BlockType::Events as u8).map(|(_, rows)| u64::from(rows)).sum()
    }
}

/// Writes every whole block of `segment` (opened by [`Segment::walk`]) to `out`, with a new index and END. Blocks are
/// numbered anew from the first one's number on.
pub fn recover<W: Write>(segment: &Segment, out: W) -> Result<Recovered> {
    recover_as(segment, segment.blocks[0].header.seq, out)
}

/// As [`recover`], with a number for the first block: so that the segments of a trace follow one another.
pub fn recover_as<W: Write>(segment: &Segment, first_seq: u64, out: W) -> Result<Recovered> {
    let first = segment.blocks[0].header;
    let ids = SegmentIds { trace_id: first.trace_id, segment: first.segment, first_seq };
    let mut result = Recovered {
        had_end: segment.end.is_some(),
        bytes_skipped: segment.damage.iter().map(|d| d.len).sum(),
        out_of_order: segment.damage.iter().filter(|d| d.len == 0).count() as u64,
        ..Recovered::default()
    };
    let mut items = segment.items.clone();
    items.retain(|(key, _)| key != "recovered");
    let recovered = format!("end {}", segment.end.map_or("missing", EndReason::name));
    items.push(("recovered".into(), recovered));
    let mut writer = SegmentWriter::new(out, ids, &Registry::default(), &items)?;
    let mut compressor = Compressor::new(crate::codec::LEVEL)?;
    let mut losses = Table::new(&meta::kind(meta::LOSS));
    let mut listed = FxHashMap::default();
    for block in &segment.blocks {
        let h = block.header;
        let stored = match whole(segment, block) {
            Ok(stored) => stored,
            Err(Error::Damaged { what, .. }) => {
                result.damaged.push((block.offset, h.block_type, h.rows, what));
                count_loss(&h, &mut losses);
                continue;
            }
            Err(error) => return Err(error),
        };
        let block = match BlockType::from_number(h.block_type) {
            Some(BlockType::Header | BlockType::End) => continue,
            Some(BlockType::Index) => {
                list(segment, block, &mut listed);
                continue;
            }
            Some(BlockType::Checkpoint) => {
                list(segment, block, &mut listed);
                // The index part is about offsets of the old file: only the totals stay.
                match segment.read(block, &|kind| kind != meta::INDEX_ENTRY) {
                    Ok(rows) => {
                        let tables: Vec<_> = rows.tables.iter().collect();
                        Block::of_tables(BlockType::Checkpoint, &tables, Some(&mut compressor))?
                    }
                    Err(_) => continue,
                }
            }
            _ => Block { header: h, payload: stored },
        };
        if h.block_type == BlockType::Events as u8 {
            result.events += u64::from(h.rows);
        }
        writer.write(block)?;
        result.blocks += 1;
    }
    for block in &segment.blocks {
        listed.remove(&block.header.seq);
    }
    let mut missing: Vec<BlockHeader> = listed.into_values().collect();
    missing.sort_by_key(|h| h.seq);
    for h in missing {
        result.missing.push((h.block_type, h.rows));
        count_loss(&h, &mut losses);
    }
    if losses.rows() > 0 {
        writer.write_tables(BlockType::Loss, &[&losses])?;
    }
    writer.count_lost(segment.lost().saturating_add(result.events_lost()));
    (_, result.next_seq) = writer.finish(EndReason::Recovered)?;
    Ok(result)
}

/// The payload as stored. Decoding shows damage that a checksum cannot, a writer's mistake; what is not understood is
/// copied by its checksum alone.
fn whole(segment: &Segment, block: &BlockRef) -> Result<Vec<u8>> {
    let stored = segment.read_stored(block)?;
    if BlockType::from_number(block.header.block_type).is_some() {
        match segment.read(block, &|_| true) {
            Ok(_) | Err(Error::NotUnderstood { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(stored)
}

/// Takes the headers out of an index, by block number.
fn list(segment: &Segment, block: &BlockRef, listed: &mut FxHashMap<u64, BlockHeader>) {
    // A bomb would list more blocks than there can be.
    let most = segment.len / crate::block::HEADER_LEN as u64 + (1 << 16);
    for table in segment.read(block, &|kind| kind == meta::INDEX_ENTRY).map(|rows| rows.tables).unwrap_or_default() {
        let [_, Column::Text(headers), ..] = &table.columns[..] else { continue };
        for row in 0..table.rows() {
            let header = BlockHeader::decode(headers.get(row));
            let own = header.filter(|h| (h.trace_id, h.segment) == (block.header.trace_id, block.header.segment));
            if let Some(h) = own.filter(|_| (listed.len() as u64) < most) {
                listed.insert(h.seq, h);
            }
        }
    }
}

/// The source is not known without the payload: 0.
fn count_loss(h: &BlockHeader, losses: &mut Table) {
    if h.block_type == BlockType::Events as u8 && h.rows > 0 {
        losses.push(&[
            (Source::Recorder as u32).into(),
            h.stream.into(),
            h.ts_min_ns.into(),
            h.ts_max_ns.into(),
            reason::DAMAGED.into(),
            u64::from(h.rows).into(),
        ]);
    }
}
