//! Time, cut into stretches of equal length, the same in both traces: what a verdict is made from.

use crate::losses::Spans;

/// Fewer than these of a side give no verdict.
pub(super) const FEWEST: usize = 6;
/// The shorter trace is cut into so many, ...
const USUAL: u64 = 20;
/// ... or, that the longer one has no more than these, ...
const MOST: u64 = 50;
/// ... into fewer, but not fewer than these; then the longer one has more, ...
const LEAST: u64 = 10;
/// ... up to these.
const MOST_OF_LONGER: u64 = 500;
/// Shorter stretches are too much alike their neighbours to be told from noise.
const SHORTEST_NS: u64 = 100_000_000;

/// Why there are no stretches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// One trace, or the part of it that was asked for, is too short.
    Short,
    /// One is too many times as long as the other.
    Unequal,
}

impl Unfit {
    /// In words, with what helps.
    pub(super) fn text(self) -> String {
        match self {
            Unfit::Short => {
                let seconds = (LEAST * SHORTEST_NS) as f64 / 1e9;
                format!("too short to tell changes from noise: that takes {seconds} s of each trace at least")
            }
            Unfit::Unequal => format!(
                "too unequal to tell changes from noise: one is more than {} times as long as the other; \
                 --from and --to make them more alike",
                MOST_OF_LONGER / LEAST
            ),
        }
    }
}

/// The length of the stretches of two traces that are so long.
pub fn length_ns(before_ns: u64, after_ns: u64) -> Result<u64, Unfit> {
    let (short, long) = (before_ns.min(after_ns), before_ns.max(after_ns));
    let length = (short / USUAL).max(long / MOST).min(short / LEAST).max(SHORTEST_NS);
    match (short / length, long / length) {
        (short, _) if short < LEAST => Err(Unfit::Short),
        (_, long) if long > MOST_OF_LONGER => Err(Unfit::Unequal),
        _ => Ok(length),
    }
}

/// The stretches of one side. What is left at its end, shorter than a stretch, is in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretches {
    /// Begin of the first, CLOCK_MONOTONIC.
    pub(super) origin_ns: u64,
    pub(super) length_ns: u64,
    pub(super) count: usize,
}

impl Stretches {
    /// Of `from_ns..to_ns`; a single one where there is no length.
    pub(super) fn new(from_ns: u64, to_ns: u64, length_ns: Option<u64>) -> Stretches {
        let all = to_ns.saturating_sub(from_ns).max(1);
        let length_ns = length_ns.unwrap_or(all).clamp(1, all);
        Stretches { origin_ns: from_ns, length_ns, count: (all / length_ns) as usize }
    }

    /// The stretch of a moment.
    #[inline]
    pub(super) fn at(&self, ts_ns: u64) -> Option<usize> {
        let at = (ts_ns.checked_sub(self.origin_ns)? / self.length_ns) as usize;
        // The last moment of all is in the last stretch.
        let last = at == self.count && ts_ns == self.begin_ns(self.count);
        (at < self.count).then_some(at).or(last.then_some(self.count.saturating_sub(1)))
    }

    /// A file may say that it ends with all time: then so does its last stretch.
    fn begin_ns(&self, stretch: usize) -> u64 {
        self.origin_ns.saturating_add((stretch as u64).saturating_mul(self.length_ns))
    }

    /// Calls `each` with the stretches that a span of time lies in, and with its length in each.
    #[inline]
    pub(super) fn split(&self, from_ns: u64, to_ns: u64, mut each: impl FnMut(usize, u64)) {
        let (from, to) = (from_ns.max(self.origin_ns), to_ns.min(self.begin_ns(self.count)));
        let mut at = from;
        while at < to {
            let stretch = ((at - self.origin_ns) / self.length_ns) as usize;
            let end = self.begin_ns(stretch + 1).min(to);
            each(stretch, end - at);
            at = end;
        }
    }

    /// Which stretches no span of losses touches.
    pub(super) fn clean(&self, lost: &Spans) -> Vec<bool> {
        (0..self.count).map(|i| !lost.touch(self.begin_ns(i), self.begin_ns(i + 1).saturating_sub(1))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn lengths_of_stretches() {
        assert_eq!(length_ns(20 * S, 20 * S), Ok(S));
        assert_eq!(length_ns(20 * S, 60 * S), Ok(60 * S / 50));
        assert_eq!(length_ns(60 * S, 20 * S), Ok(60 * S / 50));
        // The shorter one keeps its ten.
        assert_eq!(length_ns(10 * S, 600 * S), Err(Unfit::Unequal));
        assert_eq!(length_ns(10 * S, 400 * S), Ok(S));
        assert_eq!(length_ns(S, S), Ok(S / 10));
        assert_eq!(length_ns(S - 1, 10 * S), Err(Unfit::Short));
        assert_eq!(length_ns(0, 0), Err(Unfit::Short));
    }

    #[test]
    fn the_end_of_all_time_is_in_the_last_stretch() {
        let last = Stretches::new(u64::MAX, u64::MAX, None);
        assert_eq!((last.count, last.at(u64::MAX), last.begin_ns(1)), (1, Some(0), u64::MAX));
        assert_eq!(last.clean(&Spans::default()), [true]);
    }

    #[test]
    fn moments_and_spans() {
        let stretches = Stretches::new(100, 135, Some(10));
        assert_eq!((stretches.count, stretches.at(99), stretches.at(100)), (3, None, Some(0)));
        assert_eq!((stretches.at(129), stretches.at(130), stretches.at(131)), (Some(2), Some(2), None));
        let mut parts = Vec::new();
        stretches.split(95, 125, |i, ns| parts.push((i, ns)));
        assert_eq!(parts, [(0, 10), (1, 10), (2, 5)]);
        stretches.split(131, 140, |_, _| panic!("behind the last"));
        let mut lost = Spans::default();
        lost.add(110, 110);
        assert_eq!(stretches.clean(&lost), [true, false, true]);
        let one = Stretches::new(5, 12, None);
        assert_eq!((one.count, one.length_ns, one.at(12)), (1, 7, Some(0)));
    }
}
