//! A trace as tables, to be changed and written again.

use std::path::Path;

use bpfrec_format::{
    BlockHeader, BlockType, EndReason, Registry, Segment, SegmentIds, SegmentWriter, Table, Trace, meta,
};
use bpfrec_fuzz::seeds;

/// Rows that are kept of a table of events, and of any other.
const EVENTS: usize = 400;
const OTHERS: usize = 150;
/// Blocks of events that are kept.
const BLOCKS: usize = 12;

/// Header items and blocks.
#[derive(Clone)]
pub struct Model {
    pub items: Vec<(String, String)>,
    pub registry: Registry,
    pub blocks: Vec<(BlockHeader, Vec<Table>)>,
}

impl Model {
    /// The beginning of a trace.
    pub fn of_file(path: &Path) -> Model {
        Self::of(&Trace::walk(path).unwrap().segments[0].1)
    }

    /// The beginning of a segment.
    pub fn of_bytes(bytes: &[u8]) -> Model {
        Self::of(&Segment::walk(Box::new(bytes.to_vec())).unwrap())
    }

    fn of(segment: &Segment) -> Model {
        let (mut blocks, mut events) = (Vec::new(), 0);
        let made = [meta::HEADER_ITEM, meta::SCHEMA_FIELD, meta::INDEX_ENTRY, meta::END];
        for block in &segment.blocks {
            let Some(block_type) = BlockType::from_number(block.header.block_type) else { continue };
            let most = if block_type == BlockType::Events { EVENTS } else { OTHERS };
            events += usize::from(block_type == BlockType::Events);
            let Ok(rows) = segment.read(block, &|kind| !made.contains(&kind)) else { continue };
            let mut tables = rows.tables;
            tables.iter_mut().for_each(|table| *table = seeds::cut(table, most));
            tables.retain(|table| table.rows() > 0);
            if !tables.is_empty() && (block_type != BlockType::Events || events <= BLOCKS) {
                let header = BlockHeader::new(block_type, block.header.stream);
                let (ts_min_ns, ts_max_ns) = (block.header.ts_min_ns, block.header.ts_max_ns);
                blocks.push((BlockHeader { ts_min_ns, ts_max_ns, ..header }, tables));
            }
        }
        Model { items: segment.items.clone(), registry: segment.registry.clone(), blocks }
    }

    /// As a finished segment; what cannot be written is left out.
    pub fn bytes(&self) -> Vec<u8> {
        let ids = SegmentIds { trace_id: 7, segment: 0, first_seq: 0 };
        let mut writer = SegmentWriter::new(Vec::new(), ids, &self.registry, &self.items).unwrap();
        for (header, tables) in &self.blocks {
            let _ = writer.write_rows(*header, tables);
        }
        writer.finish(EndReason::Exit).unwrap().0
    }
}
