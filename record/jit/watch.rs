//! A process that compiles code, and the files in which it tells what.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

use super::dump::Dump;
use super::perf_map::PerfMap;
use super::{Budget, Rows, Seen};
use crate::pids;
use crate::processes::Mapping;

/// Files of each kind that are kept open for a process.
const FILES: usize = 4;
/// Bytes that are read of what one process wrote.
const PROCESS_BYTES: u64 = 64 << 20;

/// Whether code in this mapping was made while the process ran: it is of no file.
pub fn is_compiled(m: &Mapping) -> bool {
    let made_of_none = ["//anon", "/dev/zero", "/memfd:", "/anon_hugepage", "/SYSV"];
    let kernels = ["[vdso]", "[vsyscall]", "[uprobes]"];
    match m.path.first() {
        Some(b'/') => made_of_none.iter().any(|p| m.path.starts_with(p.as_bytes())),
        _ => !kernels.iter().any(|name| m.path == name.as_bytes()),
    }
}

/// Whether this mapping is the mark by which a runtime makes its jitdump file known.
pub fn is_dump(m: &Mapping) -> bool {
    m.path.starts_with(b"/") && m.path.ends_with(b".dump")
}

/// A process that compiles code.
pub struct Watch {
    pid: u32,
    ns_pid: u32,
    uids: Vec<u32>,
    /// Its root and the host's: what is in them can be reached when the process is gone.
    roots: [Option<OwnedFd>; 2],
    maps: Vec<PerfMap>,
    dumps: Vec<Dump>,
    /// Device and inode of files that are not believed.
    refused: Vec<(u64, u64)>,
    /// Whether there is one that may not be read, which was counted.
    closed: bool,
    budget: Budget,
}

impl Watch {
    /// Nothing was searched yet.
    pub fn new(pid: u32) -> Watch {
        let root = |path: &str| open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok();
        let (ns_pid, uids) = identity(pid).unwrap_or((pid, Vec::new()));
        Watch {
            pid,
            ns_pid,
            uids,
            roots: [root(&(pids::proc(pid) + "/root")), root("/")],
            maps: Vec::new(),
            dumps: Vec::new(),
            refused: Vec::new(),
            closed: false,
            budget: Budget { left: PROCESS_BYTES },
        }
    }

    /// Whether it wrote anything that is worth a look.
    pub fn has_files(&self) -> bool {
        !(self.maps.is_empty() && self.dumps.is_empty())
    }

    /// Looks for a perf map: under the innermost pid in the process's own root, under the recorder's pid of it in the recorder's.
    pub fn search(&mut self, seen: &mut Seen) {
        for (root, pid) in [(0, self.ns_pid), (1, pids::own(self.pid).unwrap_or(self.pid))] {
            let path = format!("tmp/perf-{pid}.map");
            let Some(root) = &self.roots[root] else { continue };
            let file = match open_in(root, path.as_bytes()) {
                Ok(file) => file,
                Err(error) => {
                    let is_news = error == Errno::ACCESS && !std::mem::replace(&mut self.closed, true);
                    seen.refused += u64::from(is_news);
                    continue;
                }
            };
            let Some(map) = PerfMap::new(file.0) else { continue };
            let known = self.maps.iter().map(|m| &m.identity).chain(&self.refused).any(|id| *id == map.identity);
            if known || self.maps.len() >= FILES {
                continue;
            }
            // Others may write into /tmp, too: names from them would be lies.
            if file.1 == 0 || self.uids.contains(&file.1) {
                seen.files += 1;
                self.maps.push(map);
            } else if self.refused.len() < FILES {
                seen.refused += 1;
                self.refused.push(map.identity);
            }
        }
    }

    /// Opens a jitdump file: the one that is mapped, else the one of its path in the process's root.
    pub fn add_dump(&mut self, m: &Mapping) {
        let mapped = format!("{}/map_files/{:x}-{:x}", pids::proc(m.pid), m.start, m.start + m.len);
        let by_path = || {
            let (file, uid) = open_in(self.roots[0].as_ref()?, m.path.strip_prefix(b"/")?).ok()?;
            (uid == 0 || self.uids.contains(&uid)).then_some(file)
        };
        let Some(dump) = File::open(mapped).ok().or_else(by_path).and_then(Dump::new) else { return };
        if self.dumps.len() < FILES && self.dumps.iter().all(|d| d.identity != dump.identity) {
            self.dumps.push(dump);
        }
    }

    /// Reads what is new, of each file about `at_most` bytes. What a jitdump file tells, with times, a perf map need not.
    pub fn read(&mut self, at_most: usize, total: &mut Budget, rows: &mut Rows, seen: &mut Seen) {
        let given = self.budget.left.min(total.left);
        let mut budget = Budget { left: given };
        for dump in &mut self.dumps {
            let before = dump.is_good();
            dump.read(self.pid, at_most, &mut budget, rows, seen);
            seen.files += u64::from(dump.is_good() && !before);
        }
        if !self.dumps.iter().any(Dump::is_good) {
            for map in &mut self.maps {
                map.read(self.pid, at_most, &mut budget, rows, seen);
            }
        }
        let used = given - budget.left;
        (self.budget.left, total.left) = (self.budget.left - used, total.left - used);
    }

    /// All that was read, again.
    pub fn again(&self, rows: &mut Rows) {
        self.dumps.iter().for_each(|dump| dump.again(self.pid, rows));
        self.maps.iter().for_each(|map| map.again(self.pid, rows));
    }

    /// Bytes that were not read.
    pub fn left(&self) -> u64 {
        self.maps.iter().map(PerfMap::left).chain(self.dumps.iter().map(Dump::left)).sum()
    }
}

/// Innermost pid and user ids of a process.
fn identity(pid: u32) -> Option<(u32, Vec<u32>)> {
    let status = std::fs::read_to_string(pids::proc(pid) + "/status").ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let numbers = |text: &str| text.split_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<u32>>();
    let ns_pid = field("NSpid:").and_then(|text| numbers(text).last().copied());
    Some((ns_pid.unwrap_or(pid), field("Uid:").map(numbers).unwrap_or_default()))
}

/// A regular file in a root and its owner. Links lead nowhere out of the root, the last part may be none, and nothing is
/// waited for.
fn open_in(root: &impl AsFd, path: &[u8]) -> Result<(File, u32), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(root, OsStr::from_bytes(path), flags, Mode::empty(), resolve)?);
    let meta = file.metadata().ok().filter(|m| m.is_file()).ok_or(Errno::NOENT)?;
    Ok((file, meta.uid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_that_matter() {
        let of = |path: &str| Mapping { path: path.into(), ..Mapping::default() };
        for path in ["", "//anon", "/memfd:jit (deleted)", "[anon:v8]", "[heap]", "[stack]"] {
            assert!(is_compiled(&of(path)), "{path}");
        }
        for path in ["/usr/bin/node", "[vdso]", "/tmp/jit-7.dump"] {
            assert!(!is_compiled(&of(path)), "{path}");
        }
        assert!(is_dump(&of("/tmp/jit-7.dump")) && !is_dump(&of("/usr/bin/dump")));
    }

    #[test]
    fn links_are_not_followed_out_of_a_root() {
        let root = std::env::temp_dir().join(format!("bpfrec-root-{}", std::process::id()));
        std::fs::create_dir_all(root.join("real")).unwrap();
        std::fs::write(root.join("real/perf-1.map"), "x").unwrap();
        std::os::unix::fs::symlink("/real", root.join("tmp")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("real/perf-2.map")).unwrap();
        let dir = open(&root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert!(open_in(&dir, b"tmp/perf-1.map").is_ok());
        assert!(open_in(&dir, b"tmp/perf-2.map").is_err());
        assert!(open_in(&dir, b"tmp").is_err());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
