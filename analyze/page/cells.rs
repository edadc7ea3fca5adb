//! Sums over bins of time, groups and what else matters: what a page is computed from.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

/// What is summed by. `what` is a class of latency or a stack; `more` a step of latency, or the bin in which memory was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) what: u32,
    pub(super) group: u32,
    pub(super) bin: u16,
    pub(super) more: u16,
}

/// What is summed.
pub(super) trait Join: Copy + Default {
    /// Adds another one.
    fn join(&mut self, other: Self);
}

impl Join for u64 {
    fn join(&mut self, other: u64) {
        *self = self.saturating_add(other);
    }
}

/// A sum and the largest of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Length {
    pub(super) ns: u64,
    pub(super) max_ns: u64,
}

impl Join for Length {
    fn join(&mut self, other: Length) {
        self.ns = self.ns.saturating_add(other.ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }
}

/// How much and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) much: u64,
    pub(super) times: u64,
}

impl Join for Amount {
    fn join(&mut self, other: Amount) {
        self.much = self.much.saturating_add(other.much);
        self.times = self.times.saturating_add(other.times);
    }
}

/// Sums by cell.
#[derive(Clone)]
pub(super) struct Cells<V>(FxHashMap<Cell, V>);

impl<V> Default for Cells<V> {
    fn default() -> Self {
        Cells(FxHashMap::default())
    }
}

impl<V: Join> Cells<V> {
    #[inline]
    pub(super) fn add(&mut self, cell: Cell, value: V) {
        self.0.entry(cell).or_default().join(value);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The same sums under other cells.
    pub(super) fn map(&mut self, to: impl Fn(Cell) -> Cell) {
        let old = std::mem::take(&mut self.0);
        old.into_iter().for_each(|(cell, value)| self.add(to(cell), value));
    }

    /// In order, under other cells.
    pub(super) fn sorted(&self, to: impl Fn(Cell) -> Cell) -> Vec<(Cell, V)> {
        let mut all: Vec<(Cell, V)> = self.0.iter().map(|(cell, value)| (to(*cell), *value)).collect();
        all.sort_unstable_by_key(|(cell, _)| *cell);
        all.dedup_by(|next, first| {
            let same = next.0 == first.0;
            if same {
                first.1.join(next.1);
            }
            same
        });
        all
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Cell, V)> {
        self.0.iter().map(|(cell, value)| (*cell, *value))
    }

    /// All together.
    pub(super) fn total(&self) -> V {
        let mut total = V::default();
        self.iter().for_each(|(_, value)| total.join(value));
        total
    }

    /// Sums by a key of one's own.
    pub(super) fn by<K: Ord>(&self, key: impl Fn(Cell) -> Option<K>) -> BTreeMap<K, V> {
        let mut sums = BTreeMap::new();
        for (cell, value) in self.iter() {
            if let Some(key) = key(cell) {
                sums.entry(key).or_insert_with(V::default).join(value);
            }
        }
        sums
    }
}

/// Names things with numbers, in the order in which they come.
#[derive(Clone)]
pub(super) struct Numbers<K> {
    numbers: FxHashMap<K, u32>,
    pub(super) all: Vec<K>,
}

impl<K> Default for Numbers<K> {
    fn default() -> Self {
        Numbers { numbers: FxHashMap::default(), all: Vec::new() }
    }
}

impl<K: Copy + Eq + std::hash::Hash> Numbers<K> {
    /// The number of `key`.
    pub(super) fn of(&mut self, key: K) -> u32 {
        let all = &mut self.all;
        *self.numbers.entry(key).or_insert_with(|| {
            all.push(key);
            all.len() as u32 - 1
        })
    }
}
