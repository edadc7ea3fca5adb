//! A small trace with one of everything, and traces of any size.
#![allow(dead_code)]

use std::collections::BTreeMap;

use bpfrec_format::block::BlockHeader;
use bpfrec_format::codec::{Compressor, LEVEL};
use bpfrec_format::writer::Chunk;
use bpfrec_format::{
    Block, BlockType, Column, Encoding, EndReason, Field, Kind, NO_STREAM, Registry, Segment, SegmentIds,
    SegmentWriter, Source, Table, Type, events, meta, section,
};

/// Trace id of what [`trace`] makes.
pub const TRACE_ID: u64 = 0x1122_3344_5566_7788;
/// A kind that no version knows but that SCHEMA describes.
pub const DESCRIBED: u16 = 0xF001;
/// A kind that nobody describes.
pub const UNDESCRIBED: u16 = 0xF002;
/// Start of the recording.
pub const START_NS: u64 = 1_000_000_000;

/// This version's kinds as a later minor has them: one kind with a further field, one more kind.
pub fn later_registry() -> Registry {
    let mut registry = Registry::default();
    let mut migrate = (**registry.get(events::SCHED_MIGRATE).unwrap()).clone();
    migrate.fields.push(Field::new("more_ns", Type::U64, 40, 8));
    migrate.row_size = 48;
    let fields = [
        ("ts_ns", Type::U64, 0, 8),
        ("delta_pages", Type::I64, 12, 8),
        ("name", Type::Text, 20, 8),
        ("path", Type::List, 0, 0),
    ];
    let fields = fields.map(|(name, ty, at, width)| Field::new(name, ty, at, width)).to_vec();
    let new = Kind { id: DESCRIBED, name: "later_event".into(), source: Source::Sched as u16, row_size: 28, fields };
    let mut table = Table::new(&meta::kind(meta::SCHEMA_FIELD));
    for kind in [&migrate, &new] {
        for f in &kind.fields {
            table.push(&[
                u32::from(kind.id).into(),
                kind.name.as_str().into(),
                u32::from(kind.source).into(),
                kind.row_size.into(),
                f.name.as_str().into(),
                (f.ty as u32).into(),
                u32::from(f.offset).into(),
                u32::from(f.width).into(),
                f.unit.as_str().into(),
            ]);
        }
    }
    registry.learn(&table).unwrap();
    registry
}

/// Numbers that look random and are the same each time.
pub struct Random(pub u64);

impl Random {
    /// The next number below `below`.
    pub fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// A table of `rows` rows of plausible values; the first field is the time, rising from `ts_ns` on.
pub fn table(kind: &Kind, rows: usize, ts_ns: u64, random: &mut Random) -> Table {
    let mut table = Table::new(kind);
    for row in 0..rows {
        for (i, (field, column)) in kind.fields.iter().zip(&mut table.columns).enumerate() {
            match column {
                Column::Int(c) if i == 0 && field.ty == Type::U64 => {
                    c.push(ts_ns + row as u64 * 1000 + random.next(900))
                }
                // Kept from being small, so that a stack id is never another field's number by chance.
                Column::Int(c) => c.push(match field.ty {
                    Type::U64 if field.name.ends_with("_stack_id") => row as u64 % 4,
                    Type::U8 => random.next(200),
                    Type::U16 => random.next(1 << 16),
                    Type::I32 | Type::I64 => (random.next(200) as i64 - 100) as u64,
                    _ if i % 3 == 0 => random.next(1 << 31),
                    _ => 1000 + row as u64,
                }),
                Column::Text(c) => c.push(["", "a\"b\\\n\u{1b}[31m", "käse", "\u{7f}x"][row % 4].as_bytes()),
                Column::List(c) => c.push(&[u64::MAX, row as u64, 77][..row % 4]),
            }
        }
    }
    table
}

/// Rows as a ring holds them.
pub fn raw_rows(kind: &Kind, table: &Table) -> Vec<u8> {
    let mut bytes = vec![0u8; kind.row_size as usize * table.rows()];
    for (row, cell) in bytes.chunks_exact_mut(kind.row_size as usize).enumerate() {
        for (field, column) in kind.fields.iter().zip(&table.columns) {
            let (at, width) = (field.offset as usize, field.width as usize);
            match column {
                Column::Int(c) => cell[at..at + width].copy_from_slice(&c[row].to_le_bytes()[..width]),
                Column::Text(c) => {
                    let len = c.get(row).len().min(width);
                    cell[at..at + len].copy_from_slice(&c.get(row)[..len]);
                }
                Column::List(_) => {}
            }
        }
    }
    bytes
}

fn events(registry: &Registry, ids: &[u16], stream: u32, ts_ns: u64, rows: usize, random: &mut Random) -> Chunk {
    let last_ns = ts_ns + rows as u64 * 1000;
    let rows = ids.iter().map(|id| {
        let kind = registry.get(*id).unwrap();
        (*id, raw_rows(kind, &table(kind, rows, ts_ns, random)))
    });
    Chunk { stream, rows: rows.collect(), ts_min_ns: ts_ns, ts_max_ns: last_ns, lost_total: 0 }
}

/// Keys and values of the HEADER block.
pub fn items() -> Vec<(String, String)> {
    let items =
        [("host", "böx"), ("sources", "sched,block,profile"), ("start_mono_ns", "1000000000"), ("kernel", "6.1")];
    items.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec()
}

/// A trace of three segments that holds one of everything.
pub fn trace(trace_id: u64) -> Vec<Vec<u8>> {
    let mut seq = 0;
    (0..3)
        .map(|segment| {
            let (bytes, next) = small_segment(trace_id, segment, seq);
            seq = next;
            bytes
        })
        .collect()
}

fn small_segment(trace_id: u64, segment: u32, first_seq: u64) -> (Vec<u8>, u64) {
    let registry = later_registry();
    let get = |id: u16| registry.get(id).unwrap();
    let mut random = Random(trace_id << 8 | u64::from(segment + 1));
    let mut zstd = Compressor::new(LEVEL).unwrap();
    let ids = SegmentIds { trace_id, segment, first_seq };
    let mut w = SegmentWriter::new(Vec::new(), ids, &registry, &items()).unwrap();
    let at = START_NS + u64::from(segment) * 1_000_000;

    let mut stacks = Table::new(get(meta::STACK));
    for id in 1..4u64 {
        let frames = [0xffff_ffff_8100_0000 + id, 0xffff_ffff_8200_0000];
        stacks.push(&[at.into(), id.into(), (id % 2).into(), 7u32.into(), 0u64.into(), frames[..].into()]);
    }
    w.write_tables(BlockType::Stacks, &[&stacks]).unwrap();
    for (block_type, id) in [
        (BlockType::Tasks, meta::TASK),
        (BlockType::Tasks, events::SCHED_FORK),
        (BlockType::Tasks, events::SCHED_EXEC),
        (BlockType::Cgroups, meta::CGROUP),
        (BlockType::Cgroups, events::CGROUP_MKDIR),
        (BlockType::Maps, meta::MAPPING),
        (BlockType::Clock, meta::CLOCK),
        (BlockType::KernelSymbols, meta::KERNEL_SYMBOL),
    ] {
        w.write_tables(block_type, &[&table(get(id), 3, at, &mut random)]).unwrap();
    }
    let chunk = events(&registry, &[events::SCHED_SWITCH, events::CPU_SAMPLE], 0, at, 4, &mut random);
    w.write(chunk.encode(&registry, Some(&mut zstd), false).unwrap()).unwrap();
    let chunk = events(&registry, &[events::BLOCK_ISSUE, events::BLOCK_COMPLETE], 1, at, 3, &mut random);
    w.write(chunk.encode(&registry, None, false).unwrap()).unwrap();
    let ids = [events::SCHED_MIGRATE, events::SCHED_WAKEUP];
    let chunk = events(&registry, &ids, 1, at + 9, 3, &mut random);
    w.write(chunk.encode(&registry, None, true).unwrap()).unwrap();
    // Raw rows in a zstd frame, a longer struct and column than this version's, a kind only SCHEMA knows.
    let chunk = events(&registry, &[DESCRIBED, events::SCHED_MIGRATE], 0, at + 5000, 3, &mut random);
    w.write(chunk.encode(&registry, Some(&mut zstd), true).unwrap()).unwrap();
    let mut described = table(get(DESCRIBED), 3, at + 100, &mut random);
    let mut header = BlockHeader::new(BlockType::Events, 1);
    (header.rows, header.ts_min_ns, header.ts_max_ns) = (9, at + 100, at + 9000);
    let mut raw = Vec::new();
    section::encode(&described, &mut raw);
    described.kind = UNDESCRIBED;
    section::encode(&described, &mut raw);
    section::encode(&table(get(events::SCHED_MIGRATE), 3, at + 200, &mut random), &mut raw);
    w.write(Block::new(header, raw, None).unwrap()).unwrap();

    let mut loss = Table::new(get(meta::LOSS));
    loss.push(&[2u32.into(), 1u32.into(), at.into(), (at + 5).into(), meta::reason::RING_FULL.into(), 41u64.into()]);
    loss.push(&[2u32.into(), 1u32.into(), at.into(), (at + 5).into(), meta::reason::TABLE_FULL.into(), 9u64.into()]);
    w.write_tables(BlockType::Loss, &[&loss]).unwrap();
    w.count_lost(41);
    for number in [0x9f, 0x7e] {
        let mut header = BlockHeader::new(BlockType::Events, NO_STREAM);
        (header.block_type, header.rows) = (number, 2);
        w.write(Block::new(header, b"opaque to this version".to_vec(), None).unwrap()).unwrap();
    }
    let stats =
        [meta::SOURCE_STATS, meta::RECORDER_STATS, meta::STACK_STATS].map(|id| table(get(id), 1, at, &mut random));
    w.checkpoint(&[&stats[0], &stats[1], &stats[2]]).unwrap();
    let chunk = events(&registry, &[events::SCHED_SWITCH], 0, at + 7000, 2, &mut random);
    w.write(chunk.encode(&registry, Some(&mut zstd), false).unwrap()).unwrap();
    w.finish(if segment == 2 { EndReason::Exit } else { EndReason::Rotate }).unwrap()
}

/// One segment of many blocks of about `rows` rows of scheduler events on four CPUs.
pub fn long_segment(trace_id: u64, blocks: u64, rows: usize) -> Vec<u8> {
    let registry = Registry::default();
    let mut random = Random(trace_id);
    let mut zstd = Compressor::new(LEVEL).unwrap();
    let ids = SegmentIds { trace_id, segment: 0, first_seq: 0 };
    let mut w = SegmentWriter::new(Vec::new(), ids, &registry, &items()).unwrap();
    for i in 0..blocks {
        let rows = 1 + random.next(2 * rows as u64) as usize;
        let ids = [events::SCHED_SWITCH, events::SCHED_WAKEUP];
        let chunk = events(&registry, &ids, (i % 4) as u32, START_NS + i * 100_000, rows, &mut random);
        let raw = i % 16 == 3;
        w.write(chunk.encode(&registry, (i % 16 != 7).then_some(&mut zstd), raw).unwrap()).unwrap();
        if i % 40 == 39 {
            w.checkpoint(&[]).unwrap();
        }
    }
    w.finish(EndReason::Exit).unwrap().0
}

/// Opens bytes by a walk.
pub fn walk(bytes: &[u8]) -> bpfrec_format::Result<Segment> {
    Segment::walk(Box::new(bytes.to_vec()))
}

/// Opens bytes by the index where there is one.
pub fn open(bytes: &[u8]) -> bpfrec_format::Result<Segment> {
    Segment::open(Box::new(bytes.to_vec()))
}

/// What a block decodes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// Number of the block type.
    pub block_type: u8,
    /// CPU.
    pub stream: u32,
    /// Sections.
    pub tables: Vec<Table>,
    /// Rows not understood.
    pub unknown_rows: u64,
    /// Payload, for block types that are not known.
    pub opaque: Vec<u8>,
}

impl Content {
    /// Without what only the trace's SCHEMA describes.
    pub fn built_in(mut self) -> Self {
        let own = Registry::default();
        self.tables.retain(|t| own.get(t.kind).is_some());
        for table in &mut self.tables {
            table.columns.truncate(own.get(table.kind).unwrap().fields.len());
        }
        self.unknown_rows = 0;
        self
    }
}

/// Content of all blocks that can be read, by number.
pub fn contents(segment: &Segment) -> BTreeMap<u64, Content> {
    let mut all = BTreeMap::new();
    for block in &segment.blocks {
        let h = block.header;
        let mut content =
            Content { block_type: h.block_type, stream: h.stream, tables: vec![], unknown_rows: 0, opaque: vec![] };
        if BlockType::from_number(h.block_type).is_none() {
            let Ok(stored) = segment.read_stored(block) else { continue };
            content.opaque = stored;
        } else {
            let Ok(rows) = segment.read(block, &|_| true) else { continue };
            (content.tables, content.unknown_rows) = (rows.tables, rows.unknown_rows);
        }
        assert!(all.insert(h.seq, content).is_none(), "block {} twice", h.seq);
    }
    all
}

/// The bytes with a header's field changed and its checksum made right again.
pub fn patch_header(bytes: &mut [u8], offset: usize, change: impl FnOnce(&mut BlockHeader)) {
    let mut header = BlockHeader::decode(&bytes[offset..]).unwrap();
    change(&mut header);
    bytes[offset..offset + 96].copy_from_slice(&header.encode());
}

/// Encoding numbers, for tests that build headers.
pub fn raw_encoding() -> u8 {
    Encoding::Raw as u8
}
