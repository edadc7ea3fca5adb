//! What the recorder gave up to stay within its budget, and when: as the trace itself tells.

use std::collections::BTreeMap;

use bpfrec_format::Source;
use bpfrec_format::meta::shed;
use serde_json::{Value, json};

use crate::losses::Spans;
use crate::tables::meta::source_name;
use crate::text;
use crate::view::View;

/// A stretch of time in which something was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shed {
    /// When it was given up, CLOCK_MONOTONIC.
    pub from_ns: u64,
    /// When it was taken up again; `u64::MAX`: not in this trace.
    pub to_ns: u64,
    /// A number of [`shed`].
    pub step: u64,
    /// The source, where `step` is one.
    pub source: u16,
    /// A number of [`shed`].
    pub cause: u64,
    /// What was measured when it was given up.
    pub value: u64,
    /// What it was to be.
    pub limit: u64,
    /// Samples that one stands for.
    pub every: u64,
}

impl Shed {
    /// Whether the figures of `source` lack something.
    fn is_of(&self, source: Source) -> bool {
        use Source::{Kmem, Malloc, Offcpu, Profile};
        match self.step {
            shed::USER_STACKS => matches!(source, Offcpu | Malloc | Profile),
            shed::KERNEL_STACKS => matches!(source, Offcpu | Kmem | Profile),
            shed::SAMPLING => matches!(source, Profile | Kmem | Malloc),
            shed::SOURCE => self.source == source as u16,
            _ => true,
        }
    }

    /// What was given up and why: `user stacks were shed: cpu 1.80 % of 1.00 %` in two halves.
    fn words(&self) -> (String, String) {
        let what = match self.step {
            shed::SOURCE => format!("source {} was shed", source_name(self.source)),
            shed::SAMPLING => {
                format!("the sampling rate was shed (one in {} was kept and counts so often)", self.every)
            }
            step => format!("{} were shed", shed::step(step)),
        };
        let amount = |n: u64| match self.cause {
            shed::CPU => format!("{:.2} %", n as f64 / 10_000.0),
            _ => text::bytes(n),
        };
        let (value, limit) = (amount(self.value), amount(self.limit));
        let why = match self.cause {
            shed::FREE => format!("{value} free of {limit} to be kept"),
            cause => format!("{} {value} of {limit}", shed::cause(cause)),
        };
        (what, why)
    }

    /// The reason in table `loss`.
    pub(crate) fn reason(&self) -> String {
        let (what, why) = self.words();
        format!("{what}: {why}")
    }

    /// A sentence, with times since `start_ns`.
    pub fn text(&self, start_ns: u64) -> String {
        let since = |ns: u64| format!("{:.3} s", ns.saturating_sub(start_ns) as f64 / 1e9);
        let to = if self.to_ns == u64::MAX { "the end".into() } else { since(self.to_ns) };
        let (what, why) = self.words();
        format!("{what} from {} to {to}: {why}", since(self.from_ns))
    }

    /// The same for programs; `to_ns` is null when it was not taken up again.
    pub fn json(&self, start_ns: u64) -> Value {
        let since = |ns: u64| ns.saturating_sub(start_ns);
        json!({
            "step": shed::step(self.step),
            "source": (self.step == shed::SOURCE).then(|| source_name(self.source)),
            "from_ns": since(self.from_ns),
            "to_ns": (self.to_ns < u64::MAX).then(|| since(self.to_ns)),
            "cause": shed::cause(self.cause),
            "value": self.value,
            "limit": self.limit,
            "every": self.every,
        })
    }
}

/// All that was given up in a trace.
#[derive(Debug, Default)]
pub struct Sheds {
    /// By time.
    pub all: Vec<Shed>,
    /// Rows by time, step and source: a segment repeats what holds when it begins.
    rows: BTreeMap<(u64, u64, u16), (bool, [u64; 4])>,
}

impl Sheds {
    pub(crate) fn add(&mut self, view: View<'_>) {
        let (ts, step, source) = (view.ints("ts_ns"), view.ints("step"), view.ints("source"));
        let (restored, columns) =
            (view.ints("restored"), ["cause", "value", "limit", "every"].map(|name| view.ints(name)));
        for row in 0..view.rows() {
            let key = (ts.get(row), step.get(row), source.get(row) as u16);
            self.rows.insert(key, (restored.get(row) != 0, columns.map(|column| column.get(row))));
        }
    }

    /// Makes stretches of the rows. What was already given up when the first segment that is left began, began there.
    pub(crate) fn finish(&mut self) {
        let mut open: BTreeMap<(u64, u16), Shed> = BTreeMap::new();
        for ((ts_ns, step, source), (restored, [cause, value, limit, every])) in std::mem::take(&mut self.rows) {
            let key = (step, source);
            if restored {
                self.all.extend(open.remove(&key).map(|shed| Shed { to_ns: ts_ns, ..shed }));
            } else {
                let to_ns = u64::MAX;
                let new = Shed { from_ns: ts_ns, to_ns, step, source, cause, value, limit, every: every.max(1) };
                open.entry(key).or_insert(new);
            }
        }
        self.all.extend(open.into_values());
        self.all.sort_unstable();
    }

    /// What touches reports of `sources`, in all or in `window`.
    pub fn of(&self, sources: &[Source], window: Option<(u64, u64)>) -> impl Iterator<Item = &Shed> {
        let (from, to) = window.unwrap_or((0, u64::MAX));
        let touches = move |shed: &&Shed| shed.from_ns <= to && shed.to_ns >= from;
        self.all.iter().filter(touches).filter(|shed| sources.iter().any(|source| shed.is_of(*source)))
    }

    /// How many samples one that was taken then stands for.
    #[inline]
    pub fn weight(&self, ts_ns: u64) -> u64 {
        let of = |shed: &&Shed| shed.step == shed::SAMPLING && shed.from_ns <= ts_ns && ts_ns < shed.to_ns;
        self.all.iter().find(of).map_or(1, |shed| shed.every)
    }

    /// Spans without any event of each source. Of memory frees are told all the time, so that what is paired stays true.
    pub(crate) fn unseen(&self) -> BTreeMap<u16, Spans> {
        let mut unseen: BTreeMap<u16, Spans> = BTreeMap::new();
        let memory = [Source::Malloc as u16, Source::Kmem as u16];
        for shed in self.all.iter().filter(|shed| shed.step == shed::SOURCE && !memory.contains(&shed.source)) {
            unseen.entry(shed.source).or_default().add(shed.from_ns, shed.to_ns);
        }
        unseen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheds(rows: &[(u64, u64, u16, bool, u64)]) -> Sheds {
        let mut sheds = Sheds::default();
        for (ts, step, source, restored, every) in rows {
            sheds.rows.insert((*ts, *step, *source), (*restored, [shed::CPU, 18_000, 10_000, *every]));
        }
        sheds.finish();
        sheds
    }

    #[test]
    fn rows_make_stretches() {
        let s = 1_000_000_000;
        let sheds = sheds(&[
            (3 * s, shed::USER_STACKS, 0, false, 1),
            (5 * s, shed::SAMPLING, 0, false, 8),
            (6 * s, shed::SOURCE, 2, false, 1),
            (7 * s, shed::SOURCE, 2, true, 1),
            (8 * s, shed::SAMPLING, 0, true, 1),
        ]);
        let texts: Vec<String> = sheds.all.iter().map(|shed| shed.text(s)).collect();
        assert_eq!(
            texts,
            [
                "user stacks were shed from 2.000 s to the end: cpu 1.80 % of 1.00 %",
                "the sampling rate was shed (one in 8 was kept and counts so often) from 4.000 s to 7.000 s: cpu 1.80 % of 1.00 %",
                "source sched was shed from 5.000 s to 6.000 s: cpu 1.80 % of 1.00 %",
            ]
        );
        assert_eq!([4 * s, 5 * s, 8 * s - 1, 8 * s].map(|ts| sheds.weight(ts)), [1, 8, 8, 1]);
        assert_eq!(sheds.of(&[Source::Block], None).count(), 0);
        assert_eq!(sheds.of(&[Source::Sched], None).count(), 1);
        assert_eq!(sheds.of(&[Source::Profile], None).count(), 2);
        assert_eq!(sheds.of(&[Source::Profile], Some((0, 4 * s))).count(), 1);
        assert!(sheds.unseen()[&2].touch(6 * s, 6 * s) && !sheds.unseen()[&2].touch(8 * s, 9 * s));
    }
}
