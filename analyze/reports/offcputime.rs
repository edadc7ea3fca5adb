//! `offcputime`: where threads left the CPU, and for how long.
//!
//! Time is clipped to the window: parts in windows that follow upon each other add up to the whole. A wait is counted where
//! it ends. Short waits are told as a sum now and then; they belong to the moment in which they were told.

mod wanted;

use std::collections::BTreeMap;
use std::fmt::Write;

use bpfrec_format::Source;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use self::wanted::Wanted;
use super::stack_lines::{self, Names, Pair, Show, folded_name, folded_part};
use super::{Context, Flag, Flags, OfStack, Report, ReportKind, waits_missing};
use crate::error::Result;
use crate::filter::Filter;
use crate::flamegraph::{self, Cell, Line};
use crate::meta::Meta;
use crate::offcpu::{self, Off, What, state_name};
use crate::pipeline::{Need, Visitor};
use crate::slab::Slab;
use crate::text::{count, duration, percent, plain};

/// In the list of reports.
pub const KIND: ReportKind = ReportKind {
    name: "offcputime",
    about: "Time off the CPU by stack: why threads waited and for how long",
    sources: &[Source::Offcpu],
    flags: &[
        Flag::new(Some('U'), "user-stacks-only", "User stacks only"),
        Flag::new(Some('K'), "kernel-stacks-only", "Kernel stacks only"),
        Flag::new(Some('f'), "folded", "One line a stack, for flamegraphs"),
        Flag::new(Some('d'), "delimited", "A delimiter between kernel and user stack"),
        Flag { short: Some('t'), long: "tid", value: Some("TID"), help: "Only this thread" },
        Flag::new(Some('u'), "user-threads-only", "Only threads of programs"),
        Flag::new(Some('k'), "kernel-threads-only", "Only threads of the kernel"),
        Flag { short: Some('m'), long: "min-block-time", value: Some("US"), help: "Only waits of at least so many us" },
        Flag { short: Some('M'), long: "max-block-time", value: Some("US"), help: "Only waits of at most so many us" },
        Flag {
            short: None,
            long: "state",
            value: Some("MASK"),
            help: "Only waits in these kernel task states: 1 sleeping, 2 uninterruptible, 0 preempted",
        },
        Flag::new(None, "ended", "Only waits that ended in the trace, as BCC has them"),
        Flag::new(Some('P'), "pids", "By process, not by thread"),
        Flag::new(None, "per-cgroup", "By cgroup, not by thread"),
        Flag { short: None, long: "svg", value: Some("FILE"), help: "Also write a flamegraph" },
        Flag { short: None, long: "top", value: Some("N"), help: "Only the N stacks with the most time" },
    ],
    new: |flags, filter| Ok(Box::new(Offcputime::new(flags, filter)?)),
};

/// Stands for what is not walked.
const OPEN: &str = "[still off the CPU at the end]";

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Thread,
    Process,
    Cgroup,
}

/// What time is summed by. `who` is a tid, a pid or a cgroup id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    who: u64,
    pid: u32,
    comm: u32,
    stacks: Pair,
    what: What,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    ns: u64,
    queued_ns: u64,
    waits: u64,
}

impl Sum {
    fn add(&mut self, other: Sum) {
        self.ns = self.ns.saturating_add(other.ns);
        self.queued_ns = self.queued_ns.saturating_add(other.queued_ns);
        self.waits += other.waits;
    }

    fn json(&self) -> Value {
        json!({"ns": self.ns, "queued_ns": self.queued_ns, "waits": self.waits})
    }
}

/// Gathers waits. Memory grows with distinct threads and stacks.
pub struct Offcputime {
    filter: Filter,
    show: Show,
    by: By,
    folded: bool,
    svg: Option<String>,
    top: usize,
    wanted: Wanted,
    comms: Names,
    sums: FxHashMap<Key, Sum>,
    total: Sum,
    by_state: BTreeMap<&'static str, Sum>,
    /// Short waits of which it is not known whether they were asked for.
    left_out: Sum,
    /// Stacks that were remembered, and all.
    remembered: (u64, u64),
}

impl Offcputime {
    /// As asked.
    pub fn new(flags: &Flags, filter: &Filter) -> Result<Offcputime> {
        flags.one_of(&["pids", "per-cgroup"])?;
        let by = match (flags.has("pids"), flags.has("per-cgroup")) {
            (true, _) => By::Process,
            (_, true) => By::Cgroup,
            _ => By::Thread,
        };
        Ok(Offcputime {
            filter: filter.clone(),
            show: Show::of(flags)?,
            by,
            folded: flags.has("folded"),
            svg: flags.value("svg").map(Into::into),
            top: stack_lines::top(flags)?,
            wanted: Wanted::of(flags)?,
            comms: Names::default(),
            sums: FxHashMap::default(),
            total: Sum::default(),
            by_state: BTreeMap::new(),
            left_out: Sum::default(),
            remembered: (0, 0),
        })
    }

    fn add(&mut self, meta: &Meta, off: &Off, short_ns: Option<u64>) {
        let ends = self.filter.takes_end(off.end_ns);
        let sum = match off.what {
            What::Short if ends => Sum { ns: off.wait_ns, queued_ns: off.queued_ns, waits: off.count.into() },
            What::Short => return,
            _ => Sum {
                ns: self.filter.part_ns(off.start_ns(), off.end_ns),
                queued_ns: self.filter.part_ns(off.woken_ns(), off.end_ns),
                waits: ends.into(),
            },
        };
        if sum == Sum::default() {
            return;
        }
        match self.wanted.takes(off, short_ns) {
            Some(true) => {}
            Some(false) => return,
            None => return self.left_out.add(sum),
        }
        let (who, comm) = match self.by {
            By::Thread => (off.tid.into(), self.comms.of(&meta.tasks, off.tid, off.end_ns)),
            By::Process => (off.pid.into(), self.comms.of(&meta.tasks, off.pid, off.end_ns)),
            By::Cgroup => (off.cgroup_id, self.comms.number("")),
        };
        let mut stacks = Pair::default();
        let mut state = "short";
        if off.what != What::Short {
            state = state_name(off.state);
            stacks = self.show.pair(off.kernel, off.user);
            for (id, remembered) in [stacks.kernel, stacks.user].into_iter().zip(off.remembered()) {
                self.remembered.0 += u64::from(id != 0 && remembered);
                self.remembered.1 += u64::from(id != 0);
            }
        }
        let pid = if self.by == By::Cgroup && stacks.user == 0 { 0 } else { off.pid };
        self.sums.entry(Key { who, pid, comm, stacks, what: off.what }).or_default().add(sum);
        self.by_state.entry(state).or_default().add(sum);
        self.total.add(sum);
    }

    fn who<'a>(&'a self, meta: &Meta, key: &Key) -> std::borrow::Cow<'a, str> {
        match self.by {
            By::Cgroup => meta.cgroups.path(key.who).into(),
            _ => self.comms.get(key.comm).into(),
        }
    }

    /// By falling time; those with the same time by what they are.
    fn sorted(&self) -> Vec<(Key, Sum)> {
        let mut all: Vec<(Key, Sum)> = self.sums.iter().map(|(k, s)| (*k, *s)).collect();
        all.sort_by_key(|(k, s)| {
            (std::cmp::Reverse(s.ns), k.who, k.pid, self.comms.get(k.comm), k.stacks, k.what, s.waits)
        });
        all.truncate(self.top);
        all
    }

    /// What stands at the leaf for waits that are not like others.
    pub(crate) fn mark(meta: &Meta, what: What) -> Option<String> {
        match what {
            What::Wait => None,
            What::Open => Some(OPEN.into()),
            What::Short => Some(match min_wait_ns(meta) {
                Some(ns) => format!("[waits shorter than --min-wait {}us]", ns as f64 / 1e3),
                None => "[waits shorter than --min-wait]".into(),
            }),
        }
    }

    /// All stacks with their waits and time.
    pub(crate) fn of_stacks(&self, meta: &Meta) -> Vec<OfStack<'_>> {
        let of = |(key, sum): (Key, Sum)| OfStack {
            pid: key.pid,
            tid: (self.by == By::Thread).then_some(key.who as u32),
            comm: std::borrow::Cow::Owned(self.who(meta, &key).into_owned()),
            kernel: key.stacks.kernel,
            user: key.stacks.user,
            what: key.what,
            op: None,
            values: [sum.waits, sum.ns, 0, 0],
        };
        self.sorted().into_iter().map(of).collect()
    }

    /// The flamegraph of what was gathered.
    pub fn flamegraph(&self, context: &Context<'_>) -> Result<Vec<u8>> {
        let line = |(key, sum): (Key, Sum)| {
            let mut frames = key.stacks.cells(context, key.pid);
            frames.extend(Self::mark(context.meta, key.what).map(|mark| Cell::other(&mark)));
            Line { process: self.who(context.meta, &key).into(), frames, count: sum.ns / 1000 }
        };
        let seconds = self.filter.duration_ns as f64 / 1e9;
        let host = plain(context.meta.item("host"));
        let title = format!(
            "Off-CPU time of {host}{}: {seconds:.1} s, {} in {} waits",
            self.wanted.threads().map_or(String::new(), |threads| format!(", {threads}")),
            duration(self.total.ns),
            count(self.total.waits)
        );
        flamegraph::svg_of_waits(&title, self.sorted().into_iter().map(line).collect())
    }

    fn folded(&self, context: &Context<'_>, out: &mut String) {
        let line = |(key, sum): (Key, Sum)| {
            let mut line = folded_name(&self.who(context.meta, &key));
            key.stacks.folded(context, self.show.delimited, &mut line);
            if let Some(mark) = Self::mark(context.meta, key.what) {
                folded_part(&mark, &mut line);
            }
            (line, sum.ns)
        };
        stack_lines::folded_lines(self.sorted().into_iter().map(line), 1000, out);
    }

    fn sum_of(&self, what: What) -> Sum {
        let mut sum = Sum::default();
        self.sums.iter().filter(|(k, _)| k.what == what).for_each(|(_, s)| sum.add(*s));
        sum
    }

    fn named(&self, context: &Context<'_>) -> (u64, u64) {
        let of = |key: &Key| key.stacks.named(context);
        self.sums.keys().map(of).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }

    /// Waits whose stack's definition is missing.
    fn missed(&self, context: &Context<'_>) -> u64 {
        self.sums.iter().filter(|(k, _)| k.stacks.is_missed(context)).map(|(_, s)| s.waits).sum()
    }
}

/// Threshold below which waits are told as a sum.
fn min_wait_ns(meta: &Meta) -> Option<u64> {
    meta.number("offcpu_min_wait_ns").or_else(|| meta.number("min_wait_ns"))
}

impl Visitor for Offcputime {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Field(kind, field) if offcpu::has(&kind.name) && !field.starts_with("waker_"))
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        let short_ns = min_wait_ns(meta);
        for off in offcpu::of_slab(slab) {
            if self.filter.takes_task(off.pid, off.cgroup_id) && self.wanted.takes_thread(meta, &off) {
                self.add(meta, &off, short_ns);
            }
        }
        Ok(())
    }
}

impl Report for Offcputime {
    fn text(&self, context: &Context<'_>, out: &mut String) {
        if self.folded {
            return self.folded(context, out);
        }
        for (key, sum) in self.sorted() {
            if let Some(mark) = Self::mark(context.meta, key.what) {
                let _ = writeln!(out, "    {mark}");
            }
            key.stacks.text(context, self.show.delimited.then_some("--"), out);
            let (who, us) = (self.who(context.meta, &key), sum.ns / 1000);
            let _ = match self.by {
                By::Cgroup => writeln!(out, "    {:<16} {}\n        {us}\n", "-", plain(&who)),
                _ => writeln!(out, "    {:<16} {} ({})\n        {us}\n", "-", plain(&who), key.who),
            };
        }
    }

    fn json(&self, context: &Context<'_>) -> Value {
        let stack = |(key, sum): (Key, Sum)| {
            let who = self.who(context.meta, &key);
            let mut one = match self.by {
                By::Thread => json!({"tid": key.who, "pid": key.pid, "comm": who}),
                By::Process => json!({"pid": key.who, "comm": who}),
                By::Cgroup => json!({"cgroup": who, "cgroup_id": key.who}),
            };
            one["what"] = key.what.name().into();
            for (name, value) in [("ns", sum.ns), ("queued_ns", sum.queued_ns), ("waits", sum.waits)] {
                one[name] = value.into();
            }
            one["kernel"] = key.stacks.kernel(context).json();
            one["user"] = key.stacks.user(context).json();
            one
        };
        let by_state: Value = self.by_state.iter().map(|(state, sum)| ((*state).to_owned(), sum.json())).collect();
        let (named, frames) = self.named(context);
        json!({
            "unit": "ns",
            "total": self.total.json(),
            "open": self.sum_of(What::Open).json(),
            "short": self.sum_of(What::Short).json(),
            "by_state": by_state,
            "left_out": self.left_out.json(),
            "min_wait_ns": min_wait_ns(context.meta),
            "stacks": self.sorted().into_iter().map(stack).collect::<Vec<_>>(),
            "stacks_walked": self.remembered.1 - self.remembered.0,
            "stacks_remembered": self.remembered.0,
            "stacks_missed": self.missed(context),
            "frames": frames,
            "frames_named": named,
            "lost_after": waits_missing::lost_after(context),
        })
    }

    fn notes(&self, context: &Context<'_>) -> Vec<String> {
        let Sum { ns, queued_ns, waits } = self.total;
        let mut notes = vec![format!(
            "{} off the CPU in {} waits, {} of it waiting for a CPU only",
            duration(ns),
            count(waits),
            duration(queued_ns)
        )];
        notes.extend(self.wanted.threads().map(|threads| format!("only {threads}")));
        if !self.by_state.is_empty() {
            let by_state: Vec<String> =
                self.by_state.iter().map(|(s, sum)| format!("{s} {}", duration(sum.ns))).collect();
            notes.push(format!("by state: {}", by_state.join(", ")));
        }
        let shown: u64 = self.sorted().iter().map(|(_, sum)| sum.ns).fold(0, u64::saturating_add);
        if shown < ns {
            notes.push(format!("shown: {:.1} % of that time", percent(shown, ns)));
        }
        let (remembered, stacks) = self.remembered;
        if stacks > 0 {
            let (share, (named, frames)) = (percent(remembered, stacks), self.named(context));
            notes.push(format!(
                "stacks remembered, not walked: {share:.1} %; {:.1} % of frames named",
                percent(named, frames)
            ));
        }
        if self.left_out != Sum::default() {
            let (waits, ns) = (count(self.left_out.waits), duration(self.left_out.ns));
            notes.push(format!(
                "left out: {waits} short waits of {ns} in all, whose lengths and states were not recorded"
            ));
        }
        let missed = self.missed(context);
        if missed > 0 {
            notes.push(format!("{missed} waits have a stack whose definition is missing"));
        }
        notes.extend(waits_missing::notes(context));
        notes
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
