//! Where the name of a function comes from: `source` of [`BINARY_SYMBOL`](super::BINARY_SYMBOL) and [`JIT_SYMBOL`](super::JIT_SYMBOL).

/// The symbol table of the binary.
pub const SYMTAB: u64 = 1;
/// Its exported symbols only.
pub const DYNSYM: u64 = 2;
/// Its compressed `.gnu_debugdata`.
pub const GNU_DEBUGDATA: u64 = 3;
/// A perf map.
pub const PERF_MAP: u64 = 4;
/// A jitdump file.
pub const JITDUMP: u64 = 5;
/// A file with the binary's build id, added after the recording.
pub const ADDED: u64 = 6;

/// In words.
pub fn text(source: u64) -> &'static str {
    match source {
        SYMTAB => "symtab",
        DYNSYM => "dynsym",
        GNU_DEBUGDATA => "gnu_debugdata",
        PERF_MAP => "perf map",
        JITDUMP => "jitdump",
        ADDED => "added",
        _ => "?",
    }
}
