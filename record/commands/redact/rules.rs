//! What becomes of each column: texts of this version by what they hold, all others altogether. Numbers stay.

use bpfrec_format::meta::{self, BINARY, BINARY_SEGMENT, BINARY_SYMBOL, JIT_SYMBOL, KERNEL_MODULE};
use bpfrec_format::{Column, EndReason, Kind, Ragged, Registry, Source, Table, Type};

use super::names;
use super::tokens::Tokens;

/// What is redacted beyond the names of processes, files, containers and the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct What {
    /// Names of functions and modules.
    pub functions: bool,
    /// Build ids, content ids and the numbers made of them.
    pub build_ids: bool,
}

/// Reasons why functions of a binary are missing, and names of container runtimes: words of the recorder, not of the host.
const FIXED: [&str; 14] = [
    "gone before it could be opened",
    "closed to the recorder",
    "too many open files",
    "no symbols in the file",
    "not an ELF file",
    "over --symbols-max",
    "stopped before it was read",
    "cannot be read, or was changed",
    "exported symbols only",
    "docker",
    "containerd",
    "cri-o",
    "podman",
    "kubernetes",
];

/// HEADER keys whose values stay when they are numbers and words of the format.
const PLAIN: [&str; 48] = [
    "arch",
    "page_size",
    "cpus_online",
    "sources",
    "offcpu_min_wait_ns",
    "offcpu_interrupts",
    "offcpu_stacks",
    "offcpu_threads",
    "sample_hz",
    "sample_clock",
    "malloc_sample",
    "kmem_sample",
    "malloc_sample_bytes",
    "kmem_sample_bytes",
    "start_mono_ns",
    "start_realtime_ns",
    "recorder_pid",
    "command_pid",
    "command_exit_code",
    "filter_pids",
    "bpfrec_version",
    "ring_bytes",
    "symbols",
    "binaries_not_counted",
    "kernel_symbols_hidden",
    "rights",
    "sandbox",
    "binaries_refused",
    "unwind",
    "unwound_whole",
    "unwound_cut",
    "unwound_by_frame_pointers",
    "jit_files",
    "jit_functions",
    "jit_bad_lines",
    "jit_other_clock",
    "jit_refused",
    "jit_left_bytes",
    "jit_left_processes",
    "max_cpu_ppm",
    "max_rss_bytes",
    "max_size_bytes",
    "keep_free_bytes",
    "keep_free_ppm",
    "page_cache_bytes",
    "recovered",
    "types",
    "cgroup_hierarchy",
];

/// Words of such values, beside numbers and the names of sources and ends.
const WORDS: [&str; 48] = [
    "x86_64",
    "aarch64",
    "riscv64",
    "s390x",
    "ppc64le",
    "ppc64",
    "i686",
    "i386",
    "armv7l",
    "loongarch64",
    "told",
    "not",
    "cpu-clock",
    "cycles",
    "exact",
    "remembered",
    "task",
    "storage",
    "table",
    "hit",
    "all",
    "none",
    "dwarf",
    "end",
    "missing",
    "disk",
    "full",
    "size",
    "limit",
    "write",
    "kernel.kptr_restrict",
    "kernel.perf_event_paranoid",
    "on",
    "off",
    "bpf",
    "perfmon",
    "sys_ptrace",
    "dac_read_search",
    "checkpoint_restore",
    "syslog",
    "sys_admin",
    "own",
    "file",
    "v1",
    "v2",
    "beside",
    "memory",
    "systemd",
];
/// HEADER keys whose values are text all the same.
const NAMES: [&str; 3] = ["host", "boot_id", "kernel_version"];

/// A word that can only be of the format: a number, or one of a short list.
fn is_plain(word: &str) -> bool {
    let number = word.bytes().all(|b| b.is_ascii_digit() || b"+-.:".contains(&b)) && word.len() <= 40;
    let ends = || EndReason::ALL.iter().any(|e| e.name() == word) || word == "error";
    number || WORDS.contains(&word) || Source::ALL.iter().any(|s| s.name() == word) || ends()
}

/// A key and value of the HEADER.
pub fn item(tokens: &mut Tokens, what: What, key: &str, value: &str) -> (String, String) {
    let mut out = Vec::new();
    let bytes = value.as_bytes();
    match key {
        _ if PLAIN.contains(&key) && value.split([' ', ',', '=']).all(is_plain) => out.extend(bytes),
        "kernel" => {
            let number = bytes.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count().min(20);
            out.extend(&bytes[..number]);
            out.extend((number > 0 && number < bytes.len()).then_some(b'-'));
            names::word(tokens, &bytes[number..], &mut out);
        }
        "host_id" if value.is_empty() => {}
        "host_id" => {
            out.extend(format!("{:016x}", u64::from_str_radix(value, 16).map_or(0, |id| tokens.id(id))).bytes())
        }
        "kernel_build_id" => match hex(value) {
            Some(_) if !what.build_ids => out.extend(bytes),
            Some(id) => out.extend(tokens.bytes(&id).iter().flat_map(|b| format!("{b:02x}").into_bytes())),
            None => names::word(tokens, bytes, &mut out),
        },
        "filter_cgroup" | "types_file" => names::path(tokens, bytes, &mut out),
        "malloc_files" => each(bytes, b':', &mut out, |path, out| names::path(tokens, path, out)),
        "command" => each(bytes, b' ', &mut out, |word, out| names::path(tokens, word, out)),
        _ => names::word(tokens, bytes, &mut out),
    }
    let value = String::from_utf8_lossy(&out).into_owned();
    let device = key.strip_prefix("disk.").is_some_and(|number| is_plain(number) && number.contains(':'));
    let others = ["kernel", "host_id", "kernel_build_id", "filter_cgroup", "types_file", "malloc_files", "command"];
    let known = device || PLAIN.contains(&key) || NAMES.contains(&key) || others.contains(&key);
    let key = if known { key.to_owned() } else { String::from_utf8_lossy(&tokens.word(key.as_bytes())).into_owned() };
    (key, value)
}

fn each(text: &[u8], between: u8, out: &mut Vec<u8>, mut one: impl FnMut(&[u8], &mut Vec<u8>)) {
    for (i, part) in text.split(|b| *b == between).enumerate() {
        out.extend((i > 0).then_some(between));
        one(part, out);
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.bytes().all(|b| b.is_ascii_hexdigit()) && text.len().is_multiple_of(2);
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
    digits.then(|| (0..text.len()).step_by(2).filter_map(pair).collect())
}

type Rule = fn(&mut Tokens, &[u8], &mut Vec<u8>);

/// How the texts of a field are replaced; `None`: they stay.
fn rule(kind: &Kind, field: usize, what: What) -> Option<Rule> {
    // What another version added may hold anything.
    let own = Registry::default();
    let known = own.get(kind.id).and_then(|own| own.fields.get(field));
    let Some(known) = known else { return Some(names::word) };
    match (kind.id, known.name.as_str()) {
        (_, "build_id" | "content_id") => what.build_ids.then_some(|tokens, id, out| out.extend(tokens.bytes(id))),
        (_, "path" | "exe") => Some(names::path),
        (meta::CGROUP, "unit") | (BINARY, "debug_link") => Some(names::part),
        (BINARY, "missing") | (meta::CGROUP, "runtime") => Some(fixed),
        (KERNEL_MODULE, "name") | (_, "module") => what.functions.then_some(module),
        (JIT_SYMBOL, "name") => Some(if what.functions { names::function } else { names::compiled }),
        (meta::KERNEL_SYMBOL | meta::KERNEL_SYMBOL_CHANGE | BINARY_SYMBOL, "name") => {
            what.functions.then_some(names::function)
        }
        _ => Some(names::word),
    }
}

/// Stays when it is one of the recorder's own sentences.
fn fixed(tokens: &mut Tokens, text: &[u8], out: &mut Vec<u8>) {
    match FIXED.iter().any(|known| known.as_bytes() == text) {
        true => out.extend(text),
        false => names::word(tokens, text, out),
    }
}

/// `bpf` is no module.
fn module(tokens: &mut Tokens, name: &[u8], out: &mut Vec<u8>) {
    match name {
        b"bpf" => out.extend(name),
        _ => names::word(tokens, name, out),
    }
}

/// Replaces all that is to be replaced in rows of `kind`.
pub fn table(tokens: &mut Tokens, what: What, kind: &Kind, table: &mut Table) {
    if kind.id == meta::CGROUP {
        spell_out(table);
    }
    let mut new = Vec::new();
    for (field, column) in table.columns.iter_mut().enumerate() {
        match column {
            Column::Text(texts) => {
                let Some(rule) = rule(kind, field, what) else { continue };
                let mut redacted = Ragged::default();
                for row in 0..texts.ends.len() {
                    new.clear();
                    rule(tokens, texts.get(row), &mut new);
                    redacted.push(&new);
                }
                *texts = redacted;
            }
            Column::Int(ids) if what.build_ids && is_binary_id(kind, field) => {
                ids.iter_mut().for_each(|id| *id = tokens.id(*id));
            }
            _ => {}
        }
    }
}

/// The number of a binary is made of its build id.
fn is_binary_id(kind: &Kind, field: usize) -> bool {
    [BINARY, BINARY_SEGMENT, BINARY_SYMBOL].contains(&kind.id)
        && kind.fields.get(field).is_some_and(|f| f.name == "binary_id" && f.ty == Type::U64)
}

/// Where a cgroup's runtime, container, pod and unit are all empty, readers take them out of the path: of a redacted one they could not.
fn spell_out(table: &mut Table) {
    let [_, _, _, Column::Text(paths), Column::Text(a), Column::Text(b), Column::Text(c), Column::Text(d), ..] =
        &mut table.columns[..]
    else {
        return;
    };
    let mut columns = [a, b, c, d];
    let mut full: [Ragged<u8>; 4] = Default::default();
    for row in 0..paths.ends.len() {
        if columns.iter().all(|column| column.get(row).is_empty()) {
            let names = bpfrec_format::container::names(&String::from_utf8_lossy(paths.get(row)));
            let found = [names.runtime, names.container_id, names.pod_uid, names.unit];
            full.iter_mut().zip(found).for_each(|(column, name)| column.push(name.unwrap_or_default().as_bytes()));
        } else {
            full.iter_mut().zip(&columns).for_each(|(new, old)| new.push(old.get(row)));
        }
    }
    columns.iter_mut().zip(full).for_each(|(old, new)| **old = new);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_stay_only_when_they_are_numbers_and_words_of_the_format() {
        let mut tokens = Tokens::with(b"key");
        let mut redacted = |key, value| item(&mut tokens, What::default(), key, value);
        for (key, value) in [
            ("arch", "x86_64"),
            ("sources", "sched,block,profile"),
            ("unwind", "dwarf,8192"),
            ("recovered", "end missing"),
            ("cpus_online", "0-3,8"),
            ("kernel_symbols_hidden", "kernel.kptr_restrict=2 kernel.perf_event_paranoid=3"),
            ("kernel_build_id", "00ff"),
            ("rights", "sys_ptrace,perfmon,bpf"),
            ("sandbox", "on"),
        ] {
            assert_eq!(redacted(key, value), (key.to_owned(), value.to_owned()));
        }
        for (key, value) in [
            ("arch", "acme"),
            ("page_size", "4096 acme"),
            ("host", "acme"),
            ("disk.8:0", "acme"),
            ("kernel_build_id", "acme"),
        ] {
            let (new_key, new) = redacted(key, value);
            assert!(new_key == key && !new.contains("acme"), "{key}: {new}");
        }
        assert!(!format!("{:?}", redacted("disk.acme", "acme")).contains("acme"));
        assert!(redacted("kernel", "6.18.15+acme").1.starts_with("6.18.15-x"));
        let words = redacted("command", "/usr/bin/acme --port 80").1;
        assert_eq!(words.split(' ').count(), 3);
        assert!(!words.contains("acme") && words.starts_with('/'));
        assert_eq!(redacted("host_id", "00000000000000ff").1.len(), 16);
    }

    #[test]
    fn every_text_of_this_version_has_its_rule() {
        let stays: Vec<String> = Registry::default()
            .kinds()
            .iter()
            .flat_map(|kind| {
                let fields = kind.fields.iter().enumerate().filter(|(_, f)| f.ty == Type::Text);
                let kept = fields.filter(|(i, _)| rule(kind, *i, What::default()).is_none());
                kept.map(|(_, f)| format!("{}.{}", kind.name, f.name)).collect::<Vec<_>>()
            })
            .collect();
        let expected = [
            "mapping.build_id",
            "kernel_symbol.name",
            "kernel_symbol.module",
            "binary.build_id",
            "binary.content_id",
            "binary_symbol.name",
            "kernel_symbol_change.name",
            "kernel_symbol_change.module",
            "kernel_module.name",
            "kernel_module.build_id",
        ];
        assert_eq!(stays, expected);
    }
}
