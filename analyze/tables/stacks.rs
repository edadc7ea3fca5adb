//! `stack` and `frame`: what the stack ids of other tables stand for.

use super::columns;
use crate::error::Result;
use crate::parquet_file::{self as parquet, Output, TableFile, Type};
use crate::symbols::{Frame, Symbols};

/// Rows that are written at once.
const BATCH: usize = 1 << 16;

/// Writes both.
pub fn write(symbols: &Symbols, output: &dyn Output) -> Result<()> {
    let stack_columns = columns(&[
        ("stack_id", Type::BigInt),
        ("space", Type::Text),
        ("depth", Type::Int),
        ("frame_ids", Type::List),
        ("leaf", Type::Text),
    ]);
    let mut file = TableFile::ordered(output, "stack", &stack_columns, &["stack_id"])?;
    for stacks in symbols.distinct().chunks(BATCH) {
        let ids: Vec<Vec<u64>> = stacks.iter().map(|s| symbols.frames_of(s).map(|f| f.id).collect()).collect();
        file.write(vec![
            parquet::big_ints(stacks.iter().map(|s| s.id as i64)),
            parquet::texts(stacks.iter().map(|s| if s.user { "user" } else { "kernel" })),
            parquet::ints(ids.iter().map(|ids| ids.len() as i32)),
            parquet::lists(ids.iter().map(Vec::as_slice))?,
            parquet::some_texts(stacks.iter().map(|s| symbols.leaf(s))),
        ])?;
    }
    file.finish()?;

    let frame_columns = columns(&[
        ("frame_id", Type::BigInt),
        ("build_id", Type::Text),
        ("file_offset", Type::BigInt),
        ("func", Type::Text),
        ("binary", Type::Text),
        ("src", Type::Text),
        ("line", Type::Int),
        ("kind", Type::Text),
        ("name_source", Type::Text),
        ("inlined", Type::Int),
    ]);
    let mut file = TableFile::ordered(output, "frame", &frame_columns, &["frame_id"])?;
    let mut frames: Vec<&Frame> = symbols.frames.iter().collect();
    frames.sort_by_key(|f| (f.id as i64, f.source, &f.binary));
    frames.dedup_by_key(|f| f.id);
    for frames in frames.chunks(BATCH) {
        file.write(vec![
            parquet::big_ints(frames.iter().map(|f| f.id as i64)),
            parquet::some_texts(frames.iter().map(|f| &f.build_id)),
            parquet::big_ints(frames.iter().map(|f| f.offset as i64)),
            parquet::texts(frames.iter().map(|f| f.func())),
            parquet::some_texts(frames.iter().map(|f| &f.binary)),
            parquet::some_texts(frames.iter().map(|f| f.line.as_ref().map_or("", |l| l.src.as_str()))),
            parquet::some_ints(frames.iter().map(|f| f.line.as_ref().filter(|l| l.line > 0).map(|l| l.line as i32))),
            parquet::texts(frames.iter().map(|f| if f.kernel { "kernel" } else { "user" })),
            parquet::texts(frames.iter().map(|f| f.source.name())),
            parquet::ints(frames.iter().map(|f| i32::from(f.inlined))),
        ])?;
    }
    file.finish()
}
