//! Targets of the format: blocks, columns, recovery, schemas.

use arbitrary::Unstructured;
use bpfrec_format::recover::recover as recover_segment;
use bpfrec_format::{
    BlockHeader, BlockType, Column, EndReason, Error, MAX_VALUES, Registry, Segment, SegmentIds, SegmentWriter, Table,
    Type, append, column as columns, meta, pack, section,
};

use crate::mend::mended;
use crate::rows;

/// A file: its bytes as they are, and with checksums made right.
pub fn block(data: &[u8]) {
    for bytes in [data.to_vec(), mended(data)] {
        for open in [Segment::walk, Segment::open] {
            if let Ok(segment) = open(Box::new(bytes.clone())) {
                read_all(&segment);
            }
        }
    }
}

/// Every block lies in the file, and is read or refused with its offset.
fn read_all(segment: &Segment) {
    for block in &segment.blocks {
        let end = block.offset + block.header.total_len();
        assert!(end <= segment.len, "the block at {} ends after the file", block.offset);
        let _ = segment.counts(block);
        match segment.read(block, &|_| true) {
            Ok(rows) => rows.tables.iter().for_each(fits),
            Err(Error::Damaged { offset, .. }) => assert_eq!(offset, block.offset, "an error with another offset"),
            Err(_) => {}
        }
    }
}

/// All columns have the same rows, texts and lists end where they say.
fn fits(table: &Table) {
    let mut values = 0;
    for column in &table.columns {
        assert_eq!(column.len(), table.rows(), "columns of kind {} have different lengths", table.kind);
        values += column.len();
        let (ends, len) = match column {
            Column::Int(_) => continue,
            Column::Text(r) => (&r.ends, r.data.len()),
            Column::List(r) => (&r.ends, r.data.len()),
        };
        assert!(ends.is_sorted() && ends.last().is_none_or(|end| *end as usize == len));
    }
    assert!(values <= MAX_VALUES, "{values} values of one block");
}

/// A packed column: `type rows/2 rows*256 data`; or, with the first bit, a whole payload: `0x80|encoding sections`.
pub fn column(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    if first & 0x80 != 0 {
        if let Ok((tables, _)) = section::decode(rest, first & 3, &Registry::default(), &|_| true) {
            tables.iter().for_each(fits);
        }
        return;
    }
    let ([low, high, packed @ ..], Some(ty)) = (rest, Type::from_number(first)) else { return };
    let rows = usize::from(*low) | usize::from(*high) << 8;
    let mut budget = MAX_VALUES;
    let Ok(decoded) = columns::decode(packed, ty, rows, &mut budget) else { return };
    assert_eq!(decoded.len(), rows);
    let mut again = Vec::new();
    pack::column(&decoded, &mut again);
    let mut budget = MAX_VALUES;
    let second = columns::decode(&again, ty, rows, &mut budget).expect("what we packed is unpacked");
    assert_eq!(second, decoded);
}

/// Recovery of anything is whole, loses no block that could be read, and is the same a second time.
pub fn recover(data: &[u8]) {
    for bytes in [data.to_vec(), mended(data)] {
        let Ok(walked) = Segment::walk(Box::new(bytes)) else { continue };
        let mut whole = Vec::new();
        let said = recover_segment(&walked, &mut whole).expect("what was walked is recovered");
        let kept = events(&walked);
        let again = Segment::open(Box::new(whole.clone())).expect("what was recovered opens");
        assert!(again.is_complete(), "what was recovered is not complete");
        assert_eq!((events(&again), said.events), (kept, kept), "events that could be read are kept and counted");
        for block in again.blocks.iter().filter(|b| BlockType::from_number(b.header.block_type).is_some()) {
            if let Err(error @ Error::Damaged { .. }) = again.read(block, &|_| true) {
                panic!("what was recovered is damaged: {error}");
            }
        }
        append::append(&again, &[], std::io::sink()).expect("what was recovered can be appended to");
    }
}

/// Events, as headers count them, in blocks that can be read or are not understood.
fn events(segment: &Segment) -> u64 {
    let read = segment
        .blocks_of(BlockType::Events)
        .filter(|block| !matches!(segment.read(block, &|_| true), Err(Error::Damaged { .. })));
    read.map(|block| u64::from(block.header.rows)).sum()
}

/// A schema of arbitrary kinds, and rows that it describes in both encodings; all of it as a file too.
pub fn schema(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let kind = meta::kind(meta::SCHEMA_FIELD);
    let Ok(described) = rows::table(&mut u, &kind, 40) else { return };
    let mut registry = Registry::default();
    let _ = registry.learn(&described);
    let mut twice = registry.clone();
    let _ = twice.learn(&registry.to_table());
    assert_eq!(twice.kinds(), registry.kinds(), "a registry learns itself");
    let ids = SegmentIds { trace_id: 1, segment: 0, first_seq: 0 };
    let mut writer =
        SegmentWriter::new(Vec::new(), ids, &registry, &rows::items(&mut u)).expect("a segment of any schema begins");
    for _ in 0..6 {
        // END is what ends the segment, and may not stand before.
        let kinds: Vec<_> = registry.kinds().into_iter().filter(|kind| kind.id != meta::END).collect();
        let Ok(kind) = u.choose(&kinds) else { break };
        let Ok(table) = rows::table(&mut u, kind, 20) else { break };
        // What cannot be written is left out.
        let _ = writer.write_rows(BlockHeader::new(kind.block_type(), 0), &[table]);
    }
    let bytes = writer.finish(EndReason::Exit).expect("a segment of any schema ends").0;
    let segment = Segment::open(Box::new(bytes)).expect("what was written opens");
    assert!(segment.is_complete());
    read_all(&segment);
    let rest = u.take_rest();
    for encoding in [0, 2] {
        if let Ok((tables, _)) = section::decode(rest, encoding, &registry, &|_| true) {
            tables.iter().for_each(fits);
        }
    }
    crate::reading::everything(segment);
}
