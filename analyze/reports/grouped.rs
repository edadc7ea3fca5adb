//! Histograms of lengths of time, one in all or one a process, thread, pid namespace or cgroup: `-m -P -L`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::{Flag, Flags};
use crate::error::Result;
use crate::histogram::{Histogram, Unit};
use crate::meta::Meta;
use crate::sched::{Unpaired, Wait};
use crate::text::plain;

/// Flags of reports of such histograms.
pub(super) const MILLISECONDS: Flag = Flag::new(Some('m'), "milliseconds", "Millisecond histogram");
pub(super) const PIDS: Flag = Flag::new(Some('P'), "pids", "A histogram per process");
pub(super) const TIDS: Flag = Flag::new(Some('L'), "tids", "A histogram per thread");
pub(super) const PIDNSS: Flag = Flag::new(None, "pidnss", "A histogram per pid namespace");
pub(super) const PER_CGROUP: Flag = Flag::new(None, "per-cgroup", "A histogram per cgroup");

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

/// The histograms. Memory grows with groups.
pub(super) struct Grouped {
    unit: Unit,
    width: Option<usize>,
    by: By,
    groups: BTreeMap<u64, (Wait, Histogram)>,
    all: Histogram,
}

impl Grouped {
    /// As asked.
    pub(super) fn of(flags: &Flags) -> Result<Grouped> {
        flags.one_of(&["pids", "tids", "pidnss", "per-cgroup"])?;
        let asked =
            [("pids", By::Process), ("tids", By::Thread), ("pidnss", By::Namespace), ("per-cgroup", By::Cgroup)];
        let by = asked.into_iter().find(|(flag, _)| flags.has(flag)).map_or(By::All, |(_, by)| by);
        let unit = Unit::of(flags.has("milliseconds"));
        Ok(Grouped { unit, width: flags.width(), by, groups: BTreeMap::new(), all: Histogram::default() })
    }

    /// Adds a length of time.
    pub(super) fn add(&mut self, meta: &Meta, wait: &Wait) {
        if self.by == By::All {
            self.all.add(wait.dur_ns, self.unit);
            return;
        }
        let key = self.key(meta, wait);
        let (last, histogram) = self.groups.entry(key).or_insert_with(|| (*wait, Histogram::default()));
        // A group bears the name that it had last: a process that execs is what it became.
        *last = *wait;
        histogram.add(wait.dur_ns, self.unit);
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

    /// As libbpf-tools print them.
    pub(super) fn text(&self, meta: &Meta, out: &mut String) {
        self.all.text(self.unit, self.width, out);
        for (key, (last, histogram)) in &self.groups {
            let label = self.label(meta, last);
            let label = plain(&label);
            let _ = match self.by {
                By::Cgroup => writeln!(out, "\ncgroup = {label}"),
                By::Namespace => writeln!(out, "\npidns = {key} {label}"),
                by => writeln!(out, "\n{} = {key} {label}", by.key()),
            };
            histogram.text(self.unit, self.width, out);
        }
    }

    /// `unit`, `groups` and `unpaired`.
    pub(super) fn json(&self, meta: &Meta, unpaired: &Unpaired) -> Value {
        let key = |key: u64, label: &str| match self.by {
            By::Cgroup => json!({"cgroup": label, "cgroup_id": key}),
            by => json!({by.key(): key, "comm": label}),
        };
        let groups = self.groups.iter().map(|(k, (last, h))| (key(*k, &self.label(meta, last)), h));
        let all = (self.by == By::All).then_some((json!({}), &self.all));
        super::histograms_json(self.unit, groups.chain(all), unpaired)
    }
}
