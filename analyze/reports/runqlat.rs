//! `runqlat`: how long threads that could run waited for a CPU.

use std::collections::BTreeMap;
use std::fmt::Write;

use bpfrec_format::Source;
use serde_json::{Value, json};

use super::{Context, Flag, Flags, Report, ReportKind};
use crate::error::Result;
use crate::filter::Filter;
use crate::histogram::{Histogram, Unit};
use crate::meta::Meta;
use crate::pipeline::{Need, Visitor};
use crate::sched::{Unpaired, Wait, Why};
use crate::slab::Slab;
use crate::text::plain;

/// In the list of reports.
pub const KIND: ReportKind = ReportKind {
    name: "runqlat",
    about: "Run queue latency: how long runnable threads waited for a CPU, as histograms",
    sources: &[Source::Sched],
    flags: &[
        Flag::new(Some('m'), "milliseconds", "Millisecond histogram"),
        Flag::new(Some('P'), "pids", "A histogram per process"),
        Flag::new(Some('L'), "tids", "A histogram per thread"),
        Flag::new(None, "pidnss", "A histogram per pid namespace"),
        Flag::new(None, "per-cgroup", "A histogram per cgroup"),
    ],
    new: |flags, filter| Ok(Box::new(Runqlat::new(flags, filter)?)),
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    All,
    Process,
    Thread,
    Namespace,
    Cgroup,
}

impl By {
    fn key(self) -> &'static str {
        match self {
            By::All => "",
            By::Process => "pid",
            By::Thread => "tid",
            By::Namespace => "pid_ns",
            By::Cgroup => "cgroup",
        }
    }
}

/// Gathers waits.
pub struct Runqlat {
    filter: Filter,
    unit: Unit,
    by: By,
    groups: BTreeMap<u64, (Wait, Histogram)>,
    all: Histogram,
    unpaired: Unpaired,
}

impl Runqlat {
    fn new(flags: &Flags, filter: &Filter) -> Result<Runqlat> {
        flags.one_of(&["pids", "tids", "pidnss", "per-cgroup"])?;
        let asked =
            [("pids", By::Process), ("tids", By::Thread), ("pidnss", By::Namespace), ("per-cgroup", By::Cgroup)];
        let by = asked.into_iter().find(|(flag, _)| flags.has(flag)).map_or(By::All, |(_, by)| by);
        let unit = Unit::of(flags.has("milliseconds"));
        let (groups, all, unpaired) = Default::default();
        Ok(Runqlat { filter: filter.clone(), unit, by, groups, all, unpaired })
    }

    fn key(&self, meta: &Meta, wait: &Wait) -> u64 {
        match self.by {
            By::All => 0,
            By::Process => wait.pid.into(),
            By::Thread => wait.tid.into(),
            By::Namespace => meta.tasks.at(wait.tid, wait.ts_ns).map_or(0, |t| t.pid_ns.into()),
            By::Cgroup => wait.cgroup_id,
        }
    }

    fn label(&self, meta: &Meta, wait: &Wait) -> String {
        match self.by {
            By::All => String::new(),
            By::Process => meta.tasks.comm(wait.pid, wait.ts_ns).into(),
            By::Thread | By::Namespace => meta.tasks.comm(wait.tid, wait.ts_ns).into(),
            By::Cgroup => meta.cgroups.path(wait.cgroup_id),
        }
    }
}

/// Counts the waits in the part that was asked for of which one half lies outside, or is nowhere.
pub(super) fn count_half_waits(filter: &Filter, slab: &Slab, unpaired: &mut Unpaired) {
    let halves = slab.half_waits.iter().filter(|h| filter.takes(h.ts_ns, h.pid, h.cgroup_id));
    halves.for_each(|h| unpaired.add(h.why));
    let cut = slab.waits.iter().filter(|w| filter.cuts(w.ts_ns - w.dur_ns, w.ts_ns, w.pid, w.cgroup_id));
    cut.for_each(|_| unpaired.add(Why::Open));
}

impl Visitor for Runqlat {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Waits)
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        count_half_waits(&self.filter, slab, &mut self.unpaired);
        for wait in slab.waits.iter().filter(|w| self.filter.takes(w.ts_ns, w.pid, w.cgroup_id)) {
            if self.by == By::All {
                self.all.add(wait.dur_ns, self.unit);
                continue;
            }
            let key = self.key(meta, wait);
            let (last, histogram) = self.groups.entry(key).or_insert_with(|| (*wait, Histogram::default()));
            // A group bears the name that it had last: a process that execs is what it became.
            *last = *wait;
            histogram.add(wait.dur_ns, self.unit);
        }
        Ok(())
    }
}

impl Report for Runqlat {
    fn text(&self, context: &Context<'_>, out: &mut String) {
        self.all.text(self.unit, out);
        for (key, (last, histogram)) in &self.groups {
            let label = self.label(context.meta, last);
            let label = plain(&label);
            let _ = match self.by {
                By::Cgroup => writeln!(out, "\ncgroup = {label}"),
                By::Namespace => writeln!(out, "\npidns = {key} {label}"),
                by => writeln!(out, "\n{} = {key} {label}", by.key()),
            };
            histogram.text(self.unit, out);
        }
    }

    fn json(&self, context: &Context<'_>) -> Value {
        let key = |key: u64, label: &str| match self.by {
            By::Cgroup => json!({"cgroup": label, "cgroup_id": key}),
            by => json!({by.key(): key, "comm": label}),
        };
        let groups = self.groups.iter().map(|(k, (last, h))| (key(*k, &self.label(context.meta, last)), h));
        let all = (self.by == By::All).then_some((json!({}), &self.all));
        super::histograms_json(self.unit, groups.chain(all), &self.unpaired)
    }

    fn notes(&self, _: &Context<'_>) -> Vec<String> {
        super::unpaired_note("waits", &self.unpaired).into_iter().collect()
    }
}
