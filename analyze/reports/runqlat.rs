//! `runqlat`: how long threads that could run waited for a CPU.

use bpfrec_format::Source;
use serde_json::Value;

use super::grouped::{self, Grouped};
use super::{Context, Flags, Report, ReportKind};
use crate::error::Result;
use crate::filter::Filter;
use crate::meta::Meta;
use crate::pipeline::{Need, Visitor};
use crate::sched::{Unpaired, Why};
use crate::slab::Slab;

/// In the list of reports.
pub const KIND: ReportKind = ReportKind {
    name: "runqlat",
    about: "Run queue latency: how long runnable threads waited for a CPU, as histograms",
    sources: &[Source::Sched],
    flags: &[grouped::MILLISECONDS, grouped::PIDS, grouped::TIDS, grouped::PIDNSS, grouped::PER_CGROUP],
    new: |flags, filter| Ok(Box::new(Runqlat::new(flags, filter)?)),
};

/// Gathers waits.
pub struct Runqlat {
    filter: Filter,
    grouped: Grouped,
    unpaired: Unpaired,
}

impl Runqlat {
    fn new(flags: &Flags, filter: &Filter) -> Result<Runqlat> {
        Ok(Runqlat { filter: filter.clone(), grouped: Grouped::of(flags)?, unpaired: Unpaired::default() })
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
        let mine = slab.waits.iter().filter(|w| self.filter.takes(w.ts_ns, w.pid, w.cgroup_id));
        mine.for_each(|wait| self.grouped.add(meta, wait));
        Ok(())
    }
}

impl Report for Runqlat {
    fn text(&self, context: &Context<'_>, out: &mut String) {
        self.grouped.text(context.meta, out);
    }

    fn json(&self, context: &Context<'_>) -> Value {
        self.grouped.json(context.meta, &self.unpaired)
    }

    fn notes(&self, _: &Context<'_>) -> Vec<String> {
        super::unpaired_note("waits", &self.unpaired).into_iter().collect()
    }
}
