//! Disks whose latency has two modes.

use std::collections::BTreeMap;

use bpfrec_format::Source;

use super::{Finding, Seen};
use crate::block_io::operation;
use crate::page::gather::Class;
use crate::page::steps::longest_ns;
use crate::text::{count, duration, percent};

/// Below this a histogram is noise.
const IOS: u64 = 200;
/// A mode has a twentieth of all I/O at least, ...
const MODE_PERCENT: f64 = 5.0;
/// ... lies two octaves from the other, ...
const APART: usize = 2 * PARTS;
/// ... and is parted from it by a valley that is at most a quarter as high as the lower one.
const VALLEY: f64 = 0.25;
/// Who has two thirds of the slow mode makes it.
const CULPRIT_PERCENT: f64 = 66.0;
/// Points an octave: finer ones are ragged.
const PARTS: usize = 4;

/// A second mode: slower I/O of the same disk and operation.
pub(super) fn second_mode(seen: &Seen<'_>) -> Vec<Finding> {
    if !seen.trusts(Source::Block) {
        return Vec::new();
    }
    let gather = seen.gather;
    let mut by_disk: BTreeMap<u32, BTreeMap<u16, u64>> = BTreeMap::new();
    let disk = |what: u32| match gather.classes.all[what as usize] {
        Class::Io { dev, .. } => Some(dev),
        Class::RunQueue => None,
    };
    for ((dev, more), n) in gather.latency.by(|c| Some((disk(c.what)?, c.more))) {
        by_disk.entry(dev).or_default().insert(more, n);
    }
    let one = |(dev, steps): (&u32, &BTreeMap<u16, u64>)| {
        let all: u64 = steps.values().sum();
        let valley = (all >= IOS).then(|| modes(steps)).flatten()?.0;
        let slow = gather.latency.by(|c| {
            (disk(c.what) == Some(*dev) && usize::from(c.more) / (16 / PARTS) >= valley)
                .then_some((c.what, seen.pid(c.group)))
        });
        let ((what, pid), most) = slow.iter().max_by_key(|(key, n)| (**n, **key)).map(|(k, n)| (*k, *n))?;
        let total: u64 = slow.values().sum();
        let name = seen.context.meta.disk(*dev);
        let at = duration(median(steps, (valley * (16 / PARTS)) as u16));
        let share = percent(total, all);
        let whose = match (gather.classes.all[what as usize], pid) {
            (Class::Io { op, .. }, Some(pid)) if percent(most, total) >= CULPRIT_PERCENT => {
                let op = operation(u32::from(op)).to_lowercase();
                format!(", mostly from {op}s of {}", seen.process(pid))
            }
            _ => String::new(),
        };
        let text = format!(
            "Disk {name} has a second mode of latency at about {at}: {} of {} requests ({share:.0} %){whose}.",
            count(total),
            count(all)
        );
        Some(Finding::new("io", 20.0 + share, text))
    };
    by_disk.iter().filter_map(one).take(2).collect()
}

/// About the median of what lies from a step on: the middle of its step.
fn median(steps: &BTreeMap<u16, u64>, from: u16) -> u64 {
    let total: u64 = steps.range(from..).map(|(_, n)| n).sum();
    let mut seen = 0;
    let mut steps = steps.range(from..);
    let step = steps.find(|(_, n)| {
        seen += **n;
        2 * seen >= total
    });
    step.map_or(0, |(step, _)| longest_ns(step.saturating_sub(1)) / 2 + longest_ns(*step) / 2)
}

/// Where the valley before the slowest mode is, and that mode's peak, if there are two modes.
fn modes(steps: &BTreeMap<u16, u64>) -> Option<(usize, usize)> {
    let width = 16 / PARTS;
    let last = usize::from(*steps.keys().next_back()?) / width;
    let mut raw = vec![0u64; last + 2];
    steps.iter().for_each(|(step, n)| raw[usize::from(*step) / width] += n);
    // Each point with its neighbours, so that one thin step makes no valley.
    let smooth: Vec<f64> = (0..raw.len())
        .map(|i| (raw[i.saturating_sub(1)] + 2 * raw[i] + raw.get(i + 1).copied().unwrap_or(0)) as f64 / 4.0)
        .collect();
    let all: u64 = raw.iter().sum();
    let part = |range: std::ops::Range<usize>| percent(raw[range].iter().sum(), all);
    let peak = |range: std::ops::Range<usize>| {
        range.max_by(|a, b| smooth[*a].total_cmp(&smooth[*b]).then(b.cmp(a))).unwrap_or(0)
    };
    let fits = |valley: &usize| {
        let (fast, slow) = (peak(0..*valley), peak(*valley..smooth.len()));
        let lower = smooth[fast].min(smooth[slow]);
        part(0..*valley) >= MODE_PERCENT
            && part(*valley..raw.len()) >= MODE_PERCENT
            && slow >= fast + APART
            && smooth[*valley] <= VALLEY * lower
    };
    let valley = (1..smooth.len()).filter(fits).min_by(|a, b| smooth[*a].total_cmp(&smooth[*b]))?;
    Some((valley, peak(valley..smooth.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::steps::step;

    fn of(values: &[(u64, u64)]) -> BTreeMap<u16, u64> {
        let mut steps = BTreeMap::new();
        for (us, n) in values {
            // Spread by a third, as real ones are.
            (0..*n).for_each(|i| *steps.entry(step(us * 1000 + us * 1000 * i / n / 3)).or_default() += 1);
        }
        steps
    }

    #[test]
    fn two_modes_are_told_from_one() {
        assert!(modes(&of(&[(100, 1000)])).is_none());
        assert!(modes(&of(&[(100, 1000), (150, 800)])).is_none());
        assert!(modes(&of(&[(100, 1000), (12_000, 20)])).is_none());
        let (valley, peak) = modes(&of(&[(100, 1000), (12_000, 300)])).unwrap();
        let peak = longest_ns((peak * 16 / PARTS) as u16);
        assert!((10_000_000..20_000_000).contains(&peak), "{peak}");
        assert!(
            valley > usize::from(step(140_000)) * PARTS / 16 && valley <= usize::from(step(12_000_000)) * PARTS / 16
        );
        // A long tail is no mode.
        let tail: Vec<(u64, u64)> = (0..10).map(|i| (100 << i, 1000 >> i)).collect();
        assert!(modes(&of(&tail)).is_none());
    }
}
