//! What of a trace cannot be read: counted, shown, and stepped over.

use std::collections::BTreeMap;
use std::path::Path;

use bpfrec_format::trace::missing_before;
use bpfrec_format::{BlockHeader, BlockRef, BlockType, Trace};

use crate::losses::Spans;

/// The recorder writes what it has at least this often.
const FLUSHED_NS: u64 = 1_000_000_000;
/// Places that are named; more are only counted.
const NAMED: usize = 16;

/// Blocks that are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostBlocks {
    /// Begin of the time that they may be of, CLOCK_MONOTONIC.
    pub from_ns: u64,
    /// End of that time.
    pub to_ns: u64,
    /// Their CPU, where it is known.
    pub cpu: Option<u32>,
    /// Events in them; 0 where a block is missing altogether.
    pub events: u64,
    /// How many blocks.
    pub blocks: u64,
}

/// What could not be read.
#[derive(Clone, Debug, Default)]
pub struct Damage {
    /// Damaged blocks.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
    /// Bytes that are no block.
    pub bytes: u64,
    /// Blocks whose numbers are missing.
    pub missing_blocks: u64,
    /// Segments without an end: the recorder was killed, or the file is cut.
    pub unfinished: u64,
    /// Files of the directory that are no segment of the trace.
    pub refused: u64,
    /// The first places, in words.
    pub places: Vec<String>,
    /// Spans of time in which events may be missing.
    pub spans: Spans,
    /// Blocks of events that are damaged or missing, with what is known of them.
    pub lost: Vec<LostBlocks>,
    /// Blocks of types that this version does not know: no damage.
    pub unknown_blocks: u64,
    /// Rows of kinds that neither this version nor the trace describes: no damage.
    pub unknown_rows: u64,
}

impl Damage {
    /// What opening the trace already showed.
    pub(crate) fn of_trace(trace: &Trace) -> Damage {
        let mut damage = Damage { missing_blocks: trace.missing_blocks(), ..Damage::default() };
        damage.refused = trace.refused.len() as u64;
        for (path, error) in &trace.refused {
            damage.place(format!("{}: {error}", path.display()));
        }
        for (path, segment) in &trace.segments {
            damage.unfinished += u64::from(segment.end.is_none());
            for d in &segment.damage {
                damage.bytes += d.len;
                damage.place(format!("{}: {} bytes at offset {}: {}", path.display(), d.len, d.offset, d.what));
            }
        }
        damage.gaps(trace);
        damage.tail(trace);
        damage
    }

    /// A recorder that was killed leaves each CPU's events up to its last block only: from the first of these ends on, what
    /// happened is known in part. A CPU without any block for a second was idle.
    fn tail(&mut self, trace: &Trace) {
        if trace.segments.last().is_none_or(|(_, s)| s.end.is_some()) {
            return;
        }
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for (_, block) in trace.blocks().filter(|(_, b)| b.header.block_type == BlockType::Events as u8) {
            let ts = last.entry(block.header.stream).or_default();
            *ts = block.header.ts_max_ns.max(*ts);
        }
        if let (Some(first), Some(end)) = (last.values().min(), last.values().max())
            && first < end
        {
            self.spans.add((*first).max(end.saturating_sub(FLUSHED_NS)), u64::MAX);
        }
    }

    /// Where block numbers are missing, events between the blocks around the gap may be missing.
    fn gaps(&mut self, trace: &Trace) {
        let mut before: Option<BlockHeader> = None;
        // Begin of the last block of events.
        let mut events_ns = 0;
        let mut open: Option<(u64, u64)> = None;
        for (_, block) in trace.blocks() {
            let h = &block.header;
            let missing = missing_before(before.as_ref(), h);
            if missing > 0 {
                let (_, blocks) = open.get_or_insert((events_ns, 0));
                *blocks = blocks.saturating_add(missing);
            }
            if h.block_type == BlockType::Events as u8 {
                if let Some((from, blocks)) = open.take() {
                    self.gap(from, h.ts_max_ns, blocks);
                }
                events_ns = h.ts_min_ns;
            }
            before = Some(*h);
        }
        if let Some((from, blocks)) = open {
            self.gap(from, u64::MAX, blocks);
        }
    }

    fn gap(&mut self, from_ns: u64, to_ns: u64, blocks: u64) {
        self.spans.add(from_ns, to_ns);
        self.lost.push(LostBlocks { from_ns, to_ns, cpu: None, events: 0, blocks });
    }

    /// A block that cannot be decoded, be it damaged or made by a newer bpfrec.
    pub(crate) fn block(&mut self, path: &Path, block: &BlockRef, error: &bpfrec_format::Error) {
        let understood = !matches!(error, bpfrec_format::Error::NotUnderstood { .. });
        if understood {
            self.blocks += 1;
        } else {
            self.unknown_blocks += 1;
            self.unknown_rows += u64::from(block.header.rows);
        }
        if block.header.block_type == BlockType::Events as u8 {
            let (h, events) = (&block.header, u64::from(block.header.rows));
            if understood {
                self.events += events;
                let (from_ns, to_ns, cpu) = (h.ts_min_ns, h.ts_max_ns, Some(h.stream));
                self.lost.push(LostBlocks { from_ns, to_ns, cpu, events, blocks: 1 });
            }
            self.spans.add(block.header.ts_min_ns, block.header.ts_max_ns);
        }
        self.place(format!("{}: {error}", path.display()));
    }

    fn place(&mut self, what: String) {
        if self.places.len() < NAMED {
            self.places.push(what);
        }
    }

    /// Adds what another pass found.
    pub(crate) fn join(&mut self, other: &Damage) {
        // What is missing is told by the file itself, and may be absurd.
        let pairs = [
            (&mut self.blocks, other.blocks),
            (&mut self.events, other.events),
            (&mut self.unknown_rows, other.unknown_rows),
            (&mut self.unknown_blocks, other.unknown_blocks),
        ];
        pairs.into_iter().for_each(|(sum, n)| *sum = sum.saturating_add(n));
        other.spans.iter().for_each(|(from, to)| self.spans.add(from, to));
        self.lost.extend_from_slice(&other.lost);
        other.places.iter().for_each(|place| self.place(place.clone()));
    }

    /// Whether anything at all is damaged or missing.
    pub fn any(&self) -> bool {
        (self.blocks | self.bytes | self.missing_blocks | self.unfinished | self.refused) > 0
    }
}
