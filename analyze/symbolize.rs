//! Puts functions of binaries into a trace later: on the host, or where their debug files are.

use bpfrec_format::meta::{self, symbol_source};
use bpfrec_format::{BlockType, Table};
use rustc_hash::FxHashSet;

use crate::binaries::Binary;
use crate::meta::Meta;
use crate::symbols::{NameSource, Places, Search, search};

/// Why a binary still lacks functions when only exported ones were found: `missing` of kind `binary`.
const EXPORTED_ONLY: &str = "exported symbols only";

/// A binary whose functions are added.
#[derive(Clone, Debug)]
pub struct Added {
    /// Path as recorded.
    pub path: String,
    /// Functions that the trace had not.
    pub functions: usize,
    /// The file that they are from.
    pub file: String,
    /// Where that was found.
    pub source: NameSource,
}

/// What is to be added to a trace.
#[derive(Debug)]
pub struct Symbolized {
    /// By binary.
    pub added: Vec<Added>,
    /// Paths and build ids of binaries that stacks hit and of which the trace lacks functions still.
    pub lacking: Vec<String>,
    /// What was refused, and what went wrong, a sentence each.
    pub notes: Vec<String>,
    /// Rows for the trace.
    pub tables: Vec<(BlockType, Table)>,
}

/// Looks for the functions of all binaries that stacks hit, in the places that [`Meta::names`] allows. All functions of
/// such a binary are added, not only those that were hit.
pub fn symbolize(meta: &Meta) -> Symbolized {
    let places = Places::of(meta);
    let mut notes = Vec::new();
    let searches = search(meta, &places.hits, &mut notes);
    let table = |kind| Table::new(&meta::kind(kind));
    let (mut binaries, mut segments, mut symbols) =
        (table(meta::BINARY), table(meta::BINARY_SEGMENT), table(meta::BINARY_SYMBOL));
    let mut result = Symbolized { added: Vec::new(), lacking: Vec::new(), notes: Vec::new(), tables: Vec::new() };
    let mut done = FxHashSet::default();
    for search in searches.iter().filter(|s| s.wanted.is_file()) {
        let wanted = &search.wanted;
        let Some(id) = wanted.recorded.map(|b| b.id).or_else(|| id_of(wanted.build_id)) else {
            result.lacking.push(format!("{}: the trace has neither a build id nor a content id of it", wanted.path));
            continue;
        };
        if !done.insert(id) {
            continue;
        }
        let complete = wanted.recorded.is_some_and(Binary::has_all_functions);
        let Some(found) = search.files.iter().find(|f| f.elf.has_symtab).or(search.files.first()) else {
            if !complete {
                result.lacking.push(lacking(search));
            }
            continue;
        };
        if search.segments().is_empty() {
            let file = found.elf.path.display();
            notes.push(format!("{}: {file} is only a debug file, and what the program maps is not in this trace: put the program under --symfs too", wanted.path));
            continue;
        }
        let functions = match found.elf.functions() {
            Ok(functions) => functions,
            Err(why) => {
                notes.push(format!("{}: its symbols cannot be read: {why}", found.elf.path.display()));
                continue;
            }
        };
        let is_new = |addr: u64| wanted.recorded.is_none_or(|b| !b.functions.begins_at(addr));
        let mut count = 0;
        for f in functions.iter().filter(|f| is_new(f.addr)) {
            count += 1;
            symbols.push(&[id.into(), f.addr.into(), f.len.into(), symbol_source::ADDED.into(), f.name.into()]);
        }
        if !found.elf.has_symtab && !complete {
            result.lacking.push(lacking(search));
        }
        if count == 0 {
            continue;
        }
        let all = wanted.recorded.map_or(0, |b| b.functions.len()) + count;
        let missing = if found.elf.has_symtab || complete { "" } else { EXPORTED_ONLY };
        describe(meta, search, id, all, missing, &mut binaries);
        if wanted.recorded.is_none_or(|b| b.segments.is_empty()) {
            for s in search.segments() {
                segments.push(&[id.into(), s.offset.into(), s.len.into(), s.addr.into(), s.flags.into()]);
            }
        }
        result.added.push(Added {
            path: wanted.path.into(),
            functions: count,
            file: found.elf.path.display().to_string(),
            source: found.rung,
        });
    }
    result.notes = notes;
    result.tables =
        vec![(BlockType::Binaries, binaries), (BlockType::Binaries, segments), (BlockType::BinarySymbols, symbols)];
    result
}

/// The number that a binary has in every trace.
fn id_of(build_id: &str) -> Option<u64> {
    let bytes = bytes(build_id);
    Some(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?))
}

fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    (0..hex.len()).step_by(2).map_while(pair).collect()
}

fn lacking(search: &Search<'_>) -> String {
    let wanted = &search.wanted;
    let id = if wanted.build_id.is_empty() { "no build id".into() } else { format!("build id {}", wanted.build_id) };
    format!("{} ({id})", wanted.path)
}

/// The row of a binary: as it was, with the number of its functions.
fn describe(meta: &Meta, search: &Search<'_>, id: u64, functions: usize, missing: &str, table: &mut Table) {
    let wanted = &search.wanted;
    let new = || {
        let (kind, size_bytes) = search.file_with_code().map_or(((0, 0), 0), |elf| (elf.kind, elf.len));
        let (build_id, path) = (wanted.build_id.into(), wanted.path.into());
        Binary { id, ts_ns: meta.start_ns, build_id, path, kind, size_bytes, ..Binary::default() }
    };
    let made;
    let binary = match wanted.recorded {
        Some(binary) => binary,
        None => {
            made = new();
            &made
        }
    };
    table.push(&[
        binary.ts_ns.into(),
        binary.id.into(),
        bytes(&binary.build_id)[..].into(),
        bytes(&binary.content_id)[..].into(),
        binary.path.as_str().into(),
        binary.inode.1.into(),
        binary.inode.2.into(),
        binary.inode.0.into(),
        binary.size_bytes.into(),
        u32::from(binary.kind.0).into(),
        u32::from(binary.kind.1).into(),
        binary.debug_link.as_str().into(),
        binary.debug_link_crc.into(),
        (functions as u32).into(),
        missing.into(),
    ]);
}
