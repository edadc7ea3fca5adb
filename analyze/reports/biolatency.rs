//! `biolatency`: how long block I/O took.

use std::collections::BTreeMap;
use std::fmt::Write;

use bpfrec_format::Source;
use serde_json::{Map, Value, json};

use super::{Context, Flag, Flags, Report, ReportKind};
use crate::block_io::{HalfIo, Io, flags_and_operation};
use crate::error::Result;
use crate::filter::Filter;
use crate::histogram::{Histogram, Unit};
use crate::meta::Meta;
use crate::pipeline::{Need, Visitor};
use crate::sched::{Unpaired, Why};
use crate::slab::Slab;
use crate::text::plain;

/// In the list of reports.
pub const KIND: ReportKind = ReportKind {
    name: "biolatency",
    about: "Block I/O latency, from the issue to the device until completion, as histograms",
    sources: &[Source::Block],
    flags: &[
        Flag::new(Some('m'), "milliseconds", "Millisecond histogram"),
        Flag::new(Some('Q'), "queued", "Include the time queued in the kernel"),
        Flag::new(Some('D'), "disks", "A histogram per disk"),
        Flag::new(Some('F'), "flags", "A histogram per set of I/O flags"),
        Flag::new(Some('e'), "extension", "Also average, total and count, and how many were issued and did not end"),
        Flag::new(None, "per-cgroup", "A histogram per cgroup"),
        Flag::new(None, "per-process", "A histogram per process that issued"),
        Flag { short: Some('d'), long: "disk", value: Some("DISK"), help: "Only this disk, by name or MAJOR:MINOR" },
    ],
    new: |flags, filter| Ok(Box::new(Biolatency::new(flags, filter))),
};

/// What a histogram is of; `None` where it is not asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    dev: Option<u32>,
    cmd_flags: Option<u32>,
    cgroup_id: Option<u64>,
    pid: Option<u32>,
}

/// Gathers I/O.
pub struct Biolatency {
    filter: Filter,
    unit: Unit,
    width: Option<usize>,
    queued: bool,
    extension: bool,
    per: [bool; 4],
    disk: Option<String>,
    groups: BTreeMap<Key, Group>,
    unpaired: Unpaired,
}

/// What is said of one group.
#[derive(Default)]
struct Group {
    /// The last issue, for the name that the process had then.
    last_ns: u64,
    histogram: Histogram,
    /// Requests that were given to a device.
    issued: u64,
    unpaired: Unpaired,
}

/// Calls `each` for the I/O in a part of which one half lies outside, or is nowhere.
fn half_ios(filter: &Filter, slab: &Slab, mut each: impl FnMut(&HalfIo)) {
    slab.half_ios.iter().filter(|h| filter.takes(h.ts_ns, h.pid, h.cgroup_id)).for_each(&mut each);
    for io in &slab.ios {
        let begin_ns = io.insert_ns.unwrap_or(io.issue_ns);
        if filter.cuts(begin_ns, io.complete_ns, io.pid, io.cgroup_id) {
            let issue_ns = Some(io.issue_ns);
            let Io { dev, cmd_flags, pid, cgroup_id, .. } = *io;
            each(&HalfIo { ts_ns: begin_ns, issue_ns, dev, cmd_flags, pid, cgroup_id, why: Why::Open });
        }
    }
}

/// Counts them.
pub(super) fn count_half_ios(filter: &Filter, slab: &Slab, unpaired: &mut Unpaired) {
    half_ios(filter, slab, |half| unpaired.add(half.why));
}

impl Biolatency {
    fn new(flags: &Flags, filter: &Filter) -> Biolatency {
        Biolatency {
            filter: filter.clone(),
            unit: Unit::of(flags.has("milliseconds")),
            width: flags.width(),
            queued: flags.has("queued"),
            extension: flags.has("extension"),
            per: ["disks", "flags", "per-cgroup", "per-process"].map(|flag| flags.has(flag)),
            disk: flags.value("disk").map(Into::into),
            groups: BTreeMap::new(),
            unpaired: Unpaired::default(),
        }
    }

    /// The group of an I/O; `None` when its disk was not asked for.
    fn group(&mut self, meta: &Meta, dev: u32, cmd_flags: u32, cgroup_id: u64, pid: u32) -> Option<&mut Group> {
        let numbers = || format!("{}:{}", dev >> 20, dev & 0xf_ffff);
        if self.disk.as_ref().is_some_and(|disk| *disk != meta.disk(dev) && *disk != numbers()) {
            return None;
        }
        let [by_disk, by_flags, by_cgroup, by_process] = self.per;
        let key = Key {
            dev: by_disk.then_some(dev),
            cmd_flags: by_flags.then_some(cmd_flags),
            cgroup_id: by_cgroup.then_some(cgroup_id),
            pid: by_process.then_some(pid),
        };
        Some(self.groups.entry(key).or_default())
    }
}

impl Visitor for Biolatency {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Ios)
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        let filter = self.filter.clone();
        let (unit, queued) = (self.unit, self.queued);
        for io in &slab.ios {
            let done = filter.takes(io.complete_ns, io.pid, io.cgroup_id);
            let issued = filter.takes(io.issue_ns, io.pid, io.cgroup_id);
            if (done || issued)
                && let Some(group) = self.group(meta, io.dev, io.cmd_flags, io.cgroup_id, io.pid)
            {
                group.last_ns = io.issue_ns;
                group.issued += u64::from(issued);
                if done {
                    group.histogram.add(if queued { io.total_ns() } else { io.device_ns() }, unit);
                }
            }
        }
        half_ios(&filter, slab, |half| {
            if let Some(group) = self.group(meta, half.dev, half.cmd_flags, half.cgroup_id, half.pid) {
                group.last_ns = group.last_ns.max(half.ts_ns);
                group.unpaired.add(half.why);
                self.unpaired.add(half.why);
            }
        });
        for half in &slab.half_ios {
            if let Some(issue_ns) = half.issue_ns
                && filter.takes(issue_ns, half.pid, half.cgroup_id)
                && let Some(group) = self.group(meta, half.dev, half.cmd_flags, half.cgroup_id, half.pid)
            {
                group.issued += 1;
            }
        }
        Ok(())
    }
}

impl Report for Biolatency {
    fn text(&self, context: &Context<'_>, out: &mut String) {
        for (key, group) in &self.groups {
            let histogram = &group.histogram;
            if let Some(dev) = key.dev {
                let _ = write!(out, "\ndisk = {}\t", plain(&context.meta.disk(dev)));
            }
            if let Some(cmd_flags) = key.cmd_flags {
                let _ = write!(out, "flags = {}", flags_and_operation(cmd_flags));
            }
            if let Some(id) = key.cgroup_id {
                let _ = write!(out, "\ncgroup = {}", plain(&context.meta.cgroups.path(id)));
            }
            if let Some(pid) = key.pid {
                let _ = write!(out, "\npid = {pid} {}", plain(context.meta.tasks.comm(pid, group.last_ns)));
            }
            if self.per.contains(&true) {
                out.push('\n');
            }
            histogram.text(self.unit, self.width, out);
            if self.extension {
                let scale = if self.unit == Unit::Msecs { 1_000_000 } else { 1000 };
                let (total, count, unit) = (histogram.sum_ns / scale, histogram.count, self.unit.name());
                let average = total / count.max(1);
                let _ = writeln!(out, "\navg = {average} {unit}, total: {total} {unit}, count: {count}");
            }
            if self.extension || self.per.contains(&true) && group.unpaired.any() {
                let Group { issued, unpaired: Unpaired { no_start, open, lost }, .. } = group;
                let _ = write!(out, "\nissued: {issued}, completed: {}, did not end: {open}", histogram.count);
                for (n, what) in [(no_start, "began before"), (lost, "across a loss")] {
                    if *n > 0 {
                        let _ = write!(out, ", {what}: {n}");
                    }
                }
                out.push('\n');
            }
        }
    }

    fn json(&self, context: &Context<'_>) -> Value {
        let key = |key: &Key, last_ns: u64| {
            let mut map = Map::new();
            let mut put = |name: &str, value: Option<Value>| drop(value.map(|v| map.insert(name.into(), v)));
            put("disk", key.dev.map(|dev| context.meta.disk(dev).into()));
            put("flags", key.cmd_flags.map(|f| flags_and_operation(f).into()));
            put("cgroup", key.cgroup_id.map(|id| context.meta.cgroups.path(id).into()));
            put("cgroup_id", key.cgroup_id.map(Into::into));
            put("pid", key.pid.map(Into::into));
            put("comm", key.pid.map(|pid| context.meta.tasks.comm(pid, last_ns).into()));
            Value::Object(map)
        };
        // Without any grouping there is always one histogram, be it empty.
        let empty = Group::default();
        let none = (self.groups.is_empty() && !self.per.contains(&true)).then(|| (Value::Object(Map::new()), &empty));
        let groups: Vec<_> = self.groups.iter().map(|(k, g)| (key(k, g.last_ns), g)).chain(none).collect();
        let histograms = groups.iter().map(|(key, group)| (key.clone(), &group.histogram));
        let mut all = super::histograms_json(self.unit, histograms, &self.unpaired);
        for (i, (_, group)) in groups.iter().enumerate() {
            all["groups"][i]["issued"] = json!(group.issued);
            all["groups"][i]["unpaired"] = super::unpaired_json(&group.unpaired);
        }
        all
    }

    fn notes(&self, _: &Context<'_>) -> Vec<String> {
        super::unpaired_note("I/O", &self.unpaired).into_iter().collect()
    }
}
