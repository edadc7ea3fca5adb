//! Stacks of both sides, normalised, as whole numbers for drawings.

use std::collections::{BTreeMap, BTreeSet};

use bpfrec_format::Source;

use super::side::{Amounts, Path, Side};
use super::{By, Diff, hz_weight};
use crate::error::Result;
use crate::flamegraph;
use crate::text::plain;

/// What stacks are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stacks {
    /// CPU samples.
    Cpu,
    /// Time off the CPU, of threads of programs.
    OffCpu,
}

impl Stacks {
    pub(super) const ALL: [Stacks; 2] = [Stacks::Cpu, Stacks::OffCpu];

    fn source(self) -> Source {
        match self {
            Stacks::Cpu => Source::Profile,
            Stacks::OffCpu => Source::Offcpu,
        }
    }

    /// Name in titles.
    pub(super) fn name(self) -> &'static str {
        match self {
            Stacks::Cpu => "CPU samples",
            Stacks::OffCpu => "Time off the CPU",
        }
    }

    fn of(self, side: &Side) -> &BTreeMap<Path, Amounts> {
        match self {
            Stacks::Cpu => &side.samples,
            Stacks::OffCpu => &side.off,
        }
    }

    /// What a whole number stands for, and how many of it are an amount of one.
    pub(super) fn unit(self, by: By) -> (&'static str, f64) {
        match (by, self) {
            (By::Samples, _) => ("billionths of all", 1e9),
            (By::Time, Stacks::Cpu) => ("samples in 1,000,000 s", 1e6),
            (By::Time, Stacks::OffCpu) => ("ns a second", 1.0),
        }
    }
}

impl Diff {
    /// Stacks with their amounts before and after; `None` where not both sides recorded them.
    pub(super) fn stacks(&self, stacks: Stacks) -> Option<BTreeMap<&Path, [u64; 2]>> {
        let sides = [&self.before, &self.after];
        if !sides.iter().all(|side| side.has(stacks.source())) {
            return None;
        }
        let weight = if stacks == Stacks::Cpu { hz_weight(sides) } else { [1.0, 1.0] };
        let mut all: BTreeMap<&Path, [f64; 2]> = BTreeMap::new();
        for (i, side) in sides.into_iter().enumerate() {
            let (kept, _) = side.kept(stacks.source());
            let kept: BTreeSet<usize> = kept.into_iter().collect();
            let sum = |amounts: &Amounts| {
                let kept = amounts.iter().filter(|(stretch, _)| kept.contains(&(**stretch as usize)));
                kept.map(|(_, n)| *n as f64 * weight[i]).sum::<f64>()
            };
            let sums: Vec<(&Path, f64)> = stacks.of(side).iter().map(|(path, n)| (path, sum(n))).collect();
            let whole = match self.by {
                By::Time => kept.len() as f64 * side.stretch_s(),
                By::Samples => sums.iter().map(|(_, n)| n).sum::<f64>().max(f64::MIN_POSITIVE),
            };
            sums.into_iter().for_each(|(path, n)| all.entry(path).or_default()[i] = n / whole);
        }
        let (_, scale) = stacks.unit(self.by);
        let whole = |amounts: [f64; 2]| amounts.map(|n| (n * scale).round() as u64);
        Some(all.into_iter().map(|(path, amounts)| (path, whole(amounts))).filter(|(_, n)| *n != [0, 0]).collect())
    }

    /// A differential flamegraph; `None` where not both sides recorded such stacks.
    pub fn svg(&self, stacks: Stacks) -> Option<Result<Vec<u8>>> {
        let all = self.stacks(stacks)?;
        let title = format!("{}: {} to {}", stacks.name(), plain(&self.before.name), plain(&self.after.name));
        let names = |path: &Path| path.iter().map(|frame| frame.0.clone()).collect();
        let lines = all.into_iter().map(|(path, [before, after])| (names(path), before, after));
        Some(flamegraph::differential(&title, stacks.unit(self.by).0, stacks == Stacks::OffCpu, lines))
    }
}
