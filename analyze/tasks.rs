//! Who had a tid when. Tids are used again: each life of one is a task of its own, with a name that may change.

mod lookups;
mod moves;
mod row;
mod task;

use rustc_hash::FxHashMap;

use crate::view::View;
pub use lookups::Lookups;
pub use moves::{Move, NAMESPACES};
use row::{Row, Said, continues, take_over};
pub use task::Task;

/// Starts of the same task may differ by this much: /proc knows them in clock ticks only.
const SAME_START_NS: u64 = 20_000_000;
/// Events of a task may follow its exit for this long: it still has to give back its memory.
const AFTER_EXIT_NS: u64 = 1_000_000_000;

/// All tasks of a trace.
#[derive(Default)]
pub struct Tasks {
    rows: Vec<Row>,
    /// By start and tid; the position is the task's id.
    all: Vec<Task>,
    /// Ids by tid, in the order of their starts.
    by_tid: FxHashMap<u32, Vec<u32>>,
    /// (pid, time, what began then), for mappings.
    images: Vec<(u32, u64, Image)>,
    moves: Vec<Move>,
}

/// How a process came to run what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Image {
    /// Forked from this process.
    Forked(u32),
    /// It runs another program now.
    Executed,
}

impl Tasks {
    /// Takes over `task`, `task_namespaces`, `sched_fork`, `sched_exec`, `task_rename` or `sched_exit` rows.
    pub(crate) fn add(&mut self, kind: &str, view: View<'_>) {
        let Some(said) = Said::by(kind) else { return };
        if said == Said::Moved {
            self.moves.extend(moves::of_rows(view));
        }
        self.rows.extend(row::of_view(said, view));
    }

    /// Makes lives out of rows.
    pub(crate) fn finish(&mut self) {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by_key(|r| (r.ts_ns, r.said));
        let mut lives: FxHashMap<u32, Vec<Task>> = FxHashMap::default();
        let mut forks = Vec::new();
        for row in rows {
            let (tid, pid, ts) = (row.task.tid, row.task.pid, row.ts_ns);
            match row.said {
                Said::Forked if tid == pid => forks.push((pid, ts, row.parent_tid, row.task.ppid)),
                Said::Executed => self.images.push((pid, ts, Image::Executed)),
                _ => {}
            }
            let of_tid = lives.entry(tid).or_default();
            if !of_tid.last().is_some_and(|life| continues(life, &row)) {
                let start_ns = if row.task.start_ns == 0 { ts } else { row.task.start_ns };
                if let Some(before) = of_tid.last_mut() {
                    before.end_ns = Some(before.end_ns.unwrap_or(start_ns));
                }
                of_tid.push(Task { start_ns, ..row.task.clone() });
            }
            let Some(life) = of_tid.last_mut() else { continue };
            take_over(life, row);
        }
        self.all = lives.into_values().flatten().collect();
        self.all.sort_by_key(|t| (t.start_ns, t.tid));
        for (id, task) in self.all.iter().enumerate() {
            self.by_tid.entry(task.tid).or_default().push(id as u32);
        }
        for (pid, ts, parent_tid, ppid) in forks {
            let parent = self.at(parent_tid, ts).map_or(ppid, |t| t.pid);
            self.images.push((pid, ts, Image::Forked(parent)));
        }
        self.images.sort_unstable();
        self.moves.sort_by_key(|m| (m.ts_ns, m.tid));
    }

    /// Threads that went to other namespaces, by time.
    pub fn moves(&self) -> &[Move] {
        &self.moves
    }

    /// Id of the task that had `tid` at `ts_ns`.
    pub fn lookup(&self, tid: u32, ts_ns: u64) -> Option<u32> {
        let ids = self.by_tid.get(&tid)?;
        let task = |id: &u32| &self.all[*id as usize];
        let after = ids.partition_point(|id| task(id).start_ns <= ts_ns);
        let id = match after.checked_sub(1) {
            Some(before) => ids[before],
            // The start in ticks may lie a little after the first event.
            None => *ids.first().filter(|id| task(id).start_ns - ts_ns < SAME_START_NS)?,
        };
        let alive = task(&id).end_ns.is_none_or(|end| ts_ns <= end.saturating_add(AFTER_EXIT_NS));
        alive.then_some(id)
    }

    /// For many lookups at moments close to each other.
    pub fn lookups(&self) -> Lookups<'_> {
        Lookups::new(self)
    }

    /// From when to when a lookup of `tid` gives `id`.
    fn span(&self, tid: u32, id: u32) -> (u64, u64) {
        let ids = self.by_tid.get(&tid).map_or(&[][..], Vec::as_slice);
        let next = ids.iter().skip_while(|other| **other != id).nth(1);
        let next_ns = next.map_or(u64::MAX, |next| self.all[*next as usize].start_ns.saturating_sub(1));
        let task = &self.all[id as usize];
        let end_ns = task.end_ns.map_or(u64::MAX, |end| end.saturating_add(AFTER_EXIT_NS));
        (task.start_ns, next_ns.min(end_ns))
    }

    /// The task that had `tid` at `ts_ns`.
    pub fn at(&self, tid: u32, ts_ns: u64) -> Option<&Task> {
        self.lookup(tid, ts_ns).map(|id| &self.all[id as usize])
    }

    /// Name of a thread, or of a process by its leader; empty when unknown.
    pub fn comm(&self, tid: u32, ts_ns: u64) -> &str {
        match tid {
            0 => "swapper",
            _ => self.at(tid, ts_ns).map_or("", |task| task.comm(ts_ns)),
        }
    }

    /// As [`Tasks::comm`], and from when to when that is so.
    pub fn comm_span(&self, tid: u32, ts_ns: u64) -> (&str, u64, u64) {
        if tid == 0 {
            return ("swapper", 0, u64::MAX);
        }
        let Some(id) = self.lookup(tid, ts_ns) else { return ("", ts_ns, ts_ns) };
        let (names, (mut from_ns, mut to_ns)) = (&self.all[id as usize].names, self.span(tid, id));
        let after = names.partition_point(|(from, _)| *from <= ts_ns);
        if let Some((from, _)) = after.checked_sub(1).map(|i| &names[i]) {
            from_ns = from_ns.max(*from);
        }
        if let Some((next, _)) = names.get(after) {
            to_ns = to_ns.min(next - 1);
        }
        (names.get(after.saturating_sub(1)).map_or("", |(_, name)| name), from_ns, to_ns)
    }

    /// All tasks; the position is the id.
    pub fn all(&self) -> &[Task] {
        &self.all
    }

    /// How `pid` came to run what it ran at `ts_ns`, and when; `None` when that was before the recording.
    pub(crate) fn image(&self, pid: u32, ts_ns: u64) -> Option<(u64, Image)> {
        let after = self.images.partition_point(|(p, t, _)| (*p, *t) <= (pid, ts_ns));
        let (of, ts, image) = *self.images.get(after.checked_sub(1)?)?;
        (of == pid).then_some((ts, image))
    }

    /// Forks and execs of processes, by pid and time.
    pub(crate) fn images(&self) -> &[(u32, u64, Image)] {
        &self.images
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ts_ns: u64, said: Said, tid: u32, start_ns: u64, comm: &str) -> Row {
        let task = Task { tid, pid: tid, start_ns, ..Task::default() };
        Row { ts_ns, said, task, comm: comm.into(), parent_tid: 1, mount_ns: 0 }
    }

    fn tasks(rows: Vec<Row>) -> Tasks {
        let mut tasks = Tasks { rows, ..Tasks::default() };
        tasks.finish();
        tasks
    }

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_tid_that_is_used_again_borrows_no_name() {
        let t = tasks(vec![
            row(5 * S, Said::Here, 7, S, "old"),
            row(6 * S, Said::Exited, 7, S, "old"),
            row(9 * S, Said::Forked, 7, 9 * S, "parent"),
            row(9 * S + 5, Said::Executed, 7, 9 * S, "new"),
            row(10 * S, Said::Renamed, 7, 9 * S, "newer"),
        ]);
        assert_eq!(t.all().len(), 2);
        assert_eq!(t.comm(7, 2 * S), "old");
        assert_eq!(t.comm(7, 6 * S + 1), "old");
        assert_eq!(t.comm(7, 8 * S), "");
        assert_eq!(t.comm(7, 9 * S + 1), "parent");
        assert_eq!(t.comm(7, 9 * S + 6), "new");
        assert_eq!(t.comm(7, 20 * S), "newer");
        for tenth in 0..220 {
            let (ts, tid) = (tenth * S / 10 + 4, 7);
            let (comm, from_ns, to_ns) = t.comm_span(tid, ts);
            assert_eq!(comm, t.comm(tid, ts));
            for ts in (0..220).map(|i| i * S / 10 + 4).filter(|ts| (from_ns..=to_ns).contains(ts)) {
                assert_eq!(comm, t.comm(tid, ts));
            }
        }
        assert_eq!(t.comm(0, S), "swapper");
        assert_eq!(t.lookup(8, S), None);
    }

    #[test]
    fn remembered_lookups_are_the_same() {
        let lives = (1..60).flat_map(|i: u64| {
            let tid = (i * 7 % 5 + 256 * (i % 2)) as u32;
            let begin = row(i * S, Said::Forked, tid, i * S, "a");
            let end = (!i.is_multiple_of(3)).then(|| row(i * S + S / 2, Said::Exited, tid, i * S, "a"));
            std::iter::once(begin).chain(end)
        });
        let t = tasks(lives.collect());
        let mut lookups = t.lookups();
        for tenth in 0..700u64 {
            for tid in [0, 1, 2, 3, 4, 256, 257, 258, 259, 260, 999] {
                let ts = tenth * S / 10 + u64::from(tid);
                assert_eq!(lookups.id(tid, ts), t.lookup(tid, ts), "{tid} at {ts}");
            }
        }
    }

    #[test]
    fn starts_in_ticks_are_the_same_start() {
        let t = tasks(vec![
            row(5 * S, Said::Here, 7, S + 9_000_000, "a"),
            row(6 * S, Said::Renamed, 7, S, "b"),
            row(7 * S, Said::Here, 7, S + 9_000_000, "b"),
        ]);
        assert_eq!(t.all().len(), 1);
        assert_eq!(t.lookup(7, S), Some(0));
    }

    #[test]
    fn a_thread_goes_to_another_mount_namespace() {
        let at = |ts_ns, said, mount_ns| Row {
            mount_ns,
            ..row(ts_ns, said, 7, if said == Said::Moved { 0 } else { S }, "")
        };
        let t = tasks(vec![at(5 * S, Said::Here, 40), at(6 * S, Said::Moved, 41), at(8 * S, Said::Moved, 40)]);
        let task = t.at(7, 5 * S).unwrap();
        assert_eq!([2, 5, 6, 7, 8].map(|s| task.mount_ns(s * S)), [40, 40, 41, 41, 40]);
        assert_eq!(t.all().len(), 1);
    }

    #[test]
    fn a_lost_fork_is_seen_by_the_start() {
        let t = tasks(vec![row(5 * S, Said::Here, 7, S, "a"), row(8 * S, Said::Renamed, 7, 7 * S, "b")]);
        assert_eq!((t.comm(7, 6 * S), t.comm(7, 7 * S)), ("a", "b"));
    }
}
