//! What stands in a trace, and that names are gone from it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use bpfrec_format::codec::decompress;
use bpfrec_format::{BlockType, Column, Trace, meta};

/// All that stands in a trace: the bytes of its files, and each payload as it was before compression. SCHEMA is left out: it has
/// the names of fields.
pub fn bytes_of(trace: &Path) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (path, segment) in &Trace::walk(trace).unwrap().segments {
        all.push(fs::read(path).unwrap());
        for block in segment.blocks.iter().filter(|b| b.header.block_type != BlockType::Schema as u8) {
            let stored = segment.read_stored(block).unwrap();
            all.push(decompress(block.header.codec, stored, block.header.raw_len as usize).unwrap().to_vec());
        }
    }
    all
}

/// Calls `each` with kind, field and every text of a trace.
pub fn each_text(trace: &Path, mut each: impl FnMut(&str, &str, &[u8])) {
    for (_, segment) in &Trace::walk(trace).unwrap().segments {
        for block in &segment.blocks {
            let wanted = |kind| ![meta::SCHEMA_FIELD, meta::INDEX_ENTRY].contains(&kind);
            for table in segment.read(block, &wanted).map(|rows| rows.tables).unwrap_or_default() {
                let kind = segment.registry.get(table.kind).unwrap();
                for (field, column) in kind.fields.iter().zip(&table.columns) {
                    if let Column::Text(texts) = column {
                        (0..texts.ends.len()).for_each(|row| each(&kind.name, &field.name, texts.get(row)));
                    }
                }
            }
        }
    }
}

/// Words that the format or the kernel has, not the host.
const PUBLIC: [&str; 20] = [
    "[vdso]",
    "[vsyscall]",
    "[uprobes]",
    "//anon",
    "",
    "_start",
    "_stext",
    "_etext",
    "_einittext",
    "__init_end",
    "clone",
    "clone3",
    "__clone",
    "__clone3",
    "start_thread",
    "thread_start",
    "bpf",
    "__libc_start_main",
    "__libc_start_call_main",
    "_dl_start",
];

/// Names of a trace: of tasks, of each part of a path, of the host, of functions, and build ids.
pub fn originals(trace: &Path) -> HashSet<Vec<u8>> {
    let mut all = HashSet::new();
    let kept = [
        "page_size",
        "cpus_online",
        "arch",
        "sources",
        "symbols",
        "ring_bytes",
        "bpfrec_version",
        "sample_clock",
        "recovered",
        "types",
        "cgroup_hierarchy",
    ];
    let mut key = Vec::new();
    each_text(trace, |kind, field, text| match (kind, field) {
        ("header_item", "key") => key = text.to_vec(),
        ("header_item", _)
            if ["host", "boot_id", "kernel_version", "host_id", "kernel_build_id"]
                .iter()
                .any(|k| key == k.as_bytes()) =>
        {
            all.insert(text.to_vec());
        }
        ("header_item", _)
            if !kept.iter().any(|k| key == k.as_bytes()) && !text.iter().all(|b| !b.is_ascii_alphabetic()) =>
        {
            let words = text.split(|b| b"/ :,".contains(b));
            all.extend(words.filter(|w| w.iter().any(u8::is_ascii_alphabetic)).map(<[u8]>::to_vec));
        }
        ("header_item", _) | ("binary", "missing") | ("cgroup", "runtime") => {}
        (_, "path" | "exe" | "debug_link" | "unit") => all.extend(text.split(|b| *b == b'/').map(<[u8]>::to_vec)),
        _ => {
            all.insert(text.to_vec());
        }
    });
    let format_words = [
        "x86_64",
        "cpu-clock",
        "cycles",
        "exact",
        "told",
        "not",
        "task",
        "storage",
        "remembered",
        "table",
        "dwarf",
        "hit",
    ];
    all.retain(|word| !PUBLIC.iter().chain(&format_words).any(|public| public.as_bytes() == word));
    all
}

/// Neither as a whole text or part of a path, nor anywhere in the bytes where it is long enough not to be there by chance.
pub fn assert_gone(trace: &Path, originals: &HashSet<Vec<u8>>) {
    const LONG: usize = 10;
    each_text(trace, |kind, field, text| {
        if kind != "header_item" {
            let left = text.split(|b| *b == b'/').find(|part| originals.contains(*part));
            assert!(left.is_none(), "{kind}.{field}: {}", String::from_utf8_lossy(text));
        }
        assert!(text.is_empty() || !originals.contains(text), "{kind}.{field}: {}", String::from_utf8_lossy(text));
    });
    let mut by_start: HashMap<&[u8], Vec<&[u8]>> = HashMap::new();
    for word in originals.iter().filter(|word| word.len() >= LONG) {
        by_start.entry(&word[..LONG]).or_default().push(word);
    }
    assert!(by_start.len() > 10, "too few names to look for: {}", by_start.len());
    for bytes in bytes_of(trace) {
        for (at, start) in bytes.windows(LONG).enumerate() {
            for word in by_start.get(start).into_iter().flatten() {
                assert!(!bytes[at..].starts_with(word), "{} is left", String::from_utf8_lossy(word));
            }
        }
    }
}

/// Whether a word stands anywhere in it.
pub fn has(trace: &Path, word: &str) -> bool {
    bytes_of(trace).iter().any(|bytes| bytes.windows(word.len()).any(|w| w == word.as_bytes()))
}
