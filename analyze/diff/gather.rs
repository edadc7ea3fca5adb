//! Gathers one side, in one pass: lengths of waits and sums by who and by stack, stretch by stretch.

use std::hash::Hash;

use bpfrec_format::Source;
use rustc_hash::FxHashMap;

use super::stretches::Stretches;
use crate::error::Result;
use crate::filter::Filter;
use crate::histogram::{Histogram, Quantiles, Unit};
use crate::meta::Meta;
use crate::offcpu::{self, What};
use crate::pipeline::{Need, Visitor};
use crate::reports::stack_lines::{Names, Pair};
use crate::slab::Slab;
use crate::tasks::Task;

/// What waits are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Waiting {
    Cpu,
    Disk,
    Event,
}

impl Waiting {
    /// All of them, in the order of `Gather::lengths`.
    pub(super) const ALL: [Waiting; 3] = [Waiting::Cpu, Waiting::Disk, Waiting::Event];

    /// Who records it.
    pub(super) fn source(self) -> Source {
        match self {
            Waiting::Cpu => Source::Sched,
            Waiting::Disk => Source::Block,
            Waiting::Event => Source::Offcpu,
        }
    }
}

/// Lengths of waits of one stretch.
#[derive(Clone, Default)]
pub(super) struct Lengths {
    pub(super) histogram: Histogram,
    pub(super) quantiles: Quantiles,
}

impl Lengths {
    fn add(&mut self, ns: u64) {
        self.histogram.add(ns, Unit::Usecs);
        self.quantiles.add(ns);
    }
}

/// Whose something is. Processes go by their names: pids of two traces have nothing in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Who {
    Cgroup(u64),
    Process(u32),
}

/// What was on the stack, of a thread of that name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StackKey {
    pub(super) pid: u32,
    pub(super) comm: u32,
    pub(super) stacks: Pair,
    /// What the time off the CPU was.
    pub(super) what: What,
}

/// Sums by key and stretch. Memory grows with both.
pub(super) struct Sums<K>(pub(super) FxHashMap<(K, u32), u64>);

impl<K: Eq + Hash> Sums<K> {
    fn add(&mut self, key: K, stretch: usize, amount: u64) {
        *self.0.entry((key, stretch as u32)).or_default() += amount;
    }
}

impl<K> Default for Sums<K> {
    fn default() -> Self {
        Sums(FxHashMap::default())
    }
}

/// One side.
pub(super) struct Gather {
    filter: Filter,
    pub(super) stretches: Stretches,
    /// By [`Waiting`], then by stretch.
    pub(super) lengths: [Vec<Lengths>; 3],
    /// Nanoseconds on a CPU.
    pub(super) cpu: Sums<Who>,
    /// Nanoseconds of waiting for a CPU.
    pub(super) queued: Sums<Who>,
    /// Requests to block devices.
    pub(super) requests: Sums<Who>,
    /// CPU samples.
    pub(super) sampled: Sums<Who>,
    /// The same by stack.
    pub(super) samples: Sums<StackKey>,
    /// Nanoseconds off the CPU, of threads of programs.
    pub(super) off: Sums<StackKey>,
    /// Waits that this is of, in the stretches in which they end or the trace does.
    pub(super) waits: Sums<StackKey>,
    pub(super) comms: Names,
}

impl Gather {
    /// Of a part of a trace.
    pub(super) fn new(filter: &Filter, stretches: Stretches) -> Gather {
        let lengths = || vec![Lengths::default(); stretches.count];
        Gather {
            filter: filter.clone(),
            stretches,
            lengths: [lengths(), lengths(), lengths()],
            cpu: Sums::default(),
            queued: Sums::default(),
            requests: Sums::default(),
            sampled: Sums::default(),
            samples: Sums::default(),
            off: Sums::default(),
            waits: Sums::default(),
            comms: Names::default(),
        }
    }

    fn who(&mut self, meta: &Meta, cgroup_id: u64, pid: u32, ts_ns: u64) -> [Who; 2] {
        [Who::Cgroup(cgroup_id), Who::Process(self.comms.of(&meta.tasks, pid, ts_ns))]
    }

    fn sched(&mut self, meta: &Meta, slab: &Slab) {
        for w in slab.waits.iter() {
            if let Some(stretch) = self.stretches.at(w.ts_ns)
                && self.filter.takes(w.ts_ns, w.pid, w.cgroup_id)
            {
                self.lengths[Waiting::Cpu as usize][stretch].add(w.dur_ns);
                for who in self.who(meta, w.cgroup_id, w.pid, w.ts_ns) {
                    self.queued.add(who, stretch, w.dur_ns);
                }
            }
        }
        for s in &slab.slices {
            // As the summary does: the part of a slice that lies in the window was spent in it.
            let (from, to) = (s.ts_ns.max(self.filter.from_ns), (s.ts_ns + s.dur_ns).min(self.filter.to_ns));
            if from < to && self.filter.takes(from, s.pid, s.cgroup_id) {
                for who in self.who(meta, s.cgroup_id, s.pid, s.ts_ns) {
                    let cpu = &mut self.cpu;
                    self.stretches.split(from, to, |stretch, ns| cpu.add(who, stretch, ns));
                }
            }
        }
    }

    fn block(&mut self, meta: &Meta, slab: &Slab) {
        for io in &slab.ios {
            if let Some(stretch) = self.stretches.at(io.complete_ns)
                && self.filter.takes(io.complete_ns, io.pid, io.cgroup_id)
            {
                self.lengths[Waiting::Disk as usize][stretch].add(io.device_ns());
                for who in self.who(meta, io.cgroup_id, io.pid, io.issue_ns) {
                    self.requests.add(who, stretch, 1);
                }
            }
        }
    }

    fn profile(&mut self, meta: &Meta, slab: &Slab) {
        let Some(table) = slab.table("cpu_sample") else { return };
        let (tid, pid, cgroup) = (table.ints("tid"), table.ints("pid"), table.ints("cgroup_id"));
        let (kernel, user) = (table.ints("kernel_stack_id"), table.ints("user_stack_id"));
        for row in 0..table.rows() {
            let (ts, pid) = (table.ts[row], pid.get32(row));
            let Some(stretch) = self.stretches.at(ts) else { continue };
            if !self.filter.takes(ts, pid, cgroup.get(row)) {
                continue;
            }
            let comm = self.comms.of(&meta.tasks, tid.get32(row), ts);
            let stacks = Pair { kernel: kernel.get(row), user: user.get(row) };
            self.samples.add(StackKey { pid, comm, stacks, what: What::Wait }, stretch, 1);
            for who in self.who(meta, cgroup.get(row), pid, ts) {
                self.sampled.add(who, stretch, 1);
            }
        }
    }

    /// As `offcputime -u`: kernel threads wait for work nearly all of the time, and would hide all else.
    fn off(&mut self, meta: &Meta, slab: &Slab) {
        for off in offcpu::of_slab(slab) {
            let kernel = || meta.tasks.at(off.pid, off.end_ns).is_some_and(Task::is_kernel);
            if !self.filter.takes_task(off.pid, off.cgroup_id) || kernel() {
                continue;
            }
            let comm = self.comms.of(&meta.tasks, off.tid, off.end_ns);
            let ends = self.stretches.at(off.end_ns).filter(|_| self.filter.takes_end(off.end_ns));
            let mut key = StackKey { pid: off.pid, comm, stacks: Pair::default(), what: off.what };
            if off.what == What::Short {
                // Told as a sum, at one moment.
                if let Some(stretch) = ends {
                    self.off.add(key, stretch, off.wait_ns);
                    self.waits.add(key, stretch, off.count.into());
                }
                continue;
            }
            key.stacks = Pair { kernel: off.kernel, user: off.user };
            let (from, to) = (off.start_ns().max(self.filter.from_ns), off.end_ns.min(self.filter.to_ns));
            let sums = &mut self.off;
            let mut last = None;
            self.stretches.split(from, to, |stretch, ns| {
                sums.add(key, stretch, ns);
                last = Some(stretch);
            });
            if let Some(stretch) = last {
                self.waits.add(key, stretch, 1);
            }
            if let Some(stretch) = ends.filter(|_| off.what == What::Wait) {
                self.lengths[Waiting::Event as usize][stretch].add(off.wait_ns);
            }
        }
    }
}

impl Visitor for Gather {
    fn wants(&self, need: &Need<'_>) -> bool {
        let sampled = ["tid", "pid", "kernel_stack_id", "user_stack_id", "cgroup_id"];
        match need {
            Need::Waits | Need::Slices | Need::Ios => true,
            Need::Lives => false,
            Need::Field(kind, field) if kind.name == "cpu_sample" => sampled.contains(field),
            Need::Field(kind, field) => offcpu::has(&kind.name) && !field.starts_with("waker_"),
        }
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        self.sched(meta, slab);
        self.block(meta, slab);
        self.profile(meta, slab);
        self.off(meta, slab);
        Ok(())
    }
}
