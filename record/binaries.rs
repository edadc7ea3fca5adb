//! The binaries that are mapped: each once, with what it is and an open handle, so that its symbols can be read at the
//! stop even when its path, container or process is gone by then.

mod binary;
mod rows;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use bpfrec_format::{BlockType, Table};
use rustc_hash::FxHashMap;

pub use binary::{Binary, missing};
pub use rows::Rows;

use crate::clock;
use crate::elf;
use crate::open::{self, Found};
use crate::processes::Mapping;
use binary::{content_id, first_8};

/// More different binaries than this on a host are counted and not looked at.
const MOST: usize = 16_384;
/// Open handles at most, where the limit of open files allows them.
const MOST_HANDLES: usize = 8192;
/// File descriptors that are left to others.
const SPARE: u64 = 64;

/// Device, inode, size and change time: the same file with the same content.
type FileKey = (u64, u64, u64, i64, i64);

/// All binaries.
pub struct Binaries {
    /// In the order in which they were first seen.
    pub list: Vec<Binary>,
    by_id: FxHashMap<u64, u32>,
    by_file: FxHashMap<FileKey, u32>,
    /// Where the kernel tells no build ids: by device and inode as in mappings, which on overlay file systems are not the file's.
    by_mapping: FxHashMap<(u32, u32, u64), u32>,
    rows: Rows,
    segment: u32,
    vdso: Option<u32>,
    handles: usize,
    limit: u64,
    /// Mappings of binaries beyond [`MOST`].
    pub over: u64,
    /// Mappings of files that were closed to the recorder, where the kernel does not tell their build ids.
    refused: u64,
}

impl Default for Binaries {
    fn default() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let mut binaries = Binaries {
            list: Vec::new(),
            by_id: FxHashMap::default(),
            by_file: FxHashMap::default(),
            by_mapping: FxHashMap::default(),
            rows: Rows::default(),
            segment: 0,
            vdso: None,
            handles: 0,
            limit,
            over: 0,
            refused: 0,
        };
        binaries.vdso = crate::vdso::image().and_then(|image| binaries.add_vdso(image));
        binaries
    }
}

impl Binaries {
    /// How many were closed to the recorder.
    pub fn refused(&self) -> u64 {
        self.refused + self.list.iter().filter(|b| b.missing == missing::REFUSED).count() as u64
    }

    /// Takes note of a mapping and fills in its build id where the kernel did not. Returns the position of the binary,
    /// if it is one. `others` are processes that live in the same mount namespace.
    pub fn see(&mut self, m: &mut Mapping, others: impl Iterator<Item = u32>) -> Option<u32> {
        if m.path == b"[vdso]" {
            // That of a 32-bit process is another one.
            let at = self.vdso.filter(|_| m.start > u64::from(u32::MAX))?;
            m.build_id.clone_from(&self.list[at as usize].build_id);
            return Some(at);
        }
        if !is_file(m) {
            return None;
        }
        let known = first_8(&m.build_id).and_then(|id| self.by_id.get(&id).copied());
        if let Some(at) = known {
            let b = &mut self.list[at as usize];
            if b.handle.is_some() || b.layout.is_some() || b.tries == 0 {
                self.in_segment(at);
                return Some(at);
            }
            b.tries -= 1;
        }
        let found = open::of_process(m).find_map(|Found { file, sure }| self.identify(m, file, sure));
        let found = found.or_else(|| self.remembered(m));
        let found =
            found.or_else(|| open::of_others(m, others).find_map(|Found { file, sure }| self.identify(m, file, sure)));
        if let Some(at) = found {
            if m.build_id.is_empty() {
                self.remember(m, at);
            }
            m.build_id.clone_from(&self.list[at as usize].build_id);
            return Some(at);
        }
        let is_refused = known.is_none() && open::is_refused(m);
        let Some(id) = first_8(&m.build_id) else {
            self.refused += u64::from(is_refused);
            return None;
        };
        known.or_else(|| {
            let missing = if is_refused { missing::REFUSED } else { missing::GONE };
            let b = Binary { missing, build_id: m.build_id.clone(), ..Binary::new(id, m) };
            self.add(b)
        })
    }

    /// The binary that a mapping of a process that is gone was of. Its handle keeps the inode from being given to another file.
    fn remembered(&mut self, m: &Mapping) -> Option<u32> {
        let at = *self.by_mapping.get(&(m.major, m.minor, m.inode)).filter(|_| m.build_id.is_empty())?;
        let b = &self.list[at as usize];
        if b.handle.is_none() || b.path != m.path {
            return None;
        }
        self.in_segment(at);
        Some(at)
    }

    fn remember(&mut self, m: &Mapping, at: u32) {
        if self.by_mapping.len() >= 2 * MOST {
            self.by_mapping.clear();
        }
        self.by_mapping.insert((m.major, m.minor, m.inode), at);
    }

    /// The binary that `file` is; `None` when it is not the one that `m` maps.
    fn identify(&mut self, m: &Mapping, file: File, sure: bool) -> Option<u32> {
        let stat = file.metadata().ok()?;
        let key = (stat.dev(), stat.ino(), stat.size(), stat.ctime(), stat.ctime_nsec());
        if let Some(at) = self.by_file.get(&key).copied() {
            let same = self.list[at as usize].build_id == m.build_id && !m.build_id.is_empty();
            if same || (sure && m.build_id.is_empty()) {
                self.in_segment(at);
                return Some(at);
            }
            return None;
        }
        let layout = elf::layout(&file);
        let build_id = layout.as_ref().map_or_else(Vec::new, |l| l.build_id.clone());
        if !(build_id == m.build_id && !build_id.is_empty() || sure && m.build_id.is_empty()) {
            return None;
        }
        // Code that a runtime writes into memory files is no binary.
        if layout.is_none() && (m.path.starts_with(b"/memfd:") || m.path.starts_with(b"/dev/shm/")) {
            return None;
        }
        let content_id = if build_id.is_empty() { content_id(&file).ok()? } else { Vec::new() };
        let id = first_8(&build_id).or_else(|| first_8(&content_id))?;
        let device = (rustix::fs::major(stat.dev()), rustix::fs::minor(stat.dev()), stat.ino());
        let device = if m.inode == 0 { device } else { (m.major, m.minor, m.inode) };
        let at = match self.by_id.get(&id).copied() {
            Some(at) => {
                let b = &mut self.list[at as usize];
                if b.layout.is_none() && matches!(b.missing, missing::GONE | missing::REFUSED) {
                    (b.size, b.layout, b.missing, b.file) = (stat.size(), layout, "", device);
                    self.rows.push(b, device);
                } else if build_id.is_empty() && b.file != device {
                    // Without a build id a mapping is led to its binary by device and inode: tell these too.
                    self.rows.push(b, device);
                }
                self.in_segment(at);
                at
            }
            None => {
                let missing = if layout.is_none() { missing::NOT_ELF } else { "" };
                let size = stat.size();
                let new = Binary::new(id, m);
                self.add(Binary { build_id, content_id, file: device, size, layout, missing, ..new })?
            }
        };
        if self.by_file.len() >= 2 * MOST {
            self.by_file.clear();
        }
        self.by_file.insert(key, at);
        self.keep(at, file);
        Some(at)
    }

    fn add(&mut self, mut binary: Binary) -> Option<u32> {
        if self.list.len() >= MOST {
            self.over += 1;
            return None;
        }
        let at = self.list.len() as u32;
        binary.segment = self.segment;
        self.rows.push(&binary, binary.file);
        self.by_id.insert(binary.id, at);
        self.list.push(binary);
        Some(at)
    }

    fn add_vdso(&mut self, image: Vec<u8>) -> Option<u32> {
        let layout = elf::layout(&image)?;
        let build_id = layout.build_id.clone();
        let content_id = if build_id.is_empty() { content_id(&image).ok()? } else { Vec::new() };
        let id = first_8(&build_id).or_else(|| first_8(&content_id))?;
        let m = Mapping { ts_ns: clock::mono_ns(), path: b"[vdso]".to_vec(), ..Mapping::default() };
        let size = image.len() as u64;
        let new = Binary::new(id, &m);
        self.add(Binary { build_id, content_id, size, layout: Some(layout), memory: Some(image), ..new })
    }

    /// Keeps a handle within the bounds.
    fn keep(&mut self, at: u32, file: File) {
        let b = &mut self.list[at as usize];
        if b.handle.is_some() || b.layout.is_none() {
            return;
        }
        if self.handles < MOST_HANDLES && (file.as_raw_fd() as u64) + SPARE < self.limit {
            self.handles += 1;
            b.handle = Some(file);
        }
    }

    /// Each segment of the trace tells of the binaries that are mapped in its time.
    fn in_segment(&mut self, at: u32) {
        let b = &mut self.list[at as usize];
        if b.segment != self.segment {
            b.segment = self.segment;
            self.rows.push(b, b.file);
        }
    }

    /// From now on binaries are told of anew when they are seen.
    pub fn next_segment(&mut self) {
        self.segment += 1;
        if let Some(vdso) = self.vdso {
            self.in_segment(vdso);
        }
    }

    /// Rows since the last call.
    pub fn take_rows(&mut self) -> Option<(BlockType, Vec<Table>)> {
        self.rows.take()
    }
}

/// Whether a mapping is of something that may be a binary: not anonymous memory, shared memory or a device.
fn is_file(m: &Mapping) -> bool {
    let never = [&b"//anon"[..], b"/dev/", b"/SYSV", b"/anon_hugepage", b"/[aio]"];
    // A file system like others: programs are run from it, too.
    let never = |path: &[u8]| !path.starts_with(b"/dev/shm/") && never.iter().any(|n| path.starts_with(n));
    m.path.starts_with(b"/") && !never(&m.path) && (m.inode != 0 || !m.build_id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_again_when_its_process_is_gone() {
        let mut binaries = Binaries::default();
        // On an overlay file system the device of the mapping is not the file's. No process has this pid.
        let m = Mapping { pid: u32::MAX >> 1, inode: 5, minor: 7, path: b"/here".to_vec(), ..Mapping::default() };
        assert_eq!(binaries.see(&mut m.clone(), std::iter::empty()), None);
        let at = binaries.identify(&m, File::open("/proc/self/exe").unwrap(), true).unwrap();
        binaries.remember(&m, at);
        let mut again = m.clone();
        assert_eq!(binaries.see(&mut again, std::iter::empty()), Some(at));
        assert_eq!(again.build_id, binaries.list[at as usize].build_id);
        for other in [Mapping { minor: 8, ..m.clone() }, Mapping { path: b"/there".to_vec(), ..m.clone() }] {
            assert_eq!(binaries.see(&mut other.clone(), std::iter::empty()), None);
        }
        // Without a handle the inode may be another file's by now.
        binaries.list[at as usize].handle = None;
        assert_eq!(binaries.see(&mut m.clone(), std::iter::empty()), None);
    }

    #[test]
    fn programs_are_run_from_shared_memory_too() {
        let is = |path: &str| is_file(&Mapping { inode: 1, path: path.into(), ..Mapping::default() });
        assert!(is("/dev/shm/burn") && is("/usr/bin/burn") && is("/memfd:burn"));
        assert!(!is("/dev/zero") && !is("/dev/dri/card0") && !is("//anon") && !is("[heap]"));
    }
}
