//! Which file lay at an address of a process at a moment.

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
        self.path.starts_with('/')
            && !["//anon", "/dev/zero", "/SYSV", "/anon_hugepage", "/memfd:"].iter().any(|p| self.path.starts_with(p))
    }
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
fn hex(bytes: &[u8]) -> String {
    let text = bytes.len().is_multiple_of(2) && bytes.len() >= 16 && bytes.iter().all(u8::is_ascii_hexdigit);
    match text {
        true => String::from_utf8_lossy(bytes).to_ascii_lowercase(),
        false => bytes.iter().map(|b| format!("{b:02x}")).collect(),
    }
}
