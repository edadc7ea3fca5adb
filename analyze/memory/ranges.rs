//! Allocations of which parts can be freed: mappings by bytes, pages by page frames.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::store::{Rec, SPLIT};

/// What pieces of the same allocation have in common.
type Whole = (u64, u32, u32);

/// Pieces that are left of allocations of which something was cut.
#[derive(Default)]
pub(super) struct Pieces(FxHashMap<Whole, u32>);

impl Pieces {
    fn add(&mut self, rec: &Rec, more: u32) {
        *self.0.entry(whole(rec)).or_insert(1) += more;
    }

    /// A piece is over. Whether the allocation is, too.
    pub(super) fn settle(&mut self, rec: &Rec) -> bool {
        if rec.site & SPLIT == 0 {
            return true;
        }
        let key = whole(rec);
        match self.0.get_mut(&key) {
            Some(left) if *left > 1 => {
                *left -= 1;
                false
            }
            _ => {
                self.0.remove(&key);
                true
            }
        }
    }
}

/// Live ranges, which never overlap.
pub(super) struct Ranges {
    by_start: BTreeMap<u64, Rec>,
    pieces: Pieces,
    /// Bytes that one step of an address stands for.
    unit: u64,
    /// Frees are recorded by the address: of a part that does not begin where the allocation does nobody may tell.
    heads_only: bool,
}

fn whole(rec: &Rec) -> Whole {
    (rec.ts_ns, rec.tid, rec.site & !SPLIT)
}

impl Ranges {
    pub(super) fn new(unit: u64, heads_only: bool) -> Self {
        Ranges { by_start: BTreeMap::new(), pieces: Pieces::default(), unit, heads_only }
    }

    fn end(&self, rec: &Rec) -> u64 {
        rec.addr.saturating_add(rec.bytes.div_ceil(self.unit))
    }

    /// Adds a range where nothing lies.
    pub(super) fn insert(&mut self, rec: Rec) {
        if rec.bytes > 0 {
            self.by_start.insert(rec.addr, rec);
        }
    }

    /// Bytes of the range that begins here; 0 when none does.
    pub(super) fn bytes_at(&self, start: u64) -> u64 {
        self.by_start.get(&start).map_or(0, |r| r.bytes)
    }

    /// Takes out what is freed in `len` steps from `start` on, as [`Ranges::cut`] does. Of what was sampled, or recorded with
    /// a filter, the free of the first byte stands for all: that of the rest may not be told.
    pub(super) fn free(&mut self, start: u64, len: u64) -> Vec<Rec> {
        let end = start.saturating_add(len);
        let by_head = |rec: &Rec| self.heads_only || rec.weight_milli > 1000;
        let from = self.by_start.range(..=start).next_back().map_or(start, |(at, _)| *at);
        let touched: Vec<(u64, bool)> = self.by_start.range(from..end).map(|(at, r)| (*at, by_head(r))).collect();
        if !touched.iter().any(|(_, by_head)| *by_head) {
            return self.cut(start, len);
        }
        let mut out = Vec::new();
        for (at, by_head) in touched {
            if !by_head {
                let Some(rec) = self.by_start.get(&at) else { continue };
                let (from, to) = (at.max(start), self.end(rec).min(end));
                out.extend(self.cut(from, to.saturating_sub(from)));
            } else if at >= start {
                out.extend(self.by_start.remove(&at));
            }
        }
        out
    }

    /// Takes out what lies in `len` steps from `start` on, in order. Each piece must be given to [`Ranges::settle`] or
    /// back to [`Ranges::restore`].
    pub(super) fn cut(&mut self, start: u64, len: u64) -> Vec<Rec> {
        let end = start.saturating_add(len);
        let mut out = Vec::new();
        if len == 0 {
            return out;
        }
        let before = self.by_start.range(..start).next_back().filter(|(_, r)| self.end(r) > start).map(|(at, _)| *at);
        let within = self.by_start.range(start..end).map(|(at, _)| *at);
        for at in before.into_iter().chain(within).collect::<Vec<_>>() {
            let Some(mut rec) = self.by_start.remove(&at) else { continue };
            let rec_end = self.end(&rec);
            let (left, right) = (start.saturating_sub(rec.addr), rec_end.saturating_sub(end));
            if left + right > 0 {
                self.pieces.add(&rec, u32::from(left > 0) + u32::from(right > 0));
                rec.site |= SPLIT;
            }
            if right > 0 {
                let bytes = rec.bytes - (end - rec.addr) * self.unit;
                self.by_start.insert(end, Rec { addr: end, bytes, ..rec });
                rec.bytes -= bytes;
            }
            if left > 0 {
                let bytes = left * self.unit;
                self.by_start.insert(rec.addr, Rec { bytes, ..rec });
                (rec.addr, rec.bytes) = (start, rec.bytes - bytes);
            }
            out.push(rec);
        }
        out
    }

    /// A piece is over. Whether the allocation is, too.
    pub(super) fn settle(&mut self, rec: &Rec) -> bool {
        self.pieces.settle(rec)
    }

    /// Puts a piece back and joins it with its neighbours. It comes back itself where something else lies now.
    pub(super) fn restore(&mut self, mut rec: Rec) -> Option<Rec> {
        if !self.is_free(&rec) {
            return Some(rec);
        }
        let mut joined = 0;
        let left = self.by_start.range(..rec.addr).next_back().map(|(_, r)| *r);
        if let Some(left) = left.filter(|l| whole(l) == whole(&rec) && self.end(l) == rec.addr) {
            self.by_start.remove(&left.addr);
            (rec.addr, rec.bytes, joined) = (left.addr, left.bytes + rec.bytes, joined + 1);
        }
        let end = self.end(&rec);
        if let Some(right) = self.by_start.get(&end).copied().filter(|r| whole(r) == whole(&rec)) {
            self.by_start.remove(&end);
            (rec.bytes, joined) = (rec.bytes + right.bytes, joined + 1);
        }
        for _ in 0..joined {
            self.settle(&rec);
        }
        self.by_start.insert(rec.addr, rec);
        None
    }

    fn is_free(&self, rec: &Rec) -> bool {
        let before = self.by_start.range(..self.end(rec)).next_back();
        before.is_none_or(|(_, r)| self.end(r) <= rec.addr)
    }

    /// What is left; each is to be settled with the pieces.
    pub(super) fn into_parts(self) -> (BTreeMap<u64, Rec>, Pieces) {
        (self.by_start, self.pieces)
    }
}
