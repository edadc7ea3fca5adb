//! An ELF file at hand: who it is, what it maps, its functions.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bpfrec_format::meta::symbol_source;
use object::read::elf::FileHeader;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache, SectionFlags, SegmentFlags, elf};
use sha2::{Digest, Sha256};

use super::functions::{Functions, Range};
use crate::binaries::Segment;

/// What the content id is made of at each end of the file.
const CONTENT_BYTES: u64 = 4096;

/// A file that holds ELF.
#[derive(Clone, Debug)]
pub struct Elf {
    /// Where it is.
    pub path: PathBuf,
    /// Build id in hex; empty when it has none.
    pub build_id: String,
    /// What is loaded. A separate debug file has none of it.
    pub segments: Vec<Segment>,
    /// Whether it has more than exported symbols.
    pub has_symtab: bool,
    /// Whether it knows source lines.
    pub has_lines: bool,
    /// `e_type` and `e_machine`.
    pub kind: (u16, u16),
    /// Bytes.
    pub len: u64,
    /// Spans of its sections with code.
    code: Vec<Range>,
    has_debugdata: bool,
}

impl Elf {
    /// Reads the headers of a regular file. `None`: there is no such file, or no ELF in it.
    pub fn open(path: &Path) -> Option<Elf> {
        let metadata = path.metadata().ok().filter(|m| m.is_file())?;
        let cache = ReadCache::new(File::open(path).ok()?);
        let file = object::File::parse(&cache).ok()?;
        let build_id = file.build_id().ok().flatten().unwrap_or_default();
        let flags = |s: &object::Segment<'_, '_, _>| match s.flags() {
            SegmentFlags::Elf { p_flags, .. } => p_flags.0,
            _ => 0,
        };
        let segments = file.segments().map(|s| {
            let (offset, len) = s.file_range();
            Segment { offset, len, addr: s.address(), flags: flags(&s) }
        });
        let section = |name: &str| file.section_by_name(name);
        let holds = |name: &str| section(name).is_some_and(|s| s.file_range().is_some_and(|(_, len)| len > 0));
        let is_code = |s: &object::Section<'_, '_, _>| match s.flags() {
            SectionFlags::Elf { sh_flags, .. } => sh_flags.0 & elf::SHF_EXECINSTR.0 != 0,
            _ => false,
        };
        let kind = match &file {
            object::File::Elf64(f) => (f.elf_header().e_type(f.endian()), f.elf_header().e_machine(f.endian())),
            object::File::Elf32(f) => (f.elf_header().e_type(f.endian()), f.elf_header().e_machine(f.endian())),
            _ => return None,
        };
        Some(Elf {
            path: path.into(),
            build_id: crate::mappings::hex_of(build_id),
            segments: segments.collect(),
            has_symtab: file.symbols().next().is_some() || holds(".gnu_debugdata"),
            has_debugdata: file.symbols().next().is_none() && holds(".gnu_debugdata"),
            has_lines: holds(".debug_line") || holds(".zdebug_line"),
            kind: (kind.0.0, kind.1.0),
            len: metadata.len(),
            code: file.sections().filter(is_code).map(|s| s.address()..s.address() + s.size()).collect(),
        })
    }

    /// Whether it holds code, not only what belongs to code elsewhere.
    pub fn has_code(&self) -> bool {
        self.segments.iter().any(|s| s.is_code() && s.len > 0)
    }

    /// Address of a symbol.
    pub fn address_of(&self, name: &str) -> Option<u64> {
        let cache = ReadCache::new(File::open(&self.path).ok()?);
        let file = object::File::parse(&cache).ok()?;
        file.symbols().find(|s| s.name() == Ok(name)).map(|s| s.address())
    }

    /// Bytes of a section.
    pub fn section_len(&self, name: &str) -> Option<u64> {
        let cache = ReadCache::new(File::open(&self.path).ok()?);
        Some(object::File::parse(&cache).ok()?.section_by_name(name)?.size())
    }

    /// Its functions. `Err`: why they cannot be read.
    pub fn functions(&self) -> Result<Functions, String> {
        let mut functions = Functions::default();
        let cache = ReadCache::new(File::open(&self.path).map_err(|e| e.to_string())?);
        let file = object::File::parse(&cache).map_err(|e| e.to_string())?;
        // A file with a symbol table says how far functions without a length reach, whoever names them.
        let exported = if self.has_symtab { symbol_source::SYMTAB } else { symbol_source::DYNSYM };
        let symbols = file.symbols().map(|s| (s, symbol_source::SYMTAB));
        for (symbol, source) in symbols.chain(file.dynamic_symbols().map(|s| (s, exported))) {
            let is_function = symbol.kind() == object::SymbolKind::Text && symbol.is_definition();
            if let Some(name) = symbol.name_bytes().ok().filter(|_| is_function) {
                functions.push(symbol.address(), symbol.size(), source as u8, name);
            }
        }
        if self.has_debugdata {
            let source = blazesym::inspect::source::Source::Elf(blazesym::inspect::source::Elf {
                debug_syms: false,
                ..blazesym::inspect::source::Elf::new(&self.path)
            });
            let each = |s: &blazesym::inspect::SymInfo<'_>| {
                if s.sym_type == blazesym::SymType::Function {
                    let len = s.size.unwrap_or(0) as u64;
                    functions.push(s.addr, len, symbol_source::GNU_DEBUGDATA as u8, s.name.as_bytes());
                }
                ControlFlow::Continue(())
            };
            blazesym::inspect::Inspector::new().for_each(&source, each).map_err(|e| e.to_string())?;
        }
        functions.finish(&self.code);
        Ok(functions)
    }
}

/// SHA-256 of both ends and the length, its first 16 bytes in hex: what stands for a build id where there is none.
pub fn content_id(path: &Path) -> Option<String> {
    let mut file = path.metadata().ok().filter(|m| m.is_file()).and_then(|_| File::open(path).ok())?;
    let len = file.metadata().ok()?.len();
    let mut hash = Sha256::new();
    for from in [0, len.saturating_sub(CONTENT_BYTES)] {
        let mut part = Vec::new();
        file.seek(SeekFrom::Start(from)).ok()?;
        (&mut file).take(CONTENT_BYTES).read_to_end(&mut part).ok()?;
        hash.update(&part);
    }
    hash.update(len.to_be_bytes());
    Some(crate::mappings::hex_of(&hash.finalize()[..16]))
}

/// CRC-32 of a whole file, as `.gnu_debuglink` has it.
pub fn crc32(path: &Path) -> Option<u32> {
    let mut file = File::open(path).ok()?;
    let (mut crc, mut part) = (crc32fast::Hasher::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut part).ok()? {
            0 => return Some(crc.finalize()),
            n => crc.update(&part[..n]),
        }
    }
}
