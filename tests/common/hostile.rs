//! A real trace in which every name is a hostile one.

use std::fs;
use std::path::Path;

use bpfrec_format::{
    BlockHeader, BlockType, Column, EndReason, Kind, Ragged, SegmentIds, SegmentWriter, Table, Trace, meta,
};

/// What hosts may call things: markup, terminal escapes, forged lines, paths, quotes, what is not UTF-8.
pub const NAMES: [&[u8]; 16] = [
    b"<script>alert(1)</script>",
    b"</script><img src=x onerror=alert(1)>",
    b"../../../../etc/passwd",
    b"\x1b]0;owned\x07\x1b[2J",
    b"x\nFORGED 12345\r",
    b"\"'; DROP TABLE task; --",
    b"\xff\xfe\xc3(",
    "\u{202e}gpj.exe\u{9b}2J".as_bytes(),
    b"$(reboot)`reboot`",
    b"%s%n%x",
    b"]]>&lt;\\u001b",
    b"a;b;c 77",
    b"=cmd|' /C calc'!A0",
    b"\x00nul\x08\x7f",
    b" lead and trail ",
    b"\\\\.\\pipe\\x\t|",
];

/// A name for a name: the same for the same one.
fn name(original: &[u8]) -> &'static [u8] {
    let sum = original.iter().fold(7usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    NAMES[sum % NAMES.len()]
}

/// Values of the HEADER that are names.
const ITEMS: [&str; 8] =
    ["host", "kernel", "kernel_version", "command", "filter_cgroup", "malloc_files", "boot_id", "arch"];

/// Writes a copy of `trace` with all names replaced. Paths keep their first slash, or nothing would be taken for a file.
pub fn copy(trace: &Path, to: &Path) {
    let trace = Trace::walk(trace).unwrap();
    let segment = &trace.segments[0].1;
    let first = segment.blocks[0].header;
    let ids = SegmentIds { trace_id: first.trace_id, segment: 0, first_seq: 0 };
    let mut items = segment.items.clone();
    for (key, value) in &mut items {
        if ITEMS.contains(&key.as_str()) || key.starts_with("disk.") {
            *value = String::from_utf8_lossy(name(value.as_bytes())).into_owned();
        }
    }
    let mut writer = SegmentWriter::new(Vec::new(), ids, &segment.registry, &items).unwrap();
    let made = [meta::HEADER_ITEM, meta::SCHEMA_FIELD, meta::INDEX_ENTRY, meta::END];
    for block in &segment.blocks {
        let block_type = BlockType::from_number(block.header.block_type).unwrap();
        let mut tables = segment.read(block, &|kind| !made.contains(&kind)).unwrap().tables;
        tables.retain(|table| table.rows() > 0);
        tables.iter_mut().for_each(|table| replace(segment.registry.get(table.kind).unwrap(), table));
        if !tables.is_empty() {
            let (ts_min_ns, ts_max_ns) = (block.header.ts_min_ns, block.header.ts_max_ns);
            let header = BlockHeader::new(block_type, block.header.stream);
            writer.write_rows(BlockHeader { ts_min_ns, ts_max_ns, ..header }, &tables).unwrap();
        }
    }
    fs::write(to, writer.finish(EndReason::Exit).unwrap().0).unwrap();
}

fn replace(kind: &Kind, table: &mut Table) {
    for (field, column) in kind.fields.iter().zip(&mut table.columns) {
        let Column::Text(texts) = column else { continue };
        if ["build_id", "content_id"].contains(&field.name.as_str()) {
            continue;
        }
        let mut new = Ragged::default();
        for row in 0..texts.ends.len() {
            let old = texts.get(row);
            let slash = if old.starts_with(b"/") { &b"/"[..] } else { b"" };
            new.push(&if old.is_empty() { Vec::new() } else { [slash, name(old)].concat() });
        }
        *texts = new;
    }
}

/// Writes a trace whose facts contradict each other, with names of `bytes` bytes.
pub fn absurd(to: &Path, bytes: usize) {
    let registry = bpfrec_format::Registry::default();
    let ids = SegmentIds { trace_id: 3, segment: 0, first_seq: 0 };
    let items = [
        ("host", "x".repeat(bytes)),
        ("sources", "sched,block,profile,offcpu,malloc,kmem".into()),
        ("cpus_online", "0-4294967295".into()),
        ("start_mono_ns", u64::MAX.to_string()),
    ];
    let items = items.map(|(key, value)| (key.to_owned(), value)).to_vec();
    let mut writer = SegmentWriter::new(Vec::new(), ids, &registry, &items).unwrap();
    let made = [meta::HEADER_ITEM, meta::SCHEMA_FIELD, meta::INDEX_ENTRY, meta::END];
    for kind in registry.kinds().into_iter().filter(|kind| !made.contains(&kind.id)) {
        const ROWS: u64 = 12;
        let mut table = Table::new(&kind);
        for (field, column) in kind.fields.iter().zip(&mut table.columns) {
            for row in 0..ROWS {
                match column {
                    // Times run backwards, from the end of all time; half of them lie in the middle of it.
                    Column::Int(values) if field.name == "ts_ns" => {
                        values.push(if row % 2 == 0 { u64::MAX - row } else { (1 << 62) - row })
                    }
                    Column::Int(values) if field.name.ends_with("len_bytes") => values.push(u64::MAX >> (row % 3)),
                    // Each is the parent of the other.
                    Column::Int(values) if field.name == "parent_id" => values.push(1 + (row + 1) % 2),
                    Column::Int(values) if field.name == "cgroup_id" => values.push(1 + row % 2),
                    Column::Int(values) => values.push(row % 3),
                    // One long name is enough: a block holds 16 MiB.
                    Column::Text(texts)
                        if row == 0
                            && ["comm", "path", "name"].contains(&field.name.as_str())
                            && kind.row_size == 0 =>
                    {
                        texts.push(&vec![b'/'; bytes])
                    }
                    Column::Text(texts) => texts.push(b"/a/b"),
                    Column::List(lists) => lists.push(&vec![row; (row as usize) * 80]),
                }
            }
        }
        let block_type = if kind.is_event() { BlockType::Events } else { kind.block_type() };
        writer.write_rows(BlockHeader { ts_max_ns: u64::MAX, ..BlockHeader::new(block_type, 0) }, &[table]).unwrap();
    }
    fs::write(to, writer.finish(EndReason::Exit).unwrap().0).unwrap();
}
