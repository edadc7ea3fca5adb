//! What fuzzing begins with, made of testdata: small files without compression, in both encodings, and single columns.

use std::path::{Path, PathBuf};

use bpfrec_format::{
    Block, BlockHeader, BlockType, Column, EndReason, Ragged, Registry, Segment, SegmentIds, SegmentWriter, Table,
    meta, pack,
};

/// Rows that are kept of a table, and blocks of a type.
const ROWS: usize = 24;
const BLOCKS: usize = 3;

/// The traces of testdata, those that once broke something too.
fn traces() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata");
    let mut found = Vec::new();
    for dir in ["v1", "v1/segments-6.1.bpr", "broken"] {
        let files =
            std::fs::read_dir(root.join(dir)).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        found.extend(files.filter(|path| path.is_file() && path.extension().is_some_and(|e| e == "bpr")));
    }
    found.sort();
    found
}

/// Blocks of a trace, each with few rows.
fn blocks(path: &Path) -> Vec<(BlockHeader, Vec<Table>)> {
    let Ok(segment) = std::fs::read(path).map_err(Into::into).and_then(|bytes| Segment::walk(Box::new(bytes))) else {
        return Vec::new();
    };
    let mut taken = std::collections::BTreeMap::<Vec<u16>, usize>::new();
    let mut blocks = Vec::new();
    for block in &segment.blocks {
        // A schema would be most of the file: this version knows the kinds without it.
        if matches!(
            BlockType::from_number(block.header.block_type),
            None | Some(BlockType::Schema | BlockType::Header | BlockType::Index | BlockType::End)
        ) {
            continue;
        }
        let Ok(rows) = segment.read(block, &|kind| kind != meta::INDEX_ENTRY) else { continue };
        let tables: Vec<Table> =
            rows.tables.iter().map(|table| cut(table, ROWS)).filter(|table| table.rows() > 0).collect();
        let count = taken.entry(tables.iter().map(|table| table.kind).collect()).or_default();
        *count += 1;
        if *count <= BLOCKS && !tables.is_empty() {
            blocks.push((block.header, tables));
        }
    }
    blocks
}

/// Small files.
pub fn files() -> Vec<Vec<u8>> {
    traces().iter().filter_map(|path| file(path)).collect()
}

fn file(path: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(path).ok()?;
    let segment = Segment::walk(Box::new(bytes)).ok()?;
    let ids = SegmentIds { trace_id: 7, segment: 0, first_seq: 0 };
    let mut writer = SegmentWriter::new(Vec::new(), ids, &Registry::default(), &segment.items).ok()?;
    for (header, tables) in blocks(path) {
        let kind = BlockType::from_number(header.block_type)?;
        let mut block = Block::of_tables(kind, &tables.iter().collect::<Vec<_>>(), None).ok()?;
        (block.header.stream, block.header.lost_total) = (header.stream, header.lost_total);
        (block.header.ts_min_ns, block.header.ts_max_ns) = (header.ts_min_ns, header.ts_max_ns);
        writer.write(block).ok()?;
    }
    let whole = writer.finish(EndReason::Exit).ok()?.0;
    // Without the schema and with the header's items as they are, all uncompressed.
    let segment = Segment::walk(Box::new(whole)).ok()?;
    let mut out = Vec::new();
    for block in segment.blocks.iter().filter(|block| block.header.block_type != BlockType::Schema as u8) {
        let stored = segment.read_stored(block).ok()?;
        let raw = bpfrec_format::codec::decompress(block.header.codec, stored, block.header.raw_len as usize).ok()?;
        let block = Block::new(BlockHeader { codec: 0, ..block.header }, raw, None).ok()?;
        out.extend(block.header.encode());
        out.extend(block.payload);
    }
    Some(out)
}

/// First rows of a table.
pub fn cut(table: &Table, most: usize) -> Table {
    fn short<T: Clone>(ragged: &Ragged<T>, most: usize) -> Ragged<T> {
        ragged.slice(0, most.min(ragged.ends.len()))
    }
    let columns = table.columns.iter().map(|column| match column {
        Column::Int(v) => Column::Int(v[..most.min(v.len())].to_vec()),
        Column::Text(r) => Column::Text(short(r, most)),
        Column::List(r) => Column::List(short(r, most)),
    });
    Table { kind: table.kind, columns: columns.collect() }
}

/// With `BPFREC_SEEDS=FOLDER` the program of a target writes its seeds there, and that is all: `scripts/fuzz` asks so.
pub fn write_if_asked(target: &str) {
    let Some(dir) = std::env::var_os("BPFREC_SEEDS") else { return };
    let written = std::fs::create_dir_all(&dir).and_then(|()| {
        let seeds = of(target).into_iter().enumerate();
        seeds.into_iter().try_for_each(|(i, bytes)| std::fs::write(Path::new(&dir).join(format!("seed-{i:03}")), bytes))
    });
    match written {
        Ok(()) => std::process::exit(0),
        Err(error) => panic!("seeds in {}: {error}", Path::new(&dir).display()),
    }
}

/// Inputs of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "block" | "recover" | "reports" => files(),
        "column" => columns(),
        // Rows are made of bytes by a grammar of their own: anything is a beginning.
        _ => (0..16u8)
            .map(|n| (0..200u8).map(|i| i.wrapping_mul(2 * n + 1).rotate_left(u32::from(n))).collect())
            .collect(),
    }
}

/// Packed columns and sections, as `column` takes them.
fn columns() -> Vec<Vec<u8>> {
    let registry = Registry::default();
    let mut inputs = Vec::new();
    for (_, tables) in traces().iter().flat_map(|path| blocks(path)) {
        for table in tables.iter().map(|table| cut(table, 6)) {
            let Some(kind) = registry.get(table.kind) else { continue };
            let mut input = vec![0x80 | 2];
            bpfrec_format::section::encode(&table, &mut input);
            inputs.push(input);
            for (field, column) in kind.fields.iter().zip(&table.columns) {
                let mut input = vec![field.ty as u8, table.rows() as u8, 0];
                pack::column(column, &mut input);
                inputs.push(input);
            }
        }
    }
    inputs.sort();
    inputs.dedup();
    inputs.sort_by_key(Vec::len);
    let step = inputs.len().div_ceil(300).max(1);
    inputs.into_iter().step_by(step).collect()
}
