//! Power-of-two histograms, counted and printed as libbpf-tools do.

use std::fmt::Write;

use serde_json::{Value, json};

/// Values below this are exact in [`Quantiles`]; each power of two above has half as many steps: 0.8 % wide.
const STEPS: usize = 128;
/// Up to this bucket columns are narrow.
const NARROW: usize = 32;

/// The unit that values are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds.
    Usecs,
    /// Milliseconds.
    Msecs,
}

impl Unit {
    /// Milliseconds where asked for.
    pub fn of(milliseconds: bool) -> Unit {
        if milliseconds { Unit::Msecs } else { Unit::Usecs }
    }

    /// Name in the head of a histogram.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Usecs => "usecs",
            Unit::Msecs => "msecs",
        }
    }

    fn ns(self) -> u64 {
        match self {
            Unit::Usecs => 1000,
            Unit::Msecs => 1_000_000,
        }
    }
}

/// Stars of the longest bar in lines of `width`, of which `taken` are taken. Longer ones than a hundred tell no more.
pub(crate) fn bar(width: usize, taken: usize) -> usize {
    width.saturating_sub(taken).clamp(5, 100)
}

/// Counts by powers of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    slots: [u64; 64],
    /// Values.
    pub count: u64,
    /// Their sum.
    pub sum_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { slots: [0; 64], count: 0, sum_ns: 0 }
    }
}

impl Histogram {
    /// Adds a value.
    #[inline]
    pub fn add(&mut self, ns: u64, unit: Unit) {
        let value = ns / unit.ns();
        // 0 and 1 share the first slot.
        self.slots[63 - (value | 1).leading_zeros() as usize] += 1;
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// Adds all that another one holds.
    pub fn join(&mut self, other: &Histogram) {
        self.slots.iter_mut().zip(&other.slots).for_each(|(mine, n)| *mine += n);
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// (low, high, count) up to the last bucket that holds anything.
    pub fn buckets(&self) -> Vec<(u64, u64, u64)> {
        let last = self.slots.iter().rposition(|n| *n > 0);
        let bounds = |i: usize| (if i == 0 { 0 } else { 1u64 << i }, (1u64 << i) - 1 + (1u64 << i));
        last.map_or(Vec::new(), |last| (0..=last).map(|i| (bounds(i).0, bounds(i).1, self.slots[i])).collect())
    }

    /// Prints it as libbpf-tools' print_log2_hist does; nothing when it is empty. `width`: characters of a line, if these are
    /// limited: bars are longer or shorter then.
    pub fn text(&self, unit: Unit, width: Option<usize>, out: &mut String) {
        let buckets = self.buckets();
        let most = buckets.iter().map(|b| b.2).max().unwrap_or(0);
        if most == 0 {
            return;
        }
        let narrow = buckets.len() <= NARROW + 1;
        let (indent, name, column, stars) = if narrow { (5, 19, 10, 40) } else { (15, 29, 20, 20) };
        // Two columns, the count, and what stands between them. Counts of more than eight digits make a line longer.
        let digits = most.to_string().len().max(8);
        let stars = width.map_or(stars, |width| bar(width, 2 * column + " ->  :  ||".len() + digits));
        let _ = writeln!(out, "{:indent$}{:<name$} : count    distribution", "", unit.name());
        for (low, high, count) in buckets {
            let full = (u128::from(count) * stars as u128 / u128::from(most)) as usize;
            let bar = "*".repeat(full);
            let _ = writeln!(out, "{low:>column$} -> {high:<column$} : {count:<8} |{bar:<stars$}|");
        }
    }

    /// `count`, `sum_ns` and `buckets` of the JSON of a group.
    pub fn json(&self, key: Value) -> Value {
        let bucket = |(low, high, count): (u64, u64, u64)| json!({"low": low, "high": high, "count": count});
        let buckets: Vec<Value> = self.buckets().into_iter().map(bucket).collect();
        json!({"key": key, "count": self.count, "sum_ns": self.sum_ns, "buckets": buckets})
    }
}

/// Counts in steps of under 1 %, for quantiles. At most 58 KiB whatever is counted.
#[derive(Clone, Debug, Default)]
pub struct Quantiles {
    slots: Vec<u64>,
    /// Values.
    pub count: u64,
    /// The largest.
    pub max: u64,
}

impl Quantiles {
    /// Adds a value.
    #[inline]
    pub fn add(&mut self, value: u64) {
        let slot = slot_of(value);
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, 0);
        }
        self.slots[slot] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// Adds all that another one holds.
    pub fn join(&mut self, other: &Quantiles) {
        self.slots.resize(self.slots.len().max(other.slots.len()), 0);
        self.slots.iter_mut().zip(&other.slots).for_each(|(mine, n)| *mine += n);
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// How many values are larger than `value`, those in its own step by half.
    pub fn above(&self, value: u64) -> f64 {
        let slot = slot_of(value);
        let own = self.slots.get(slot).copied().unwrap_or(0);
        self.slots.iter().skip(slot + 1).sum::<u64>() as f64 + own as f64 / 2.0
    }

    /// The value that `share` of all values do not exceed; 0 without values.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (slot, count) in self.slots.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return high_of(slot).min(self.max);
            }
        }
        0
    }
}

fn slot_of(value: u64) -> usize {
    if value < STEPS as u64 {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() as usize - (STEPS.ilog2() as usize - 1);
    STEPS / 2 * (shift + 1) + (value >> shift) as usize - STEPS / 2
}

fn high_of(slot: usize) -> u64 {
    if slot < STEPS {
        return slot as u64;
    }
    let shift = slot / (STEPS / 2) - 1;
    let step = (slot % (STEPS / 2) + STEPS / 2) as u64;
    ((u128::from(step) + 1) << shift).saturating_sub(1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_of_libbpf_tools() {
        let mut h = Histogram::default();
        for (us, count) in [(9, 7), (20, 17), (40, 26)] {
            (0..count).for_each(|_| h.add(us * 1000 + 999, Unit::Usecs));
        }
        let mut text = String::new();
        h.text(Unit::Usecs, None, &mut text);
        assert_eq!(
            text,
            "     usecs               : count    distribution
         0 -> 1          : 0        |                                        |
         2 -> 3          : 0        |                                        |
         4 -> 7          : 0        |                                        |
         8 -> 15         : 7        |**********                              |
        16 -> 31         : 17       |**************************              |
        32 -> 63         : 26       |****************************************|
"
        );
    }

    #[test]
    fn bars_fill_the_line() {
        let mut h = Histogram::default();
        (0..9).for_each(|_| h.add(5000, Unit::Usecs));
        for width in [44, 60, 80, 120] {
            let mut text = String::new();
            h.text(Unit::Usecs, Some(width), &mut text);
            let longest = text.lines().skip(1).map(str::len).max();
            assert_eq!(longest, Some(width), "{text}");
            assert!(text.contains(&format!("|{}|", "*".repeat(width - 38))), "{text}");
        }
    }

    #[test]
    fn joined() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.add(3000, Unit::Usecs);
        [3500, 90_000].into_iter().for_each(|ns| other.add(ns, Unit::Usecs));
        one.join(&other);
        assert_eq!((one.count, one.sum_ns, one.buckets()[1], one.buckets()[6]), (3, 96_500, (2, 3, 2), (64, 127, 1)));
    }

    #[test]
    fn edges() {
        let mut h = Histogram::default();
        h.text(Unit::Usecs, None, &mut String::new());
        for ns in [0, 1999, 2000, 3999, 4000, u64::MAX] {
            h.add(ns, Unit::Usecs);
        }
        let buckets = h.buckets();
        assert_eq!(buckets[..3], [(0, 1, 2), (2, 3, 2), (4, 7, 1)]);
        assert_eq!(buckets.last(), Some(&(1 << 54, (1 << 55) - 1, 1)));
        let mut text = String::new();
        h.text(Unit::Usecs, None, &mut text);
        assert!(text.starts_with("               usecs                         : count"));
    }

    #[test]
    fn quantiles_are_within_a_percent() {
        let mut q = Quantiles::default();
        assert_eq!(q.quantile(0.5), 0);
        (1..=100_000u64).for_each(|v| q.add(v * 17));
        for share in [0.01, 0.5, 0.9, 0.99, 0.999] {
            let (found, exact) = (q.quantile(share) as f64, (share * 100_000.0).ceil() * 17.0);
            assert!(found >= exact && found <= exact * 1.017, "{share} {found} {exact}");
        }
        assert_eq!(q.quantile(1.0), 1_700_000);
        let median = q.quantile(0.5);
        assert!((q.above(median) - 50_000.0).abs() < 1700.0 && q.above(u64::MAX) == 0.0);
        let mut both = Quantiles::default();
        (1..=10u64).for_each(|v| both.add(v));
        assert_eq!((both.above(10), both.above(7), both.above(0)), (0.5, 3.5, 10.0));
        both.join(&q);
        assert_eq!((both.count, both.max, both.above(8)), (100_010, 1_700_000, 100_002.5));
        q.add(u64::MAX);
        assert_eq!(q.quantile(1.0), u64::MAX);
        for value in [0, 127, 128, 129, 255, 256, 1 << 40, u64::MAX] {
            let slot = slot_of(value);
            assert!(high_of(slot) >= value && (slot == 0 || high_of(slot - 1) < value), "{value}");
        }
    }
}
