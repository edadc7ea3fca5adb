//! Whether a difference between two traces is more than noise.
//!
//! Events within a trace are no independent draws: one slow disk delays hundreds of requests. What is compared are stretches
//! of equal time instead. Of each stretch two sums are taken, a part and a whole: waits longer than a threshold and all waits,
//! CPU time and time. The statistic is the difference of the two sides' ratios over its standard error, as the scatter between
//! stretches gives it; its distribution, if the sides were alike, comes from dealing the stretches to the sides anew
//! (a studentized permutation test: Janssen 1997, Chung and Romano 2013). That holds for sides of unequal length and for
//! stretches with unequal numbers of events. All ways to deal are tried where there are few, else so many of a seeded generator,
//! and fewer where it is soon clear that nothing is special (Besag and Clifford 1991).
//!
//! Of several verdicts some would be wrong by chance: p values are corrected for their number by Holm's method.

use super::stretches::FEWEST;

/// Name of the test, for people.
pub(super) const NAME: &str =
    "studentized permutation test over stretches of equal time, Holm's correction, more than noise if p < 0.05";
/// The chance of a single false alarm among the verdicts of a table.
const LEVEL: f64 = 0.05;
/// Ways to deal that are tried at the most.
const DEALS: u32 = 10_000;
/// So many as extreme as what was seen are enough to know p.
const ENOUGH: u32 = 100;

/// Of a stretch: a part and a whole.
pub(super) type Pair = (f64, f64);

/// What is said of a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// The chance of so large a difference if the sides were alike; `None` where nothing can be told.
    pub(super) p: Option<f64>,
    /// The same, corrected for the number of verdicts.
    pub(super) adjusted: Option<f64>,
    /// There are too few events.
    pub(super) few: bool,
}

impl Verdict {
    /// Of a p value that is still to be corrected.
    pub(super) fn of(p: Option<f64>) -> Verdict {
        Verdict { p, adjusted: None, few: false }
    }

    /// Of a difference that rests on too few events.
    pub(super) fn few() -> Verdict {
        Verdict { few: true, ..Verdict::default() }
    }

    /// Whether it is more than noise.
    pub(super) fn is_change(&self) -> bool {
        self.adjusted.is_some_and(|p| p < LEVEL)
    }

    /// In words.
    pub(super) fn text(&self) -> &'static str {
        match self.adjusted {
            None if self.few => "too few to tell",
            None => "too short to tell",
            Some(_) if self.is_change() => "more than noise",
            Some(_) => "within noise",
        }
    }
}

/// The p value of the difference between two sides' ratios; `None` where there are too few stretches to tell.
pub(super) fn p_value(before: &[Pair], after: &[Pair]) -> Option<f64> {
    // What has no whole says nothing of a ratio.
    let mut all: Vec<Pair> = before.iter().filter(|pair| pair.1 > 0.0).copied().collect();
    let first = all.len();
    all.extend(after.iter().filter(|pair| pair.1 > 0.0));
    if first < FEWEST || all.len() - first < FEWEST {
        return None;
    }
    let seen = statistic(&all[..first], &all[first..]) * (1.0 - 1e-9);
    if all.len() < u32::BITS as usize && ways(all.len() as u64, first as u64) <= u64::from(DEALS) {
        return Some(exact(&all, first, seen));
    }
    let (mut random, mut as_extreme) = (Random(0x6270_6672_6563), 0);
    for deal in 1..=DEALS {
        // The first places of a shuffle are a side.
        for i in 0..first {
            let other = i + random.below(all.len() - i);
            all.swap(i, other);
        }
        as_extreme += u32::from(statistic(&all[..first], &all[first..]) >= seen);
        if as_extreme == ENOUGH {
            return Some(f64::from(as_extreme) / f64::from(deal));
        }
    }
    Some(f64::from(as_extreme + 1) / f64::from(DEALS + 1))
}

/// Over all ways to deal.
fn exact(all: &[Pair], first: usize, seen: f64) -> f64 {
    let (mut as_extreme, mut deals) = (0u32, 0u32);
    let (mut one, mut other) = (Vec::with_capacity(first), Vec::with_capacity(all.len()));
    let mut set: u64 = (1 << first) - 1;
    while set < 1 << all.len() {
        one.clear();
        other.clear();
        all.iter().enumerate().for_each(|(i, p)| if set >> i & 1 == 1 { one.push(*p) } else { other.push(*p) });
        as_extreme += u32::from(statistic(&one, &other) >= seen);
        deals += 1;
        // The next larger number with as many bits.
        let (low, carried) = (set & set.wrapping_neg(), set + (set & set.wrapping_neg()));
        set = carried | (((set ^ carried) / low) >> 2);
    }
    f64::from(as_extreme) / f64::from(deals)
}

/// n over k; more than any limit here where it is large.
fn ways(n: u64, k: u64) -> u64 {
    (0..k).fold(1u64, |ways, i| ways.saturating_mul(n - i) / (i + 1))
}

/// The difference of ratios over its standard error.
fn statistic(one: &[Pair], other: &[Pair]) -> f64 {
    let ((a, va), (b, vb)) = (ratio(one), ratio(other));
    let difference = (a - b).abs();
    match va + vb {
        _ if difference <= 1e-12 * (a + b) => 0.0,
        0.0 => f64::INFINITY,
        variance => difference / variance.sqrt(),
    }
}

/// Sum of parts over sum of wholes, and the variance of that.
fn ratio(pairs: &[Pair]) -> (f64, f64) {
    let (part, whole) = pairs.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    let ratio = part / whole;
    let squares: f64 = pairs.iter().map(|(part, whole)| (part - ratio * whole).powi(2)).sum();
    let n = pairs.len() as f64;
    (ratio, squares * n / (n - 1.0) / (whole * whole))
}

/// Corrects for the number of verdicts, as Holm does. What cannot be told does not count.
pub(super) fn correct<'a>(verdicts: impl IntoIterator<Item = &'a mut Verdict>) {
    let mut told: Vec<(f64, &mut Verdict)> = verdicts.into_iter().filter_map(|v| Some((v.p?, v))).collect();
    told.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (count, mut least) = (told.len(), 0.0f64);
    for (i, (p, verdict)) in told.into_iter().enumerate() {
        least = least.max((p * (count - i) as f64).min(1.0));
        verdict.adjusted = Some(least);
    }
}

/// SplitMix64: the same numbers each time.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From 0 to 1.
    fn uniform(random: &mut Random) -> f64 {
        (random.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(random: &mut Random) -> f64 {
        (0..12).map(|_| uniform(random)).sum::<f64>() - 6.0
    }

    /// Stretches with a number of events each, and those among them above a threshold. Events of a stretch share its mood.
    fn side(random: &mut Random, stretches: usize, events: f64, share: f64) -> Vec<Pair> {
        let one = |_| {
            let whole = (events * (0.4 * normal(random)).exp()).ceil();
            let mine = (share * (0.5 * normal(random)).exp()).min(1.0);
            ((0..whole as u32).filter(|_| uniform(random) < mine).count() as f64, whole)
        };
        (0..stretches).map(one).collect()
    }

    fn alarms(pairs: u64, after: (usize, f64, f64)) -> usize {
        let found = |seed: &u64| {
            let mut random = Random(*seed);
            let before = side(&mut random, 12, 100.0, 0.1);
            let after = side(&mut random, after.0, after.1, after.2);
            p_value(&before, &after).unwrap() < 0.05
        };
        (0..pairs).filter(found).count()
    }

    #[test]
    fn false_alarms_are_as_rare_as_said() {
        // 5 % of 300 are 15; three standard deviations to each side.
        for after in [(12, 100.0, 0.1), (40, 100.0, 0.1), (12, 400.0, 0.1)] {
            let alarms = alarms(300, after);
            println!("{alarms} false alarms of 300 with {after:?}");
            assert!((4..=27).contains(&alarms), "{alarms} of 300 with {after:?}");
        }
    }

    #[test]
    fn shifts_are_found() {
        let (double, more) = (alarms(50, (12, 100.0, 0.2)), alarms(50, (12, 100.0, 0.4)));
        println!("found {double} of 50 twice as large, {more} four times");
        assert!(double >= 25 && more >= 48, "{double} {more} of 50");
    }

    #[test]
    fn few_stretches_are_dealt_in_all_ways() {
        let constant = |ratio: f64, n: usize| vec![(ratio, 1.0); n];
        // Of 924 ways to deal six and six only two part them so.
        assert_eq!(p_value(&constant(1.0, 6), &constant(2.0, 6)), Some(2.0 / 924.0));
        assert_eq!(p_value(&constant(1.0, 6), &constant(1.0, 6)), Some(1.0));
        assert_eq!(p_value(&constant(1.0, 5), &constant(2.0, 9)), None);
        // A stretch without events is none.
        let mut six = constant(1.0, 5);
        six.push((0.0, 0.0));
        assert_eq!(p_value(&six, &constant(2.0, 6)), None);
        let p = p_value(&constant(1.0, 30), &constant(2.0, 30)).unwrap();
        assert!((p - 1.0 / 10_001.0).abs() < 1e-12, "{p}");
        assert_eq!((ways(12, 6), ways(3, 0), ways(60, 30) > u64::from(DEALS)), (924, 1, true));
    }

    #[test]
    fn holm() {
        let mut verdicts = [Some(0.01), Some(0.04), None, Some(0.03)].map(Verdict::of);
        correct(&mut verdicts);
        let adjusted: Vec<_> = verdicts.iter().map(|v| v.adjusted.map(|p| (p * 1000.0).round())).collect();
        assert_eq!(adjusted, [Some(30.0), Some(60.0), None, Some(60.0)]);
        assert_eq!(verdicts.map(|v| v.is_change()), [true, false, false, false]);
        assert_eq!(verdicts[2].text(), "too short to tell");
    }
}
