//! Copies what is whole out of a damaged or unfinished segment.

use std::io::Write;

use crate::block::BlockType;
use crate::codec::Compressor;
use crate::error::Result;
use crate::reader::Segment;
use crate::writer::{Block, EndReason, SegmentIds, SegmentWriter};

/// What a recovery kept and dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Blocks kept.
    pub blocks: u64,
    /// Events kept.
    pub events: u64,
    /// Blocks whose payload was damaged, as (offset, type number, events, what).
    pub damaged: Vec<(u64, u8, u32, String)>,
    /// Bytes that were no block.
    pub bytes_skipped: u64,
    /// Whether the segment had its END.
    pub had_end: bool,
}

impl Recovered {
    /// Whether nothing was lost but, at most, the END.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.bytes_skipped == 0 && self.had_end
    }
}

/// Writes every whole block of `segment` (opened by [`Segment::walk`]) to `out`, with a new index and END.
pub fn recover<W: Write>(segment: &Segment, out: W) -> Result<Recovered> {
    let first = segment.blocks[0].header;
    let ids = SegmentIds { trace_id: first.trace_id, segment: first.segment, first_seq: first.seq };
    let mut result = Recovered {
        had_end: segment.end.is_some(),
        bytes_skipped: segment.damage.iter().map(|d| d.len).sum(),
        ..Recovered::default()
    };
    let mut items = segment.items.clone();
    items.retain(|(key, _)| key != "recovered");
    let recovered = format!("end {}", segment.end.map_or("missing", EndReason::name));
    items.push(("recovered".into(), recovered));
    let mut writer = SegmentWriter::new(out, ids, &segment.registry, &items)?;
    let mut check = Compressor::new(crate::codec::LEVEL)?;
    for block in &segment.blocks {
        let h = block.header;
        let made_anew = [BlockType::Header, BlockType::Schema, BlockType::Index, BlockType::End];
        if BlockType::from_number(h.block_type).is_some_and(|t| made_anew.contains(&t)) {
            continue;
        }
        // Decoding shows damage that a checksum cannot: a writer's mistake, a codec that is not known here. Blocks of
        // unknown types are copied by their checksum alone.
        let known = BlockType::from_number(h.block_type).is_some();
        let stored = segment.read_stored(block).and_then(|payload| match known {
            true => segment.read(block, &|_| true).map(|_| payload),
            false => Ok(payload),
        });
        match stored {
            Ok(_) if h.block_type == BlockType::Checkpoint as u8 => {
                // Its index part is about offsets of the old file: only the totals stay.
                let tables = segment.read(block, &|kind| kind != crate::meta::INDEX_ENTRY)?.tables;
                let tables: Vec<_> = tables.iter().collect();
                writer.write(Block::of_tables(BlockType::Checkpoint, &tables, Some(&mut check))?)?;
                result.blocks += 1;
            }
            Ok(payload) => {
                writer.write(Block { header: h, payload })?;
                result.blocks += 1;
                if h.block_type == BlockType::Events as u8 {
                    result.events += u64::from(h.rows);
                }
            }
            Err(error) => result.damaged.push((block.offset, h.block_type, h.rows, error.to_string())),
        }
    }
    writer.finish(EndReason::Recovered)?;
    Ok(result)
}
