//! Threads in cgroups: what the page can choose by. Those that weigh little are told together.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::meta::Meta;
use crate::tasks::Task;

/// Stands for the rest: threads of a process, processes of a cgroup.
pub(super) const OTHERS: u32 = u32::MAX;

/// A thread in a cgroup, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Who {
    pub(super) cgroup_id: u64,
    pub(super) kernel: bool,
    /// [`OTHERS`]: several.
    pub(super) pid: u32,
    /// [`OTHERS`]: several.
    pub(super) tid: u32,
}

/// What is known of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) who: Who,
    /// When it was last seen, for its name.
    pub(super) last_ns: u64,
    /// Events of it, and its time on CPUs.
    pub(super) events: u64,
    pub(super) cpu_ns: u64,
}

/// How finely groups are told apart. Coarser ones follow when there are too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grain {
    #[default]
    Thread,
    Process,
    Cgroup,
}

/// Groups by number, as they were first seen.
#[derive(Clone, Default)]
pub(super) struct Groups {
    /// By cgroup, process and thread, as events have them.
    seen: FxHashMap<(u64, u32, u32), u32>,
    numbers: FxHashMap<Who, u32>,
    pub(super) all: Vec<Group>,
    pub(super) grain: Grain,
}

impl Groups {
    /// The group of an event.
    pub(super) fn seen(&mut self, meta: &Meta, cgroup_id: u64, pid: u32, tid: u32, ts_ns: u64) -> u32 {
        let known = self.seen.get(&(cgroup_id, pid, tid)).copied();
        let number = known.unwrap_or_else(|| {
            let kernel = meta.tasks.at(pid, ts_ns).is_some_and(Task::is_kernel);
            let number = self.number(coarse(Who { cgroup_id, kernel, pid, tid }, self.grain));
            self.seen.insert((cgroup_id, pid, tid), number);
            number
        });
        let group = &mut self.all[number as usize];
        group.events += 1;
        group.last_ns = group.last_ns.max(ts_ns);
        number
    }

    fn number(&mut self, who: Who) -> u32 {
        let all = &mut self.all;
        *self.numbers.entry(who).or_insert_with(|| {
            all.push(Group { who, last_ns: 0, events: 0, cpu_ns: 0 });
            all.len() as u32 - 1
        })
    }

    /// Tells threads or processes together. Gives the new number of each.
    pub(super) fn coarser(&mut self) -> Vec<u32> {
        self.grain = match self.grain {
            Grain::Thread => Grain::Process,
            _ => Grain::Cgroup,
        };
        let old = std::mem::take(&mut self.all);
        self.numbers.clear();
        let mut numbers = Vec::with_capacity(old.len());
        for group in old {
            let number = self.number(coarse(group.who, self.grain));
            self.all[number as usize].join(&group);
            numbers.push(number);
        }
        self.seen.values_mut().for_each(|number| *number = numbers[*number as usize]);
        numbers
    }

    /// At most about `most` groups, the weightiest by themselves, in the order of what they are; and where each of the
    /// present ones went.
    pub(super) fn cut(&self, most: usize) -> (Vec<Group>, Vec<u32>) {
        let (events, cpu) = self.all.iter().fold((1, 1), |sum, g| (sum.0 + g.events, sum.1 + g.cpu_ns));
        let weight = |g: &Group| {
            let share = |part: u64, of: u64| u128::from(part) * 1_000_000_000 / u128::from(of);
            share(g.events, events) + share(g.cpu_ns, cpu)
        };
        let mut order: Vec<&Group> = self.all.iter().collect();
        order.sort_by_key(|g| (std::cmp::Reverse(weight(g)), g.who));
        let kept: FxHashSet<Who> = order.iter().take(most).map(|g| g.who).collect();
        let processes: FxHashSet<Who> = kept.iter().map(|who| coarse(*who, Grain::Process)).collect();
        let target = |who: Who| {
            let process = coarse(who, Grain::Process);
            match (kept.contains(&who), processes.contains(&process)) {
                (true, _) => who,
                (_, true) => process,
                _ => coarse(who, Grain::Cgroup),
            }
        };
        let mut merged: BTreeMap<Who, Group> = BTreeMap::new();
        for group in &self.all {
            let who = target(group.who);
            merged.entry(who).and_modify(|all| all.join(group)).or_insert(Group { who, ..*group });
        }
        let numbers: FxHashMap<Who, u32> = merged.keys().zip(0..).map(|(who, n)| (*who, n)).collect();
        let went = self.all.iter().map(|g| numbers[&target(g.who)]).collect();
        (merged.into_values().collect(), went)
    }
}

impl Group {
    fn join(&mut self, other: &Group) {
        self.last_ns = self.last_ns.max(other.last_ns);
        self.events += other.events;
        self.cpu_ns = self.cpu_ns.saturating_add(other.cpu_ns);
    }
}

fn coarse(who: Who, grain: Grain) -> Who {
    match grain {
        Grain::Thread => who,
        Grain::Process => Who { tid: OTHERS, ..who },
        Grain::Cgroup => Who { pid: OTHERS, tid: OTHERS, ..who },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_told_together() {
        let (mut groups, meta) = (Groups::default(), Meta::default());
        for tid in 0..100u32 {
            for _ in 0..=tid {
                groups.seen(&meta, 7, tid / 10, tid, 5);
            }
        }
        let (kept, went) = groups.cut(15);
        // Fifteen threads, the rest of the process that five of them are of, and the rest of the processes.
        assert_eq!((kept.len(), went.len()), (17, 100));
        assert_eq!(kept.iter().map(|g| g.events).sum::<u64>(), 5050);
        let of = |tid: usize| kept[went[tid] as usize].who;
        assert_eq!((of(99).tid, of(80).pid, of(80).tid), (99, 8, OTHERS));
        assert_eq!((of(0).pid, of(0).tid), (OTHERS, OTHERS));

        let numbers = groups.coarser();
        assert_eq!((groups.all.len(), numbers.len()), (10, 100));
        assert_eq!(groups.seen(&meta, 7, 9, 98, 6), numbers[90]);
        groups.coarser();
        assert_eq!((groups.all.len(), groups.all[0].events), (1, 5051));
    }
}
