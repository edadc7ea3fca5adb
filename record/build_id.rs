//! Build ids of mapped files, read through the process that maps them: never from a file that only happens to have the
//! same name.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object::{Object, ReadCache};
use rustc_hash::FxHashMap;

use crate::processes::Mapping;

/// Files whose build id is known, by device, inode and change time; bounded.
#[derive(Default)]
pub struct BuildIds {
    known: FxHashMap<(u64, u64, i64, i64), Vec<u8>>,
}

/// More different executable files than this on a host are looked up anew.
const REMEMBERED: usize = 16_384;

impl BuildIds {
    /// The build id of what `mapping` maps; empty when it has none or is gone.
    pub fn of(&mut self, mapping: &Mapping) -> Vec<u8> {
        // Anonymous, [vdso], /memfd: and /dev/zero have no file to read.
        if mapping.inode == 0 || !mapping.path.starts_with(b"/") {
            return Vec::new();
        }
        open(mapping).and_then(|file| self.read(file)).unwrap_or_default()
    }

    fn read(&mut self, file: File) -> Option<Vec<u8>> {
        let meta = file.metadata().ok()?;
        if !meta.is_file() {
            return None;
        }
        let key = (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec());
        if let Some(id) = self.known.get(&key) {
            return Some(id.clone());
        }
        let cache = ReadCache::new(file);
        let elf = object::File::parse(&cache).ok();
        let id = elf.and_then(|elf| Some(elf.build_id().ok()??.to_vec())).unwrap_or_default();
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(key, id.clone());
        Some(id)
    }
}

/// The very file that is mapped: by the mapping itself where that is allowed, else in the process's own root, else, when
/// the process is gone, here; by a path only when device and inode are those of the mapping.
pub fn open(m: &Mapping) -> Option<File> {
    let proc = PathBuf::from(format!("/proc/{}", m.pid));
    let by_mapping = proc.join(format!("map_files/{:x}-{:x}", m.start, m.start + m.len));
    if let Ok(file) = File::open(by_mapping) {
        return Some(file);
    }
    let path = Path::new(OsStr::from_bytes(&m.path));
    let in_root = proc.join("root").join(path.strip_prefix("/").ok()?);
    let is_it = |file: &File| {
        let Ok(meta) = file.metadata() else { return false };
        let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
        (meta.ino(), major, minor) == (m.inode, m.major, m.minor)
    };
    [in_root.as_path(), path].into_iter().filter_map(|p| File::open(p).ok()).find(is_it)
}
