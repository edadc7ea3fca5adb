//! Who waited: for a CPU, or for a lock.

use std::collections::{BTreeMap, BTreeSet};

use bpfrec_format::Source;

use super::{Finding, Seen};
use crate::page::gather::Class;
use crate::page::steps::longest_ns;
use crate::reports::summary::cpu_count;
use crate::text::{count, duration, percent};

/// A container that waits for less than a fifth of its runnable time gets most of what it asks for.
const WAITING_PERCENT: f64 = 20.0;
/// What was runnable for less than a twentieth of the recording hardly ran at all.
const RUNNABLE_PERCENT: f64 = 5.0;
/// Few waits are an accident.
const WAITS: u64 = 100;
/// From here on threads queue for CPUs in earnest.
const BUSY_PERCENT: f64 = 90.0;
/// Frames that stand for waiting for a lock, and for nothing else: condition variables and idle workers have others.
const LOCKS: [&str; 12] = [
    "__lll_lock_wait",
    "lll_lock_wait",
    "pthread_mutex_lock",
    "__pthread_mutex_lock",
    "___pthread_mutex_lock",
    "pthread_rwlock_wrlock",
    "pthread_rwlock_rdlock",
    "__mutex_lock",
    "__mutex_lock_slowpath",
    "rwsem_down_write_slowpath",
    "rwsem_down_read_slowpath",
    "lock_contended",
];
/// A convoy needs several threads; and time, by the recording's length.
const LOCK_THREADS: usize = 3;
const LOCK_PERCENT: f64 = 5.0;

/// Containers that could have run and did not.
pub(super) fn containers(seen: &Seen<'_>) -> Vec<Finding> {
    if !seen.trusts(Source::Sched) {
        return Vec::new();
    }
    let (gather, groups) = (seen.gather, &seen.gather.groups.all);
    let cgroup = |group: u32| groups[group as usize].who.cgroup_id;
    let ran = gather.cpu.by(|c| Some(cgroup(c.group)));
    let class = |what: u32| gather.classes.all[what as usize];
    let run_queue = |what: u32| class(what) == Class::RunQueue;
    let waited = gather.lengths.by(|c| run_queue(c.what).then(|| cgroup(c.group)));
    let times = gather.latency.by(|c| run_queue(c.what).then(|| cgroup(c.group)));
    let one = |(id, length): (&u64, &crate::page::cells::Length)| {
        let (waited, ran) = (length.ns, ran.get(id).copied().unwrap_or(0));
        let runnable_ns = waited.saturating_add(ran);
        let share = percent(waited, runnable_ns);
        let times = times.get(id).copied().unwrap_or(0);
        let runnable = percent(runnable_ns, seen.duration_ns());
        if share < WAITING_PERCENT || runnable < RUNNABLE_PERCENT || times < WAITS {
            return None;
        }
        let (name, path) = seen.cgroup(*id);
        let (n, ms) = (count(times), duration(waited));
        let text = format!(
            "{name} waited for a CPU for {share:.0} % of its runnable time: {ms} in {n} waits, {} at the longest.",
            duration(length.max_ns)
        );
        let mut finding = Finding::new("runq", share * runnable.min(100.0) / 100.0, text);
        finding.cgroup = Some(path);
        Some(finding)
    };
    let mut all: Vec<Finding> = waited.iter().filter_map(one).collect();
    all.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    all.truncate(2);
    all
}

/// CPUs that had no time left.
pub(super) fn machine(seen: &Seen<'_>) -> Vec<Finding> {
    if !seen.trusts(Source::Sched) {
        return Vec::new();
    }
    let (gather, meta) = (seen.gather, seen.context.meta);
    let cpus = cpu_count(meta.item("cpus_online"));
    let share = percent(gather.cpu.total(), cpus.saturating_mul(seen.duration_ns()));
    let all_recorded = meta.recorded.pids.is_none() && meta.recorded.cgroups.is_none();
    let whole = gather.filter.pid.is_none() && gather.filter.cgroups.is_none();
    if !(BUSY_PERCENT..=101.0).contains(&share) || !all_recorded || !whole {
        return Vec::new();
    }
    let steps = gather.latency.by(|c| (gather.classes.all[c.what as usize] == Class::RunQueue).then_some(c.more));
    let p99 = quantile(&steps, 0.99)
        .map_or(String::new(), |ns| format!("; 1 % of waits for them were longer than {}", duration(ns)));
    let text = format!("The {cpus} CPUs were busy for {share:.0} % of the time{p99}.");
    vec![Finding::new("time", share / 4.0, text)]
}

/// The longest time in the step in which a quantile lies.
fn quantile(steps: &BTreeMap<u16, u64>, share: f64) -> Option<u64> {
    let all: u64 = steps.values().sum();
    let rank = (all as f64 * share).ceil() as u64;
    let mut seen = 0;
    steps
        .iter()
        .find(|(_, n)| {
            seen += **n;
            seen >= rank && all >= 1000
        })
        .map(|(step, _)| longest_ns(*step))
}

/// Several threads of a process that wait for locks at the same place.
pub(super) fn locks(seen: &Seen<'_>) -> Vec<Finding> {
    if !seen.trusts(Source::Offcpu) {
        return Vec::new();
    }
    let (gather, groups) = (seen.gather, &seen.gather.groups.all);
    let is_lock = |name: &str, _| {
        let name = name.strip_suffix("_[k]").unwrap_or(name);
        LOCKS.contains(&name)
    };
    let waits: Vec<bool> = seen.nodes.iter().map(|node| seen.tree.has(*node, is_lock)).collect();
    let mut by_process: BTreeMap<u32, (u64, u64, BTreeSet<u32>)> = BTreeMap::new();
    for (cell, amount) in gather.waits.iter().filter(|(c, _)| waits[c.what as usize]) {
        let Some(pid) = seen.pid(cell.group) else { continue };
        let of = by_process.entry(pid).or_default();
        (of.0, of.1) = (of.0 + amount.much, of.1 + amount.times);
        of.2.insert(groups[cell.group as usize].who.tid);
    }
    let one = |(pid, (ns, times, tids)): (&u32, &(u64, u64, BTreeSet<u32>))| {
        // By the time that its threads had: so many times the recording's length.
        let share = percent(*ns, seen.duration_ns().saturating_mul(tids.len() as u64));
        if tids.len() < LOCK_THREADS || share < LOCK_PERCENT || *times < WAITS {
            return None;
        }
        let text = format!(
            "{} threads of {} waited for locks for {share:.0} % of their time: {} in {} waits.",
            tids.len(),
            seen.process(*pid),
            duration(*ns),
            count(*times)
        );
        let mut finding = Finding::new("offcpu", share, text);
        finding.pid = Some(*pid);
        Some(finding)
    };
    let mut all: Vec<Finding> = by_process.iter().filter_map(one).collect();
    all.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    all.truncate(1);
    all
}
