//! Binaries as the trace describes them: who they are, what is loaded of them, their functions.

use bpfrec_format::meta::symbol_source;
use rustc_hash::FxHashMap;

use crate::mappings::hex;
use crate::symbols::functions::Functions;
use crate::view::View;

/// A part of a binary that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub len: u64,
    /// Address.
    pub addr: u64,
    /// `p_flags`.
    pub flags: u32,
}

impl Segment {
    /// Whether it may be executed.
    pub fn is_code(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// The address that `offset` of a file is loaded to, before relocation.
pub fn address_of(segments: &[Segment], offset: u64) -> Option<u64> {
    let covers = |s: &&Segment| offset.wrapping_sub(s.offset) < s.len;
    // The page at a segment's edge may lie in two: what runs is the one with code.
    let of = segments.iter().filter(covers).max_by_key(|s| s.is_code())?;
    Some(offset.wrapping_sub(of.offset).wrapping_add(of.addr))
}

/// Path of the kernel's own library.
const VDSO: &str = "[vdso]";

/// A binary.
#[derive(Clone, Debug, Default)]
pub struct Binary {
    /// Number in the trace.
    pub id: u64,
    /// When it was first seen, CLOCK_MONOTONIC.
    pub ts_ns: u64,
    /// Build id in hex; empty: it has none.
    pub build_id: String,
    /// In hex, where there is no build id.
    pub content_id: String,
    /// As its processes see it.
    pub path: String,
    /// Inode and device.
    pub inode: (u64, u32, u32),
    /// Bytes of the file.
    pub size_bytes: u64,
    /// `e_type` and `e_machine`.
    pub kind: (u16, u16),
    /// Name of its debug file; empty: none.
    pub debug_link: String,
    /// CRC-32 of that.
    pub debug_link_crc: u32,
    /// Why the trace has no functions of it.
    pub missing: String,
    /// What is loaded.
    pub segments: Vec<Segment>,
    /// Its functions, as far as the trace has them.
    pub functions: Functions,
}

impl Binary {
    /// Whether all of its functions are in the trace, not only those that it exports.
    pub fn has_all_functions(&self) -> bool {
        let full = [symbol_source::SYMTAB, symbol_source::GNU_DEBUGDATA, symbol_source::ADDED];
        self.missing.is_empty() && self.functions.has_source(&full)
    }
}

/// All binaries of a trace.
#[derive(Debug, Default)]
pub struct Binaries {
    rows: Vec<Binary>,
    by_id: FxHashMap<u64, usize>,
    by_build_id: FxHashMap<String, usize>,
    /// By inode and device, each with the moment from which on it holds.
    by_file: FxHashMap<(u64, u32, u32), Vec<(u64, usize)>>,
    vdso: Option<usize>,
}

impl Binaries {
    fn of_id(&mut self, id: u64) -> &mut Binary {
        let next = self.rows.len();
        let at = *self.by_id.entry(id).or_insert(next);
        if at == next {
            self.rows.push(Binary { id, ..Binary::default() });
        }
        &mut self.rows[at]
    }

    pub(crate) fn add(&mut self, view: View<'_>) {
        let int = |name| view.ints(name);
        let (ts, id, size, ty, machine) =
            (int("ts_ns"), int("binary_id"), int("size_bytes"), int("elf_type"), int("machine"));
        let (inode, major, minor, crc) = (int("inode"), int("dev_major"), int("dev_minor"), int("debug_link_crc"));
        let (build_id, content_id) = (view.texts("build_id"), view.texts("content_id"));
        let (path, link, missing) = (view.texts("path"), view.texts("debug_link"), view.texts("missing"));
        for row in 0..view.rows() {
            let binary = self.of_id(id.get(row));
            binary.ts_ns = ts.get(row);
            binary.build_id = hex(build_id.get(row));
            binary.content_id = hex(content_id.get(row));
            binary.path = path.string(row);
            binary.inode = (inode.get(row), major.get32(row), minor.get32(row));
            binary.size_bytes = size.get(row);
            binary.kind = (ty.get(row) as u16, machine.get(row) as u16);
            binary.debug_link = link.string(row);
            binary.debug_link_crc = crc.get32(row);
            binary.missing = missing.string(row);
            let (file, is_vdso) = (binary.inode, binary.path == VDSO);
            let at = self.by_id[&id.get(row)];
            if is_vdso {
                self.vdso = Some(at);
            } else if file.0 != 0 {
                self.by_file.entry(file).or_default().push((ts.get(row), at));
            }
        }
    }

    pub(crate) fn add_segments(&mut self, view: View<'_>) {
        let (id, offset, len) = (view.ints("binary_id"), view.ints("offset_bytes"), view.ints("len_bytes"));
        let (addr, flags) = (view.ints("addr"), view.ints("flags"));
        for row in 0..view.rows() {
            let segment =
                Segment { offset: offset.get(row), len: len.get(row), addr: addr.get(row), flags: flags.get32(row) };
            let segments = &mut self.of_id(id.get(row)).segments;
            // Each segment of a trace tells of the binaries anew.
            if !segments.contains(&segment) {
                segments.push(segment);
            }
        }
    }

    pub(crate) fn add_functions(&mut self, view: View<'_>) {
        let (id, addr, len) = (view.ints("binary_id"), view.ints("addr"), view.ints("len_bytes"));
        let (source, name) = (view.ints("source"), view.texts("name"));
        for row in 0..view.rows() {
            let functions = &mut self.of_id(id.get(row)).functions;
            functions.push(addr.get(row), len.get(row), source.get(row) as u8, name.get(row));
        }
    }

    pub(crate) fn finish(&mut self) {
        for (at, binary) in self.rows.iter_mut().enumerate() {
            // Where some functions are missing, others must not reach over them.
            let code = binary.segments.iter().filter(|s| s.is_code() && binary.missing.is_empty());
            let ranges: Vec<_> = code.map(|s| s.addr..s.addr.saturating_add(s.len)).collect();
            binary.functions.finish(&ranges);
            if !binary.build_id.is_empty() {
                self.by_build_id.insert(binary.build_id.clone(), at);
            }
        }
        self.by_file.values_mut().for_each(|rows| rows.sort_by_key(|(ts, _)| *ts));
    }

    /// The binary that was mapped at `ts_ns`: by its build id, else by its place in the file system, as the last one that
    /// was seen there until then. A position in [`Binaries::all`].
    pub fn find(&self, build_id: &str, inode: (u64, u32, u32), path: &str, ts_ns: u64) -> Option<u32> {
        let at = match (build_id, path) {
            ("", VDSO) => self.vdso,
            ("", _) => {
                let rows = self.by_file.get(&inode)?;
                Some(rows[rows.partition_point(|(ts, _)| *ts <= ts_ns).checked_sub(1)?].1)
            }
            (id, _) => self.by_build_id.get(id).copied(),
        };
        at.map(|at| at as u32)
    }

    /// All of them.
    pub fn all(&self) -> &[Binary] {
        &self.rows
    }
}
