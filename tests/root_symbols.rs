//! Needs root: what the file says of binaries and their functions, read with the format's own reader.
#![cfg(all(feature = "record", target_os = "linux"))]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bpfrec_format::{Column, Table, Trace, meta};
use common::*;
use rustix::process::Signal;

/// A binary as its rows say, the last one counting.
#[derive(Clone, Debug, Default)]
struct Binary {
    build_id: Vec<u8>,
    content_id: Vec<u8>,
    paths: BTreeSet<String>,
    inodes: BTreeSet<u64>,
    symbols: u64,
    missing: String,
    segments: u64,
    /// Source by name.
    functions: BTreeMap<String, u64>,
}

impl Binary {
    fn has(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }
}

fn each_row(trace: &Path, kind: u16, mut each: impl FnMut(&dyn Fn(&str) -> u64, &dyn Fn(&str) -> Vec<u8>)) {
    let trace = Trace::open(trace).unwrap();
    for (segment, block) in trace.blocks() {
        let segment = &trace.segments[segment].1;
        let known = segment.registry.get(kind).unwrap();
        for table in segment.read(block, &|id| id == kind).unwrap().tables.iter().filter(|t: &&Table| t.kind == kind) {
            for row in 0..table.rows() {
                let int = |name: &str| table.column(known, name).unwrap().ints()[row];
                let text = |name: &str| match table.column(known, name).unwrap() {
                    Column::Text(texts) => texts.get(row).to_vec(),
                    _ => panic!("{name} is no text"),
                };
                each(&int, &text);
            }
        }
    }
}

fn binaries(trace: &Path) -> BTreeMap<u64, Binary> {
    let mut all = BTreeMap::<u64, Binary>::new();
    let string = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    each_row(trace, meta::BINARY, |int, text| {
        let b = all.entry(int("binary_id")).or_default();
        (b.build_id, b.content_id, b.symbols) = (text("build_id"), text("content_id"), int("symbols"));
        b.missing = string(text("missing"));
        b.paths.insert(string(text("path")));
        b.inodes.insert(int("inode"));
    });
    each_row(trace, meta::BINARY_SEGMENT, |int, _| all.get_mut(&int("binary_id")).unwrap().segments += 1);
    each_row(trace, meta::BINARY_SYMBOL, |int, text| {
        assert!(int("addr") > 0);
        let b = all.get_mut(&int("binary_id")).unwrap();
        b.functions.insert(string(text("name")), int("source"));
    });
    for (id, b) in &all {
        let own = if b.build_id.is_empty() { &b.content_id } else { &b.build_id };
        assert_eq!(own[..8], id.to_le_bytes(), "{b:?}");
        assert!(b.symbols as usize >= b.functions.len(), "{b:?}");
    }
    all
}

/// The binaries of a path.
fn at(all: &BTreeMap<u64, Binary>, path: &Path) -> Vec<Binary> {
    let path = path.to_str().unwrap();
    all.values().filter(|b| b.paths.contains(path)).cloned().collect()
}

fn cc(args: &[&str]) {
    let status = Command::new("cc").args(["-O1", "-fno-omit-frame-pointer"]).args(args).status().unwrap();
    assert!(status.success(), "cc {args:?}");
}

fn source(name: &str) -> String {
    format!("{}/tests/load/{name}.c", env!("CARGO_MANIFEST_DIR"))
}

/// A copy of `blip` whose function has another name, and a build id of its own: the linker's does not depend on names.
/// The first eight bytes of it are the binary's id in the trace.
fn blip(scratch: &Scratch, name: &str, function: &str) -> PathBuf {
    let binary = scratch.path(name);
    let id: String = function.bytes().rev().cycle().take(20).map(|b| format!("{b:02x}")).collect();
    let options = [format!("-Dblip_work={function}"), format!("-Wl,--build-id=0x{id}")];
    cc(&["-o", binary.to_str().unwrap(), &options[0], &options[1], &source("blip")]);
    binary
}

/// A stripped binary whose symbols are packed in `.gnu_debugdata`, as in Fedora.
fn with_debug_data(scratch: &Scratch) -> PathBuf {
    let full = blip(scratch, "full", "mini_work");
    let (mini, packed) = (scratch.path("mini"), scratch.path("full.xz"));
    let mut encoder = xz2::write::XzEncoder::new(fs::File::create(&packed).unwrap(), 6);
    std::io::Write::write_all(&mut encoder, &fs::read(&full).unwrap()).unwrap();
    encoder.finish().unwrap();
    let section = format!(".gnu_debugdata={}", packed.display());
    let status = Command::new("objcopy").args(["-S", "--add-section", &section]).args([&full, &mini]).status();
    assert!(status.unwrap().success(), "objcopy");
    mini
}

const FAST: [&str; 4] = ["-e", "profile", "-F", "4999"];

#[test]
fn root_a_binary_that_lives_five_milliseconds_and_is_deleted_has_its_functions_in_the_file() {
    let Some(_alone) = alone_as_root("deleted binaries") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    // Each has a build id of its own: none is known from the one before.
    for i in 0..20 {
        blip(&scratch, &format!("made_{i}"), &format!("work_of_{i}"));
    }
    let script = "for i in $(seq 0 19); do mv $dir/made_$i $dir/brief_$i; $dir/brief_$i; rm $dir/brief_$i; done";
    record_while(&scratch, &trace, &FAST, script);
    let all = binaries(&trace);
    let named = (0..20).filter(|i| {
        let found = at(&all, &scratch.path(&format!("brief_{i}")));
        assert_eq!(found.len(), 1, "brief_{i}: its mapping and its build id are known in any case");
        assert!(found[0].has(&format!("work_of_{i}")) || !found[0].missing.is_empty() || found[0].symbols == 0);
        found[0].has(&format!("work_of_{i}"))
    });
    // Where another load keeps both CPUs busy one may be gone before the recorder runs.
    let named = named.count();
    assert!(named >= 18, "{named} of 20 have functions");
}

#[test]
fn root_one_path_in_two_mount_namespaces_is_two_binaries() {
    let Some(_alone) = alone_as_root("mount namespaces") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let (outer, inner) = (blip(&scratch, "prog", "outer_work"), blip(&scratch, "other", "inner_work"));
    let inside = "mount --bind $dir/other $dir/prog; for i in 1 2 3 4 5; do $dir/prog; done";
    let script = format!("for i in 1 2 3 4 5; do $dir/prog; done; unshare -m sh -euc '{inside}'");
    record_while(&scratch, &trace, &FAST, &script);
    let all = binaries(&trace);
    let found = at(&all, &outer);
    assert_eq!(found.len(), 2, "{found:?}");
    for function in ["outer_work", "inner_work"] {
        assert_eq!(found.iter().filter(|b| b.has(function)).count(), 1, "{function}: {found:?}");
    }
    assert!(found.iter().all(|b| b.segments > 0 && b.functions.values().all(|s| *s == meta::symbol_source::SYMTAB)));
    drop(inner);
    // Its processes are in other namespaces, which the file says.
    let mut namespaces = BTreeSet::new();
    replay(&trace, |event| {
        if event["kind"] == "sched_exec" && event["comm"] == "prog" {
            namespaces.insert(event["mnt_ns"].as_u64().unwrap());
        }
    });
    assert_eq!(namespaces.len(), 2, "{namespaces:?}");
}

#[test]
fn root_an_exec_and_a_library_in_place_of_another() {
    let Some(_alone) = alone_as_root("exec and reload") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let reload = scratch.path("reload");
    cc(&["-o", reload.to_str().unwrap(), &source("reload"), "-ldl"]);
    for name in ["alpha", "gamma"] {
        let library = scratch.path(name);
        let define = format!("-DNAME={name}_work");
        cc(&["-shared", "-fPIC", &define, "-o", library.to_str().unwrap(), &source("library")]);
    }
    let first = blip(&scratch, "first", "first_work");
    // The shell becomes reload: one pid, two programs.
    let script = "$dir/first; exec $dir/reload $dir/alpha alpha_work $dir/gamma gamma_work";
    let out = record_while(&scratch, &trace, &["-e", "profile", "-F", "999"], script);
    let bases: Vec<_> = out.lines().filter(|l| l.starts_with("base ")).collect();
    assert_eq!((bases.len(), bases[0]), (2, bases[1]), "both libraries at one address");
    let all = binaries(&trace);
    for name in ["alpha", "gamma"] {
        let found = at(&all, &scratch.path(name));
        assert!(found.len() == 1 && found[0].has(&format!("{name}_work")), "{name}: {found:?}");
    }
    assert_eq!(at(&all, &first).len(), 1);
    // The mappings lead from address and time to the binary.
    let mut rows = Vec::new();
    each_row(&trace, meta::MAPPING, |int, text| {
        let path = String::from_utf8(text("path")).unwrap();
        if path.ends_with("/alpha") || path.ends_with("/gamma") {
            rows.push((
                int("ts_ns"),
                int("start_addr"),
                int("pid"),
                path.rsplit('/').next().unwrap().to_owned(),
                text("build_id"),
            ));
        }
    });
    rows.sort();
    assert_eq!(rows.iter().map(|r| r.3.as_str()).collect::<Vec<_>>(), ["alpha", "gamma"]);
    assert_eq!((rows[0].1, rows[0].2), (rows[1].1, rows[1].2));
    assert_ne!(rows[0].4, rows[1].4);
}

#[test]
fn root_which_symbols_are_written() {
    let Some(_alone) = alone_as_root("--symbols") else { return };
    let scratch = Scratch::new();
    let stripped = scratch.path("stripped");
    cc(&["-s", "-rdynamic", "-Dstatic=", "-o", stripped.to_str().unwrap(), &source("blip")]);
    let idle = scratch.path("idle");
    fs::write(scratch.path("idle.c"), "int idle_main(void) { return 0; } int main(void) { return idle_main(); }")
        .unwrap();
    cc(&["-Wl,--build-id=none", "-o", idle.to_str().unwrap(), scratch.path("idle.c").to_str().unwrap()]);
    let mini = with_debug_data(&scratch);
    let script = "for i in 1 2 3 4 5; do $dir/stripped; $dir/mini; done; $dir/idle";
    let record = |name: &str, options: &[&str]| {
        let trace = scratch.path(name);
        record_while(&scratch, &trace, &[&FAST, options].concat(), script);
        (info(&trace), binaries(&trace))
    };

    let (facts, all) = record("hit.bpr", &[]);
    let found = at(&all, &stripped);
    assert!(found.len() == 1 && found[0].has("blip_work"), "{found:?}");
    assert!(found[0].functions.values().all(|source| *source == meta::symbol_source::DYNSYM));
    let found = at(&all, &mini);
    assert!(found.len() == 1, "{found:?}");
    assert_eq!(found[0].functions.get("mini_work"), Some(&meta::symbol_source::GNU_DEBUGDATA), "{found:?}");
    let vdso: Vec<_> = all.values().filter(|b| b.paths.contains("[vdso]")).collect();
    assert!(vdso.len() == 1 && vdso[0].segments > 0 && vdso[0].build_id.len() >= 16, "{vdso:?}");
    assert_eq!(facts["binaries"]["count"], all.len());
    assert_eq!(facts["binaries"]["with_symbols"], all.values().filter(|b| b.symbols > 0).count());
    assert!(facts["binaries"]["bytes"].as_u64().unwrap() > 100);
    let hit = facts["binaries"]["with_symbols"].as_u64().unwrap();

    let (facts, all) = record("all.bpr", &["--symbols", "all"]);
    let found = at(&all, &idle);
    assert!(found.len() == 1 && found[0].has("idle_main"), "{found:?}");
    assert!(
        found[0].build_id.is_empty() && found[0].content_id.len() == 16 && !found[0].inodes.contains(&0),
        "{found:?}"
    );
    assert!(facts["binaries"]["with_symbols"].as_u64().unwrap() > hit);
    let vdso = all.values().find(|b| b.paths.contains("[vdso]")).unwrap();
    assert!(vdso.functions.keys().any(|name| name.contains("clock_gettime")), "{vdso:?}");

    let (facts, all) = record("none.bpr", &["--symbols", "none"]);
    assert_eq!((&facts["binaries"]["symbols"], &facts["binaries"]["bytes"]), (&0.into(), &0.into()));
    let found = at(&all, &stripped);
    assert!(found.len() == 1 && found[0].segments > 0 && found[0].missing.is_empty(), "{found:?}");

    let (facts, all) = record("max.bpr", &["--symbols", "all", "--symbols-max", "4K"]);
    assert!(facts["binaries"]["bytes"].as_u64().unwrap() <= 4096, "{facts}");
    assert!(facts["binaries"]["missing"]["over --symbols-max"].as_u64().unwrap() > 0, "{facts}");
    assert!(all.values().any(|b| b.missing == "over --symbols-max"));
}

#[test]
fn root_a_second_interrupt_ends_the_symbols_and_the_file_is_whole() {
    let Some(_alone) = alone_as_root("second interrupt") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let mut recording = Recording::start(&trace, &["-e", "profile", "--symbols", "all"]);
    std::thread::sleep(Duration::from_millis(500));
    recording.signal(Signal::INT);
    // The second one comes at a moment that is not chosen: before, while or after the symbols are written.
    std::thread::sleep(Duration::from_millis(30));
    recording.signal(Signal::INT);
    assert_eq!(recording.0.wait().unwrap().code(), Some(0));
    bpfrec_ok(&["verify", trace.to_str().unwrap()]);
    let facts = info(&trace);
    assert_eq!(facts["ended"], "signal");
    assert_eq!(facts["complete"], true);
}

#[test]
fn root_each_segment_knows_its_binaries_and_the_last_one_has_the_symbols() {
    let Some(_alone) = alone_as_root("segments") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("segments");
    blip(&scratch, "early", "early_work");
    let script = "for i in 1 2 3 4; do $dir/early; done; rm $dir/early; sleep 3";
    record_while(&scratch, &trace, &[&FAST[..], &["--rotate-time", "1s", "--max-size", "64M"]].concat(), script);
    let mut files: Vec<_> = fs::read_dir(&trace).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    // The shell lives in all of them.
    for file in &files {
        let sh = fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(at(&binaries(file), &sh).len(), 1, "{}", file.display());
    }
    let last = at(&binaries(files.last().unwrap()), &scratch.path("early"));
    assert!(last.len() == 1 && last[0].has("early_work") && last[0].segments > 0, "{last:?}");
    let first = at(&binaries(&files[0]), &scratch.path("early"));
    assert!(first.len() == 1 && first[0].functions.is_empty(), "{first:?}");
    assert_eq!(info(&trace)["complete"], true);
}
