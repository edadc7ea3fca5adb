//! Unwind tables of mapped binaries, each read once, through the process that maps it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use object::{Object, ObjectSection, ObjectSegment, ReadCache, ReadRef};
use rustc_hash::FxHashMap;

use crate::open::{Found, candidates};
use crate::pids;
use crate::processes::Mapping;

/// A section's addresses in the file's own terms, and its bytes.
type Section = (Range<u64>, Arc<[u8]>);

/// What unwinding needs of a binary.
#[derive(Debug, Default)]
pub struct Tables {
    /// (file offset, bytes, address) of what is loaded.
    segments: Vec<(u64, u64, u64)>,
    build_id: Vec<u8>,
    /// `.eh_frame`.
    pub eh_frame: Option<Section>,
    /// `.eh_frame_hdr`, the index into it.
    pub eh_frame_hdr: Option<Section>,
}

impl Tables {
    fn read<'a, R: ReadRef<'a>>(data: R) -> Option<Tables> {
        let elf = object::File::parse(data).ok()?;
        let segments = elf.segments().map(|s| (s.file_range().0, s.file_range().1, s.address())).collect();
        let section = |name: &str| {
            let section = elf.section_by_name(name)?;
            let bytes = section.data().ok().filter(|b| !b.is_empty())?;
            Some((section.address()..section.address() + bytes.len() as u64, Arc::from(bytes)))
        };
        let build_id = elf.build_id().ok().flatten().unwrap_or_default().to_vec();
        let (eh_frame, eh_frame_hdr) = (section(".eh_frame"), section(".eh_frame_hdr"));
        Some(Tables { segments, build_id, eh_frame, eh_frame_hdr })
    }

    /// Where address 0 of the file's own terms lies in the process that has it mapped so; modulo 2^64.
    pub fn bias(&self, mapping: &Mapping) -> Option<u64> {
        // Offsets of mappings are those of whole pages.
        let page = 4096;
        let holds = |(start, len, _): &&(u64, u64, u64)| {
            mapping.offset < start + len && start / page * page < mapping.offset + mapping.len
        };
        let (start, _, addr) = self.segments.iter().rfind(holds)?;
        Some(mapping.start.wrapping_sub(mapping.offset).wrapping_add(*start).wrapping_sub(*addr))
    }

    /// The first address in the file's own terms. Tables are looked up by 32-bit distances from it.
    pub fn first_addr(&self) -> u64 {
        self.segments.iter().map(|(_, _, addr)| *addr).min().unwrap_or(0)
    }

    fn bytes(&self) -> usize {
        let len = |s: &Option<Section>| s.as_ref().map_or(0, |(_, bytes)| bytes.len());
        len(&self.eh_frame) + len(&self.eh_frame_hdr)
    }
}

/// Device, inode, and when it changed.
type Identity = (u64, u64, i64, i64);

/// Tables of all binaries that samples hit.
#[derive(Default)]
pub struct Binaries {
    by_file: FxHashMap<Identity, Option<Arc<Tables>>>,
    /// For processes that are gone before their samples are looked at.
    by_build_id: FxHashMap<Vec<u8>, Arc<Tables>>,
    vdso: Option<Option<Arc<Tables>>>,
    bytes: usize,
}

/// Tables of a binary larger than this are not read.
const MAX_TABLES: u64 = 32 << 20;
/// Beyond so many bytes of tables, or so many files, all are forgotten and read again as needed.
const REMEMBERED: (usize, usize) = (64 << 20, 4096);

impl Binaries {
    /// Whether it holds more than it should: time to drop it, and what was made from it.
    pub fn is_full(&self) -> bool {
        self.bytes > REMEMBERED.0 || self.by_file.len() > REMEMBERED.1
    }

    /// The tables of what `mapping` maps; `None` when it is no binary, or is gone and was not seen before.
    pub fn of(&mut self, mapping: &Mapping) -> Option<Arc<Tables>> {
        if mapping.path == b"[vdso]" {
            return self.vdso.get_or_insert_with(|| vdso().map(Arc::new)).clone();
        }
        if !mapping.path.starts_with(b"/") || mapping.path.starts_with(b"//") {
            return None;
        }
        let known = |b: &Self| b.by_build_id.get(&mapping.build_id).cloned();
        let Some(file) = open(mapping) else { return known(self) };
        let meta = file.metadata().ok().filter(|m| m.is_file())?;
        let identity = (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec());
        if !self.by_file.contains_key(&identity) {
            let tables = Tables::read(&ReadCache::new(Bounded(file))).map(Arc::new);
            if let Some(tables) = &tables {
                self.bytes += tables.bytes();
                self.by_build_id.insert(tables.build_id.clone(), Arc::clone(tables));
            }
            self.by_file.insert(identity, tables);
        }
        let tables = self.by_file.get(&identity).cloned().flatten()?;
        // A path may lead to another file by now.
        if !mapping.build_id.is_empty() && tables.build_id != mapping.build_id { known(self) } else { Some(tables) }
    }
}

/// The very file, where it can still be had. Without an inode to know it by, the caller looks at the build id.
fn open(m: &Mapping) -> Option<File> {
    let others = std::iter::once(pids::recorder());
    let known = |found: &Found| found.sure || m.inode == 0 && !m.build_id.is_empty();
    candidates(m, others).find(known).map(|found| found.file)
}

/// A file of which no piece over [`MAX_TABLES`] is read: what it says of itself is not believed.
struct Bounded(File);

impl Read for Bounded {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if buf.len() as u64 > MAX_TABLES {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.read(buf)
    }
}

impl Seek for Bounded {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

/// The kernel's own code in user space, the same in all processes of this architecture: read from this one.
fn vdso() -> Option<Tables> {
    let maps = std::fs::read("/proc/self/maps").ok()?;
    let mut mappings = maps.split(|b| *b == b'\n').filter_map(|line| Mapping::parse(line, 0, 0));
    let own = mappings.find(|m| m.path == b"[vdso]")?;
    let mut bytes = vec![0; own.len as usize];
    let mut memory = File::open("/proc/self/mem").ok()?;
    memory.seek(SeekFrom::Start(own.start)).ok()?;
    memory.read_exact(&mut bytes).ok()?;
    Tables::read(&bytes[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_binaries_have_tables() {
        let maps = std::fs::read("/proc/self/maps").unwrap();
        let parse = |line| Mapping::parse(line, std::process::id(), 1);
        let own: Vec<Mapping> = maps.split(|b| *b == b'\n').filter_map(parse).collect();
        let mut binaries = Binaries::default();
        for name in ["libc.so", "[vdso]"] {
            let mapping = own.iter().find(|m| String::from_utf8_lossy(&m.path).contains(name)).unwrap();
            let tables = binaries.of(mapping).unwrap_or_else(|| panic!("{name} has no tables"));
            assert!(tables.eh_frame.is_some() && tables.eh_frame_hdr.is_some(), "{name}");
            assert_eq!(tables.bias(mapping).unwrap() % 4096, 0, "{name}");
        }
    }

    #[test]
    fn a_path_to_another_file_is_not_taken() {
        let gone = Mapping { pid: u32::MAX, path: b"/bin/sh".to_vec(), build_id: vec![1; 20], ..Mapping::default() };
        assert!(Binaries::default().of(&gone).is_none());
        let gone = Mapping { inode: 1, build_id: Vec::new(), ..gone };
        assert!(Binaries::default().of(&gone).is_none());
    }
}
