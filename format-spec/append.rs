//! Copies a finished segment and puts more tables before its end: names that were found later.

use std::io::Write;

use crate::block::BlockType;
use crate::codec::{Compressor, LEVEL};
use crate::error::{Error, Result};
use crate::kind::Registry;
use crate::meta;
use crate::reader::Segment;
use crate::table::Table;
use crate::writer::{Block, SegmentIds, SegmentWriter};

/// Writes all blocks of `segment` to `out` as they are, then `tables` as blocks of their types, a new index and the old
/// end. Checkpoints lose their part of the index, which is about offsets in the old file.
///
/// # Errors
/// [`Error::Unwritable`] for a segment without END or with damage: what follows it in the trace could not be told.
/// [`Error::Damaged`] when a block's checksum is wrong.
pub fn append<W: Write>(segment: &Segment, tables: &[(BlockType, Table)], out: W) -> Result<W> {
    let Some(reason) = segment.end.filter(|_| segment.is_complete()) else {
        let what = "it is unfinished or damaged: let `bpfrec recover` make a whole one of it first";
        return Err(Error::Unwritable(what.into()));
    };
    let first = segment.blocks[0].header;
    let ids = SegmentIds { trace_id: first.trace_id, segment: first.segment, first_seq: first.seq };
    let mut writer = SegmentWriter::new(out, ids, &Registry::default(), &segment.items)?;
    let mut compressor = Compressor::new(LEVEL)?;
    for block in &segment.blocks {
        let header = block.header;
        match BlockType::from_number(header.block_type) {
            Some(BlockType::Header | BlockType::Index | BlockType::End) => {}
            Some(BlockType::Checkpoint) => {
                let rows = segment.read(block, &|kind| kind != meta::INDEX_ENTRY)?;
                let tables: Vec<_> = rows.tables.iter().collect();
                writer.write(Block::of_tables(BlockType::Checkpoint, &tables, Some(&mut compressor))?)?;
            }
            _ => writer.write(Block { header, payload: segment.read_stored(block)? })?,
        }
    }
    for (block_type, table) in tables.iter().filter(|(_, table)| table.rows() > 0) {
        writer.write_tables(*block_type, &[table])?;
    }
    writer.count_lost(segment.lost());
    Ok(writer.finish(reason)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::NO_STREAM;
    use crate::table::Value;
    use crate::{EndReason, writer::Chunk};

    fn segment() -> Vec<u8> {
        let ids = SegmentIds { trace_id: 9, segment: 3, first_seq: 40 };
        let registry = Registry::default();
        let items = [("host".to_owned(), "h".to_owned())];
        let mut writer = SegmentWriter::new(Vec::new(), ids, &registry, &items).unwrap();
        let kind = registry.by_name("sched_switch").unwrap();
        let rows = vec![1; 3 * kind.row_size as usize];
        let chunk = Chunk { stream: 1, rows: vec![(kind.id, rows)], ts_min_ns: 5, ts_max_ns: 6, lost_total: 0 };
        writer.write(chunk.encode(&registry, None, false).unwrap()).unwrap();
        let mut stats = Table::new(&meta::kind(meta::CLOCK));
        stats.push(&[1u64.into(), 2u64.into(), 3u64.into()]);
        writer.checkpoint(&[&stats]).unwrap();
        writer.finish(EndReason::Rotate).unwrap().0
    }

    #[test]
    fn what_was_there_and_what_is_added() {
        let old = Segment::open(Box::new(segment())).unwrap();
        let mut table = Table::new(&meta::kind(meta::BINARY_SYMBOL));
        table.push(&[7u64.into(), 0x1000u64.into(), 5u64.into(), 6u64.into(), Value::Text(b"name")]);
        let bytes = append(&old, &[(BlockType::BinarySymbols, table.clone())], Vec::new()).unwrap();
        for new in [Segment::open(Box::new(bytes.clone())).unwrap(), Segment::walk(Box::new(bytes)).unwrap()] {
            assert!(new.is_complete() && new.end == Some(EndReason::Rotate) && new.items == old.items);
            let events =
                |s: &Segment| s.read(s.blocks_of(BlockType::Events).next().unwrap(), &|_| true).unwrap().tables;
            assert_eq!(events(&new), events(&old));
            let added = new.blocks_of(BlockType::BinarySymbols).next().unwrap();
            assert_eq!((added.header.stream, added.header.ts_max_ns, added.header.segment), (NO_STREAM, 0, 3));
            assert_eq!(new.read(added, &|_| true).unwrap().tables, [table.clone()]);
            assert_eq!((new.blocks[0].header.seq, new.blocks[0].header.trace_id), (40, 9));
        }
        let mut cut = segment();
        cut.truncate(cut.len() - 1);
        let cut = Segment::open(Box::new(cut)).unwrap();
        assert!(matches!(append(&cut, &[], Vec::new()), Err(Error::Unwritable(_))));
    }
}
