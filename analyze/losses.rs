//! What the recorder lost, as the trace itself tells, and what damage took away since.

use std::collections::{BTreeMap, BTreeSet};

use bpfrec_format::Source;
use bpfrec_format::meta::reason;

use crate::view::View;

/// Events that were lost in a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss {
    /// Start of the span, CLOCK_MONOTONIC.
    pub from_ns: u64,
    /// End of the span.
    pub to_ns: u64,
    /// Number of the source.
    pub source: u16,
    /// CPU.
    pub cpu: u32,
    /// Number of the reason.
    pub reason: u64,
    /// How many.
    pub lost: u64,
}

impl Loss {
    /// Whether events are missing, rather than something about them.
    pub fn is_of_events(&self) -> bool {
        reason::loses_events(self.reason)
    }

    /// Whether they may be of any source: a block that `recover` left out cannot be asked, nor can what `redact` did not understand.
    pub fn is_of_any_source(&self) -> bool {
        matches!(self.reason, reason::DAMAGED | reason::NOT_UNDERSTOOD)
    }
}

/// All losses of a trace.
#[derive(Debug, Default)]
pub struct Losses {
    /// LOSS rows, sorted by time.
    pub rows: Vec<Loss>,
    /// Largest total that CHECKPOINT rows tell, by source.
    pub totals: BTreeMap<u16, u64>,
    /// Spans in which a source was not recorded, by source.
    pub(crate) unseen: BTreeMap<u16, Spans>,
}

impl Losses {
    pub(crate) fn add(&mut self, view: View<'_>) {
        let (source, cpu, reason) = (view.ints("source"), view.ints("cpu"), view.ints("reason"));
        let (from, to, lost) = (view.ints("ts_from_ns"), view.ints("ts_to_ns"), view.ints("lost"));
        self.rows.extend((0..view.rows()).map(|r| Loss {
            from_ns: from.get(r),
            to_ns: to.get(r),
            source: source.get(r) as u16,
            cpu: cpu.get32(r),
            reason: reason.get(r),
            lost: lost.get(r),
        }));
    }

    pub(crate) fn finish(&mut self) {
        self.rows.sort_unstable();
    }

    /// Events of `source` that were lost, in all or in the spans that touch `window`.
    pub fn of(&self, source: Source, window: Option<(u64, u64)>) -> u64 {
        self.of_number(source as u16, window)
    }

    /// Events of the source with this number that were lost.
    pub(crate) fn of_source(&self, source: u16) -> u64 {
        self.of_number(source, None)
    }

    fn of_number(&self, source: u16, window: Option<(u64, u64)>) -> u64 {
        let mine = self.rows.iter().filter(|l| l.source == source && l.is_of_events());
        match window {
            Some((from, to)) => sum(mine.filter(|l| l.from_ns <= to && l.to_ns >= from).map(|l| l.lost)),
            None => sum(mine.map(|l| l.lost)).max(self.totals.get(&source).copied().unwrap_or(0)),
        }
    }

    /// Events that were lost and may be of any source, in all or in the spans that touch `window`.
    pub fn of_any_source(&self, window: Option<(u64, u64)>) -> u64 {
        let (from, to) = window.unwrap_or((0, u64::MAX));
        let mine = self.rows.iter().filter(|l| l.is_of_any_source() && l.from_ns <= to && l.to_ns >= from);
        sum(mine.map(|l| l.lost))
    }

    /// What is missing of `source` although its events are there, as stacks and mappings: how much, by reason.
    pub fn incomplete(&self, source: Source, window: Option<(u64, u64)>) -> BTreeMap<u64, u64> {
        let mut by_reason = BTreeMap::new();
        let (from, to) = window.unwrap_or((0, u64::MAX));
        let mine = self.rows.iter().filter(|l| l.source == source as u16 && !l.is_of_events());
        for loss in mine.filter(|l| l.from_ns <= to && l.to_ns >= from && l.lost > 0) {
            let lost: &mut u64 = by_reason.entry(loss.reason).or_default();
            *lost = lost.saturating_add(loss.lost);
        }
        by_reason
    }

    /// Events of all sources that were lost.
    pub fn all(&self) -> u64 {
        let sources: BTreeSet<u16> = self.rows.iter().map(|l| l.source).chain(self.totals.keys().copied()).collect();
        sum(sources.into_iter().map(|source| self.of_number(source, None)))
    }

    /// Spans in which events of `source` were lost, or may have been, or were not recorded.
    pub(crate) fn spans(&self, source: Source) -> Spans {
        let mine = self.rows.iter().filter(|l| l.source == source as u16 && l.is_of_events() || l.is_of_any_source());
        let mine = mine.filter(|l| l.lost > 0);
        let mut spans = self.unseen.get(&(source as u16)).cloned().unwrap_or_default();
        mine.for_each(|l| spans.add(l.from_ns, l.to_ns));
        spans
    }
}

/// A sum that stays at the largest number: a file may say anything.
fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// Spans of time, each once, in order.
#[derive(Clone, Debug, Default)]
pub struct Spans(Vec<(u64, u64)>);

impl Spans {
    /// Adds a span, joined with those that it touches.
    pub fn add(&mut self, mut from: u64, mut to: u64) {
        to = to.max(from);
        let first = self.0.partition_point(|s| s.1 < from);
        let last = self.0.partition_point(|s| s.0 <= to);
        if first < last {
            from = from.min(self.0[first].0);
            to = to.max(self.0[last - 1].1);
        }
        self.0.splice(first..last.max(first), [(from, to)]);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }

    /// Whether any span touches `from..=to`.
    pub fn touch(&self, from: u64, to: u64) -> bool {
        !self.0.is_empty() && self.0.get(self.0.partition_point(|s| s.1 < from)).is_some_and(|s| s.0 <= to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_join_and_touch() {
        let mut spans = Spans::default();
        assert!(!spans.touch(0, u64::MAX));
        for (from, to) in [(10, 20), (40, 50), (70, 80), (15, 45), (90, 85)] {
            spans.add(from, to);
        }
        assert_eq!(spans.0, [(10, 50), (70, 80), (90, 90)]);
        assert!(spans.touch(0, 10) && spans.touch(50, 60) && spans.touch(60, 75) && spans.touch(12, 13));
        assert!(!spans.touch(0, 9) && !spans.touch(51, 69) && !spans.touch(81, 89) && !spans.touch(91, 99));
    }
}
