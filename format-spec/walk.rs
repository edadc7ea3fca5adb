//! Finds the blocks of a segment by their headers, whatever lies between them: SPEC.md section 7.
//!
//! A header leads to the next one by its length. Where that chain breaks, the search for the next sync mark begins; a
//! block that was found so, or that no header follows, must show a right payload before its length is believed.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::block::{BlockHeader, BlockType, HEADER_LEN, SYNC};
use crate::error::Result;
use crate::reader::{BlockRef, Damage, Segment};

/// Trace and segment that a block belongs to.
fn ids(h: &BlockHeader) -> (u64, u32) {
    (h.trace_id, h.segment)
}

impl Segment {
    pub(crate) fn by_walk(&mut self) -> Result<()> {
        let (mut found, mut at) = (Vec::<BlockRef>::new(), 0);
        // Headers that overlap each other would make this quadratic: then lengths are believed.
        let mut checks = self.len.saturating_mul(4).saturating_add(64 << 20);
        let mut chained = false;
        while at < self.len {
            let header = self.header_at(at);
            let Some(header) = header.filter(|h| at + h.total_len() <= self.len) else {
                let next = self.find_sync(at + 1)?;
                let what = match header {
                    Some(h) => format!("block of {} bytes is cut", h.total_len()),
                    None => "no valid block header".into(),
                };
                self.damage.push(Damage { offset: at, len: next - at, what });
                (at, chained) = (next, false);
                continue;
            };
            let block = BlockRef { offset: at, header };
            let end = at + header.total_len();
            let follows =
                |h: &BlockHeader, next: &BlockHeader| ids(h) == ids(next) && next.seq == h.seq.wrapping_add(1);
            let after = self.header_at(end);
            let trusted = chained && after.as_ref().is_some_and(|next| follows(&header, next));
            found.push(block);
            if trusted || self.is_whole(&block, &mut checks) {
                (at, chained) = (end, after.as_ref().is_some_and(|next| follows(&header, next)));
            } else {
                // Its length may be that of a header which stands in a foreign place: blocks inside it count.
                at = self.find_sync(at + HEADER_LEN as u64)?.min(end);
                chained = false;
            }
        }
        let own = self.whose(&found);
        let (own, foreign) = found.into_iter().partition(|b| Some(ids(&b.header)) == own);
        self.foreign(foreign);
        self.put_in_order(own, &mut checks);
        self.damage.sort_by_key(|d| d.offset);
        Ok(())
    }

    /// Whether the payload is as its checksum says, as long as `checks` bytes last.
    fn is_whole(&self, block: &BlockRef, checks: &mut u64) -> bool {
        match checks.checked_sub(block.header.total_len()) {
            Some(left) => {
                *checks = left;
                self.read_stored(block).is_ok()
            }
            None => true,
        }
    }

    /// Whose file this is: the HEADER block's at its start, else the one's that most bytes belong to.
    fn whose(&self, found: &[BlockRef]) -> Option<(u64, u32)> {
        let first = found.first()?;
        let begins = first.offset == 0 && first.header.block_type == BlockType::Header as u8;
        if begins && self.read_stored(first).is_ok() {
            return Some(ids(&first.header));
        }
        let mut bytes = FxHashMap::<_, u64>::default();
        found.iter().for_each(|b| *bytes.entry(ids(&b.header)).or_default() += b.header.total_len());
        bytes.into_iter().max_by_key(|(ids, bytes)| (*bytes, *ids)).map(|(ids, _)| ids)
    }

    fn foreign(&mut self, blocks: Vec<BlockRef>) {
        for b in blocks {
            let h = b.header;
            let what =
                format!("block {} of trace {:016x} segment {} does not belong here", h.seq, h.trace_id, h.segment);
            self.damage.push(Damage { offset: b.offset, len: h.total_len(), what });
        }
    }

    /// Fills in [`Segment::blocks`] in the order of their numbers, each number once.
    fn put_in_order(&mut self, mut blocks: Vec<BlockRef>, checks: &mut u64) {
        if blocks.is_sorted_by(|a, b| a.header.seq < b.header.seq) {
            self.blocks = blocks;
            return;
        }
        let mut last = None;
        for b in &blocks {
            if last.is_some_and(|seq| b.header.seq < seq) {
                let what = format!("block {} stands after block {}", b.header.seq, last.unwrap_or_default());
                self.damage.push(Damage { offset: b.offset, len: 0, what });
            }
            last = last.max(Some(b.header.seq));
        }
        blocks.sort_by_key(|b| b.header.seq);
        let mut seen = FxHashSet::default();
        let twice: FxHashSet<u64> = blocks.iter().map(|b| b.header.seq).filter(|seq| !seen.insert(*seq)).collect();
        for same in blocks.chunk_by(|a, b| a.header.seq == b.header.seq) {
            let whole = if twice.contains(&same[0].header.seq) {
                same.iter().position(|b| self.is_whole(b, checks)).unwrap_or(0)
            } else {
                0
            };
            for (i, b) in same.iter().enumerate() {
                if i == whole {
                    self.blocks.push(*b);
                } else {
                    let what = format!("block {} stands here a second time", b.header.seq);
                    self.damage.push(Damage { offset: b.offset, len: b.header.total_len(), what });
                }
            }
        }
    }

    /// Offset of the next valid header at or after `from`, or the end of the segment.
    fn find_sync(&self, from: u64) -> Result<u64> {
        const WINDOW: usize = 1 << 20;
        let mut buf = vec![0u8; WINDOW.min(usize::try_from(self.len).unwrap_or(WINDOW))];
        let mut at = from;
        while at < self.len {
            let n = WINDOW.min((self.len - at) as usize);
            self.source.read_exact_at(&mut buf[..n], at)?;
            for i in 0..n.saturating_sub(SYNC.len() - 1) {
                if buf[i] == SYNC[0] && buf[i..i + SYNC.len()] == SYNC {
                    let start = (at + i as u64).checked_sub(8).filter(|start| *start >= from);
                    if let Some(start) = start.filter(|start| self.header_at(*start).is_some()) {
                        return Ok(start);
                    }
                }
            }
            if n < WINDOW {
                break;
            }
            at += (WINDOW - (SYNC.len() - 1)) as u64;
        }
        Ok(self.len)
    }
}
