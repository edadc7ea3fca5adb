//! A few bytes never become gigabytes: refused within the budget of SPEC.md section 10. One test, for it looks at the memory
//! of the whole process.

mod common;

use bpfrec_format::block::BlockHeader;
use bpfrec_format::codec::{Compressor, LEVEL};
use bpfrec_format::writer::Chunk;
use bpfrec_format::{
    Block, BlockType, EndReason, Field, Kind, MAX_PAYLOAD, NO_STREAM, Registry, SegmentIds, SegmentWriter, Table, Type,
    events, meta, section, varint,
};
use common::{items, open, walk};

/// A segment with one block of `payload`.
fn segment_with(header: BlockHeader, payload: Vec<u8>, zstd: bool) -> Vec<u8> {
    let ids = SegmentIds { trace_id: 1, segment: 0, first_seq: 0 };
    let mut w = SegmentWriter::new(Vec::new(), ids, &Registry::default(), &items()).unwrap();
    let mut compressor = Compressor::new(LEVEL).unwrap();
    w.write(Block::new(header, payload, zstd.then_some(&mut compressor)).unwrap()).unwrap();
    w.finish(EndReason::Exit).unwrap().0
}

fn section_of(kind: u16, columns: u16, rows: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), columns.to_le_bytes()].concat();
    bytes.extend(rows.to_le_bytes());
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

/// The first EVENTS block must be refused, with its place in the file.
fn refused(bytes: &[u8], what: &str) {
    within_a_second(what, || {
        let segment = walk(bytes).unwrap();
        let block = segment.blocks_of(BlockType::Events).next().unwrap();
        let error = segment.read(block, &|_| true).err().unwrap_or_else(|| panic!("{what} was read"));
        assert!(
            error.to_string().starts_with(&format!("damaged block at offset {}: ", block.offset)),
            "{what}: {error}"
        );
    });
}

/// Says how much CPU time something takes, which a busy machine does not change, and that it is no more than a second; ten in a build
/// without optimisation.
fn within_a_second(what: &str, run: impl FnOnce()) {
    let cpu_ms = || {
        let all = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        all.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0) / 1_000_000
    };
    let before = cpu_ms();
    run();
    let took = cpu_ms() - before;
    println!("{took:>5} ms of CPU time: {what}");
    assert!(took < if cfg!(debug_assertions) { 10_000 } else { 1000 }, "{what}: {took} ms of CPU time");
}

fn high_water_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn bombs_are_refused_within_the_budget() {
    let events = || BlockHeader::new(BlockType::Events, 0);
    let columns = |rows: u32, packed: &[u8]| {
        let mut data = Vec::new();
        varint::put(&mut data, packed.len() as u64);
        data.extend(packed);
        section_of(events::SCHED_SWITCH, 1, rows, &data)
    };
    // Tags: 0 one value for all rows, 3 a dictionary, 5 texts.
    refused(&segment_with(events(), columns(u32::MAX, &[0, 1]), true), "4 G rows of one value");
    refused(&segment_with(events(), columns(bpfrec_format::MAX_VALUES as u32, &[0, 1]), true), "missing columns");
    refused(&segment_with(events(), columns(1 << 20, &[1, 1]), true), "rows that are not there");
    refused(&segment_with(events(), columns(3, &[5, 255, 255, 255, 15, 1, 1]), false), "a text of 4 GiB");
    let many: Vec<u8> = (0..4000).flat_map(|_| columns(4000, &[0, 1])).collect();
    refused(&segment_with(events(), many, true), "many sections");
    refused(&segment_with(events(), section_of(events::SCHED_SWITCH, 0, 1, &[0; 11]), false), "a missing column");
    // Columns that follow from others, tags 7 and 8: from themselves, from each other, from none that is there.
    let follows = |packed: [&[u8]; 2]| {
        let mut data = Vec::new();
        for column in packed {
            varint::put(&mut data, column.len() as u64);
            data.extend(column);
        }
        section_of(events::SCHED_SWITCH, 2, 3, &data)
    };
    for (tag, what) in [(7, "shift"), (8, "mapped")] {
        refused(
            &segment_with(events(), follows([&[tag, 0, 0], &[0, 1]]), false),
            &format!("{what}: a column that follows from itself"),
        );
        refused(
            &segment_with(events(), follows([&[tag, 1, 0], &[tag, 0, 0]]), false),
            &format!("{what}: columns that follow from each other"),
        );
        refused(
            &segment_with(events(), follows([&[tag, 9, 0], &[0, 1]]), false),
            &format!("{what}: a column that follows from none"),
        );
        let far = [tag, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0];
        refused(&segment_with(events(), follows([&far, &[0, 1]]), false), &format!("{what}: column 2^64 - 1"));
    }
    let beyond = [7, 1, 1, 255, 255, 255, 255, 15, 5];
    refused(&segment_with(events(), follows([&beyond, &[0, 1]]), false), "an exception in row 2^32");
    let mut raw = events();
    raw.encoding = common::raw_encoding();
    refused(&segment_with(raw, section_of(events::SCHED_SWITCH, 0, u32::MAX, &[0; 56]), false), "4 G raw rows");
    refused(&segment_with(raw, section_of(events::SCHED_SWITCH, 0, 0, &[0; 56]), false), "no raw rows of 56 bytes");

    // Lengths that lie: each with a right header checksum.
    let zeros = segment_with(events(), vec![0; MAX_PAYLOAD as usize], true);
    refused(&zeros, "16 MiB of empty sections");
    let at = walk(&zeros).unwrap().blocks_of(BlockType::Events).next().unwrap().offset as usize;
    for raw_len in [0, 1, MAX_PAYLOAD - 1] {
        let mut bad = zeros.clone();
        common::patch_header(&mut bad, at, |h| h.raw_len = raw_len);
        refused(&bad, "a frame of another length than the header says");
    }
    let mut bad = zeros.clone();
    common::patch_header(&mut bad, at, |h| h.raw_len = MAX_PAYLOAD + 1);
    assert_eq!(walk(&bad).unwrap().blocks_of(BlockType::Events).count(), 0);

    overlapping_texts();
    within_a_second("an index that lists a block two million times", index_bomb);
    within_a_second("headers that each claim all that follows", many_headers);
    let high = high_water_kib();
    assert!(high < 256 << 10, "{high} KiB were in use");
}

/// A schema whose texts all lie over each other, so that each byte of a row is read a thousand times.
fn overlapping_texts() {
    let field = |i: usize| Field::new(&format!("t{i}"), Type::Text, 0, 60_000);
    let kind =
        Kind { id: 0xF000, name: "bomb".into(), source: 2, row_size: 60_000, fields: (0..1000).map(field).collect() };
    let mut registry = Registry::default();
    let mut schema = Table::new(&meta::kind(meta::SCHEMA_FIELD));
    for f in &kind.fields {
        let ty = f.ty as u32;
        let (id, at, width) = (0xF000u32, 0u32, 60_000u32);
        schema.push(&[
            id.into(),
            "bomb".into(),
            2u32.into(),
            width.into(),
            f.name.as_str().into(),
            ty.into(),
            at.into(),
            width.into(),
            "".into(),
        ]);
    }
    registry.learn(&schema).unwrap();
    let ids = SegmentIds { trace_id: 1, segment: 0, first_seq: 0 };
    let mut w = SegmentWriter::new(Vec::new(), ids, &registry, &items()).unwrap();
    let chunk = Chunk { rows: vec![(0xF000, vec![b'x'; 60_000 * 200])], ..Chunk::default() };
    w.write(chunk.encode(&registry, Some(&mut Compressor::new(LEVEL).unwrap()), true).unwrap()).unwrap();
    refused(&w.finish(EndReason::Exit).unwrap().0, "overlapping texts");
}

/// Small INDEX blocks that list the same block a million times.
fn index_bomb() {
    let ids = SegmentIds { trace_id: 1, segment: 0, first_seq: 0 };
    let mut w = SegmentWriter::new(Vec::new(), ids, &Registry::default(), &items()).unwrap();
    let header = BlockHeader::new(BlockType::Events, 0).encode();
    let mut index = Table::new(&meta::kind(meta::INDEX_ENTRY));
    (0..40_000).for_each(|_| index.push(&[0u64.into(), header[..].into()]));
    for _ in 0..50 {
        w.write_tables(BlockType::Index, &[&index]).unwrap();
    }
    let bytes = w.finish(EndReason::Exit).unwrap().0;
    assert_eq!(open(&bytes).unwrap().blocks, walk(&bytes).unwrap().blocks);
    bpfrec_format::recover::recover(&walk(&bytes).unwrap(), std::io::sink()).unwrap();
}

/// Headers that each claim all that follows: the walk stays linear.
fn many_headers() {
    let mut header = BlockHeader::new(BlockType::Events, NO_STREAM);
    header.payload_len = 1 << 20;
    let mut bytes: Vec<u8> = Vec::new();
    for seq in 0..20_000 {
        header.seq = seq;
        bytes.extend(header.encode());
    }
    bytes.resize(bytes.len() + (1 << 20), 0);
    let _ = walk(&bytes);
}

#[test]
fn section_rows_without_columns() {
    let registry = Registry::default();
    let bytes = section_of(events::SCHED_SWITCH, 0, 5, &[]);
    let (tables, _) = section::decode(&bytes, 2, &registry, &|_| true).unwrap();
    assert_eq!(tables[0].rows(), 5);
    assert!(tables[0].columns.iter().all(|c| c.ints() == [0; 5]));
}
