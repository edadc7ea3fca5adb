//! Rows for what may overlap, so that on each no two stretches of time do.

use rustc_hash::FxHashMap;
use std::hash::Hash;

/// Ends of the last stretch on each row, by whose rows they are.
pub(super) struct Lanes<K>(FxHashMap<K, Vec<u64>>);

impl<K> Default for Lanes<K> {
    fn default() -> Self {
        Lanes(FxHashMap::default())
    }
}

impl<K: Eq + Hash> Lanes<K> {
    /// The first row that is free at the begin. Stretches come in the order of their ends.
    pub(super) fn lane(&mut self, of: K, start_ns: u64, end_ns: u64) -> u32 {
        let ends = self.0.entry(of).or_default();
        let free = ends.iter().position(|end| *end <= start_ns).unwrap_or(ends.len());
        match ends.get_mut(free) {
            Some(end) => *end = end_ns,
            None => ends.push(end_ns),
        }
        free as u32
    }
}

#[cfg(test)]
mod tests {
    use super::Lanes;

    #[test]
    fn no_two_overlap() {
        let mut lanes = Lanes::default();
        let of = [(0, 10), (5, 12), (10, 20), (11, 21), (12, 30)].map(|(start, end)| lanes.lane('a', start, end));
        assert_eq!(of, [0, 1, 0, 2, 1]);
        assert_eq!(lanes.lane('b', 0, 1), 0);
    }
}
