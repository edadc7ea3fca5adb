//! Two sides beside each other: amounts normalised, differences with verdicts.

use std::collections::{BTreeMap, BTreeSet};

use bpfrec_format::Source;

use super::By;
use super::gather::{Lengths, Waiting};
use super::noise::{self, Verdict};
use super::side::{Amounts, Path, Side, pairs};

/// Rows of a table that get a verdict; the rest weighs little and is told together.
const TESTED: usize = 100;
/// Quantiles that are compared.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];
/// A quantile takes so many values beyond it, of each side.
const BEYOND: f64 = 5.0;

/// An amount before and after, normalised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) before: f64,
    pub(super) after: f64,
    pub(super) verdict: Verdict,
}

impl Change {
    /// After less before.
    pub(super) fn difference(&self) -> f64 {
        self.after - self.before
    }

    /// How much more it is, in percent; `None` where there was nothing before.
    pub(super) fn percent(&self) -> Option<f64> {
        (self.before > 0.0).then(|| 100.0 * self.difference() / self.before)
    }

    /// `new`, `gone`, or nothing.
    pub(super) fn status(&self) -> &'static str {
        match (self.before == 0.0, self.after == 0.0) {
            (true, false) => "new",
            (false, true) => "gone",
            _ => "",
        }
    }
}

/// What amounts are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Ns,
    Requests,
    Samples,
}

impl Unit {
    /// Name in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Unit::Ns => "ns",
            Unit::Requests => "requests",
            Unit::Samples => "samples",
        }
    }
}

/// Waits of one kind.
pub(super) struct Latency {
    pub(super) waiting: Waiting,
    /// Of each side: stretches that are compared, and those left out for losses.
    pub(super) stretches: [(usize, usize); 2],
    /// Whether all stretches are compared although events were lost in too many.
    pub(super) lossy: bool,
    /// Waits in them.
    pub(super) counts: [u64; 2],
    /// Waits a second.
    pub(super) rate: Change,
    /// Share, and nanoseconds that so many do not exceed.
    pub(super) quantiles: Vec<(f64, Change)>,
    /// From and to, us, and amounts before and after.
    pub(super) buckets: Vec<(u64, u64, [f64; 2])>,
}

/// Something by who or by stack.
pub(super) struct Table {
    /// What, as `CPU time`.
    pub(super) what: &'static str,
    /// By what, as `cgroup`.
    pub(super) of: &'static str,
    pub(super) unit: Unit,
    pub(super) stretches: [(usize, usize); 2],
    pub(super) lossy: bool,
    /// All of it, a second.
    pub(super) total: Change,
    /// By falling change; what did not change at all is not among them.
    pub(super) rows: Vec<(Path, Change)>,
    /// Those that did not change at all.
    pub(super) same: usize,
    /// Those that weigh too little for a verdict, and their sums.
    pub(super) rest: (usize, [f64; 2]),
}

/// Which stretches of a source are compared.
struct Kept {
    stretches: [Vec<usize>; 2],
    told: bool,
}

impl Kept {
    fn of(sides: [&Side; 2], source: Source) -> Kept {
        let [(before, one), (after, other)] = sides.map(|side| side.kept(source));
        Kept { stretches: [before, after], told: one && other }
    }

    fn counts(&self, sides: [&Side; 2]) -> [(usize, usize); 2] {
        [0, 1].map(|i| (self.stretches[i].len(), sides[i].stretches.count - self.stretches[i].len()))
    }

    /// Losses leave too few stretches.
    fn lossy(&self, sides: [&Side; 2]) -> bool {
        !self.told && sides.iter().all(|side| side.stretches.count >= super::stretches::FEWEST)
    }

    fn seconds(&self, sides: [&Side; 2]) -> [f64; 2] {
        [0, 1].map(|i| self.stretches[i].len() as f64 * sides[i].stretch_s())
    }

    /// The p value of parts in wholes, by side and stretch.
    fn p(&self, part: impl Fn(usize, usize) -> f64, whole: impl Fn(usize, usize) -> f64) -> Option<f64> {
        let of = |side: usize| pairs(&self.stretches[side], |i| part(side, i), |i| whole(side, i));
        self.told.then(|| noise::p_value(&of(0), &of(1))).flatten()
    }
}

/// Compares waits of one kind; `None` where not both sides recorded them, or neither has any.
pub(super) fn latency(sides: [&Side; 2], by: By, waiting: Waiting) -> Option<Latency> {
    if !sides.iter().all(|side| side.has(waiting.source())) {
        return None;
    }
    let kept = Kept::of(sides, waiting.source());
    let joined = [0, 1].map(|side| {
        let mut all = Lengths::default();
        for stretch in &kept.stretches[side] {
            let one = sides[side].lengths(waiting, *stretch);
            all.histogram.join(&one.histogram);
            all.quantiles.join(&one.quantiles);
        }
        all
    });
    let counts = [0, 1].map(|side: usize| joined[side].histogram.count);
    if counts == [0, 0] {
        return None;
    }
    let seconds = kept.seconds(sides);
    let count = |side: usize, stretch: usize| sides[side].lengths(waiting, stretch).histogram.count as f64;
    let p = kept.p(count, |side, _| sides[side].stretch_s());
    let [before, after] = [0, 1].map(|side| counts[side] as f64 / seconds[side]);
    let rate = Change { before, after, verdict: Verdict::of(p) };

    let mut both = joined[0].quantiles.clone();
    both.join(&joined[1].quantiles);
    let quantile = |share: f64| {
        let [before, after] = [0, 1].map(|side: usize| joined[side].quantiles.quantile(share) as f64);
        let few = counts.iter().any(|n| (*n as f64) * (1.0 - share) < BEYOND);
        let threshold = both.quantile(share);
        let above = |side: usize, stretch| sides[side].lengths(waiting, stretch).quantiles.above(threshold);
        let verdict = if few { Verdict::few() } else { Verdict::of(kept.p(above, count)) };
        (share, Change { before, after, verdict })
    };
    // Of no waits there is no quantile.
    let quantiles = if counts.contains(&0) { Vec::new() } else { QUANTILES.map(quantile).into() };
    let by_side = [0, 1].map(|side: usize| joined[side].histogram.buckets());
    let longest = if by_side[0].len() > by_side[1].len() { &by_side[0] } else { &by_side[1] };
    let scale = [0, 1].map(|side: usize| match by {
        By::Time => seconds[side],
        By::Samples => counts[side].max(1) as f64,
    });
    let bucket = |(i, (low, high, _)): (usize, &(u64, u64, u64))| {
        let amount = |side: usize| by_side[side].get(i).map_or(0, |b| b.2) as f64 / scale[side];
        (*low, *high, [amount(0), amount(1)])
    };
    let buckets = longest.iter().enumerate().map(bucket).collect();
    let (stretches, lossy) = (kept.counts(sides), kept.lossy(sides));
    Some(Latency { waiting, stretches, lossy, counts, rate, quantiles, buckets })
}

/// What a table is of.
pub(super) struct Of<'a> {
    pub(super) what: &'static str,
    pub(super) of: &'static str,
    pub(super) unit: Unit,
    pub(super) source: Source,
    /// What an amount of each side counts for.
    pub(super) weight: [f64; 2],
    /// Of times: what they are made of. One that is longer than a stretch makes several alike.
    pub(super) made_of: Option<[&'a BTreeMap<Path, Amounts>; 2]>,
}

/// Compares amounts; `None` where not both sides recorded them, or there are none.
pub(super) fn table(sides: [&Side; 2], by: By, of: Of<'_>, rows: [&BTreeMap<Path, Amounts>; 2]) -> Option<Table> {
    if !sides.iter().all(|side| side.has(of.source)) {
        return None;
    }
    let kept = Kept::of(sides, of.source);
    let totals = [0, 1].map(|side: usize| {
        let mut totals = vec![0.0; sides[side].stretches.count];
        let all = rows[side].values().flatten();
        all.for_each(|(stretch, n)| totals[*stretch as usize] += *n as f64 * of.weight[side]);
        totals
    });
    let sum = |side: usize, of: &dyn Fn(usize) -> f64| kept.stretches[side].iter().map(|i| of(*i)).sum::<f64>();
    let all = [0, 1].map(|side: usize| sum(side, &|i| totals[side][i]));
    if all == [0.0, 0.0] {
        return None;
    }
    let seconds = kept.seconds(sides);
    let p = kept.p(|side, i| totals[side][i], |side, _| sides[side].stretch_s());
    let total = Change { before: all[0] / seconds[0], after: all[1] / seconds[1], verdict: Verdict::of(p) };
    let whole = |side: usize| match by {
        By::Time => seconds[side],
        By::Samples if all[side] > 0.0 => all[side],
        By::Samples => 1.0,
    };
    let none = Amounts::new();
    let amount = |side: usize, key: &Path, i: usize| {
        rows[side].get(key).unwrap_or(&none).get(&(i as u32)).map_or(0.0, |n| *n as f64 * of.weight[side])
    };
    let keys: BTreeSet<&Path> = rows.iter().flat_map(|rows| rows.keys()).collect();
    let normalised = |key: &Path| [0, 1].map(|side: usize| sum(side, &|i| amount(side, key, i)) / whole(side));
    let mut weighed: Vec<(&Path, [f64; 2])> = keys.into_iter().map(|key| (key, normalised(key))).collect();
    // What lies in stretches that are left out alone is nowhere.
    weighed.retain(|(_, amounts)| amounts[0] + amounts[1] > 0.0);
    let share = |amounts: &[f64; 2]| (0..2).map(|i| amounts[i] * whole(i) / all[i].max(f64::MIN_POSITIVE)).sum::<f64>();
    weighed.sort_by(|a, b| share(&b.1).total_cmp(&share(&a.1)).then_with(|| a.0.cmp(b.0)));
    let light = weighed.split_off(weighed.len().min(TESTED));
    let rest = light.iter().fold([0.0, 0.0], |sum, (_, amounts)| [sum[0] + amounts[0], sum[1] + amounts[1]]);
    let long = |key: &Path| {
        of.made_of.is_some_and(|made_of| {
            (0..2).any(|side| {
                let times =
                    sum(side, &|i| made_of[side].get(key).unwrap_or(&none).get(&(i as u32)).map_or(0.0, |n| *n as f64));
                sum(side, &|i| amount(side, key, i)) > times * sides[side].stretches.length_ns as f64
            })
        })
    };
    let row = |(key, [before, after]): (&Path, [f64; 2])| {
        if long(key) {
            return (key.clone(), Change { before, after, verdict: Verdict::few() });
        }
        let part = |side: usize, i: usize| amount(side, key, i);
        let p = match by {
            By::Time => kept.p(part, |side, _| sides[side].stretch_s()),
            By::Samples => kept.p(part, |side, i| totals[side][i]),
        };
        (key.clone(), Change { before, after, verdict: Verdict::of(p) })
    };
    let mut rows: Vec<(Path, Change)> = weighed.into_iter().map(row).collect();
    let mut total = total;
    noise::correct(rows.iter_mut().map(|(_, change)| &mut change.verdict).chain([&mut total.verdict]));
    let compared = rows.len();
    rows.retain(|(_, change)| change.difference() != 0.0);
    let size = |change: &Change| change.difference().abs();
    rows.sort_by(|a, b| size(&b.1).total_cmp(&size(&a.1)).then_with(|| a.0.cmp(&b.0)));
    let (same, rest) = (compared - rows.len(), (light.len(), rest));
    let (stretches, lossy) = (kept.counts(sides), kept.lossy(sides));
    Some(Table { what: of.what, of: of.of, unit: of.unit, stretches, lossy, total, rows, same, rest })
}
