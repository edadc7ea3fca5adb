//! Functions of allocators, and where a file has them.

use std::collections::BTreeSet;
use std::fs::File;

use super::exits::Exits;
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
/// first free would be missed. The ends of functions come before them all.
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

/// Program for the end of a function, at the instruction itself.
pub const AT_END: &str = "returns_here";

/// Whether the kernel is to watch for the return of a program's function. That of operator new is seen at [`AT_END`].
pub fn needs_return(program: &str) -> bool {
    !matches!(program, "on_free" | "on_new" | AT_END)
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
fn other(name: &str) -> Option<&'static str> {
    Some(match name {
        "mmap" | "mmap64" => "on_mmap",
        "munmap" => "on_munmap",
        "mremap" => "on_mremap",
        // operator new, new[], delete and delete[] in all forms; the number of bytes or the address comes first.
        n if n.starts_with("_Znwm") || n.starts_with("_Znam") => "on_new",
        n if n.starts_with("_ZdlPv") || n.starts_with("_ZdaPv") => "on_delete",
        _ => return None,
    })
}

/// What a file has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order in which they are attached.
    pub points: Vec<Point>,
    /// Why C++'s operators are not among them although the file has some.
    pub left_out: Option<String>,
}

/// Where a file has functions of an allocator, also below names that begin with `prefix`. None when it has not both malloc
/// and free, unless `asked` for by name: C++'s library has operators that end in malloc, and libraries that wrap one
/// function are no allocators.
pub fn points(file: &File, prefix: Option<&str>, asked: bool) -> Result<Found> {
    let cache = ReadCache::new(file);
    let elf = ElfFile64::<Endianness, _>::parse(&cache).context("not a 64-bit ELF file")?;
    let mut found = Found::default();
    let mut addresses: Vec<(u64, &'static str, &str)> = Vec::new();
    for symbol in elf.dynamic_symbols().chain(elf.symbols()) {
        if symbol.kind() != SymbolKind::Text || symbol.is_undefined() || symbol.is_local() {
            continue;
        }
        let Ok(name) = symbol.name() else { continue };
        let name = name.split('@').next().unwrap_or(name);
        if let Some(program) = program(name, prefix) {
            addresses.push((symbol.address(), program, name));
        }
    }
    // One function may have several names: free's may also be that of operator delete, and is watched for less.
    addresses.sort_by_key(|(at, program, _)| (*at, PROGRAMS.iter().position(|n| n == program)));
    addresses.dedup_by_key(|(at, ..)| *at);
    let has = |program: &str| addresses.iter().any(|(_, p, _)| *p == program);
    if !asked && !(has("on_free") && (has("on_malloc") || has("on_calloc") || has("on_realloc"))) {
        return Ok(found);
    }
    match ends_of_new(&elf, &addresses, prefix) {
        Ok(ends) => found.points.extend(ends.iter().filter_map(|at| point(&elf, *at, AT_END))),
        Err(why) => {
            addresses.retain(|(_, program, _)| !matches!(*program, "on_new" | "on_delete"));
            found.left_out = Some(why);
        }
    }
    found.points.extend(addresses.iter().filter_map(|(at, program, _)| point(&elf, *at, program)));
    found.points.sort_by_key(|p| (PROGRAMS.iter().position(|n| *n == p.program), p.offset));
    Ok(found)
}

fn program(name: &str, prefix: Option<&str>) -> Option<&'static str> {
    let short = prefix.and_then(|p| name.strip_prefix(p));
    allocator(name).or_else(|| allocator(short?)).or_else(|| other(name))
}

/// Where the functions of operator new end, or why not all of these ends can be found.
fn ends_of_new<'d, R: ReadRef<'d>>(
    elf: &ElfFile64<'d, Endianness, R>,
    addresses: &[(u64, &'static str, &str)],
    prefix: Option<&str>,
) -> Result<BTreeSet<u64>, String> {
    let mut ends = BTreeSet::new();
    let mut code = None;
    for (address, _, name) in addresses.iter().filter(|(_, program, _)| *program == "on_new") {
        let watched = |to: u64| addresses.iter().any(|(at, program, _)| *at == to && needs_return(program));
        let named = |name: &str| program(name, prefix).is_some_and(needs_return);
        let code = code.get_or_insert_with(|| Exits::new(elf));
        ends.extend(code.of(*address, &watched, &named).map_err(|why| format!("{name}: {why}"))?);
    }
    Ok(ends)
}

fn point<'d, R: ReadRef<'d>>(elf: &ElfFile64<'d, Endianness, R>, address: u64, program: &'static str) -> Option<Point> {
    Some(Point { program, offset: file_offset(elf, address)? })
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
        assert_eq!(other("_ZnwmSt11align_val_t"), Some("on_new"));
        assert_eq!((other("_ZdaPvm"), other("munmap")), (Some("on_delete"), Some("on_munmap")));
        assert!(PROGRAMS.contains(&"on_malloc") && !needs_return("on_free"));
    }

    #[test]
    fn the_c_library_has_all_and_this_program_none() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps.lines().find(|l| l.contains("/libc.so")).unwrap();
        let libc = File::open(&libc[libc.find('/').unwrap()..]).unwrap();
        let points = points(&libc, None, false).unwrap().points;
        for program in PROGRAMS.iter().filter(|p| !matches!(**p, "on_new" | "on_delete" | "on_aligned_alloc")) {
            assert!(points.iter().any(|p| p.program == *program), "{program}: {points:?}");
        }
        let own = File::open("/proc/self/exe").unwrap();
        assert_eq!(super::points(&own, None, false).unwrap(), Found::default());
        assert_eq!(super::points(&own, Some("no_such_"), false).unwrap(), Found::default());
    }
}
