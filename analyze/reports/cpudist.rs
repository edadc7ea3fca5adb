//! `cpudist`: how long threads stayed on a CPU, or off it, at a time.

use bpfrec_format::Source;
use serde_json::{Value, json};

use super::grouped::{self, Grouped};
use super::{Context, Flag, Flags, Report, ReportKind};
use crate::error::Result;
use crate::filter::Filter;
use crate::meta::Meta;
use crate::pipeline::{Need, Visitor};
use crate::sched::{Slice, Unpaired, Wait, Why};
use crate::sched_off::{self, Pairing};
use crate::slab::Slab;

/// In the list of reports.
pub const KIND: ReportKind = ReportKind {
    name: "cpudist",
    about: "Time on the CPU (-O: off it) at a time, as histograms",
    sources: &[Source::Sched],
    flags: &[
        Flag::new(Some('O'), "offcpu", "Time off the CPU instead, waits for a CPU included"),
        grouped::MILLISECONDS,
        grouped::PIDS,
        grouped::TIDS,
        grouped::PIDNSS,
        grouped::PER_CGROUP,
    ],
    new: |flags, filter| Ok(Box::new(Cpudist::new(flags, filter)?)),
};

/// Gathers stretches of time, each by the moment in which it ends.
pub struct Cpudist {
    filter: Filter,
    grouped: Grouped,
    off: bool,
    pairing: Option<Pairing>,
    unpaired: Unpaired,
}

impl Cpudist {
    fn new(flags: &Flags, filter: &Filter) -> Result<Cpudist> {
        let (filter, grouped, unpaired) = (filter.clone(), Grouped::of(flags)?, Unpaired::default());
        Ok(Cpudist { filter, grouped, off: flags.has("offcpu"), pairing: None, unpaired })
    }

    fn add(&mut self, meta: &Meta, length: &Wait) {
        if self.filter.takes(length.ts_ns, length.pid, length.cgroup_id) {
            self.grouped.add(meta, length);
        }
    }

    fn unpaired(&self) -> Unpaired {
        self.pairing.as_ref().map_or(self.unpaired, Pairing::unpaired)
    }

    /// Counts the stretches on a CPU whose begin or end is not known, or cannot be trusted.
    fn count_half_slices(&mut self, slab: &Slab) {
        let halves = slab.half_slices.iter().filter(|h| self.filter.takes(h.ts_ns, h.pid, h.cgroup_id));
        halves.for_each(|h| self.unpaired.add(h.why));
        for s in slab.slices.iter().filter(|s| self.filter.takes(s.ts_ns + s.dur_ns, s.pid, s.cgroup_id)) {
            if !s.begun {
                self.unpaired.add(Why::NoStart);
            } else if s.end.is_none() {
                self.unpaired.add(Why::Open);
            }
        }
    }
}

impl Visitor for Cpudist {
    fn wants(&self, need: &Need<'_>) -> bool {
        match need {
            Need::Slices => !self.off,
            Need::Field(kind, field) => self.off && sched_off::wants(&kind.name, field, false),
            _ => false,
        }
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        if !self.off {
            self.count_half_slices(slab);
            // One that began before the trace or lasts beyond it was longer than is known.
            for s in slab.slices.iter().filter(|s| s.begun && s.end.is_some()) {
                let Slice { dur_ns, cpu, tid, pid, cgroup_id, .. } = *s;
                self.add(meta, &Wait { ts_ns: s.ts_ns + dur_ns, dur_ns, tid, pid, cpu, cgroup_id });
            }
            return Ok(());
        }
        for off in self.pairing.get_or_insert_with(|| Pairing::new(meta, &self.filter)).slab(meta, slab) {
            let (tid, pid, cgroup_id) = (off.tid, off.pid, off.cgroup_id);
            self.add(meta, &Wait { ts_ns: off.end_ns, dur_ns: off.wait_ns, tid, pid, cpu: 0, cgroup_id });
        }
        Ok(())
    }
}

impl Report for Cpudist {
    fn text(&self, context: &Context<'_>, out: &mut String) {
        self.grouped.text(context.meta, out);
    }

    fn json(&self, context: &Context<'_>) -> Value {
        let mut all = self.grouped.json(context.meta, &self.unpaired());
        all["time"] = json!(if self.off { "off" } else { "on" });
        all
    }

    fn notes(&self, _: &Context<'_>) -> Vec<String> {
        let what = if self.off { "times off the CPU" } else { "times on the CPU" };
        super::unpaired_note(what, &self.unpaired()).into_iter().collect()
    }
}
