//! A segment, block by block, with all names replaced.

use std::io::Write;

use bpfrec_format::meta::{self, reason};
use bpfrec_format::{BlockHeader, BlockType, EndReason, Error, Result, Segment, SegmentIds, SegmentWriter, Table};

use super::rules::{self, What};
use super::tokens::Tokens;

/// What was copied, and what was left out as nobody can say what it holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Copied {
    /// Rows.
    pub rows: u64,
    /// Blocks of which something was left out.
    pub left_blocks: u64,
    /// Rows in them.
    pub left_rows: u64,
    /// Number of the block that follows the new segment.
    pub next_seq: u64,
}

/// Writes `segment` to `out`, its first block with the number `first_seq`. One block is in memory at a time.
///
/// # Errors
/// [`Error::Damaged`] with the offset of a block that cannot be read, and what `out` says.
pub fn copy<W: Write>(segment: &Segment, first_seq: u64, tokens: &mut Tokens, what: What, out: W) -> Result<Copied> {
    let first = segment.blocks[0].header;
    let ids = SegmentIds { trace_id: first.trace_id, segment: first.segment, first_seq };
    let items = items(segment, first_seq, tokens, what);
    let mut writer = SegmentWriter::new(out, ids, &segment.registry, &items)?;
    let mut copied = Copied::default();
    let mut losses = Table::new(&meta::kind(meta::LOSS));
    for block in &segment.blocks {
        let old = block.header;
        let Some(block_type) = BlockType::from_number(old.block_type) else {
            (copied.left_blocks, copied.left_rows) = (copied.left_blocks + 1, copied.left_rows + u64::from(old.rows));
            continue;
        };
        let (mut tables, left) = match segment.read(block, &made_anew) {
            Ok(rows) => (rows.tables, rows.unknown_rows),
            Err(Error::NotUnderstood { .. }) => (Vec::new(), u64::from(old.rows)),
            Err(error) => return Err(error),
        };
        if left > 0 {
            (copied.left_blocks, copied.left_rows) = (copied.left_blocks + 1, copied.left_rows + left);
        }
        if left > 0 && block_type == BlockType::Events {
            losses.push(&[
                0u32.into(),
                old.stream.into(),
                old.ts_min_ns.into(),
                old.ts_max_ns.into(),
                reason::NOT_UNDERSTOOD.into(),
                left.into(),
            ]);
            writer.count_lost(left);
        }
        tables.retain(|table| table.rows() > 0);
        for table in &mut tables {
            if let Some(kind) = segment.registry.get(table.kind) {
                rules::table(tokens, what, kind, table);
            }
            copied.rows += table.rows() as u64;
        }
        if !tables.is_empty() {
            let header = BlockHeader { block_type: old.block_type, ..BlockHeader::new(block_type, old.stream) };
            let (ts_min_ns, ts_max_ns, lost_total) = (old.ts_min_ns, old.ts_max_ns, old.lost_total);
            writer.write_rows(BlockHeader { ts_min_ns, ts_max_ns, lost_total, ..header }, &tables)?;
        }
    }
    if losses.rows() > 0 {
        writer.write_tables(BlockType::Loss, &[&losses])?;
    }
    writer.count_lost(segment.lost());
    (_, copied.next_seq) = writer.finish(segment.end.unwrap_or(EndReason::Exit))?;
    Ok(copied)
}

/// Whether rows of a kind are copied: all but those that the writer makes.
fn made_anew(kind: u16) -> bool {
    ![meta::HEADER_ITEM, meta::SCHEMA_FIELD, meta::INDEX_ENTRY, meta::END].contains(&kind)
}

/// The HEADER. Numbers of blocks change, so the last one of the segment before is told anew.
fn items(segment: &Segment, first_seq: u64, tokens: &mut Tokens, what: What) -> Vec<(String, String)> {
    const PREVIOUS: &str = "previous_segment_seq";
    const REDACTED: &str = "redacted";
    let mut items = Vec::new();
    for (key, value) in segment.items.iter().filter(|(key, _)| key != REDACTED) {
        items.push(match key.as_str() {
            PREVIOUS => (key.clone(), first_seq.wrapping_sub(1).to_string()),
            _ => rules::item(tokens, what, key, value),
        });
    }
    let parts = [Some("names"), what.functions.then_some("functions"), what.build_ids.then_some("build_ids")];
    items.push((REDACTED.into(), parts.into_iter().flatten().collect::<Vec<_>>().join(",")));
    items
}
