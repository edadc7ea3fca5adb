//! From CLOCK_MONOTONIC, in which events are stamped, to Unix time.

use crate::view::View;

/// Pairs of the same moment on both clocks.
#[derive(Debug, Default)]
pub struct Clock {
    /// (monotonic, boot, realtime) ns, sorted by the first.
    pub rows: Vec<(u64, u64, i64)>,
}

impl Clock {
    /// Takes over CLOCK rows.
    pub(crate) fn add(&mut self, view: View<'_>) {
        let (mono, boot, real) = (view.ints("mono_ns"), view.ints("boot_ns"), view.ints("realtime_ns"));
        self.rows.extend((0..view.rows()).map(|r| (mono.get(r), boot.get(r), real.get(r) as i64)));
    }

    /// Sorts; without any row, `fallback` (monotonic, realtime) stands in.
    pub(crate) fn finish(&mut self, fallback: Option<(u64, i64)>) {
        if self.rows.is_empty() {
            self.rows.extend(fallback.map(|(mono, real)| (mono, mono, real)));
        }
        self.rows.sort_unstable();
        self.rows.dedup();
    }

    /// Unix ns of a moment. Between two pairs the difference is interpolated, so that a clock that was stepped or
    /// slewed is followed; outside the nearest pair's difference holds. 0 pairs: the time since boot.
    pub fn unix_ns(&self, mono_ns: u64) -> i64 {
        let offset = |row: &(u64, u64, i64)| i128::from(row.2) - i128::from(row.0);
        let after = self.rows.partition_point(|row| row.0 <= mono_ns);
        let offset = match (after.checked_sub(1).map(|i| &self.rows[i]), self.rows.get(after)) {
            (None, None) => 0,
            (Some(row), None) | (None, Some(row)) => offset(row),
            (Some(a), Some(b)) => {
                let (done, all, change) = (mono_ns - a.0, (b.0 - a.0).max(1), offset(b) - offset(a));
                // All but clocks that were set fit into 64 bits, which are divided several times faster.
                let product =
                    i64::try_from(change).ok().zip(i64::try_from(done).ok()).and_then(|(c, d)| c.checked_mul(d));
                offset(a)
                    + match product.zip(i64::try_from(all).ok()) {
                        Some((product, all)) => i128::from(product / all),
                        None => change.saturating_mul(done.into()) / i128::from(all),
                    }
            }
        };
        (i128::from(mono_ns) + offset).clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolates_and_extends() {
        let clock = Clock { rows: vec![(100, 100, 1100), (200, 200, 1210)] };
        assert_eq!(clock.unix_ns(50), 1050);
        assert_eq!(clock.unix_ns(100), 1100);
        assert_eq!(clock.unix_ns(150), 1155);
        assert_eq!(clock.unix_ns(300), 1310);
        // Set forward by 1000 between two rows that stand close together: exact on both sides.
        let set = Clock { rows: vec![(0, 0, 1000), (400, 400, 1400), (410, 410, 2410), (900, 900, 2900)] };
        assert_eq!((set.unix_ns(200), set.unix_ns(600)), (1200, 2600));
        assert_eq!(Clock::default().unix_ns(7), 7);
        assert_eq!(Clock { rows: vec![(0, 0, i64::MAX)] }.unix_ns(u64::MAX), i64::MAX);
    }
}
