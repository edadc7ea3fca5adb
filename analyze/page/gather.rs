//! Gathers what the page shows, in one pass, in bounded memory.

use super::bins::Bins;
use super::cells::{Amount, Cell, Cells, Length, Numbers};
use super::groups::{Grain, Groups};
use super::steps;
use crate::error::Result;
use crate::filter::Filter;
use crate::memory::{Fate, Life, op};
use crate::meta::Meta;
use crate::offcpu::{self, What};
use crate::pipeline::{Need, Visitor};
use crate::slab::Slab;

/// Sums of one kind that are kept; more are told together. About 40 bytes each.
const MOST_CELLS: usize = 1 << 19;
/// Bins below which time is not told more coarsely.
const FEWEST_BINS: u32 = 20;
/// The bin in which memory that still lives is freed.
pub(super) const NEVER: u16 = u16::MAX;

/// What a latency is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Class {
    /// Waiting for a CPU.
    RunQueue,
    /// An operation of a block device.
    Io { dev: u32, op: u8 },
}

/// What was on the stack, and why that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StackKey {
    pub(super) kernel: u64,
    pub(super) user: u64,
    pub(super) pid: u32,
    pub(super) of: Of,
}

/// What a stack is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Of {
    Sample,
    Wait(What),
    Memory(u8),
}

/// Sums. What they are by stands in [`Cell`].
#[derive(Clone)]
pub(super) struct Gather {
    pub(super) filter: Filter,
    pub(super) bins: Bins,
    pub(super) groups: Groups,
    pub(super) classes: Numbers<Class>,
    pub(super) stacks: Numbers<StackKey>,
    pub(super) cpu: Cells<u64>,
    pub(super) latency: Cells<u64>,
    pub(super) lengths: Cells<Length>,
    pub(super) samples: Cells<u64>,
    /// Nanoseconds, waits.
    pub(super) waits: Cells<Amount>,
    /// Thousandths of bytes, thousandths of allocations.
    pub(super) memory: Cells<Amount>,
    /// Of the recording: bins are counted from there.
    start_ns: u64,
    most_cells: usize,
}

impl Gather {
    /// Of a part of a trace.
    pub(super) fn new(meta: &Meta, filter: &Filter) -> Gather {
        let (from, to) = (filter.from_ns.max(meta.first_ns), filter.to_ns.min(meta.end_ns));
        Gather {
            filter: filter.clone(),
            bins: Bins::new(meta.start_ns, from, to),
            groups: Groups::default(),
            classes: Numbers::default(),
            stacks: Numbers::default(),
            cpu: Cells::default(),
            latency: Cells::default(),
            lengths: Cells::default(),
            samples: Cells::default(),
            waits: Cells::default(),
            memory: Cells::default(),
            start_ns: meta.start_ns,
            most_cells: MOST_CELLS,
        }
    }

    /// Whether time or groups can be told more coarsely; does so. Time first: names matter more.
    pub(super) fn coarser(&mut self) -> bool {
        if self.bins.count > FEWEST_BINS {
            let (old, new) = (self.bins, self.bins.halved(self.start_ns));
            self.bins = new;
            let bin = |bin: u16| new.at(old.begin_ns(bin).max(new.origin_ns));
            let to = |cell: Cell| Cell { bin: bin(cell.bin), ..cell };
            self.map(to);
            self.memory.map(|cell| if cell.more == NEVER { cell } else { Cell { more: bin(cell.more), ..cell } });
            return true;
        }
        if self.groups.grain == Grain::Cgroup {
            return false;
        }
        let numbers = self.groups.coarser();
        self.map(|cell| Cell { group: numbers[cell.group as usize], ..cell });
        true
    }

    fn map(&mut self, to: impl Fn(Cell) -> Cell + Copy) {
        self.cpu.map(to);
        self.latency.map(to);
        self.lengths.map(to);
        self.samples.map(to);
        self.waits.map(to);
        self.memory.map(to);
    }

    fn most(&self) -> usize {
        let lens = [self.cpu.len(), self.latency.len(), self.lengths.len(), self.samples.len()];
        lens.into_iter().chain([self.waits.len(), self.memory.len()]).max().unwrap_or(0)
    }

    fn latency(&mut self, class: Class, group: u32, ts_ns: u64, ns: u64) {
        let cell = Cell { what: self.classes.of(class), group, bin: self.bins.at(ts_ns), more: 0 };
        self.lengths.add(cell, Length { ns, max_ns: ns });
        self.latency.add(Cell { more: steps::step(ns), ..cell }, 1);
    }

    fn cpu_time(&mut self, meta: &Meta, slab: &Slab) {
        for s in &slab.slices {
            // As the summary does: the part of a slice that lies in the window was spent in it.
            let (from, to) =
                (s.ts_ns.max(self.filter.from_ns), s.ts_ns.saturating_add(s.dur_ns).min(self.filter.to_ns));
            if from < to && self.filter.takes(from, s.pid, s.cgroup_id) {
                let group = self.groups.seen(meta, s.cgroup_id, s.pid, s.tid, s.ts_ns);
                self.groups.all[group as usize].cpu_ns += to - from;
                let cpu = &mut self.cpu;
                self.bins.split(from, to, |bin, ns| cpu.add(Cell { what: 0, group, bin, more: 0 }, ns));
            }
        }
    }

    fn samples(&mut self, meta: &Meta, slab: &Slab) {
        let Some(table) = slab.table("cpu_sample") else { return };
        let (tid, pid, cgroup) = (table.ints("tid"), table.ints("pid"), table.ints("cgroup_id"));
        let (kernel, user) = (table.ints("kernel_stack_id"), table.ints("user_stack_id"));
        for row in 0..table.rows() {
            let (ts, pid, cgroup) = (table.ts[row], pid.get32(row), cgroup.get(row));
            if self.filter.takes(ts, pid, cgroup) {
                let group = self.groups.seen(meta, cgroup, pid, tid.get32(row), ts);
                let (kernel, user) = (kernel.get(row), user.get(row));
                let what = self.stacks.of(StackKey { kernel, user, pid, of: Of::Sample });
                self.samples.add(Cell { what, group, bin: self.bins.at(ts), more: 0 }, meta.sheds.weight(ts));
            }
        }
    }

    /// As `offcputime`: time in a window is the part in it, a wait is counted where it ends, behind an edge.
    fn off(&mut self, meta: &Meta, slab: &Slab) {
        for off in offcpu::of_slab(slab) {
            if !self.filter.takes_task(off.pid, off.cgroup_id) {
                continue;
            }
            let ends = self.filter.takes_end(off.end_ns);
            let ends_in = self.bins.at(off.end_ns.saturating_sub(1));
            let from = off.start_ns().max(self.filter.from_ns).max(meta.first_ns);
            let to = off.end_ns.min(self.filter.to_ns);
            if !ends && (off.what == What::Short || from >= to) {
                continue;
            }
            let group = self.groups.seen(meta, off.cgroup_id, off.pid, off.tid, off.end_ns);
            let (kernel, user) = if off.what == What::Short { (0, 0) } else { (off.kernel, off.user) };
            let what = self.stacks.of(StackKey { kernel, user, pid: off.pid, of: Of::Wait(off.what) });
            let waits = &mut self.waits;
            let cell = |bin| Cell { what, group, bin, more: 0 };
            if off.what == What::Short {
                waits.add(cell(ends_in), Amount { much: off.wait_ns, times: off.count.into() });
                continue;
            }
            self.bins.split(from, to, |bin, ns| waits.add(cell(bin), Amount { much: ns, times: 0 }));
            if ends {
                waits.add(cell(ends_in), Amount { much: 0, times: 1 });
            }
        }
    }

    fn life(&mut self, meta: &Meta, life: &Life) {
        if !self.filter.takes(life.ts_ns, life.pid, life.cgroup_id) {
            return;
        }
        let group = self.groups.seen(meta, life.cgroup_id, life.pid, life.tid, life.ts_ns);
        let (kernel, user) = if op::is_kernel(life.op) { (life.stack_id, 0) } else { (0, life.stack_id) };
        let pid = if op::is_kernel(life.op) { 0 } else { life.pid };
        let what = self.stacks.of(StackKey { kernel, user, pid, of: Of::Memory(life.op) });
        // What a process had when it ended was never freed.
        let freed = life.end.filter(|end| end.fate != Fate::Exit && end.ts_ns <= self.filter.to_ns);
        let more = freed.map_or(NEVER, |end| self.bins.at(end.ts_ns));
        let weight = u64::from(life.weight_milli);
        let times = if life.part { 0 } else { weight };
        let amount = Amount { much: life.bytes.saturating_mul(weight), times };
        self.memory.add(Cell { what, group, bin: self.bins.at(life.ts_ns), more }, amount);
    }
}

impl Visitor for Gather {
    fn wants(&self, need: &Need<'_>) -> bool {
        let sampled = ["tid", "pid", "kernel_stack_id", "user_stack_id", "cgroup_id"];
        match need {
            Need::Waits | Need::Slices | Need::Ios | Need::Lives => true,
            Need::Field(kind, field) if kind.name == "cpu_sample" => sampled.contains(field),
            Need::Field(kind, field) => offcpu::has(&kind.name) && !field.starts_with("waker_"),
        }
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        for w in &slab.waits {
            if self.filter.takes(w.ts_ns, w.pid, w.cgroup_id) {
                let group = self.groups.seen(meta, w.cgroup_id, w.pid, w.tid, w.ts_ns);
                self.latency(Class::RunQueue, group, w.ts_ns, w.dur_ns);
            }
        }
        for io in &slab.ios {
            if self.filter.takes(io.complete_ns, io.pid, io.cgroup_id) {
                let group = self.groups.seen(meta, io.cgroup_id, io.pid, io.tid, io.complete_ns);
                let class = Class::Io { dev: io.dev, op: io.cmd_flags as u8 };
                self.latency(class, group, io.complete_ns, io.device_ns());
            }
        }
        self.cpu_time(meta, slab);
        self.samples(meta, slab);
        self.off(meta, slab);
        slab.lives.iter().for_each(|life| self.life(meta, life));
        while self.most() > self.most_cells && self.coarser() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::Wait;

    const S: u64 = 1_000_000_000;

    #[test]
    fn too_many_sums_are_told_together_and_none_is_lost() {
        let meta = Meta { end_ns: 100 * S, ..Meta::default() };
        let mut gather = Gather::new(&meta, &Filter::everything(&meta));
        gather.most_cells = 500;
        assert_eq!(gather.bins.count, 200);
        let (mut sum, mut count) = (0, 0);
        for round in 0..50u32 {
            let wait = |i: u32| Wait {
                ts_ns: u64::from(round * 2 + i % 2) * S + u64::from(i),
                dur_ns: u64::from(i * i * 977),
                tid: round * 100 + i,
                pid: i / 10,
                cpu: 0,
                cgroup_id: u64::from(i % 3),
            };
            let slab = Slab { waits: (0..100).map(wait).collect(), ..Slab::default() };
            (sum, count) = (sum + slab.waits.iter().map(|w| w.dur_ns).sum::<u64>(), count + 100);
            gather.slab(&meta, &slab).unwrap();
        }
        assert!(gather.bins.count <= 25 && gather.groups.grain > Grain::Thread);
        assert!(gather.groups.all.len() < 100, "{}", gather.groups.all.len());
        assert_eq!((gather.latency.total(), gather.lengths.total().ns), (count, sum));
        let times = gather.latency.iter().all(|(cell, _)| u32::from(cell.bin) < gather.bins.count);
        assert!(times && gather.lengths.total().max_ns == 99 * 99 * 977);
    }
}
