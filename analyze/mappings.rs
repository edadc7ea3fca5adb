//! Which file lay at an address of a process at a moment.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::tasks::{Image, Tasks};
use crate::view::View;

/// An exec maps the new program before the kernel tells of the exec: mappings this long before it are of the new one.
const BEFORE_EXEC_NS: u64 = 50_000_000;
/// Forks without an exec that are followed upwards.
const GENERATIONS: usize = 16;

/// An executable mapping.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapping {
    /// Process.
    pub pid: u32,
    /// When it is known of, CLOCK_MONOTONIC.
    pub ts_ns: u64,
    /// First address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Position in [`Mappings::files`].
    pub file: u32,
    /// Inode and device.
    pub inode: (u64, u32, u32),
}

/// What is mapped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct File {
    /// Path, or what /proc/PID/maps says instead, as `[vdso]`.
    pub path: String,
    /// Build id in hex; empty when it is not known.
    pub build_id: String,
}

impl File {
    /// Whether it is a file at all.
    pub fn is_file(&self) -> bool {
        is_file(&self.path)
    }
}

/// Whether what is mapped under this name is a file.
pub(crate) fn is_file(path: &str) -> bool {
    let memory = ["//anon", "/dev/zero", "/SYSV", "/anon_hugepage", "/memfd:"];
    path.starts_with('/') && !memory.iter().any(|start| path.starts_with(start))
}

/// All mappings of a trace.
#[derive(Debug, Default)]
pub struct Mappings {
    /// Sorted by process and time.
    pub rows: Vec<Mapping>,
    /// What they map, each once.
    pub files: Vec<File>,
    numbers: FxHashMap<File, u32>,
    /// Positions in `rows` by process.
    of_pid: FxHashMap<u32, (usize, usize)>,
}

impl Mappings {
    pub(crate) fn add(&mut self, view: View<'_>) {
        let int = |name| view.ints(name);
        let (ts, pid, start, len, offset) =
            (int("ts_ns"), int("pid"), int("start_addr"), int("len_bytes"), int("offset_bytes"));
        let (inode, major, minor) = (int("inode"), int("dev_major"), int("dev_minor"));
        let (build_id, path) = (view.texts("build_id"), view.texts("path"));
        for row in 0..view.rows() {
            let file = File { path: path.string(row), build_id: hex(build_id.get(row)) };
            let next = self.files.len() as u32;
            let number = *self.numbers.entry(file.clone()).or_insert(next);
            if number == next {
                self.files.push(file);
            }
            self.rows.push(Mapping {
                pid: pid.get32(row),
                ts_ns: ts.get(row),
                start: start.get(row),
                len: len.get(row),
                offset: offset.get(row),
                file: number,
                inode: (inode.get(row), major.get32(row), minor.get32(row)),
            });
        }
    }

    pub(crate) fn finish(&mut self) {
        // Stable, so that of mappings of the same moment the later row still stands last.
        self.rows.sort_by_key(|m| (m.pid, m.ts_ns));
        let mut start = 0;
        for of_pid in self.rows.chunk_by(|a, b| a.pid == b.pid) {
            self.of_pid.insert(of_pid[0].pid, (start, start + of_pid.len()));
            start += of_pid.len();
        }
    }

    /// Mappings in whose place another file lay before, by process.
    pub(crate) fn replaced(&self) -> FxHashMap<u32, Vec<&Mapping>> {
        let mut replaced: FxHashMap<u32, Vec<&Mapping>> = FxHashMap::default();
        for (pid, (start, end)) in &self.of_pid {
            // What lies where at the moment, by address; no two overlap.
            let mut now: BTreeMap<u64, &Mapping> = BTreeMap::new();
            for row in &self.rows[*start..*end] {
                let last = row.start.saturating_add(row.len);
                let under = now.range(..last).rev().take_while(|(_, m)| m.start.saturating_add(m.len) > row.start);
                let under: Vec<&Mapping> = under.map(|(_, m)| *m).collect();
                let bias = |m: &Mapping| m.start.wrapping_sub(m.offset);
                let other = |m: &&Mapping| (m.file, bias(m)) != (row.file, bias(row));
                if under.iter().any(other) && self.files[row.file as usize].is_file() {
                    replaced.entry(*pid).or_default().push(row);
                }
                for m in under {
                    now.remove(&m.start);
                }
                now.insert(row.start, row);
            }
        }
        replaced
    }

    /// The mapping of `pid` that `addr` lay in at `ts_ns`.
    pub fn lookup(&self, tasks: &Tasks, pid: u32, ts_ns: u64, addr: u64) -> Option<&Mapping> {
        let (mut pid, mut ts) = (pid, ts_ns);
        for _ in 0..GENERATIONS {
            let images = tasks.images();
            let after = images.partition_point(|(p, t, _)| (*p, *t) <= (pid, ts));
            let image = after.checked_sub(1).map(|i| images[i]).filter(|(p, ..)| *p == pid);
            let until = images.get(after).filter(|(p, ..)| *p == pid).map_or(u64::MAX, |(_, t, _)| *t);
            let from = match image {
                Some((_, t, Image::Executed)) => t.saturating_sub(BEFORE_EXEC_NS),
                Some((_, t, Image::Forked(_))) => t,
                None => 0,
            };
            if let Some(found) = self.between(pid, from, ts, until, addr) {
                return Some(found);
            }
            match image {
                Some((_, forked, Image::Forked(parent))) if parent != pid => (pid, ts) = (parent, forked),
                _ => return None,
            }
        }
        None
    }

    /// Names the stretch of time in which [`Mappings::lookup`] answers the same for `pid` as at `ts_ns`.
    pub fn epoch(&self, tasks: &Tasks, pid: u32, ts_ns: u64) -> (u32, u32) {
        let image = tasks.images().partition_point(|(p, t, _)| (*p, *t) <= (pid, ts_ns));
        let mine = self.of_pid.get(&pid).map_or(&[][..], |(start, end)| &self.rows[*start..*end]);
        (image as u32, mine.partition_point(|m| m.ts_ns <= ts_ns) as u32)
    }

    /// The latest one of `from..=ts`, else the first one of `ts..until`: the snapshot of what ran before takes a moment.
    fn between(&self, pid: u32, from: u64, ts: u64, until: u64, addr: u64) -> Option<&Mapping> {
        let (start, end) = *self.of_pid.get(&pid)?;
        let mine = &self.rows[start..end];
        let covers = |m: &&Mapping| addr.wrapping_sub(m.start) < m.len;
        let (first, now) = (mine.partition_point(|m| m.ts_ns < from), mine.partition_point(|m| m.ts_ns <= ts));
        let before = mine.get(first..now).and_then(|known| known.iter().rev().find(covers));
        before.or_else(|| mine[now..].iter().take_while(|m| m.ts_ns < until).find(covers))
    }
}

/// Build ids stand in the file as bytes or as hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let text = bytes.len().is_multiple_of(2) && bytes.len() >= 16 && bytes.iter().all(u8::is_ascii_hexdigit);
    match text {
        true => String::from_utf8_lossy(bytes).to_ascii_lowercase(),
        false => hex_of(bytes),
    }
}

/// Bytes as hex digits.
pub(crate) fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use bpfrec_format::{Registry, Table};

    use super::*;

    const S: u64 = 1_000_000_000;

    fn tasks(rows: &[(&str, u64, u32, u32)]) -> Tasks {
        let registry = Registry::default();
        let mut tasks = Tasks::default();
        for (name, ts, pid, parent) in rows {
            let kind = registry.by_name(name).unwrap();
            let mut table = Table::new(kind);
            let value = |field: &str| match field {
                "ts_ns" | "start_ns" => *ts,
                "tid" | "pid" => u64::from(*pid),
                "parent_tid" | "ppid" => u64::from(*parent),
                _ => 0,
            };
            let texts = ["comm", "exe"];
            let row: Vec<_> = kind.fields.iter().map(|f| (f.name.as_str(), value(&f.name))).collect();
            let row: Vec<_> =
                row.iter().map(|(name, v)| if texts.contains(name) { "".into() } else { (*v).into() }).collect();
            table.push(&row);
            tasks.add(name, View::new(kind, &table));
        }
        tasks.finish();
        tasks
    }

    fn mappings(rows: &[(u64, u32, u64, &str)]) -> Mappings {
        let mut mappings = Mappings::default();
        for (ts_ns, pid, start, path) in rows {
            mappings.files.push(File { path: (*path).into(), build_id: String::new() });
            let file = mappings.files.len() as u32 - 1;
            let row =
                Mapping { pid: *pid, ts_ns: *ts_ns, start: *start, len: 0x1000, offset: 0, file, inode: (0, 0, 0) };
            mappings.rows.push(row);
        }
        mappings.finish();
        mappings
    }

    #[test]
    fn the_mapping_in_force() {
        let tasks = tasks(&[
            ("sched_exec", 10 * S, 1, 1),
            ("sched_fork", 12 * S, 2, 1),
            ("sched_fork", 13 * S, 3, 2),
            ("sched_exec", 14 * S, 3, 2),
            ("sched_fork", 30 * S, 2, 3),
        ]);
        let m = mappings(&[
            (S, 1, 0x1000, "/old"),
            (10 * S - 1000, 1, 0x4000, "/new"),
            (11 * S, 1, 0x8000, "/lib1"),
            (15 * S, 1, 0x8000, "/lib2"),
            (16 * S, 1, 0xc000, "/late"),
            (14 * S, 3, 0x4000, "/third"),
        ]);
        let at = |pid, ts, addr| m.lookup(&tasks, pid, ts, addr).map(|f| m.files[f.file as usize].path.as_str());
        assert_eq!(at(1, 2 * S, 0x1fff), Some("/old"));
        assert_eq!(at(1, 2 * S, 0x2000), None);
        // An exec takes the old mappings away; the new ones are told just before it.
        assert_eq!(at(1, 11 * S, 0x1000), None);
        assert_eq!(at(1, 11 * S, 0x4000), Some("/new"));
        // The latest at that time; and one that was seen only later, where there is no other.
        assert_eq!((at(1, 12 * S, 0x8000), at(1, 15 * S, 0x8000)), (Some("/lib1"), Some("/lib2")));
        assert_eq!(at(1, 12 * S, 0xc000), Some("/late"));
        // A child has what its parent had at the fork, and so has its child, until it runs something else.
        assert_eq!((at(2, 20 * S, 0x8000), at(3, 13 * S + 1, 0x8000)), (Some("/lib1"), Some("/lib1")));
        assert_eq!((at(3, 14 * S, 0x8000), at(3, 14 * S, 0x4000)), (None, Some("/third")));
        // The pid is used again: by a child of another.
        assert_eq!((at(2, 31 * S, 0x8000), at(2, 31 * S, 0x4000)), (None, Some("/third")));
        assert_eq!(at(9, S, 0x1000), None);
    }

    #[test]
    fn build_ids_of_both_kinds() {
        assert_eq!(hex(&[0xab, 1, 2]), "ab0102");
        assert_eq!(hex(b"ABCDEF0123456789"), "abcdef0123456789");
    }
}
