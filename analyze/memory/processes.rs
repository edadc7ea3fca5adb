//! When processes begin and end, as far as their memory goes.

use rustc_hash::FxHashMap;

use crate::tasks::{Image, Task, Tasks};

/// What becomes of a process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// All its threads have ended.
    Exit,
    /// It is a copy of its parent's.
    Fork,
    /// It is empty.
    Exec,
}

/// All changes by time.
pub(super) fn changes(tasks: &Tasks) -> Vec<(u64, u32, Change)> {
    let mut changes: Vec<(u64, u32, Change)> = tasks
        .images()
        .iter()
        .map(|(pid, ts, image)| (*ts, *pid, if *image == Image::Executed { Change::Exec } else { Change::Fork }))
        .collect();
    let images = tasks.images();
    let after = |pid: u32, ts: u64| &images[images.partition_point(|(p, t, _)| (*p, *t) <= (pid, ts))..];
    let mut threads: FxHashMap<u32, Vec<&Task>> = FxHashMap::default();
    for task in tasks.all() {
        threads.entry(task.pid).or_default().push(task);
    }
    for leader in tasks.all().iter().filter(|t| t.tid == t.pid) {
        let Some(ended) = leader.end_ns else { continue };
        match after(leader.pid, ended).first().filter(|(pid, ..)| *pid == leader.pid) {
            // An exec by another thread ends the leader, and that thread takes its place.
            Some((_, _, Image::Executed)) => continue,
            next => {
                // An exec ends all other threads, be it told or not.
                let replaced = |t: &Task| {
                    let mut since = after(leader.pid, t.start_ns).iter();
                    let exec = |(pid, ts, image): &(u32, u64, Image)| {
                        *pid == leader.pid && *ts <= ended && *image == Image::Executed
                    };
                    t.tid != t.pid && since.next().is_some_and(exec)
                };
                let lives = |t: &&&Task| t.start_ns >= leader.start_ns && t.start_ns <= ended && !replaced(t);
                let own = threads[&leader.pid].iter().filter(lives);
                let last = own.map(|t| t.end_ns.unwrap_or(u64::MAX)).max().unwrap_or(ended);
                // A leader may end long before its process. A thread whose end nobody told is gone when the pid is used again.
                let last = next.map_or(last, |(_, ts, _)| last.min(*ts));
                if last != u64::MAX {
                    changes.push((last, leader.pid, Change::Exit));
                }
            }
        }
    }
    changes.sort_unstable();
    changes
}
