//! `bpfrec redact`: nothing of what it replaces is left in any byte, the result is whole, and all figures are the same.
// What it shares with tests that record needs what they need.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

#[path = "../format-spec/tests/common/mod.rs"]
mod builder;
mod common;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bpfrec_format::codec::decompress;
use bpfrec_format::meta;
use bpfrec_format::{BlockType, Column, EndReason, Ragged, SegmentIds, SegmentWriter, Table, Trace};
use builder::{Random, TRACE_ID};
use common::{Scratch, bpfrec, texts};

const KEY: &[u8] = b"a key for tests, never a real one";

/// Options that leave nothing.
const EVERYTHING: [&str; 2] = ["--functions", "--build-ids"];

/// Redacts and returns the exit code and what was said.
fn redact(scratch: &Scratch, trace: &Path, output: &Path, options: &[&str]) -> (i32, String) {
    let key = scratch.path("key");
    fs::write(&key, KEY).unwrap();
    let mut args = vec!["redact".into(), trace.to_owned(), "-o".into(), output.to_owned(), "--key".into(), key];
    args.extend(options.iter().map(PathBuf::from));
    let output = bpfrec(args);
    let (out, err) = texts(&output);
    (output.status.code().unwrap(), out + &err)
}

fn assert_whole(trace: &Path) {
    let output = bpfrec([Path::new("verify"), trace]);
    assert_eq!(output.status.code(), Some(0), "verify: {:?}", texts(&output));
}

/// All that stands in a trace: the bytes of its files, and each payload as it was before compression. SCHEMA is left out: it has
/// the names of fields.
fn bytes_of(trace: &Path) -> Vec<Vec<u8>> {
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
fn each_text(trace: &Path, mut each: impl FnMut(&str, &str, &[u8])) {
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
fn originals(trace: &Path) -> HashSet<Vec<u8>> {
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
fn assert_gone(trace: &Path, originals: &HashSet<Vec<u8>>) {
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

fn testdata() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1");
    let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|e| e == "bpr"));
    all.sort();
    assert!(all.len() >= 6);
    all
}

/// A whole trace of each in testdata: what was killed is recovered first, as redact asks.
fn whole(scratch: &Scratch, trace: &Path) -> PathBuf {
    if bpfrec([Path::new("verify"), trace]).status.code() == Some(0) {
        return trace.to_owned();
    }
    let (code, said) = redact(scratch, trace, &scratch.path("refused.bpr"), &[]);
    assert!(code == 1 && said.contains("let `bpfrec recover` make a whole trace of it first"), "{said}");
    let new = scratch.path("recovered.bpr");
    let output = bpfrec([Path::new("recover"), trace, Path::new("--force"), Path::new("-o"), &new]);
    assert_eq!(output.status.code(), Some(3));
    new
}

#[test]
fn nothing_is_left_of_the_names_in_testdata() {
    let scratch = Scratch::new();
    for trace in testdata() {
        let trace = whole(&scratch, &trace);
        let output = scratch.path(&format!("new-{}", trace.file_name().unwrap().to_str().unwrap()));
        let (code, said) = redact(&scratch, &trace, &output, &EVERYTHING);
        assert_eq!(code, 0, "{said}");
        assert_whole(&output);
        assert_gone(&output, &originals(&trace));
        let file =
            if output.is_dir() { fs::read_dir(&output).unwrap().next().unwrap().unwrap().path() } else { output };
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

/// What is in a text of the made trace, so that it can be found anywhere.
const SECRET: &str = "q7Secret";
/// The same in what stays by default.
const STAYS: &str = "q7Function";

/// A trace with a secret in every text that the format has, in all the forms that hosts have.
fn hostile(scratch: &Scratch) -> PathBuf {
    const FORMS: [&str; 10] = [
        "<script>@</script>",
        "/../../etc/@",
        "@\n\u{1b}[31m\"'\\;",
        "/system.slice/docker-@.scope",
        "a b@ (deleted)",
        "/memfd:@",
        "[anon:@]",
        "/usr/lib/@/libc.so.@",
        "JS:*f /srv/My @ App/index.js:1:2",
        "py::main:/home/@.py",
    ];
    let registry = builder::later_registry();
    let mut random = Random(3);
    let text = |form: usize, secret: &str| FORMS[form % FORMS.len()].replace('@', &format!("{secret}{form}q"));
    let mut items = builder::items();
    for key in [
        "host",
        "kernel",
        "kernel_version",
        "arch",
        "boot_id",
        "host_id",
        "kernel_build_id",
        "command",
        "filter_cgroup",
        "malloc_files",
        "disk.8:0",
        "page_size",
        "sources",
        "later",
    ] {
        items.push((key.into(), text(items.len(), SECRET)));
    }
    items.push((text(0, SECRET), "1".into()));
    let ids = SegmentIds { trace_id: TRACE_ID, segment: 0, first_seq: 0 };
    let mut writer = SegmentWriter::new(Vec::new(), ids, &registry, &items).unwrap();
    let made = [meta::HEADER_ITEM, meta::SCHEMA_FIELD, meta::INDEX_ENTRY, meta::END];
    for kind in registry.kinds().into_iter().filter(|kind| !made.contains(&kind.id)) {
        let mut table: Table = builder::table(&kind, 40, builder::START_NS, &mut random);
        for (field, column) in kind.fields.iter().zip(&mut table.columns) {
            let stays = matches!((kind.name.as_str(), field.name.as_str()), (_, "build_id" | "content_id" | "module"))
                || matches!(
                    kind.name.as_str(),
                    "kernel_symbol" | "kernel_symbol_change" | "binary_symbol" | "kernel_module"
                );
            if field.name.ends_with("_stack_id") {
                *column = Column::Int(vec![0; 40]);
            } else if let Column::Text(texts) = column {
                *texts = Ragged::default();
                // The last two forms are names of compiled code with a file in them; all else there is a function.
                let form = |row| if kind.id == meta::JIT_SYMBOL { FORMS.len() - 2 + row % 2 } else { row };
                (0..40).for_each(|row| texts.push(text(form(row), if stays { STAYS } else { SECRET }).as_bytes()));
            }
        }
        let block_type = if kind.is_event() { BlockType::Events } else { kind.block_type() };
        if kind.id == meta::LOSS {
            continue;
        }
        writer.write_tables(block_type, &[&table]).unwrap();
    }
    let path = scratch.path("hostile.bpr");
    fs::write(&path, writer.finish(EndReason::Exit).unwrap().0).unwrap();
    path
}

fn has(trace: &Path, word: &str) -> bool {
    bytes_of(trace).iter().any(|bytes| bytes.windows(word.len()).any(|w| w == word.as_bytes()))
}

#[test]
fn nothing_is_left_of_hostile_names_of_any_kind() {
    let scratch = Scratch::new();
    let trace = hostile(&scratch);
    assert!(has(&trace, SECRET) && has(&trace, STAYS));
    let (some, all) = (scratch.path("some.bpr"), scratch.path("all.bpr"));
    let (code, said) = redact(&scratch, &trace, &some, &[]);
    assert!(code == 0 && said.contains("names of functions (--functions) and build ids (--build-ids) stay"), "{said}");
    assert!(!has(&some, SECRET) && has(&some, STAYS));
    assert_whole(&some);
    assert_eq!(redact(&scratch, &trace, &all, &EVERYTHING).0, 0);
    assert!(!has(&all, SECRET) && !has(&all, STAYS));
    assert_whole(&all);
    // The function in the name of compiled code is what is analysed: only its file goes.
    let mut compiled = Vec::new();
    each_text(&some, |kind, field, text| {
        if (kind, field) == ("jit_symbol", "name") {
            compiled.push(String::from_utf8_lossy(text).into_owned());
        }
    });
    assert!(compiled.iter().any(|name| name.starts_with("JS:*f /") && name.ends_with(":1:2")), "{compiled:?}");

    let refused = redact(&scratch, &trace, &all, &[]);
    assert!(refused.0 == 1 && refused.1.contains("all.bpr exists"), "{refused:?}");
    assert_eq!(redact(&scratch, &trace, &all, &["--force"]).0, 0);
}

#[test]
fn one_name_one_token_and_another_one_with_another_key() {
    let scratch = Scratch::new();
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1/burn-5.10.bpr");
    let names = |trace: &Path| {
        let mut names = Vec::new();
        each_text(trace, |_, field, text| names.extend((field == "comm").then(|| text.to_vec())));
        names
    };
    let (a, b, c) = (scratch.path("a.bpr"), scratch.path("b.bpr"), scratch.path("c.bpr"));
    redact(&scratch, &trace, &a, &[]);
    redact(&scratch, &trace, &b, &[]);
    let (trace_arg, c_arg) = (trace.to_str().unwrap(), c.to_str().unwrap());
    common::bpfrec_ok(&["redact", trace_arg, "-o", c_arg]);
    assert_eq!(names(&a), names(&b));
    let pairs: HashSet<_> = names(&trace).into_iter().zip(names(&a)).collect();
    let firsts: HashSet<_> = pairs.iter().map(|(name, _)| name).collect();
    let seconds: HashSet<_> = pairs.iter().map(|(_, token)| token).collect();
    assert!(pairs.len() > 10 && pairs.len() == firsts.len() && pairs.len() == seconds.len());
    let others: HashSet<_> = names(&c).into_iter().collect();
    assert!(!others.is_empty() && others.iter().all(|token| !seconds.contains(token)));
}

/// What a later version wrote and nobody can read is left out, and counted.
#[test]
fn what_is_not_understood_is_left_out_and_counted() {
    let scratch = Scratch::new();
    let trace = scratch.path("later.bpr");
    fs::write(&trace, &builder::trace(TRACE_ID)[2]).unwrap();
    let output = scratch.path("new.bpr");
    let (code, said) = redact(&scratch, &trace, &output, &EVERYTHING);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("rows of 3 blocks are not understood and were left out"), "{said}");
    assert_whole(&output);
    for word in ["käse", "böx", "opaque to this version", "[31m"] {
        assert!(has(&trace, word) && !has(&output, word), "{word}");
    }
    let (old, new) = (common::info(&trace), common::info(&output));
    let number = |info: &serde_json::Value, name: &str| info[name].as_u64().unwrap();
    assert_eq!(number(&old, "events") + number(&old, "lost"), number(&new, "events") + number(&new, "lost"));
    assert_eq!(new["not_understood_rows"], 0);
    assert!(number(&new, "lost") > number(&old, "lost"));
}

/// All numbers of a report, whatever the order of rows that are alike.
#[cfg(feature = "analyze")]
fn figures(trace: &Path, report: &str) -> Vec<String> {
    fn collect(value: &serde_json::Value, all: &mut Vec<String>) {
        match value {
            serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, all)),
            serde_json::Value::Object(fields) => fields.values().for_each(|field| collect(field, all)),
            serde_json::Value::Number(number) => all.push(number.to_string()),
            _ => {}
        }
    }
    let mut words = report.split(' ');
    let args = ["report", words.next().unwrap(), trace.to_str().unwrap(), "--json", "--trace-only"];
    let output = bpfrec(args.into_iter().chain(words));
    let (out, err) = texts(&output);
    if output.status.code() == Some(1) {
        return vec![err.rsplit(": ").next().unwrap_or_default().to_owned()];
    }
    let mut all = Vec::new();
    collect(&serde_json::from_str(&out).unwrap_or_else(|e| panic!("{report}: {e}: {out}{err}")), &mut all);
    all.sort();
    all
}

#[cfg(feature = "analyze")]
#[test]
fn reports_give_the_same_figures() {
    const REPORTS: [&str; 8] = [
        "summary",
        "runqlat -P",
        "biolatency -D",
        "profile --top 10000",
        "offcputime --top 10000",
        "wakeups --top 10000",
        "memleak -T 10000 -o 0",
        "cpudist --per-cgroup",
    ];
    let scratch = Scratch::new();
    for trace in testdata() {
        let trace = whole(&scratch, &trace);
        for (name, options) in [("some", &[][..]), ("all", &EVERYTHING[..])] {
            let output = scratch.path(&format!("{name}-{}", trace.file_name().unwrap().to_str().unwrap()));
            assert_eq!(redact(&scratch, &trace, &output, options).0, 0);
            for report in REPORTS {
                assert_eq!(figures(&trace, report), figures(&output, report), "{report} {name} {}", trace.display());
            }
        }
    }
}
