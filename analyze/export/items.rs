//! What happened, one item after the other in the order of ends, for formats that follow time.
//!
//! What lasts beyond the window is clipped to it where the reports clip it (time on and off the CPU); waits for a CPU and
//! block I/O belong whole to the moment in which they end, as in `runqlat` and `biolatency`. Losses come last.

use bpfrec_format::Source;
use rustc_hash::FxHashMap;

use super::scene::{Lost, Scene};
use crate::block_io::Io;
use crate::damage::Damage;
use crate::error::Result;
use crate::filter::Filter;
use crate::memory::Life;
use crate::meta::Meta;
use crate::offcpu::{self, Off, state_name};
use crate::pipeline::{Need, Visitor};
use crate::sched::Wait;
use crate::sched_off;
use crate::slab::Slab;
use crate::text::{count, duration};

/// What a format shows of a trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Takes {
    /// Threads on and off the CPU and in the run queue.
    pub states: bool,
    /// Waits without their stacks, where source `offcpu` was not recorded.
    pub waits_of_switches: bool,
    /// Block I/O.
    pub io: bool,
    /// CPU samples.
    pub samples: bool,
    /// Allocations.
    pub memory: bool,
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// Begin, CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
    /// Thread.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// Its cgroup.
    pub cgroup_id: u64,
    /// What it was.
    pub what: What,
}

/// What an [`Item`] is.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// The thread waited for a CPU, to which it came. `waker`: the thread that woke it, where one did.
    Runnable { cpu: u32, waker: Option<u32> },
    /// The thread ran. `end`: kernel state in which it left and whether it was preempted; `None` when the trace ended first, or
    /// the window.
    Running { cpu: u32, end: Option<(u32, bool)> },
    /// The thread was off the CPU.
    Off(Off),
    /// A request.
    Io(Io),
    /// A CPU sample.
    Sample { cpu: u32, kernel: u64, user: u64 },
    /// Memory; the end is that of the trace or window while it lives.
    Memory(Life),
}

impl What {
    /// The order of items that end at the same moment.
    fn rank(&self) -> u8 {
        match self {
            What::Runnable { .. } => 0,
            What::Running { .. } => 1,
            What::Off(_) => 2,
            What::Io(_) => 3,
            What::Sample { .. } => 4,
            What::Memory(_) => 5,
        }
    }
}

/// How a thread left the CPU.
pub(super) fn left(end: Option<(u32, bool)>) -> &'static str {
    match end {
        None => "",
        Some((_, true)) => "preempted",
        Some((state, false)) if state & 0x80 != 0 => "dead",
        Some((state, false)) => state_name(state),
    }
}

/// A format that is written while items come.
pub(super) trait Sink: Send {
    /// The next item.
    fn item(&mut self, item: &Item) -> Result<()>;
    /// A stretch of time in which events are missing; these come last.
    fn lost(&mut self, lost: &Lost) -> Result<()>;
    /// The end; what could not be shown, a sentence each.
    fn end(&mut self) -> Result<Vec<String>>;
}

/// Makes items of slabs.
pub(super) struct InTime<'a> {
    scene: &'a Scene<'a>,
    takes: Takes,
    sink: Box<dyn Sink + 'a>,
    /// Waits of threads out of switches.
    pairing: Option<sched_off::Pairing>,
    has_offcpu: bool,
    /// Moment and waker of the last wakeup of a thread that did not yet come to a CPU.
    woken: FxHashMap<u32, (u64, u32)>,
    items: Vec<Item>,
    /// Short waits, of which only sums are known, and their time.
    short: (u64, u64),
    /// What ended before the recording's start: the probes come first.
    before: u64,
}

impl<'a> InTime<'a> {
    pub(super) fn new(scene: &'a Scene<'a>, takes: Takes, sink: Box<dyn Sink + 'a>) -> Self {
        let has_offcpu = scene.meta.has_source(Source::Offcpu);
        let from_switches = takes.waits_of_switches && !has_offcpu;
        let pairing = from_switches.then(|| sched_off::Pairing::new(scene.meta, scene.filter));
        InTime {
            scene,
            takes,
            sink,
            pairing,
            has_offcpu,
            woken: FxHashMap::default(),
            items: Vec::new(),
            short: (0, 0),
            before: 0,
        }
    }

    /// Up to which moment events are needed: what began in the window may be told after it.
    pub(super) fn until_ns(&self) -> u64 {
        let ends_later = self.takes.states || self.has_offcpu || self.takes.memory;
        if ends_later { u64::MAX } else { self.scene.filter.to_ns }
    }

    /// Gives the losses and ends. What could not be shown is told.
    pub(super) fn finish(mut self, damage: &Damage) -> Result<Vec<String>> {
        for lost in self.scene.losses(damage) {
            self.sink.lost(&lost)?;
        }
        let mut notes = self.sink.end()?;
        let (waits, ns) = self.short;
        if waits > 0 {
            notes.push(format!(
                "{} waits of {} in all were recorded as sums only (record --min-wait): they have no place in time",
                count(waits),
                duration(ns)
            ));
        }
        if self.before > 0 {
            let before = count(self.before);
            notes.push(format!("{before} waits ended before the recording began and are left out"));
        }
        Ok(notes)
    }

    /// Waits for a CPU, each with the wakeup that began it.
    fn waits(&mut self, slab: &Slab) {
        let tables = ["sched_wakeup", "sched_wakeup_new"].map(|name| {
            let table = slab.table(name)?;
            Some((table, table.ints("tid"), table.ints("waker_tid")))
        });
        let mut at = [0; 2];
        let mut until = |ts_ns: u64, woken: &mut FxHashMap<u32, (u64, u32)>| {
            for (table, at) in tables.iter().zip(&mut at) {
                let Some((table, tid, waker)) = table else { continue };
                while *at < table.rows() && table.ts[*at] <= ts_ns {
                    woken.insert(tid.get32(*at), (table.ts[*at], waker.get32(*at)));
                    *at += 1;
                }
            }
        };
        for wait in &slab.waits {
            until(wait.ts_ns, &mut self.woken);
            let Wait { ts_ns, dur_ns, tid, pid, cpu, cgroup_id } = *wait;
            let start_ns = ts_ns - dur_ns;
            let woken = self.woken.remove(&tid).filter(|(at, waker)| *at == start_ns && *waker != 0);
            if self.scene.filter.takes(ts_ns, pid, cgroup_id) {
                let what = What::Runnable { cpu, waker: woken.map(|(_, waker)| waker) };
                self.items.push(Item { start_ns, end_ns: ts_ns, tid, pid, cgroup_id, what });
            }
        }
        until(u64::MAX, &mut self.woken);
    }

    fn off(&mut self, off: &Off) {
        let filter = self.scene.filter;
        if !filter.takes_task(off.pid, off.cgroup_id) {
            return;
        }
        if off.what == offcpu::What::Short {
            if filter.takes_end(off.end_ns) {
                self.short = (self.short.0 + u64::from(off.count), self.short.1.saturating_add(off.wait_ns));
            }
            return;
        }
        if let Some((start_ns, end_ns)) = filter.part(off.start_ns(), off.end_ns) {
            let Off { tid, pid, cgroup_id, .. } = *off;
            self.items.push(Item { start_ns, end_ns, tid, pid, cgroup_id, what: What::Off(*off) });
        } else if filter.takes_end(off.end_ns) {
            self.before += 1;
        }
    }

    fn memory(&mut self, slab: &Slab) {
        let (filter, (_, last_ns)) = (self.scene.filter, self.scene.ends());
        for life in slab.lives.iter().filter(|l| filter.takes(l.ts_ns, l.pid, l.cgroup_id)) {
            let Life { ts_ns, tid, pid, cgroup_id, .. } = *life;
            let life = Life { end: life.end.filter(|end| end.ts_ns <= last_ns), ..*life };
            let end_ns = life.end.map_or(last_ns, |end| end.ts_ns);
            self.items.push(Item { start_ns: ts_ns, end_ns, tid, pid, cgroup_id, what: What::Memory(life) });
        }
    }

    fn samples(&mut self, slab: &Slab) {
        let Some(table) = slab.table("cpu_sample") else { return };
        let [tid, pid, cgroup] = ["tid", "pid", "cgroup_id"].map(|name| table.ints(name));
        let [kernel, user] = ["kernel_stack_id", "user_stack_id"].map(|name| table.ints(name));
        for row in 0..table.rows() {
            let (ts_ns, pid, cgroup_id) = (table.ts[row], pid.get32(row), cgroup.get(row));
            if self.scene.filter.takes(ts_ns, pid, cgroup_id) {
                let what = What::Sample { cpu: table.cpu[row], kernel: kernel.get(row), user: user.get(row) };
                self.items.push(Item { start_ns: ts_ns, end_ns: ts_ns, tid: tid.get32(row), pid, cgroup_id, what });
            }
        }
    }
}

impl Visitor for InTime<'_> {
    fn wants(&self, need: &Need<'_>) -> bool {
        let Takes { states, io, samples, memory, .. } = self.takes;
        match need {
            Need::Waits | Need::Slices => states,
            Need::Ios => io,
            Need::Lives => memory,
            Need::Field(kind, field) => {
                let sample = ["tid", "pid", "kernel_stack_id", "user_stack_id", "cgroup_id"].contains(field);
                samples && kind.name == "cpu_sample" && sample
                    || (states || self.takes.waits_of_switches || samples) && offcpu::has(&kind.name)
                    || states && kind.name.starts_with("sched_wakeup") && ["tid", "waker_tid"].contains(field)
                    || self.pairing.is_some() && sched_off::wants(&kind.name, field, false)
            }
        }
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        let filter: &Filter = self.scene.filter;
        self.waits(slab);
        for s in slab.slices.iter().filter(|s| filter.takes_task(s.pid, s.cgroup_id)) {
            // As in the summary: also what ran before the recorder was ready counts.
            let until_ns = s.ts_ns + s.dur_ns;
            let (start_ns, end_ns) = (s.ts_ns.max(filter.from_ns), until_ns.min(filter.to_ns));
            if start_ns < end_ns || start_ns == end_ns && s.dur_ns == 0 {
                let what = What::Running { cpu: s.cpu, end: s.end.filter(|_| end_ns == until_ns) };
                self.items.push(Item { start_ns, end_ns, tid: s.tid, pid: s.pid, cgroup_id: s.cgroup_id, what });
            }
        }
        match &mut self.pairing {
            Some(pairing) => pairing.slab(meta, slab).iter().for_each(|off| self.off(off)),
            None => offcpu::of_slab(slab).for_each(|off| self.off(&off)),
        }
        for io in slab.ios.iter().filter(|io| filter.takes(io.complete_ns, io.pid, io.cgroup_id)) {
            let start_ns = io.insert_ns.unwrap_or(io.issue_ns);
            let Io { complete_ns: end_ns, tid, pid, cgroup_id, .. } = *io;
            self.items.push(Item { start_ns, end_ns, tid, pid, cgroup_id, what: What::Io(*io) });
        }
        self.samples(slab);
        self.memory(slab);
        // Stable: what ends at the same moment stays in the order of its kind.
        self.items.sort_by_key(|item| (item.end_ns, item.what.rank()));
        for item in self.items.drain(..) {
            // Where time runs backwards, what ends before it begins has no length.
            let start_ns = item.start_ns.min(item.end_ns);
            self.sink.item(&Item { start_ns, ..item })?;
        }
        Ok(())
    }
}
