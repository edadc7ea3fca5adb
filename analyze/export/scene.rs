//! What every export needs to name things: tasks, cgroups, stacks.

use std::borrow::Cow;

use bpfrec_format::meta::reason;

use crate::damage::Damage;
use crate::filter::Filter;
use crate::meta::Meta;
use crate::offcpu::What;
use crate::reports::offcputime::Offcputime;
use crate::symbols::{Frame, Symbols};
use crate::tables::meta::source_name;
use crate::text::{count, plain};

/// A place of a stack: a position in [`Symbols::frames`], or behind them one of what stands for frames.
pub(super) type Place = u32;

/// What stands for frames that are not there.
const INSTEAD: usize = 5;

/// Loss windows that a comment names; of more only the number is told.
const NAMED: usize = 100;

/// A stretch of time in which events are missing, CLOCK_MONOTONIC.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lost {
    pub from_ns: u64,
    pub to_ns: u64,
    /// Source, or that a block is damaged.
    pub what: String,
    /// Why.
    pub why: String,
    /// Where it is known.
    pub cpu: Option<u32>,
    /// Events; 0 where nobody knows how many.
    pub events: u64,
}

/// A text as JSON.
pub(super) fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The trace and the part of it that is exported.
pub(super) struct Scene<'a> {
    pub meta: &'a Meta,
    pub symbols: &'a Symbols,
    pub filter: &'a Filter,
    instead: [String; INSTEAD],
}

impl<'a> Scene<'a> {
    pub(super) fn new(meta: &'a Meta, symbols: &'a Symbols, filter: &'a Filter) -> Self {
        let mark = |what| Offcputime::mark(meta, what).unwrap_or_default();
        let missed = ["[Missed Kernel Stack]", "[Missed User Stack]", "[no stack]"].map(String::from);
        let [kernel, user, none] = missed;
        Scene { meta, symbols, filter, instead: [kernel, user, none, mark(What::Open), mark(What::Short)] }
    }

    /// Name of a thread, or of a process by its leader.
    pub(super) fn comm(&self, tid: u32, ts_ns: u64) -> &'a str {
        self.meta.tasks.comm(tid, ts_ns)
    }

    /// First and last moment of what is exported, CLOCK_MONOTONIC.
    pub(super) fn ends(&self) -> (u64, u64) {
        let (first, last) = (self.meta.first_ns, self.meta.end_ns);
        let from = self.filter.from_ns.clamp(first, last);
        (from, self.filter.to_ns.clamp(from, last))
    }

    /// CPU time that a sample stands for, as the reports have it.
    pub(super) fn sample_ns(&self, samples: u64) -> u64 {
        let hz = self.meta.number("sample_hz").filter(|hz| *hz > 0).unwrap_or(99);
        samples.saturating_mul(1_000_000_000) / hz
    }

    /// Places of a user and a kernel stack, the root first. `what`: what a wait is.
    pub(super) fn stack(&self, kernel: u64, user: u64, what: What, places: &mut Vec<Place>) {
        places.clear();
        let known = self.symbols.frames.len() as u32;
        for (id, missed) in [(user, 1), (kernel, 0)] {
            match self.symbols.stack(id) {
                _ if id == 0 => {}
                Some(stack) => places.extend(stack.frames.iter().rev()),
                None => places.push(known + missed),
            }
        }
        match what {
            What::Wait => {}
            What::Open => places.push(known + 3),
            What::Short => places.push(known + 4),
        }
    }

    /// The place that stands for a stack that was not recorded.
    pub(super) fn no_stack(&self) -> Place {
        self.symbols.frames.len() as u32 + 2
    }

    /// The frame, if it is one.
    pub(super) fn frame(&self, place: Place) -> Option<&'a Frame> {
        self.symbols.frames.get(place as usize)
    }

    /// Name of a place.
    pub(super) fn name(&self, place: Place) -> &str {
        let instead = || &self.instead[(place as usize - self.symbols.frames.len()).min(INSTEAD - 1)];
        self.frame(place).map_or_else(instead, |frame| &frame.name)
    }

    /// Path of the binary of a place; the kernel and its modules in brackets; empty when not known.
    pub(super) fn binary(&self, place: Place) -> Cow<'a, str> {
        match self.frame(place) {
            Some(frame) if frame.kernel && frame.binary.is_empty() => "[kernel]".into(),
            Some(frame) if frame.kernel => format!("[{}]", frame.binary).into(),
            Some(frame) => frame.binary.as_str().into(),
            None => "".into(),
        }
    }

    /// Places of all frames, and of what stands for some.
    pub(super) fn places(&self) -> std::ops::Range<Place> {
        0..(self.symbols.frames.len() + INSTEAD) as u32
    }

    /// Where events are missing in what is exported, by time.
    pub(super) fn losses(&self, damage: &Damage) -> Vec<Lost> {
        let recorded = self.meta.losses.rows.iter().filter(|l| l.is_of_events() && l.lost > 0).map(|l| Lost {
            from_ns: l.from_ns,
            to_ns: l.to_ns,
            what: source_name(l.source),
            why: reason::text(l.reason).into(),
            cpu: Some(l.cpu).filter(|cpu| *cpu != u32::MAX),
            events: l.lost,
        });
        let damaged = damage.lost.iter().map(|l| Lost {
            from_ns: l.from_ns,
            to_ns: l.to_ns,
            what: "blocks".into(),
            why: if l.events > 0 { "damaged" } else { "missing" }.into(),
            cpu: l.cpu,
            events: l.events,
        });
        let (first, last) = self.ends();
        let mut all: Vec<Lost> = recorded.chain(damaged).filter(|l| l.from_ns <= last && l.to_ns >= first).collect();
        for lost in &mut all {
            lost.from_ns = lost.from_ns.max(first);
            // A row may lie of its times.
            lost.to_ns = lost.to_ns.min(last).max(lost.from_ns);
        }
        all.sort_unstable();
        all
    }

    /// The same as sentences, not too many.
    pub(super) fn loss_lines(&self, damage: &Damage) -> Vec<String> {
        let all = self.losses(damage);
        let at = |ns: u64| ns.saturating_sub(self.meta.start_ns) as f64 / 1e9;
        let mut lines: Vec<String> = all
            .iter()
            .take(NAMED)
            .map(|lost| {
                let Lost { from_ns, to_ns, what, why, cpu, events } = lost;
                let cpu = cpu.map_or(String::new(), |cpu| format!(" on CPU {cpu}"));
                let what = plain(what);
                format!(
                    "lost: {} events of {what}{cpu} from {:.3} s to {:.3} s: {why}",
                    count(*events),
                    at(*from_ns),
                    at(*to_ns)
                )
            })
            .collect();
        if all.len() > NAMED {
            lines.push(format!("lost: and {} more such windows", all.len() - NAMED));
        }
        lines
    }
}
