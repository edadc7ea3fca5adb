//! `biolatency`: how long block I/O took.

use std::collections::BTreeMap;
use std::fmt::Write;

use bpfrec_format::Source;
use serde_json::{Map, Value};

use super::{Context, Flag, Flags, Report, ReportKind};
use crate::block_io::{Io, flags_and_operation};
use crate::error::Result;
use crate::filter::Filter;
use crate::histogram::{Histogram, Unit};
use crate::meta::Meta;
use crate::pipeline::{Need, Visitor};
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
        Flag::new(Some('e'), "extension", "Also average, total and count"),
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
    queued: bool,
    extension: bool,
    per: [bool; 4],
    disk: Option<String>,
    /// The name is that of the process.
    /// With the last issue, for the name that the process had then.
    groups: BTreeMap<Key, (u64, Histogram)>,
}

impl Biolatency {
    fn new(flags: &Flags, filter: &Filter) -> Biolatency {
        Biolatency {
            filter: filter.clone(),
            unit: Unit::of(flags.has("milliseconds")),
            queued: flags.has("queued"),
            extension: flags.has("extension"),
            per: ["disks", "flags", "per-cgroup", "per-process"].map(|flag| flags.has(flag)),
            disk: flags.value("disk").map(Into::into),
            groups: BTreeMap::new(),
        }
    }

    fn key(&self, io: &Io) -> Key {
        let [disk, flags, cgroup, process] = self.per;
        Key {
            dev: disk.then_some(io.dev),
            cmd_flags: flags.then_some(io.cmd_flags),
            cgroup_id: cgroup.then_some(io.cgroup_id),
            pid: process.then_some(io.pid),
        }
    }

    fn is_of_disk(&self, meta: &Meta, io: &Io) -> bool {
        let numbers = || format!("{}:{}", io.dev >> 20, io.dev & 0xf_ffff);
        self.disk.as_ref().is_none_or(|disk| *disk == meta.disk(io.dev) || *disk == numbers())
    }
}

impl Visitor for Biolatency {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Ios)
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        for io in slab.ios.iter().filter(|io| self.filter.takes(io.complete_ns, io.pid, io.cgroup_id)) {
            if !self.is_of_disk(meta, io) {
                continue;
            }
            let (key, ns) = (self.key(io), if self.queued { io.total_ns() } else { io.device_ns() });
            let (last_ns, histogram) = self.groups.entry(key).or_default();
            *last_ns = io.issue_ns;
            histogram.add(ns, self.unit);
        }
        Ok(())
    }
}

impl Report for Biolatency {
    fn text(&self, context: &Context<'_>, out: &mut String) {
        for (key, (last_ns, histogram)) in &self.groups {
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
                let _ = write!(out, "\npid = {pid} {}", plain(context.meta.tasks.comm(pid, *last_ns)));
            }
            if self.per.contains(&true) {
                out.push('\n');
            }
            histogram.text(self.unit, out);
            if self.extension {
                let scale = if self.unit == Unit::Msecs { 1_000_000 } else { 1000 };
                let (total, count, unit) = (histogram.sum_ns / scale, histogram.count, self.unit.name());
                let average = total / count.max(1);
                let _ = writeln!(out, "\navg = {average} {unit}, total: {total} {unit}, count: {count}");
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
        let empty = Histogram::default();
        let none = (self.groups.is_empty() && !self.per.contains(&true)).then(|| (Value::Object(Map::new()), &empty));
        let groups = self.groups.iter().map(|(k, (last_ns, histogram))| (key(k, *last_ns), histogram));
        super::histograms_json(self.unit, groups.chain(none), &context.reading.unpaired_ios)
    }

    fn notes(&self, context: &Context<'_>) -> Vec<String> {
        super::unpaired_note("I/O", &context.reading.unpaired_ios).into_iter().collect()
    }
}
