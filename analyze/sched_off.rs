//! Time of threads off the CPU out of plain switches and wakeups: without stacks, but with the waker.
//!
//! A thread is off from the switch that takes it off its CPU to the one that brings it back; the first wakeup between them
//! ended what it waited for. State: one entry a thread that is off.

use rustc_hash::FxHashMap;

use crate::filter::Filter;
use crate::losses::Spans;
use crate::meta::Meta;
use crate::offcpu::{Off, What};
use crate::recorded::Recorded;
use crate::sched::{Unpaired, Why};
use crate::slab::{EventTable, Slab};
use crate::view::Ints;
use bpfrec_format::Source;

#[derive(Clone, Copy)]
struct Left {
    ts_ns: u64,
    state: u32,
    /// Moment and thread of the first wakeup.
    woken: Option<(u64, u32)>,
    /// Its process and cgroup; of a new one not known yet.
    pid: u32,
    cgroup_id: u64,
    /// It has never been on a CPU.
    new: bool,
}

/// Columns that pairing needs; `wakers`: also those of [`Off::waker_tid`].
pub(crate) fn wants(kind: &str, field: &str, wakers: bool) -> bool {
    match kind {
        "sched_switch" => !matches!(field, "prev_prio" | "next_prio"),
        "sched_wakeup" => wakers && matches!(field, "tid" | "waker_tid"),
        "sched_wakeup_new" => field == "tid",
        _ => false,
    }
}

/// Pairs slab after slab.
pub(crate) struct Pairing {
    left: FxHashMap<u32, Left>,
    spans: Spans,
    recorded: Recorded,
    filter: Filter,
    unpaired: Unpaired,
}

impl Pairing {
    /// `filter`: of whom to count what cannot be paired.
    pub(crate) fn new(meta: &Meta, filter: &Filter) -> Self {
        let mut spans = meta.losses.spans(Source::Sched);
        meta.damage.spans.iter().for_each(|(from, to)| spans.add(from, to));
        let (left, unpaired) = Default::default();
        Pairing { left, spans, recorded: meta.recorded.clone(), filter: filter.clone(), unpaired }
    }

    /// What ended in the slab, in the order of ends.
    pub(crate) fn slab(&mut self, meta: &Meta, slab: &Slab) -> Vec<Off> {
        slab.damaged.iter().for_each(|(from, to)| self.spans.add(*from, *to));
        let table = |name: &str, waker: &str| slab.table(name).map(|t| (t, t.ints("tid"), t.ints(waker)));
        let (wakeups, new) = (table("sched_wakeup", "waker_tid"), table("sched_wakeup_new", ""));
        let mut at = [0usize; 2];
        let mut until = |ts: u64, left: &mut FxHashMap<u32, Left>| {
            let mut each = |source: &Option<(&EventTable, Ints<'_>, Ints<'_>)>, at: &mut usize, new: bool| {
                let Some((table, tid, waker)) = source else { return };
                while *at < table.rows() && table.ts[*at] <= ts {
                    let (ts_ns, tid, waker) = (table.ts[*at], tid.get32(*at), waker.get32(*at));
                    *at += 1;
                    if new {
                        left.insert(tid, Left { ts_ns, state: 0, woken: None, pid: 0, cgroup_id: 0, new });
                    } else if let Some(left) = left.get_mut(&tid).filter(|l| l.state != 0) {
                        left.woken.get_or_insert((ts_ns, waker));
                    }
                }
            };
            // The first wakeup of a thread and a later one cannot both be pending, so the tables need no merging.
            each(&wakeups, &mut at[0], false);
            each(&new, &mut at[1], true);
        };
        let (mut offs, mut tasks) = (Vec::new(), meta.tasks.lookups());
        if let Some(table) = slab.table("sched_switch") {
            let int = |name| table.ints(name);
            let (prev, next) = (["prev_tid", "prev_pid", "prev_cgroup_id"], ["next_tid", "next_pid", "next_cgroup_id"]);
            let (prev, next, state, preempt) = (prev.map(int), next.map(int), int("prev_state"), int("preempt"));
            // A side that was not asked for is like the idle thread: nothing of its own is made of it.
            let known = |side: &[Ints<'_>; 3], row| {
                let [tid, pid, cgroup_id] = [side[0].get(row), side[1].get(row), side[2].get(row)];
                let has = tid != 0 && self.recorded.has(pid as u32, cgroup_id);
                has.then_some((tid as u32, pid as u32, cgroup_id))
            };
            for row in 0..table.rows() {
                let ts_ns = table.ts[row];
                until(ts_ns, &mut self.left);
                if let Some((tid, pid, cgroup_id)) = known(&prev, row) {
                    const DEAD: u32 = 0x80;
                    let state = if preempt.get(row) != 0 { 0 } else { state.get32(row) };
                    if state & DEAD != 0 {
                        self.left.remove(&tid);
                    } else {
                        self.left.insert(tid, Left { ts_ns, state, woken: None, pid, cgroup_id, new: false });
                    }
                }
                let Some((tid, pid, cgroup_id)) = known(&next, row) else { continue };
                let left = match self.left.remove(&tid) {
                    Some(left) if left.new => continue,
                    Some(left) if left.ts_ns <= ts_ns && !self.spans.touch(left.ts_ns, ts_ns) => left,
                    half => {
                        if self.filter.takes(ts_ns, pid, cgroup_id) {
                            self.unpaired.add(if half.is_some() { Why::Lost } else { Why::end(ts_ns, &self.spans) });
                        }
                        continue;
                    }
                };
                let since = if left.state == 0 { Some(left.ts_ns) } else { left.woken.map(|(ts, _)| ts) };
                let waker_tid = left.woken.map_or(0, |(_, tid)| tid);
                let waker = left.woken.and_then(|(ts, tid)| tasks.id(tid, ts)).map(|id| &meta.tasks.all()[id as usize]);
                offs.push(Off {
                    what: What::Wait,
                    end_ns: ts_ns,
                    wait_ns: ts_ns - left.ts_ns,
                    queued_ns: since.map_or(0, |since| ts_ns.saturating_sub(since)),
                    count: 1,
                    tid,
                    pid,
                    state: left.state,
                    flags: 0,
                    waker_tid,
                    waker_pid: waker.map_or(waker_tid, |t| t.pid),
                    kernel: 0,
                    user: 0,
                    waker_kernel: 0,
                    waker_user: 0,
                    cgroup_id,
                });
            }
        }
        until(u64::MAX, &mut self.left);
        offs
    }

    /// What is not paired so far.
    pub(crate) fn unpaired(&self) -> Unpaired {
        let mut unpaired = self.unpaired;
        let mine = self.left.values().filter(|l| !l.new && self.filter.takes(l.ts_ns, l.pid, l.cgroup_id));
        mine.for_each(|left| unpaired.add(Why::begin(left.ts_ns, &self.spans)));
        unpaired
    }
}
