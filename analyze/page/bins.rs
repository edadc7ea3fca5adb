//! Stretches of equal length that time is cut into, so that any span of them can be told without the events.

/// Bins, counted from the start of the recording: their edges are round times of `--from` and `--to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bins {
    /// Begin of the first, CLOCK_MONOTONIC; what lies before belongs to it.
    pub(super) origin_ns: u64,
    pub(super) width_ns: u64,
    /// What lies behind the last belongs to it.
    pub(super) count: u32,
}

/// More bins than a screen has room for serve nobody.
const MOST: u64 = 200;

impl Bins {
    /// Of `from_ns..to_ns` of a recording that began at `start_ns`; 1, 2 or 5 times a power of ten long.
    pub(super) fn new(start_ns: u64, from_ns: u64, to_ns: u64) -> Bins {
        let (from, to) = (from_ns.saturating_sub(start_ns), to_ns.saturating_sub(start_ns));
        let steps = (3..19).flat_map(|power| [1, 2, 5].map(|n| n * 10u64.pow(power)));
        // An end on an edge begins no bin of its own.
        let count = |width: u64| (to.saturating_sub(1) / width + 1).saturating_sub(from / width).max(1);
        let width_ns = steps.into_iter().find(|width| count(*width) <= MOST).unwrap_or(u64::MAX);
        Bins { origin_ns: start_ns + from / width_ns * width_ns, width_ns, count: count(width_ns) as u32 }
    }

    /// The bin of a moment. Bins hold their begin, not their end.
    #[inline]
    pub(super) fn at(&self, ts_ns: u64) -> u16 {
        (ts_ns.saturating_sub(self.origin_ns) / self.width_ns).min(u64::from(self.count) - 1) as u16
    }

    /// Calls `each` with the bins that a stretch of time lies in, and with its length in each.
    #[inline]
    pub(super) fn split(&self, start_ns: u64, end_ns: u64, mut each: impl FnMut(u16, u64)) {
        if start_ns >= end_ns {
            return;
        }
        let (first, last) = (self.at(start_ns), self.at(end_ns - 1));
        let mut from = start_ns;
        for bin in first..last {
            let edge = self.edge_ns(u64::from(bin) + 1);
            each(bin, edge.saturating_sub(from));
            from = edge;
        }
        each(last, end_ns.saturating_sub(from));
    }

    /// The same time in half as many bins. A bin's edges stay edges, but for every other one.
    pub(super) fn halved(&self, start_ns: u64) -> Bins {
        let width_ns = self.width_ns.saturating_mul(2);
        let end = self.edge_ns(self.count.into());
        let origin_ns = start_ns + self.origin_ns.saturating_sub(start_ns) / width_ns * width_ns;
        Bins { origin_ns, width_ns, count: end.saturating_sub(origin_ns).div_ceil(width_ns) as u32 }
    }

    /// Begin of a bin.
    pub(super) fn begin_ns(&self, bin: u16) -> u64 {
        self.edge_ns(bin.into())
    }

    /// Begin of a bin, end of the one before; the end of all time where a file says absurd ones.
    fn edge_ns(&self, bin: u64) -> u64 {
        self.origin_ns.saturating_add(bin.saturating_mul(self.width_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn round_widths_of_the_whole_time() {
        for (seconds, width_ms, count) in [(3, 20, 150), (1, 5, 200), (60, 500, 120), (601, 5000, 121)] {
            let bins = Bins::new(7 * S, 7 * S, (7 + seconds) * S);
            assert_eq!((bins.width_ns, bins.count), (width_ms * 1_000_000, count), "{seconds} s");
        }
        assert_eq!(Bins::new(5, 5, 5).count, 1);
        // Of a window in the middle, edges are still counted from the start of the recording.
        let bins = Bins::new(10 * S, 13 * S + 7, 14 * S);
        assert_eq!((bins.origin_ns - 10 * S) % bins.width_ns, 0);
        assert_eq!(bins.at(13 * S + 7), 0);
    }

    #[test]
    fn parts_add_up() {
        let bins = Bins::new(0, 0, 3 * S);
        for (from, to) in [(0, 1), (5, 3 * S), (20_000_000, 40_000_000), (2 * S - 1, 9 * S), (7, 7)] {
            let mut parts = Vec::new();
            bins.split(from, to, |bin, ns| parts.push((bin, ns)));
            assert_eq!(parts.iter().map(|p| p.1).sum::<u64>(), to - from);
            assert!(parts.iter().all(|p| p.1 > 0) && parts.windows(2).all(|w| w[0].0 + 1 == w[1].0));
        }
    }

    #[test]
    fn halves_hold_whole_bins() {
        let start = 3;
        let mut bins = Bins::new(start, start + 7 * S, start + 10 * S);
        while bins.count > 1 {
            let half = bins.halved(start);
            for bin in 0..bins.count as u16 {
                let (begin, end) = (bins.begin_ns(bin), bins.begin_ns(bin + 1) - 1);
                assert_eq!(half.at(begin), half.at(end));
            }
            assert!(half.count < bins.count || bins.count == 2, "{bins:?} {half:?}");
            if half.count == bins.count {
                break;
            }
            bins = half;
        }
    }
}
