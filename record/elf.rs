//! What an ELF file says of itself: identity, layout, and where its symbols lie. Read by the few bytes that are needed;
//! nothing that the file claims is believed before it is checked, for any user of the host may have written it.

use std::io;

use bpfrec_format::reader::ReadAt;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, FileKind, ReadCache, ReadCacheOps, ReadRef, SectionIndex};

/// Most bytes of one header, note or table of sections that are read.
const LARGEST: u64 = 4 << 20;
/// Most bytes that are read in all.
const MOST: u64 = 16 << 20;
/// A build id is 8 to 20 bytes with all linkers; more is nonsense.
const LONGEST_ID: usize = 64;
/// More program headers than this are not the layout of a program.
const MOST_SEGMENTS: usize = 256;

/// What is loaded, and where to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// `p_offset`, `p_filesz`, `p_vaddr`.
    pub offset: u64,
    /// Bytes in the file.
    pub len: u64,
    /// Virtual address.
    pub addr: u64,
    /// `p_flags`.
    pub flags: u32,
}

/// A table of symbols and its names, by their place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymbolTable {
    /// Offset and bytes of the symbols.
    pub symbols: (u64, u64),
    /// Offset and bytes of their names.
    pub names: (u64, u64),
    /// Of 64-bit symbols.
    pub wide: bool,
    /// Byte order.
    pub endian: Endianness,
}

/// What the headers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// `e_type`.
    pub elf_type: u16,
    /// `e_machine`.
    pub machine: u16,
    /// Build id; empty when there is none.
    pub build_id: Vec<u8>,
    /// Name and CRC in `.gnu_debuglink`; the name is empty when there is none.
    pub debug_link: (Vec<u8>, u32),
    /// PT_LOAD segments.
    pub segments: Vec<Segment>,
    /// `.symtab`.
    pub symtab: Option<SymbolTable>,
    /// `.dynsym`.
    pub dynsym: Option<SymbolTable>,
    /// Offset and bytes of `.gnu_debugdata`.
    pub debug_data: Option<(u64, u64)>,
}

/// A file or memory as `object` reads it: in small pieces only, whatever lengths the headers claim.
struct Bytes<'a> {
    file: &'a dyn ReadAt,
    at: u64,
    left: u64,
}

impl ReadCacheOps for Bytes<'_> {
    fn len(&mut self) -> Result<u64, ()> {
        self.file.len().map_err(drop)
    }
    fn seek(&mut self, to: u64) -> Result<u64, ()> {
        self.at = to;
        Ok(to)
    }
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ()> {
        let left = self.file.len().map_err(drop)?.saturating_sub(self.at);
        let len = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.read_exact(&mut buffer[..len]).map(|()| len)
    }
    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ()> {
        let len = buffer.len() as u64;
        self.left = self.left.checked_sub(len).ok_or(())?;
        self.file.read_exact_at(buffer, self.at).map_err(drop)?;
        self.at += len;
        Ok(())
    }
}

/// Refuses to read more than [`LARGEST`] at once.
#[derive(Clone, Copy)]
struct Bounded<'a, 'b>(&'a ReadCache<Bytes<'b>>);

impl<'a> ReadRef<'a> for Bounded<'a, '_> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }
    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        if size > LARGEST { Err(()) } else { self.0.read_bytes_at(offset, size) }
    }
    fn read_bytes_at_until(self, range: std::ops::Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        self.0.read_bytes_at_until(range, delimiter)
    }
}

/// Reads the headers of `file`.
///
/// # Errors
/// `None` when it is not an ELF file, or one whose headers are damaged.
pub fn layout(file: &dyn ReadAt) -> Option<Layout> {
    let cache = ReadCache::new(Bytes { file, at: 0, left: MOST });
    match FileKind::parse(Bounded(&cache)).ok()? {
        FileKind::Elf64 => parse::<FileHeader64<Endianness>>(Bounded(&cache), true),
        FileKind::Elf32 => parse::<FileHeader32<Endianness>>(Bounded(&cache), false),
        _ => None,
    }
}

fn parse<E: FileHeader<Endian = Endianness>>(data: Bounded<'_, '_>, wide: bool) -> Option<Layout> {
    let header = E::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let mut layout =
        Layout { elf_type: header.e_type(endian).0, machine: header.e_machine(endian).0, ..Layout::default() };
    for segment in header.program_headers(endian, data).ok()?.iter().take(MOST_SEGMENTS) {
        if segment.p_type(endian) == elf::PT_LOAD {
            layout.segments.push(Segment {
                offset: segment.p_offset(endian).into(),
                len: segment.p_filesz(endian).into(),
                addr: segment.p_vaddr(endian).into(),
                flags: segment.p_flags(endian).0,
            });
        }
        let Ok(Some(mut notes)) = segment.notes(endian, data) else { continue };
        while let Ok(Some(note)) = notes.next() {
            let is_id = note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID;
            if is_id && layout.build_id.is_empty() && note.desc().len() <= LONGEST_ID {
                layout.build_id = note.desc().to_vec();
            }
        }
    }
    // A program runs without sections: that they are not there, or damaged, is no error.
    let Ok(sections) = header.sections(endian, data) else { return Some(layout) };
    for section in sections.iter() {
        let table = || {
            let names = sections.section(SectionIndex(section.sh_link(endian) as usize)).ok()?;
            let (symbols, names) = (section.file_range(endian)?, names.file_range(endian)?);
            Some(SymbolTable { symbols, names, wide, endian })
        };
        match section.sh_type(endian) {
            elf::SHT_SYMTAB => layout.symtab = table(),
            elf::SHT_DYNSYM => layout.dynsym = table(),
            elf::SHT_PROGBITS => match sections.section_name(endian, section) {
                Ok(b".gnu_debugdata") => layout.debug_data = section.file_range(endian),
                Ok(b".gnu_debuglink") => {
                    if let Some(link) = section.data(endian, data).ok().and_then(|d| debug_link(d, endian)) {
                        layout.debug_link = link;
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }
    Some(layout)
}

/// An unsigned number of up to eight bytes.
fn number(bytes: &[u8], endian: Endianness) -> u64 {
    let add = |n: u64, byte: &u8| n << 8 | u64::from(*byte);
    match endian {
        Endianness::Little => bytes.iter().rev().fold(0, add),
        Endianness::Big => bytes.iter().fold(0, add),
    }
}

/// A name that ends with NUL, padded to four bytes, and a CRC.
fn debug_link(data: &[u8], endian: Endianness) -> Option<(Vec<u8>, u32)> {
    let name = data.split(|b| *b == 0).next()?;
    let at = (name.len() + 4) & !3;
    let crc = number(data.get(at..at + 4)?, endian) as u32;
    (name.len() <= 255).then(|| (name.to_vec(), crc))
}

impl SymbolTable {
    /// Calls `each` with (offset of the name, address, size) of every function that is defined, until it says no.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter than its headers say.
    pub fn functions(
        &self,
        file: &dyn ReadAt,
        mut each: impl FnMut(u32, u64, u64) -> io::Result<bool>,
    ) -> io::Result<()> {
        let entry = if self.wide { 24 } else { 16 };
        let mut buffer = vec![0u8; entry * 2048];
        let (mut at, end) = (self.symbols.0, self.symbols.0.saturating_add(self.symbols.1));
        while end - at >= entry as u64 {
            let len = (buffer.len() as u64).min((end - at) / entry as u64 * entry as u64) as usize;
            file.read_exact_at(&mut buffer[..len], at)?;
            for symbol in buffer[..len].chunks_exact(entry) {
                if let Some((name, addr, size)) = self.function(symbol)
                    && !each(name, addr, size)?
                {
                    return Ok(());
                }
            }
            at += len as u64;
        }
        Ok(())
    }

    fn function(&self, s: &[u8]) -> Option<(u32, u64, u64)> {
        let int = |at: usize, len: usize| Some(number(s.get(at..at + len)?, self.endian));
        let (info, section, addr, size) = match self.wide {
            true => (s.get(4)?, int(6, 2)?, int(8, 8)?, int(16, 8)?),
            false => (s.get(12)?, int(14, 2)?, int(4, 4)?, int(8, 4)?),
        };
        let is_function = [elf::STT_FUNC.0, elf::STT_GNU_IFUNC.0].contains(&(info & 15));
        (is_function && section != 0 && addr != 0).then_some((int(0, 4)? as u32, addr, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let layout = layout(&file).unwrap();
        assert!(layout.build_id.len() >= 16, "{layout:?}");
        assert!(layout.segments.iter().any(|s| s.flags & 1 != 0 && s.len > 1000));
        let mut functions = 0;
        layout
            .symtab
            .unwrap()
            .functions(&file, |_, addr, _| {
                assert!(addr > 0);
                functions += 1;
                Ok(functions < 1000)
            })
            .unwrap();
        assert_eq!(functions, 1000);
    }

    #[test]
    fn what_is_no_elf_file_is_refused_and_damage_does_no_harm() {
        assert_eq!(layout(&b"#!/bin/sh\n".to_vec()), None);
        assert_eq!(layout(&Vec::new()), None);
        let mut bytes = std::fs::read("/proc/self/exe").unwrap();
        bytes.truncate(100_000);
        for at in 0..64 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            let _ = layout(&damaged);
        }
        // Sections lie behind the cut.
        assert!(layout(&bytes).is_some_and(|l| l.symtab.is_none() && !l.build_id.is_empty()));
    }

    #[test]
    fn debug_links() {
        let link = debug_link(b"lib.debug\0\0\0\x01\x02\x03\x04", Endianness::Little);
        assert_eq!(link, Some((b"lib.debug".to_vec(), 0x0403_0201)));
        assert_eq!(debug_link(b"lib.debug\0\0\0\x01", Endianness::Little), None);
    }
}
