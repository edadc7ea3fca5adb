//! Events in time order, a stretch of time at a time: pass 2 of an analysis.
//!
//! A trace is a set of blocks, each a CPU's events of about a second. Slabs are cut at the first timestamps of blocks, so
//! that a slab ends where the next undecoded block begins: whatever comes later belongs to a later slab, and rows of
//! decoded blocks that lie beyond the end are carried over.
//!
//! Memory is bounded whatever the length of the trace: a slab holds at most [`SLAB_ROWS`] rows and what the blocks that
//! cross its end carry over (one block a CPU), 8 bytes a value, once as decoded and once in order; two slabs are alive, one
//! being read while the other is being used: `2 x 2 x (SLAB_ROWS + CPUs x rows a block) x columns x 8 bytes`, about 130 MB.

use std::sync::Arc;

use bpfrec_format::{BlockRef, BlockType, Column, Kind, Ragged, Table, Trace};
use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::block_io::{HalfIo, Io};
use crate::damage::Damage;
use crate::memory::{Free, Life};
use crate::sched::{Half, Slice, Wait};
use crate::view::Ints;

/// Rows at which a slab is cut.
pub const SLAB_ROWS: u64 = 1 << 17;

/// Events of one kind, ordered by time, then CPU, then as they were written.
#[derive(Debug)]
pub struct EventTable {
    /// The kind.
    pub kind: Arc<Kind>,
    /// Timestamps, CLOCK_MONOTONIC.
    pub ts: Vec<u64>,
    /// CPUs; `u32::MAX` where there is none.
    pub cpu: Vec<u32>,
    /// Fields in the kind's order; those that nobody wants, and the timestamp, are empty.
    pub columns: Vec<Column>,
}

impl EventTable {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.ts.len()
    }

    /// The integers of a field, 0 where the trace has none.
    pub fn ints(&self, name: &str) -> Ints<'_> {
        Ints::of(self.kind.index_of(name).and_then(|i| self.columns.get(i)).map_or(&[], Column::ints))
    }
}

/// A stretch of time.
#[derive(Debug, Default)]
pub struct Slab {
    /// Events by kind.
    pub tables: Vec<EventTable>,
    /// Waits for a CPU that ended in this slab, in the order of their ends.
    pub waits: Vec<Wait>,
    /// Stretches of a thread on a CPU that ended in this slab, in the order of their ends.
    pub slices: Vec<Slice>,
    /// I/O that was completed in this slab.
    pub ios: Vec<Io>,
    /// Waits of which one half is not there. Those whose end is missing stand in the last slab.
    pub half_waits: Vec<Half>,
    /// Slices, likewise; those of which a part at least is known stand in `slices`.
    pub half_slices: Vec<Half>,
    /// I/O of which one half is not there, likewise.
    pub half_ios: Vec<HalfIo>,
    /// Memory whose end became certain in this slab; behind the last events all that still lives, in further slabs.
    pub lives: Vec<Life>,
    /// Frees whose success became certain in this slab.
    pub frees: Vec<Free>,
    /// Spans of blocks that turned out to be damaged.
    pub(crate) damaged: Vec<(u64, u64)>,
    /// Rows in all tables.
    pub(crate) rows: u64,
}

impl Slab {
    /// Events of the kind called `name`.
    pub fn table(&self, name: &str) -> Option<&EventTable> {
        self.tables.iter().find(|t| t.kind.name == name)
    }
}

/// A section of a block, until all its rows are used.
struct Part {
    /// CPU, block, section: the order of rows of the same time.
    order: (u32, u64, u32),
    kind: u16,
    ts: Vec<u64>,
    columns: Vec<Column>,
    /// Rows before this one are used.
    from: usize,
}

/// Cuts a trace into slabs.
pub(crate) struct Slabs<'a> {
    trace: &'a Trace,
    blocks: Vec<(usize, BlockRef)>,
    next: usize,
    kinds: FxHashMap<u16, Arc<Kind>>,
    wanted: FxHashMap<u16, Vec<bool>>,
    carried: Vec<Part>,
    slab_rows: u64,
    pub(crate) damage: Damage,
    /// Events in the blocks that will be read.
    pub(crate) total: u64,
}

impl<'a> Slabs<'a> {
    /// Reads the fields that `wants` takes of events up to `until_ns`.
    pub(crate) fn new(trace: &'a Trace, until_ns: u64, slab_rows: u64, wants: &dyn Fn(&Kind, &str) -> bool) -> Self {
        let mut kinds: FxHashMap<u16, Arc<Kind>> = FxHashMap::default();
        for (_, segment) in &trace.segments {
            for kind in segment.registry.kinds().into_iter().filter(|k| k.is_event()) {
                kinds.entry(kind.id).or_insert(kind);
            }
        }
        let mut wanted: FxHashMap<u16, Vec<bool>> = FxHashMap::default();
        for kind in kinds.values() {
            let mut fields: Vec<bool> = kind.fields.iter().map(|f| wants(kind, &f.name)).collect();
            if fields.contains(&true) {
                // The order of all events.
                kind.index_of("ts_ns").into_iter().for_each(|i| fields[i] = true);
                wanted.insert(kind.id, fields);
            }
        }
        let mut blocks: Vec<(usize, BlockRef)> = trace
            .blocks()
            .filter(|(_, b)| b.header.block_type == BlockType::Events as u8 && b.header.ts_min_ns <= until_ns)
            .map(|(segment, block)| (segment, *block))
            .collect();
        blocks.sort_by_key(|(_, b)| (b.header.ts_min_ns, b.header.seq));
        let total = blocks.iter().map(|(_, b)| u64::from(b.header.rows)).sum();
        let damage = Damage::default();
        Slabs { trace, blocks, next: 0, kinds, wanted, carried: Vec::new(), slab_rows, damage, total }
    }

    /// The next stretch of time.
    pub(crate) fn next_slab(&mut self) -> Option<Slab> {
        if self.next == self.blocks.len() && self.carried.is_empty() {
            return None;
        }
        let (first, mut rows) = (self.next, 0);
        while let Some((_, block)) = self.blocks.get(self.next)
            && (self.next == first || rows + u64::from(block.header.rows) <= self.slab_rows)
        {
            rows += u64::from(block.header.rows);
            self.next += 1;
        }
        let end = self.blocks.get(self.next).map_or(u64::MAX, |(_, b)| b.header.ts_min_ns);
        let mut slab = Slab { rows, ..Slab::default() };
        let decoded: Vec<_> = self.blocks[first..self.next].par_iter().map(|(s, b)| self.decode(*s, b)).collect();
        let mut parts = std::mem::take(&mut self.carried);
        for ((segment, block), decoded) in self.blocks[first..self.next].iter().zip(decoded) {
            match decoded {
                Ok((found, unknown)) => {
                    parts.extend(found);
                    self.damage.unknown_rows += unknown;
                }
                Err(error) => {
                    self.damage.block(&self.trace.segments[*segment].0, block, &error);
                    slab.damaged.push((block.header.ts_min_ns, block.header.ts_max_ns));
                }
            }
        }
        parts.sort_by_key(|p| (p.kind, p.order));
        let last = self.next == self.blocks.len();
        let by_kind: Vec<&[Part]> = parts.chunk_by(|a, b| a.kind == b.kind).collect();
        let before = |ts: u64| last || ts < end;
        slab.tables = by_kind
            .par_iter()
            .filter_map(|parts| {
                let kind = self.kinds.get(&parts.first()?.kind)?;
                let wanted = self.wanted.get(&kind.id)?;
                Some(in_order(kind, wanted, parts, &before)).filter(|t| t.rows() > 0)
            })
            .collect();
        if !last {
            self.carried = parts.into_iter().filter_map(|part| rest(part, end)).collect();
        }
        Some(slab)
    }

    fn decode(&self, segment: usize, block: &BlockRef) -> bpfrec_format::Result<(Vec<Part>, u64)> {
        let from = &self.trace.segments[segment].1;
        // A segment that describes a kind otherwise has other fields in its places.
        let is_known = |kind: u16| from.registry.get(kind) == self.kinds.get(&kind);
        let wanted = |kind, field: usize| {
            let fields = self.wanted.get(&kind);
            fields.is_some_and(|fields| fields.get(field).copied().unwrap_or(true) || !is_known(kind))
        };
        let rows = from.read_fields(block, &wanted)?;
        let h = &block.header;
        let mut parts = Vec::with_capacity(rows.tables.len());
        for (section, table) in rows.tables.into_iter().enumerate() {
            let (Some(kind), Some(own)) = (self.kinds.get(&table.kind), from.registry.get(table.kind)) else {
                continue;
            };
            let (id, rows) = (table.kind, table.rows());
            let mut columns = if own == kind { table.columns } else { renamed(own, kind, table) };
            let ts = kind.index_of("ts_ns").and_then(|i| columns.get_mut(i));
            let ts = match ts {
                Some(Column::Int(ts)) => std::mem::take(ts),
                _ => vec![h.ts_min_ns; rows],
            };
            parts.push(Part { order: (h.stream, h.seq, section as u32), kind: id, ts, columns, from: 0 });
        }
        Ok((parts, rows.unknown_rows))
    }
}

/// The columns of `table`, whose segment describes the kind as `own`, in the order of `kind`.
fn renamed(own: &Kind, kind: &Kind, mut table: Table) -> Vec<Column> {
    let rows = table.rows();
    let mut column = |name: &str, ty| {
        let empty = Column::empty(ty);
        let own = own.index_of(name).and_then(|i| table.columns.get_mut(i));
        match own.filter(|c| std::mem::discriminant(*c) == std::mem::discriminant(&empty)) {
            Some(column) => std::mem::replace(column, empty),
            None => match empty {
                Column::Int(_) => Column::Int(vec![0; rows]),
                Column::Text(_) => Column::Text(Ragged { ends: vec![0; rows], data: Vec::new() }),
                Column::List(_) => Column::List(Ragged { ends: vec![0; rows], data: Vec::new() }),
            },
        }
    };
    kind.fields.iter().map(|f| column(&f.name, f.ty)).collect()
}

/// Where a row of a table in order comes from.
type Key = (u64, u32, u32);

fn in_order(kind: &Arc<Kind>, wanted: &[bool], parts: &[Part], before: &(dyn Fn(u64) -> bool + Sync)) -> EventTable {
    let mut keys: Vec<Key> = Vec::with_capacity(parts.iter().map(|p| p.ts.len() - p.from).sum());
    for (i, part) in parts.iter().enumerate() {
        let rows = part.ts.iter().enumerate().skip(part.from).filter(|(_, ts)| before(**ts));
        keys.extend(rows.map(|(row, ts)| (*ts, i as u32, row as u32)));
    }
    // Parts stand in order of CPU and block: a stable sort by time alone leaves them so, and merges sorted runs.
    keys.sort_by_key(|k| k.0);
    let columns = (0..kind.fields.len()).into_par_iter();
    let columns = columns.map(|i| match wanted.get(i) {
        Some(true) => gather(&keys, parts, i),
        _ => Column::Int(Vec::new()),
    });
    EventTable {
        kind: kind.clone(),
        columns: columns.collect(),
        ts: keys.iter().map(|k| k.0).collect(),
        cpu: keys.iter().map(|k| parts[k.1 as usize].order.0).collect(),
    }
}

fn gather(keys: &[Key], parts: &[Part], column: usize) -> Column {
    match parts.first().and_then(|p| p.columns.get(column)) {
        Some(Column::Int(_)) | None => {
            let ints: Vec<&[u64]> = parts.iter().map(|p| p.columns.get(column).map_or(&[][..], Column::ints)).collect();
            // The timestamp's own column was taken out.
            if ints.iter().all(|v| v.is_empty()) {
                return Column::Int(Vec::new());
            }
            Column::Int(keys.iter().map(|k| ints[k.1 as usize].get(k.2 as usize).copied().unwrap_or(0)).collect())
        }
        Some(Column::Text(_)) => {
            let mut out = Ragged::default();
            for k in keys {
                match &parts[k.1 as usize].columns[column] {
                    Column::Text(text) => out.push(text.get(k.2 as usize)),
                    _ => out.push(&[]),
                }
            }
            Column::Text(out)
        }
        Some(Column::List(_)) => {
            let mut out = Ragged::default();
            for k in keys {
                match &parts[k.1 as usize].columns[column] {
                    Column::List(list) => out.push(list.get(k.2 as usize)),
                    _ => out.push(&[]),
                }
            }
            Column::List(out)
        }
    }
}

/// The rows at and after `end`.
fn rest(part: Part, end: u64) -> Option<Part> {
    let left = &part.ts[part.from..];
    let used = left.iter().filter(|ts| **ts < end).count();
    if used == left.len() {
        return None;
    }
    // In order of time, as nearly all are, nothing needs to be copied.
    if left[..used].iter().all(|ts| *ts < end) {
        return Some(Part { from: part.from + used, ..part });
    }
    let keep: Vec<usize> = (part.from..part.ts.len()).filter(|row| part.ts[*row] >= end).collect();
    let cut = |column: &Column| match column {
        // Not wanted.
        column if column.is_empty() => column.clone(),
        Column::Int(v) => Column::Int(keep.iter().map(|row| v[*row]).collect()),
        Column::Text(r) => {
            let mut out = Ragged::default();
            keep.iter().for_each(|row| out.push(r.get(*row)));
            Column::Text(out)
        }
        Column::List(r) => {
            let mut out = Ragged::default();
            keep.iter().for_each(|row| out.push(r.get(*row)));
            Column::List(out)
        }
    };
    let columns = part.columns.iter().map(cut).collect();
    Some(Part { ts: keep.iter().map(|row| part.ts[*row]).collect(), columns, from: 0, ..part })
}
