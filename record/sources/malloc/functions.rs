//! Functions of allocators, and where a file has them.

use std::fs::File;

use anyhow::{Context, Result};
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol, ReadCache, ReadRef, SymbolKind, elf};

/// A probe of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// BPF program for the call.
    pub program: &'static str,
    /// Place of the function's first instruction in the file, bytes.
    pub offset: u64,
}

/// Programs in the order in which they are attached: what takes memory back is seen before what gives it out, or its
/// first free would be missed. All but `on_free` need the function's return, too.
pub const PROGRAMS: [&str; 15] = [
    "on_free",
    "on_delete",
    "on_munmap",
    "on_mremap",
    "on_realloc",
    "on_reallocarray",
    "on_mmap",
    "on_memalign",
    "on_aligned_alloc",
    "on_posix_memalign",
    "on_valloc",
    "on_pvalloc",
    "on_calloc",
    "on_new",
    "on_malloc",
];

/// Whether a program's function must be seen to return.
pub fn needs_return(program: &str) -> bool {
    program != "on_free"
}

/// Program for a function by its name without a prefix. The last ones are jemalloc's own and those of C23.
fn allocator(name: &str) -> Option<&'static str> {
    Some(match name {
        "malloc" | "mallocx" => "on_malloc",
        "calloc" => "on_calloc",
        "realloc" | "rallocx" => "on_realloc",
        "reallocarray" => "on_reallocarray",
        "memalign" => "on_memalign",
        "aligned_alloc" => "on_aligned_alloc",
        "posix_memalign" => "on_posix_memalign",
        "valloc" => "on_valloc",
        "pvalloc" => "on_pvalloc",
        "free" | "cfree" | "dallocx" | "sdallocx" | "free_sized" | "free_aligned_sized" => "on_free",
        _ => return None,
    })
}

/// Program for a function of the C library or of C++, whose name has no prefix.
///
/// A function whose return is watched has a strange return address on the stack, which C++ cannot unwind: an exception
/// that leaves it ends the program. None of these functions throws but operator new, so that is not watched unasked.
fn other(name: &str, operators: bool) -> Option<&'static str> {
    Some(match name {
        "mmap" | "mmap64" => "on_mmap",
        "munmap" => "on_munmap",
        "mremap" => "on_mremap",
        _ if !operators => return None,
        // operator new, new[], delete and delete[] in all forms; the number of bytes or the address comes first.
        n if n.starts_with("_Znwm") || n.starts_with("_Znam") => "on_new",
        n if n.starts_with("_ZdlPv") || n.starts_with("_ZdaPv") => "on_delete",
        _ => return None,
    })
}

/// Names that count.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// What the names may begin with.
    pub prefix: Option<String>,
    /// Whether C++'s operators count.
    pub operators: bool,
}

/// Where a file has functions of an allocator. None when it has not both malloc and free, unless `asked` for by name:
/// C++'s library has operators that end in malloc, and libraries that wrap one function are no allocators.
pub fn points(file: &File, names: &Names, asked: bool) -> Result<Vec<Point>> {
    let cache = ReadCache::new(file);
    let elf = ElfFile64::<Endianness, _>::parse(&cache).context("not a 64-bit ELF file")?;
    let mut points: Vec<Point> = Vec::new();
    for symbol in elf.dynamic_symbols().chain(elf.symbols()) {
        if symbol.kind() != SymbolKind::Text || symbol.is_undefined() || symbol.is_local() {
            continue;
        }
        let Ok(name) = symbol.name() else { continue };
        let name = name.split('@').next().unwrap_or(name);
        let short = names.prefix.as_deref().and_then(|p| name.strip_prefix(p));
        let program = allocator(name).or_else(|| allocator(short?)).or_else(|| other(name, names.operators));
        let Some(program) = program else { continue };
        // One function may have several names.
        if let Some(offset) = file_offset(&elf, symbol.address())
            && !points.iter().any(|p| p.offset == offset)
        {
            points.push(Point { program, offset });
        }
    }
    let has = |program: &str| points.iter().any(|p| p.program == program);
    if !asked && !(has("on_free") && (has("on_malloc") || has("on_calloc") || has("on_realloc"))) {
        points.clear();
    }
    points.sort_by_key(|p| (PROGRAMS.iter().position(|n| *n == p.program), p.offset));
    Ok(points)
}

/// Place of a code address in the file.
fn file_offset<'a, R: ReadRef<'a>>(elf: &ElfFile64<'a, Endianness, R>, address: u64) -> Option<u64> {
    let endian = elf.endian();
    elf.elf_program_headers().iter().find_map(|segment| {
        let from = segment.p_vaddr(endian);
        let inside = address.checked_sub(from).filter(|at| *at < segment.p_filesz(endian))?;
        let is_code = segment.p_type(endian) == elf::PT_LOAD && segment.p_flags(endian).0 & elf::PF_X.0 != 0;
        is_code.then(|| segment.p_offset(endian) + inside)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(allocator("calloc"), Some("on_calloc"));
        assert_eq!(allocator("je_calloc"), None);
        assert_eq!(other("_ZnwmSt11align_val_t", true), Some("on_new"));
        assert_eq!(other("_ZdaPvm", true), Some("on_delete"));
        assert_eq!((other("_Znwm", false), other("munmap", false)), (None, Some("on_munmap")));
        assert!(PROGRAMS.contains(&"on_malloc") && !needs_return("on_free"));
    }

    #[test]
    fn the_c_library_has_all_and_this_program_none() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps.lines().find(|l| l.contains("/libc.so")).unwrap();
        let libc = File::open(&libc[libc.find('/').unwrap()..]).unwrap();
        let points = points(&libc, &Names::default(), false).unwrap();
        for program in PROGRAMS.iter().filter(|p| !matches!(**p, "on_new" | "on_delete" | "on_aligned_alloc")) {
            assert!(points.iter().any(|p| p.program == *program), "{program}: {points:?}");
        }
        let own = File::open("/proc/self/exe").unwrap();
        assert_eq!(super::points(&own, &Names::default(), false).unwrap(), []);
        assert_eq!(
            super::points(&own, &Names { prefix: Some("no_such_".into()), operators: true }, false).unwrap(),
            []
        );
    }
}
