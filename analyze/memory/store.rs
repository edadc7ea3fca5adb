//! Live allocations by address, as small as they go: 5 million of them are nothing unusual.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::{End, Event, Life};

/// Lives that are handed on at once when all events are over.
const CHUNK: usize = 1 << 16;

/// A live allocation, in 40 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rec {
    pub(super) addr: u64,
    pub(super) ts_ns: u64,
    pub(super) bytes: u64,
    /// Position in [`Sites`], and [`SPLIT`].
    pub(super) site: u32,
    pub(super) tid: u32,
    pub(super) pid: u32,
    pub(super) weight_milli: u32,
}

/// Of a range that is in several pieces.
pub(super) const SPLIT: u32 = 1 << 31;

/// Stack, cgroup and operation, each combination once.
#[derive(Default)]
pub(super) struct Sites {
    numbers: FxHashMap<(u64, u64, u8), u32>,
    all: Vec<(u64, u64, u8)>,
}

impl Sites {
    /// An allocation as it is kept.
    pub(super) fn rec(&mut self, e: &Event, op: u8) -> Rec {
        let Sites { numbers, all } = self;
        let key = (e.stack_id, e.cgroup_id, op);
        let site = *numbers.entry(key).or_insert_with(|| {
            all.push(key);
            (all.len() - 1) as u32 & !SPLIT
        });
        let Event { addr, ts_ns, bytes, tid, pid, weight_milli, .. } = *e;
        Rec { addr, ts_ns, bytes, site, tid, pid, weight_milli }
    }

    /// An allocation as it is handed on.
    pub(super) fn life(&self, rec: &Rec, part: bool, end: Option<End>) -> Life {
        let (stack_id, cgroup_id, op) = self.all[(rec.site & !SPLIT) as usize];
        let Rec { addr, ts_ns, bytes, tid, pid, weight_milli, .. } = *rec;
        Life { ts_ns, addr, bytes, stack_id, cgroup_id, tid, pid, weight_milli, op, part, end }
    }
}

/// Allocations that are freed as a whole, by the address. The table holds 4 + 1 bytes a slot; the records lie dense.
#[derive(Default)]
pub(super) struct Heap {
    table: HashTable<u32>,
    recs: Vec<Rec>,
}

fn hash(addr: u64) -> u64 {
    FxBuildHasher.hash_one(addr)
}

impl Heap {
    /// Adds one; what was at its address until now comes back.
    pub(super) fn insert(&mut self, rec: Rec) -> Option<Rec> {
        let Heap { table, recs } = self;
        if let Some(at) = table.find(hash(rec.addr), |at| recs[*at as usize].addr == rec.addr) {
            return Some(std::mem::replace(&mut recs[*at as usize], rec));
        }
        table.insert_unique(hash(rec.addr), recs.len() as u32, |at| hash(recs[*at as usize].addr));
        recs.push(rec);
        None
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, addr: u64) -> Option<Rec> {
        let Heap { table, recs } = self;
        let found = table.find_entry(hash(addr), |at| recs[*at as usize].addr == addr).ok()?;
        let (at, _) = found.remove();
        let last = recs.len() as u32 - 1;
        // The last one takes the place that became free.
        if at != last {
            let moved = hash(recs[last as usize].addr);
            if let Some(position) = table.find_mut(moved, |position| *position == last) {
                *position = at;
            }
        }
        Some(recs.swap_remove(at as usize))
    }

    /// All of them, unordered. None can be found any more.
    pub(super) fn into_recs(self) -> Vec<Rec> {
        self.recs
    }
}

/// Hands out what is left, some at a time, and its room with it.
pub(super) enum Rest {
    /// By time, the last first.
    Recs(Vec<Rec>),
    /// By address.
    Ranges(BTreeMap<u64, Rec>),
}

impl Rest {
    pub(super) fn of(heap: Heap) -> Self {
        let mut recs = heap.into_recs();
        recs.sort_unstable_by_key(|r| Reverse((r.ts_ns, r.addr)));
        Rest::Recs(recs)
    }

    /// Empty when that was all.
    pub(super) fn next(&mut self) -> Vec<Rec> {
        match self {
            Rest::Recs(recs) => {
                let mut some = recs.split_off(recs.len().saturating_sub(CHUNK));
                some.reverse();
                some
            }
            Rest::Ranges(ranges) => std::iter::from_fn(|| ranges.pop_first()).take(CHUNK).map(|(_, rec)| rec).collect(),
        }
    }
}
