//! How outstanding memory of a stack changes over time, and what that looks like.

/// Points in time that are kept.
const POINTS: u64 = 32;
/// Width of a bucket at first, as a power of two of ns: 65 us.
const FINEST: u32 = 16;
/// Points below which nothing is said: of less than 65 us x 8.
const ENOUGH: usize = 8;
/// Allocations below which nothing grows.
const SEVERAL: u64 = 8;

/// Sums over time in at most [`POINTS`] buckets, which get twice as wide when they do not suffice. The order in which
/// values come does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Series {
    /// A bucket is `2^width` ns long.
    width: u32,
    /// First and last bucket, counted from time 0; bucket `i` lies at `i % POINTS`.
    span: Option<(u64, u64)>,
    sums: [i64; POINTS as usize],
}

impl Default for Series {
    fn default() -> Self {
        Series { width: FINEST, span: None, sums: [0; POINTS as usize] }
    }
}

impl Series {
    pub(super) fn add(&mut self, ts_ns: u64, value: i64) {
        let at = loop {
            let at = ts_ns >> self.width;
            let (first, last) = self.span.map_or((at, at), |(first, last)| (first.min(at), last.max(at)));
            if last - first < POINTS {
                self.span = Some((first, last));
                break at;
            }
            self.fold();
        };
        let sum = &mut self.sums[(at % POINTS) as usize];
        *sum = sum.saturating_add(value);
    }

    fn fold(&mut self) {
        self.width += 1;
        let Some((first, last)) = self.span else { return };
        let old = std::mem::replace(&mut self.sums, [0; POINTS as usize]);
        for at in first..=last {
            let sum = &mut self.sums[(at / 2 % POINTS) as usize];
            *sum = sum.saturating_add(old[(at % POINTS) as usize]);
        }
        self.span = Some((first / 2, last / 2));
    }

    /// Adds what another one has.
    pub(super) fn join(&mut self, other: &Series) {
        let mut other = other.clone();
        while self.width < other.width {
            self.fold();
        }
        while other.width < self.width {
            other.fold();
        }
        let Some((first, last)) = other.span else { return };
        for at in first..=last {
            self.add(at << other.width, other.sums[(at % POINTS) as usize]);
        }
    }

    /// (end of a bucket, its sum).
    fn buckets(&self) -> impl Iterator<Item = (u64, i64)> {
        let of = |at: u64| ((at + 1) << self.width, self.sums[(at % POINTS) as usize]);
        self.span.into_iter().flat_map(|(first, last)| first..=last).map(of)
    }
}

/// What growth looks like. The first that fits:
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// At least 8 allocations; a line fits the outstanding bytes over time (r^2 of 0.7 or more) and rises, over the time
    /// watched, by a tenth of what is outstanding at the end or more; and it still rose in the last quarter: by more
    /// than a tenth of the range of values, on average.
    Grows,
    /// Nine tenths of all bytes allocated came within a tenth of the time watched.
    OneTime,
    /// At least half of the bytes allocated were freed again.
    Churns,
    /// None of that, or watched for less than half a millisecond.
    Unclear,
}

impl Verdict {
    pub(super) fn name(self) -> &'static str {
        match self {
            Verdict::Grows => "grows steadily",
            Verdict::OneTime => "one-time",
            Verdict::Churns => "churns",
            Verdict::Unclear => "unclear",
        }
    }
}

/// A slope and a verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Growth {
    /// Least squares over the outstanding bytes at the ends of up to 32 equal stretches of the time watched, which is
    /// from the stack's first allocation to the end of the window or of the process.
    pub(super) bytes_per_s: f64,
    pub(super) verdict: Verdict,
}

/// `outstanding`: bytes that came and, negative, went; `allocated`: those that came; `allocs`: how often; `until_ns`: end of
/// the time watched.
pub(super) fn judge(outstanding: &Series, allocated: &Series, allocs: u64, freed_bytes: i64, until_ns: u64) -> Growth {
    let (mut outstanding, mut allocated) = (outstanding.clone(), allocated.clone());
    for series in [&mut outstanding, &mut allocated] {
        series.add(until_ns, 0);
    }
    let mut now = 0i64;
    let points: Vec<(f64, f64)> = outstanding
        .buckets()
        .map(|(end, change)| {
            now = now.saturating_add(change);
            (end.min(until_ns) as f64, now as f64)
        })
        .collect();
    let (slope, r2) = line(&points);
    let came: Vec<i64> = allocated.buckets().map(|(_, bytes)| bytes).collect();
    let total = |part: &[i64]| part.iter().fold(0i64, |sum, n| sum.saturating_add(*n));
    let all_came = total(&came);
    // What comes at once may lie on both sides of a bucket's end.
    let burst = came.windows((came.len() / 10 + 1).min(came.len())).map(total).max().unwrap_or(0);
    let verdict = if allocs >= SEVERAL && points.len() >= ENOUGH && grows(&points, slope, r2) {
        Verdict::Grows
    } else if came.len() >= ENOUGH && burst as f64 >= 0.9 * all_came as f64 {
        Verdict::OneTime
    } else if freed_bytes as f64 >= 0.5 * all_came as f64 && freed_bytes > 0 {
        Verdict::Churns
    } else {
        Verdict::Unclear
    };
    Growth { bytes_per_s: slope * 1e9, verdict }
}

fn grows(points: &[(f64, f64)], slope: f64, r2: f64) -> bool {
    let mean = |part: &[(f64, f64)]| part.iter().map(|p| p.1).sum::<f64>() / part.len().max(1) as f64;
    let n = points.len();
    let (first, last) = (points[0], points[n - 1]);
    let range = points.iter().fold((f64::MAX, f64::MIN), |(low, high), p| (low.min(p.1), high.max(p.1)));
    let late = mean(&points[n - n / 4..]) - mean(&points[n - n / 2..n - n / 4]);
    r2 >= 0.7 && slope * (last.0 - first.0) >= 0.1 * last.1.max(1.0) && late > 0.1 * (range.1 - range.0)
}

/// Slope and r^2 of the line of least squares; 0 where there is none.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let mean_x = points.iter().map(|p| p.0).sum::<f64>() / n;
    let mean_y = points.iter().map(|p| p.1).sum::<f64>() / n;
    let sum = |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|p| of(p.0 - mean_x, p.1 - mean_y)).sum::<f64>();
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    let slope = if xx > 0.0 { xy / xx } else { 0.0 };
    (slope, if xx > 0.0 && yy > 0.0 { xy * xy / (xx * yy) } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// Judges (time in ns, bytes that come or go), watched until `until`.
    fn judged(changes: &[(u64, i64)], until: u64) -> Growth {
        let (mut outstanding, mut allocated, mut freed) = (Series::default(), Series::default(), 0);
        for (ts, bytes) in changes {
            outstanding.add(*ts, *bytes);
            if *bytes > 0 {
                allocated.add(*ts, *bytes);
            } else {
                freed -= bytes;
            }
        }
        let allocs = changes.iter().filter(|c| c.1 > 0).count() as u64;
        judge(&outstanding, &allocated, allocs, freed, until)
    }

    fn random(x: &mut u64, n: u64) -> u64 {
        *x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*x >> 33) % n
    }

    #[test]
    fn a_steady_leak_has_its_slope() {
        // 100 bytes each 10 ms, from 5 s on.
        let leak: Vec<(u64, i64)> = (0..1000).map(|i| (5 * S + i * S / 100, 100)).collect();
        let growth = judged(&leak, 15 * S);
        assert_eq!(growth.verdict, Verdict::Grows);
        assert!((growth.bytes_per_s - 10_000.0).abs() < 500.0, "{growth:?}");
        // The same under ten times as much that comes and goes.
        let mut x = 1;
        let mut noisy = leak.clone();
        for i in 0..10_000 {
            let at = 5 * S + i * S / 1000;
            noisy.extend([(at, 100), (at + 1 + random(&mut x, S / 20), -100)]);
        }
        noisy.retain(|(ts, _)| *ts < 15 * S);
        assert_eq!(judged(&noisy, 15 * S).verdict, Verdict::Grows);
    }

    #[test]
    fn what_comes_at_the_start_is_one_time() {
        for allocs in [1, 3, 1000] {
            let start: Vec<(u64, i64)> = (0..allocs).map(|i| (3 * S + i * 50_000, 64)).collect();
            let growth = judged(&start, 20 * S);
            assert_eq!(growth.verdict, Verdict::OneTime, "{allocs}");
            // Also when half of it goes at the end.
            let half: Vec<(u64, i64)> = start.iter().copied().chain([(19 * S, -32 * allocs as i64)]).collect();
            assert_eq!(judged(&half, 20 * S).verdict, Verdict::OneTime);
        }
        // In the middle of the time of others: it is watched from its own begin on.
        assert_eq!(judged(&[(10 * S, 1 << 20)], 20 * S).verdict, Verdict::OneTime);
    }

    #[test]
    fn what_comes_and_goes_churns() {
        for seed in 0..50 {
            let (mut x, mut changes) = (seed, Vec::new());
            for i in 0..5000 {
                let (at, bytes) = (S + i * 1_000_000, 1 + random(&mut x, 4096) as i64);
                changes.extend([(at, bytes), (at + random(&mut x, S / 5), -bytes)]);
            }
            changes.retain(|(ts, _)| *ts < 6 * S);
            assert_eq!(judged(&changes, 6 * S).verdict, Verdict::Churns, "{seed}");
        }
    }

    #[test]
    fn a_cache_that_is_full_does_not_grow() {
        let fill: Vec<(u64, i64)> = (0..1000).map(|i| (S + i * 1_000_000, 100)).collect();
        assert_ne!(judged(&fill, 4 * S).verdict, Verdict::Grows);
        assert_eq!(judged(&fill, 2 * S).verdict, Verdict::Grows);
    }

    #[test]
    fn too_short_to_say() {
        let at_once: Vec<(u64, i64)> = (0..1000).map(|i| (S + i, 100)).collect();
        assert_eq!(judged(&at_once, S + 2000).verdict, Verdict::Unclear);
        assert_eq!(judged(&[], S).verdict, Verdict::Unclear);
    }

    #[test]
    fn order_and_joining_change_nothing() {
        let mut x = 7;
        let values: Vec<(u64, i64)> = (0..500).map(|i| (random(&mut x, 100 * S), i)).collect();
        let of = |values: &mut dyn Iterator<Item = &(u64, i64)>| {
            let mut series = Series::default();
            values.for_each(|(ts, v)| series.add(*ts, *v));
            series
        };
        let (forwards, backwards) = (of(&mut values.iter()), of(&mut values.iter().rev()));
        assert_eq!(forwards, backwards);
        let (mut a, b) = (of(&mut values[..3].iter()), of(&mut values[3..].iter()));
        a.join(&b);
        assert_eq!(a.buckets().map(|b| b.1).sum::<i64>(), values.iter().map(|v| v.1).sum::<i64>());
        assert_eq!(a, forwards);
    }
}
