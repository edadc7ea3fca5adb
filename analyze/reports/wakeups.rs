//! `wakeups`: who woke whom, by the stacks of both; how long the woken had been blocked, and how long they then waited for a
//! CPU. From source `offcpu`, or without stacks from `sched` alone.
//!
//! Time is clipped to the window, as in `offcputime`; a wakeup is counted in the window in which it happened.

use std::fmt::Write;

use bpfrec_format::Source;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::stack_lines::{self, Names, Pair, Show, folded_name, folded_part};
use super::{Context, Flag, Flags, Report, ReportKind, waits_missing};
use crate::error::Result;
use crate::filter::Filter;
use crate::flamegraph::{self, Cell, Line};
use crate::meta::Meta;
use crate::offcpu::{self, Off, What};
use crate::pipeline::{Need, Visitor};
use crate::sched_off::{self, Pairing};
use crate::slab::Slab;
use crate::text::{count, duration, percent, plain};

/// In the list of reports.
pub const KIND: ReportKind = ReportKind {
    name: "wakeups",
    about: "Who woke whom, by stacks: time blocked until then, and waiting for a CPU after",
    sources: &[Source::Offcpu, Source::Sched],
    flags: &[
        Flag::new(Some('U'), "user-stacks-only", "User stacks only"),
        Flag::new(Some('K'), "kernel-stacks-only", "Kernel stacks only"),
        Flag::new(Some('f'), "folded", "One line a pair of stacks, for flamegraphs"),
        Flag::new(Some('d'), "delimited", "A delimiter between kernel and user stack"),
        Flag { short: None, long: "svg", value: Some("FILE"), help: "Also write a flamegraph" },
        Flag { short: None, long: "top", value: Some("N"), help: "Only the N pairs with the most blocked time" },
    ],
    new: |flags, filter| Ok(Box::new(Wakeups::new(flags, filter)?)),
};

/// Parts the woken from who woke it, as in BCC's offwaketime.
const BETWEEN: &str = "--";
/// Who woke a thread that was woken by an interrupt, hard or soft.
const INTERRUPT: &str = "[interrupt]";
/// Who woke a thread whose wakeup was not seen.
const NOT_SEEN: &str = "[wakeup not seen]";

/// A thread as it is named: its process and its own name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Who {
    pid: u32,
    comm: u32,
    stacks: Pair,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    waker: Who,
    target: Who,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    count: u64,
    blocked_ns: u64,
    queued_ns: u64,
}

/// Gathers wakeups. Memory grows with distinct pairs.
pub struct Wakeups {
    filter: Filter,
    show: Show,
    folded: bool,
    svg: Option<String>,
    top: usize,
    names: Names,
    sums: FxHashMap<Key, Sum>,
    total: Sum,
    not_seen: u64,
    by_interrupt: u64,
    /// Without a wakeup: preempted, short, blocked to the end.
    without: [u64; 3],
    pairing: Option<Pairing>,
}

impl Wakeups {
    fn new(flags: &Flags, filter: &Filter) -> Result<Wakeups> {
        Ok(Wakeups {
            filter: filter.clone(),
            show: Show::of(flags)?,
            folded: flags.has("folded"),
            svg: flags.value("svg").map(Into::into),
            top: stack_lines::top(flags)?,
            names: Names::default(),
            sums: FxHashMap::default(),
            total: Sum::default(),
            not_seen: 0,
            by_interrupt: 0,
            without: [0; 3],
            pairing: None,
        })
    }

    fn add(&mut self, meta: &Meta, off: &Off) {
        if !self.filter.takes_task(off.pid, off.cgroup_id) {
            return;
        }
        let without = match off.what {
            What::Wait if off.state == 0 => Some(0),
            What::Short => Some(1),
            What::Open if !off.is_woken() => Some(2),
            _ => None,
        };
        if let Some(i) = without {
            self.without[i] += if self.filter.takes_end(off.end_ns) { u64::from(off.count) } else { 0 };
            return;
        }
        let sum = Sum {
            count: self.filter.takes_end(off.woken_ns()).into(),
            blocked_ns: self.filter.part_ns(off.start_ns(), off.woken_ns()),
            queued_ns: self.filter.part_ns(off.woken_ns(), off.end_ns),
        };
        if sum.count == 0 && sum.blocked_ns == 0 && sum.queued_ns == 0 {
            return;
        }
        let woken_ns = off.woken_ns();
        // The thread that an interrupt hit, and its user stack, have no part in it.
        let (waker, pid, user) = match off.is_woken() {
            true if off.is_woken_by_interrupt() => (self.names.number(INTERRUPT), 0, 0),
            true => (self.names.of(&meta.tasks, off.waker_tid, woken_ns), off.waker_pid, off.waker_user),
            false => (self.names.number(NOT_SEEN), off.waker_pid, off.waker_user),
        };
        self.by_interrupt += if off.is_woken_by_interrupt() { sum.count } else { 0 };
        let waker = Who { pid, comm: waker, stacks: self.show.pair(off.waker_kernel, user) };
        let comm = self.names.of(&meta.tasks, off.tid, off.end_ns);
        let target = Who { pid: off.pid, comm, stacks: self.show.pair(off.kernel, off.user) };
        self.not_seen += if off.is_woken() { 0 } else { sum.count };
        for into in [self.sums.entry(Key { waker, target }).or_default(), &mut self.total] {
            into.count += sum.count;
            into.blocked_ns = into.blocked_ns.saturating_add(sum.blocked_ns);
            into.queued_ns = into.queued_ns.saturating_add(sum.queued_ns);
        }
    }

    /// By falling blocked time; those with the same by what they are.
    fn sorted(&self) -> Vec<(Key, Sum)> {
        let mut all: Vec<(Key, Sum)> = self.sums.iter().map(|(k, s)| (*k, *s)).collect();
        let who = |who: &Who| (who.pid, self.names.get(who.comm), who.stacks);
        all.sort_by_key(|(k, s)| (std::cmp::Reverse((s.blocked_ns, s.count)), who(&k.target), who(&k.waker)));
        all.truncate(self.top);
        all
    }

    fn folded(&self, context: &Context<'_>, out: &mut String) {
        let line = |(key, sum): (Key, Sum)| {
            let mut line = folded_name(self.names.get(key.target.comm));
            key.target.stacks.folded(context, self.show.delimited, &mut line);
            folded_part(BETWEEN, &mut line);
            key.waker.stacks.folded_from_leaf(context, self.show.delimited, &mut line);
            folded_part(self.names.get(key.waker.comm), &mut line);
            (line, sum.blocked_ns)
        };
        stack_lines::folded_lines(self.sorted().into_iter().map(line), 1000, out);
    }

    fn flamegraph(&self, context: &Context<'_>) -> Result<Vec<u8>> {
        let line = |(key, sum): (Key, Sum)| {
            let mut frames = key.target.stacks.cells(context, key.target.pid);
            frames.push(Cell::other(BETWEEN));
            let waker = key.waker.stacks.cells(context, key.waker.pid);
            frames.extend(waker.into_iter().rev());
            frames.push(Cell::other(self.names.get(key.waker.comm)));
            Line { process: self.names.get(key.target.comm).into(), frames, count: sum.blocked_ns / 1000 }
        };
        let seconds = self.filter.duration_ns as f64 / 1e9;
        let host = plain(context.meta.item("host"));
        let (blocked, wakeups) = (duration(self.total.blocked_ns), count(self.total.count));
        let title = format!("Blocked time of {host} and who ended it: {seconds:.1} s, {blocked}, {wakeups} wakeups");
        flamegraph::svg_of_waits(&title, self.sorted().into_iter().map(line).collect())
    }

    fn has_stacks(&self) -> bool {
        self.pairing.is_none()
    }
}

impl Visitor for Wakeups {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Field(kind, field) if offcpu::has(&kind.name) || sched_off::wants(&kind.name, field, true))
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        if meta.has_source(Source::Offcpu) {
            offcpu::of_slab(slab).for_each(|off| self.add(meta, &off));
        } else {
            let offs = self.pairing.get_or_insert_with(|| Pairing::new(meta, &self.filter)).slab(meta, slab);
            offs.iter().for_each(|off| self.add(meta, off));
        }
        Ok(())
    }
}

impl Report for Wakeups {
    fn text(&self, context: &Context<'_>, out: &mut String) {
        if self.folded {
            return self.folded(context, out);
        }
        let delimiter = self.show.delimited.then_some("-");
        for (key, sum) in self.sorted() {
            let (waker, target) = (plain(self.names.get(key.waker.comm)), plain(self.names.get(key.target.comm)));
            let _ = writeln!(out, "    {:<16} {waker} {}", "waker:", key.waker.pid);
            key.waker.stacks.text_from_root(context, delimiter, out);
            let _ = writeln!(out, "    {BETWEEN:<16} {BETWEEN}");
            key.target.stacks.text(context, delimiter, out);
            let _ = writeln!(out, "    {:<16} {target} {}", "target:", key.target.pid);
            let (blocked, queued) = (sum.blocked_ns / 1000, sum.queued_ns / 1000);
            let _ = writeln!(out, "        {blocked}  ({} wakeups, then {queued} us for a CPU)\n", sum.count);
        }
    }

    fn json(&self, context: &Context<'_>) -> Value {
        let who = |who: &Who| {
            json!({
                "pid": who.pid,
                "comm": self.names.get(who.comm),
                "kernel": who.stacks.kernel(context).json(),
                "user": who.stacks.user(context).json(),
            })
        };
        let pair = |(key, sum): (Key, Sum)| {
            json!({
                "waker": who(&key.waker),
                "target": who(&key.target),
                "count": sum.count,
                "blocked_ns": sum.blocked_ns,
                "queued_ns": sum.queued_ns,
            })
        };
        let unpaired = self.pairing.as_ref().map(Pairing::unpaired).unwrap_or_default();
        let [preempted, short, open] = self.without;
        json!({
            "unit": "ns",
            "source": if self.has_stacks() { "offcpu" } else { "sched" },
            "count": self.total.count,
            "blocked_ns": self.total.blocked_ns,
            "queued_ns": self.total.queued_ns,
            "not_seen": self.not_seen,
            "by_interrupt": self.by_interrupt,
            "without_wakeup": {"preempted": preempted, "short": short, "open": open},
            "unpaired": super::unpaired_json(&unpaired),
            "pairs": self.sorted().into_iter().map(pair).collect::<Vec<_>>(),
        })
    }

    fn notes(&self, context: &Context<'_>) -> Vec<String> {
        let Sum { count: wakeups, blocked_ns, queued_ns } = self.total;
        let (blocked, queued) = (duration(blocked_ns), duration(queued_ns));
        let mut notes =
            vec![format!("{} wakeups: {blocked} blocked before, {queued} waiting for a CPU after", count(wakeups))];
        let shown: u64 = self.sorted().iter().map(|(_, sum)| sum.blocked_ns).fold(0, u64::saturating_add);
        if shown < blocked_ns {
            notes.push(format!("shown: {:.1} % of the blocked time", percent(shown, blocked_ns)));
        }
        if self.not_seen > 0 {
            notes.push(format!("{} of them were not seen, only that the thread ran again", count(self.not_seen)));
        }
        if self.by_interrupt > 0 {
            notes.push(format!("{} of them came from interrupts", count(self.by_interrupt)));
        } else if self.has_stacks() && context.meta.item("offcpu_interrupts") != "told" {
            notes.push("which of them came from interrupts is not in the trace: a waker may be whom one hit".into());
        }
        let [preempted, short, open] = self.without.map(count);
        if self.without != [0; 3] {
            notes.push(format!(
                "without a wakeup: {preempted} preemptions, {short} short waits, {open} blocked to the end"
            ));
        }
        match &self.pairing {
            Some(pairing) => {
                notes.push("no stacks: the trace has source `sched` only; record with `-e offcpu` for them".into());
                notes.extend(super::unpaired_note("waits", &pairing.unpaired()));
            }
            None => notes.extend(waits_missing::notes(context)),
        }
        notes
    }

    fn sources(&self, meta: &Meta, _kind: &ReportKind) -> &'static [Source] {
        if meta.has_source(Source::Offcpu) { &[Source::Offcpu] } else { &[Source::Sched] }
    }

    fn until_ns(&self, _filter: &Filter) -> u64 {
        // A wait that began in the window is told at its end.
        u64::MAX
    }

    fn is_for_programs(&self) -> bool {
        self.folded
    }

    fn files(&self, context: &Context<'_>) -> Result<Vec<(String, Vec<u8>)>> {
        let svg = self.svg.as_ref().map(|path| Ok((path.clone(), self.flamegraph(context)?)));
        svg.into_iter().collect()
    }
}
