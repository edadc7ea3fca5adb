//! The vDSO: code that the kernel maps into each process, and that is in no file.

use std::fs::{self, File};

use bpfrec_format::reader::ReadAt;

use crate::processes::Mapping;

/// Never larger: it is four pages or less on all machines.
const MOST: u64 = 1 << 20;

/// Its bytes, from this process's own memory.
pub fn image() -> Option<Vec<u8>> {
    let maps = fs::read("/proc/self/maps").ok()?;
    let mut mappings = maps.split(|b| *b == b'\n').filter_map(|line| Mapping::parse(line, 0, 0));
    let vdso = mappings.find(|m| m.path == b"[vdso]" && m.len <= MOST)?;
    let mut image = vec![0; vdso.len as usize];
    ReadAt::read_exact_at(&File::open("/proc/self/mem").ok()?, &mut image, vdso.start).ok()?;
    Some(image)
}
