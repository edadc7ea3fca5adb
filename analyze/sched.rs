//! Waits for a CPU and stretches on a CPU, out of wakeups and switches.
//!
//! A wait begins when a thread is woken or leaves its CPU while still runnable, and ends when it comes to a CPU, as in
//! libbpf-tools' `runqlat`: a second wakeup before that begins the wait anew. State: one number a live thread and CPU.

use rustc_hash::FxHashMap;

use crate::losses::Spans;
use crate::recorded::Recorded;
use crate::slab::{EventTable, Slab};
use crate::view::Ints;

/// A thread's wait for a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// End of the wait, CLOCK_MONOTONIC.
    pub ts_ns: u64,
    /// Length.
    pub dur_ns: u64,
    /// Thread.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// CPU that it came to.
    pub cpu: u32,
    /// Its cgroup.
    pub cgroup_id: u64,
}

/// A stretch of a thread on a CPU. The idle thread has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Start, CLOCK_MONOTONIC.
    pub ts_ns: u64,
    /// Length.
    pub dur_ns: u64,
    /// CPU.
    pub cpu: u32,
    /// Thread.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// Its cgroup.
    pub cgroup_id: u64,
    /// Kernel state in which it left, and whether it was preempted; `None` when the trace ended first.
    pub end: Option<(u32, bool)>,
    /// Wait before it; `None` when its begin is not known.
    pub runq_ns: Option<u64>,
    /// It was seen to begin: it did not begin before the trace.
    pub begun: bool,
}

/// Why something could not be paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// An end without a begin.
    NoStart,
    /// A begin without an end.
    Open,
    /// Events were lost where the other half may have been.
    Lost,
}

impl Why {
    /// Of an end without a begin.
    pub(crate) fn end(ts_ns: u64, lost: &Spans) -> Why {
        if lost.touch(0, ts_ns) { Why::Lost } else { Why::NoStart }
    }

    /// Of a begin without an end.
    pub(crate) fn begin(ts_ns: u64, lost: &Spans) -> Why {
        if lost.touch(ts_ns, u64::MAX) { Why::Lost } else { Why::Open }
    }
}

/// Half a wait or slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Half {
    /// The half that is there, CLOCK_MONOTONIC.
    pub ts_ns: u64,
    /// Thread.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// Its cgroup.
    pub cgroup_id: u64,
    /// Why the other half is not there.
    pub why: Why,
}

/// Counts of what could not be paired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpaired {
    /// Ends without a begin: it lies before the trace.
    pub no_start: u64,
    /// Begins without an end: it lies after the trace, or the kernel never told it.
    pub open: u64,
    /// Pairs thrown away, as events were lost between them, and ends and begins whose other half may be among the lost.
    pub lost: u64,
}

impl Unpaired {
    /// Counts one.
    pub fn add(&mut self, why: Why) {
        *(match why {
            Why::NoStart => &mut self.no_start,
            Why::Open => &mut self.open,
            Why::Lost => &mut self.lost,
        }) += 1;
    }

    /// Whether anything was counted.
    pub fn any(&self) -> bool {
        self.no_start + self.open + self.lost > 0
    }
}

/// What a slab's events make, each in the order of its ends.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) waits: Vec<Wait>,
    pub(crate) slices: Vec<Slice>,
    pub(crate) half_waits: Vec<Half>,
    pub(crate) half_slices: Vec<Half>,
}

/// Since when a thread can run.
#[derive(Clone, Copy)]
struct Runnable {
    ts_ns: u64,
    pid: u32,
    cgroup_id: u64,
}

#[derive(Clone, Copy)]
struct Running {
    ts_ns: u64,
    tid: u32,
    pid: u32,
    cgroup_id: u64,
    runq_ns: Option<u64>,
    begun: bool,
}

/// Columns that pairing needs.
pub(crate) fn wants(kind: &str, field: &str) -> bool {
    match kind {
        "sched_switch" => !matches!(field, "prev_prio" | "next_prio"),
        "sched_wakeup" | "sched_wakeup_new" => matches!(field, "tid" | "pid" | "cgroup_id"),
        _ => false,
    }
}

/// Pairs slab after slab.
pub(crate) struct Pairing {
    runnable: FxHashMap<u32, Runnable>,
    running: FxHashMap<u32, Running>,
    spans: Spans,
    recorded: Recorded,
    first_ns: Option<u64>,
    last_ns: u64,
    slices: bool,
}

struct Switches<'a> {
    table: &'a EventTable,
    prev_tid: Ints<'a>,
    prev_pid: Ints<'a>,
    prev_state: Ints<'a>,
    preempt: Ints<'a>,
    prev_cgroup: Ints<'a>,
    next_tid: Ints<'a>,
    next_pid: Ints<'a>,
    next_cgroup: Ints<'a>,
}

impl Pairing {
    /// `spans`: where events of the source were lost. `recorded`: whose events are there at all. `slices`: whether slices
    /// are wanted, too.
    pub(crate) fn new(spans: Spans, recorded: Recorded, slices: bool) -> Self {
        Pairing {
            runnable: FxHashMap::default(),
            running: FxHashMap::default(),
            spans,
            recorded,
            first_ns: None,
            last_ns: 0,
            slices,
        }
    }

    /// The slab's waits and slices.
    pub(crate) fn slab(&mut self, slab: &Slab) -> Found {
        slab.damaged.iter().for_each(|(from, to)| self.spans.add(*from, *to));
        let mut found = Found::default();
        let wakeups: Vec<(&EventTable, [Ints<'_>; 3])> = ["sched_wakeup", "sched_wakeup_new"]
            .iter()
            .filter_map(|name| slab.table(name).map(|t| (t, ["tid", "pid", "cgroup_id"].map(|name| t.ints(name)))))
            .collect();
        let mut at = [0usize; 2];
        let mut woken_until = |ts: u64, runnable: &mut FxHashMap<u32, Runnable>| {
            for ((table, [tid, pid, cgroup]), at) in wakeups.iter().zip(&mut at) {
                while *at < table.rows() && table.ts[*at] <= ts {
                    let (tid, ts_ns) = (tid.get32(*at), table.ts[*at]);
                    let now = Runnable { ts_ns, pid: pid.get32(*at), cgroup_id: cgroup.get(*at) };
                    *at += 1;
                    // A new thread's wakeup and a plain one cannot both be pending, so the tables need no merging.
                    if tid != 0 {
                        runnable.insert(tid, now);
                    }
                }
            }
        };
        if let Some(table) = slab.table("sched_switch") {
            let s = Switches {
                table,
                prev_tid: table.ints("prev_tid"),
                prev_pid: table.ints("prev_pid"),
                prev_state: table.ints("prev_state"),
                preempt: table.ints("preempt"),
                prev_cgroup: table.ints("prev_cgroup_id"),
                next_tid: table.ints("next_tid"),
                next_pid: table.ints("next_pid"),
                next_cgroup: table.ints("next_cgroup_id"),
            };
            found.waits.reserve(table.rows());
            for row in 0..table.rows() {
                woken_until(table.ts[row], &mut self.runnable);
                self.switch(&s, row, &mut found);
            }
        }
        woken_until(u64::MAX, &mut self.runnable);
        found
    }

    fn switch(&mut self, s: &Switches<'_>, row: usize, found: &mut Found) {
        let (ts, cpu) = (s.table.ts[row], s.table.cpu[row]);
        // A side that was not asked for is like the idle thread: nothing of its own is made of it.
        let known = |tid: u32, pid, cgroup| if self.recorded.has(pid, cgroup) { tid } else { 0 };
        let prev = known(s.prev_tid.get32(row), s.prev_pid.get32(row), s.prev_cgroup.get(row));
        let next = known(s.next_tid.get32(row), s.next_pid.get32(row), s.next_cgroup.get(row));
        let state = s.prev_state.get32(row);
        let preempted = s.preempt.get(row) != 0;
        self.first_ns.get_or_insert(ts);
        self.last_ns = self.last_ns.max(ts);
        if prev != 0 {
            const DEAD: u32 = 0x80;
            if state == 0 || preempted {
                let (pid, cgroup_id) = (s.prev_pid.get32(row), s.prev_cgroup.get(row));
                self.runnable.insert(prev, Runnable { ts_ns: ts, pid, cgroup_id });
            } else if state & DEAD != 0 {
                self.runnable.remove(&prev);
            }
        }
        let mut runq_ns = None;
        if next != 0 {
            let (tid, pid, cgroup_id) = (next, s.next_pid.get32(row), s.next_cgroup.get(row));
            let half = |why| Half { ts_ns: ts, tid, pid, cgroup_id, why };
            match self.runnable.remove(&next).map(|since| since.ts_ns) {
                None => found.half_waits.push(half(Why::end(ts, &self.spans))),
                Some(start) if start > ts || self.spans.touch(start, ts) => found.half_waits.push(half(Why::Lost)),
                Some(start) => {
                    runq_ns = Some(ts - start);
                    found.waits.push(Wait { ts_ns: ts, dur_ns: ts - start, tid, pid, cpu, cgroup_id });
                }
            }
        }
        if !self.slices {
            return;
        }
        let running = Running {
            ts_ns: ts,
            tid: next,
            pid: s.next_pid.get32(row),
            cgroup_id: s.next_cgroup.get(row),
            runq_ns,
            begun: true,
        };
        let before = self.running.insert(cpu, running).unwrap_or(Running {
            // What ran on this CPU before its first switch has run since the begin.
            ts_ns: self.first_ns.unwrap_or(ts),
            tid: prev,
            pid: s.prev_pid.get32(row),
            cgroup_id: s.prev_cgroup.get(row),
            runq_ns: None,
            begun: false,
        });
        let mine = Half { ts_ns: ts, tid: prev, pid: before.pid, cgroup_id: before.cgroup_id, why: Why::Lost };
        if prev == 0 {
            return;
        }
        if before.tid != prev {
            found.half_slices.push(Half {
                pid: s.prev_pid.get32(row),
                cgroup_id: s.prev_cgroup.get(row),
                why: Why::end(ts, &self.spans),
                ..mine
            });
        } else if before.ts_ns > ts || self.spans.touch(before.ts_ns, ts) {
            found.half_slices.push(mine);
        } else {
            found.slices.push(before.slice(cpu, ts, Some((state, preempted))));
        }
    }

    /// What still runs when the trace ends, and what is left unpaired.
    pub(crate) fn finish(&mut self) -> Found {
        let half = |(tid, since): (&u32, &Runnable)| {
            let Runnable { ts_ns, pid, cgroup_id } = *since;
            Half { ts_ns, tid: *tid, pid, cgroup_id, why: Why::begin(ts_ns, &self.spans) }
        };
        let mut half_waits: Vec<Half> = self.runnable.iter().map(half).collect();
        half_waits.sort_unstable();
        let last = self.last_ns;
        let open = self.running.iter().filter(|(_, r)| r.tid != 0);
        let (lost, open): (Vec<_>, Vec<_>) = open.partition(|(_, r)| self.spans.touch(r.ts_ns, last));
        let half = |(_, r): (&u32, &Running)| {
            let Running { ts_ns, tid, pid, cgroup_id, .. } = *r;
            Half { ts_ns, tid, pid, cgroup_id, why: Why::Lost }
        };
        let mut half_slices: Vec<Half> = lost.into_iter().map(half).collect();
        half_slices.sort_unstable();
        let mut slices: Vec<Slice> = open.into_iter().map(|(cpu, r)| r.slice(*cpu, last, None)).collect();
        // All of them end now.
        slices.sort_by_key(|s| s.cpu);
        Found { slices, half_waits, half_slices, ..Found::default() }
    }
}

impl Running {
    fn slice(&self, cpu: u32, until: u64, end: Option<(u32, bool)>) -> Slice {
        Slice {
            ts_ns: self.ts_ns,
            dur_ns: until - self.ts_ns,
            cpu,
            tid: self.tid,
            pid: self.pid,
            cgroup_id: self.cgroup_id,
            end,
            runq_ns: self.runq_ns,
            begun: self.begun,
        }
    }
}
