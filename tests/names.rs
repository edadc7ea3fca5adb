//! `bpfrec symbolize` and `bundle`, and the flags that name functions, on traces made by hand of libraries compiled here.
#![cfg(all(target_os = "linux", feature = "analyze"))]

#[path = "../analyze/tests/common/mod.rs"]
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use bpfrec_analyze::symbols::elf::Elf;
use bpfrec_format::{EndReason, Registry, SegmentIds, SegmentWriter};
use common::program::{Dir, address, compile, map, sample, strip};
use common::{Builder, T0, V};

const C: &str = "
    __attribute__((noinline)) static int hidden(int x) { __asm__ volatile(\"\" : \"+r\"(x)); return x * 3; }
    int shown(int x) { return hidden(x) + 1; }";

/// Exit code, standard output, standard error.
fn run(args: &[&str], home: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfrec"));
    command.args(args).env("HOME", home).env_remove("XDG_CACHE_HOME").env_remove("DEBUGINFOD_URLS");
    let output = command.env_remove("DEBUGINFOD_CACHE_PATH").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn ok(args: &[&str], home: &Path) -> String {
    let (code, out, err) = run(args, home);
    assert_eq!(code, Some(0), "{args:?}: {out}{err}");
    out
}

struct Case {
    dir: Dir,
    trace: String,
    /// The library as it was built; at its path lies the stripped one.
    whole: Vec<u8>,
    elf: Elf,
}

fn case() -> Case {
    let dir = Dir::new();
    let lib = compile(&dir, "libx.c", C, &["-O1", "-g"]);
    let addresses = ["hidden", "shown"].map(|name| address(&lib, name));
    let whole = fs::read(&lib).unwrap();
    strip(&lib, &dir.path("libx.debug"));
    let elf = Elf::open(&lib).unwrap();
    let mut b = Builder::new();
    map(&mut b, &elf, lib.to_str().unwrap(), &elf.build_id);
    addresses.iter().zip(1..).for_each(|(addr, stack)| sample(&mut b, &elf, stack, *addr));
    let trace = dir.path("trace.bpr");
    fs::write(&trace, b.bytes()).unwrap();
    Case { trace: trace.to_str().unwrap().into(), dir, whole, elf }
}

impl Case {
    fn path(&self, name: &str) -> String {
        self.dir.path(name).to_str().unwrap().into()
    }

    fn folded(&self, trace: &str, flags: &[&str]) -> Vec<String> {
        let out = ok(&[&["report", "profile", "-f", trace][..], flags].concat(), &self.dir.0);
        let mut names: Vec<String> =
            out.lines().map(|l| l.trim_start_matches(';').rsplit_once(' ').unwrap().0.into()).collect();
        names.sort();
        names
    }
}

#[test]
fn symbolize_a_file_and_a_directory() {
    let case = case();
    let (first, rest) = case.elf.build_id.split_at(2);
    let symfs = case.dir.path("symfs");
    fs::create_dir_all(symfs.join(".build-id").join(first)).unwrap();
    fs::write(symfs.join(".build-id").join(first).join(format!("{rest}.debug")), &case.whole).unwrap();
    let (symfs, named) = (symfs.to_str().unwrap(), case.path("named.bpr"));
    assert!(case.folded(&case.trace, &["--trace-only"]).iter().all(|n| n.starts_with("[libx.c.so+")));

    let said = ok(&["symbolize", &case.trace, "--symfs", symfs, "-o", &named], &case.dir.0);
    assert!(said.contains("functions added from") && said.contains(" of 1 binaries added"), "{said}");
    ok(&["verify", &named], &case.dir.0);
    assert_eq!(case.folded(&named, &["--trace-only"]), ["hidden", "shown"]);
    // The trace is never its own copy, and another file is not replaced by accident.
    for output in [&case.trace, &named] {
        let (code, _, err) = run(&["symbolize", &case.trace, "--symfs", symfs, "-o", output], &case.dir.0);
        assert!(code == Some(1) && (err.contains("--force") || err.contains("the trace itself")), "{err}");
    }
    ok(&["symbolize", &case.trace, "--symfs", symfs, "-o", &named, "--force"], &case.dir.0);

    // Two segments: the last one gets the names, the first stays as it is.
    let (from, to) = (case.dir.path("segments"), case.path("named-segments"));
    fs::create_dir(&from).unwrap();
    let ids = SegmentIds { trace_id: 7, segment: 0, first_seq: 0 };
    let writer = SegmentWriter::new(Vec::new(), ids, &Registry::default(), &[]).unwrap();
    let (bytes, next_seq) = writer.finish(EndReason::Rotate).unwrap();
    fs::write(from.join("seg-000000.bpr"), &bytes).unwrap();
    let old = fs::read(&case.trace).unwrap();
    let old = bpfrec_format::Segment::open(Box::new(old)).unwrap();
    let ids = SegmentIds { trace_id: 7, segment: 1, first_seq: next_seq };
    let mut writer = SegmentWriter::new(Vec::new(), ids, &Registry::default(), &old.items).unwrap();
    for block in old.blocks.iter().filter(|b| !matches!(b.header.block_type, 1 | 2 | 11 | 12)) {
        let payload = old.read_stored(block).unwrap();
        writer.write(bpfrec_format::Block { header: block.header, payload }).unwrap();
    }
    fs::write(from.join("seg-000001.bpr"), writer.finish(EndReason::Exit).unwrap().0).unwrap();
    ok(&["verify", from.to_str().unwrap()], &case.dir.0);
    ok(&["symbolize", from.to_str().unwrap(), "--symfs", symfs, "-o", &to], &case.dir.0);
    ok(&["verify", &to], &case.dir.0);
    assert_eq!(fs::read(Path::new(&to).join("seg-000000.bpr")).unwrap(), bytes);
    assert_eq!(case.folded(&to, &["--trace-only"]), ["hidden", "shown"]);

    // An unfinished trace must be made whole first.
    let cut = case.path("cut.bpr");
    let bytes = fs::read(&case.trace).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 100]).unwrap();
    let (code, _, err) = run(&["symbolize", &cut, "--symfs", symfs, "-o", &case.path("x.bpr")], &case.dir.0);
    assert!(code == Some(1) && err.contains("bpfrec recover"), "{err}");
    assert!(!case.dir.path("x.bpr").exists() && !case.dir.path("x.bpr.part").exists());
}

#[test]
fn bundle_is_what_perf_and_symfs_read() {
    let case = case();
    let (dir, tar, packed) = (case.path("bundle"), case.path("b.tar"), case.path("b.tar.zst"));
    let said = ok(&["bundle", &case.trace, "-o", &dir], &case.dir.0);
    assert!(said.contains("1 binaries packed, 0 not"), "{said}");
    let (first, rest) = case.elf.build_id.split_at(2);
    let elf = Path::new(&dir).join(".build-id").join(first).join(rest).join("elf");
    assert_eq!(fs::read(&elf).unwrap(), fs::read(&case.elf.path).unwrap());
    let link = fs::read_link(elf.parent().unwrap()).unwrap();
    let path = case.elf.path.to_str().unwrap();
    assert_eq!(link.to_str().unwrap(), format!("../..{path}/{}", case.elf.build_id));
    // A tar, plain and packed, holds the same.
    ok(&["bundle", &case.trace, "-o", &tar], &case.dir.0);
    ok(&["bundle", &case.trace, "-o", &packed], &case.dir.0);
    let plain = fs::read(&tar).unwrap();
    assert_eq!(zstd::decode_all(&fs::read(&packed).unwrap()[..]).unwrap(), plain);
    let out = case.dir.path("unpacked");
    tar::Archive::new(&plain[..]).unpack(&out).unwrap();
    assert_eq!(
        fs::read(out.join(".build-id").join(first).join(rest).join("elf")).unwrap(),
        fs::read(&case.elf.path).unwrap()
    );

    // On another machine, where the path holds something else or nothing.
    fs::write(&case.elf.path, b"another").unwrap();
    assert!(case.folded(&case.trace, &[]).iter().all(|n| n.starts_with("[libx.c.so+")));
    for dir in [&dir, out.to_str().unwrap()] {
        let names = case.folded(&case.trace, &["--symfs", dir]);
        assert!(names.contains(&"shown".to_owned()) && names[0].starts_with("[libx.c.so+"), "{names:?}");
    }
    let said = ok(&["bundle", &case.trace, "-o", &case.path("none")], &case.dir.0);
    let id = &case.elf.build_id;
    assert!(said.contains(&format!("not packed: {path} (build id {id}): no file here has this build id")), "{said}");
}

#[test]
fn a_bundle_has_the_kernels_functions() {
    let dir = Dir::new();
    let id = "00112233445566778899aabbccddeeff00112233";
    let mut b = Builder::with(Registry::default(), &[("kernel_build_id", id)]);
    for (addr, name, module) in
        [(0x1000, "_text", ""), (0x1000, "_stext", ""), (0x1100, "vfs_read", ""), (0x9000, "mod_work", "mod")]
    {
        let text = [("name", V::T(name)), ("module", V::T(module))];
        b.row("kernel_symbol", &[&[("addr", V::N(addr)), ("type", V::N(b't'.into()))][..], &text].concat());
    }
    b.row("stack", &[("ts_ns", V::N(T0)), ("stack_id", V::N(1)), ("frames", V::L(&[0x1104]))]);
    let (trace, out, tar) = (dir.path("t.bpr"), dir.path("bundle"), dir.path("b.tar"));
    fs::write(&trace, b.bytes()).unwrap();
    for to in [&out, &tar] {
        let said = ok(&["bundle", trace.to_str().unwrap(), "-o", to.to_str().unwrap()], &dir.0);
        assert!(said.contains(&format!("[kernel.kallsyms] (build id {id}): kallsyms")), "{said}");
    }
    let unpacked = dir.path("unpacked");
    tar::Archive::new(&fs::read(&tar).unwrap()[..]).unpack(&unpacked).unwrap();
    for dir in [out, unpacked] {
        // As perf looks for it, and where `perf archive` puts it.
        let text = fs::read_to_string(dir.join(".build-id/00").join(&id[2..]).join("kallsyms")).unwrap();
        let expected = "0000000000001000 t _stext\n0000000000001000 t _text\n0000000000001100 t vfs_read\n\
                        0000000000009000 t mod_work\t[mod]\n";
        assert_eq!(text, expected);
        assert!(dir.join("[kernel.kallsyms]").join(id).join("kallsyms").is_file());
    }
}

#[test]
fn flags_that_contradict_or_lead_nowhere() {
    let case = case();
    let (code, _, err) = run(&["report", "profile", &case.trace, "--trace-only", "--symfs", "/"], &case.dir.0);
    assert!(code == Some(2) && err.contains("cannot be used with"), "{err}");
    let (code, _, err) = run(&["report", "profile", &case.trace, "--symfs", "/no/such/folder"], &case.dir.0);
    assert!(code == Some(1) && err.contains("no such folder"), "{err}");
    // What gdb and perf fetched before is used, and a line of the source is shown where it is asked for.
    let cache = case.dir.path(".cache/debuginfod_client").join(&case.elf.build_id);
    fs::create_dir_all(&cache).unwrap();
    fs::write(cache.join("debuginfo"), &case.whole).unwrap();
    assert_eq!(case.folded(&case.trace, &[]), ["hidden", "shown"]);
    let text = ok(&["report", "profile", &case.trace, "--lines"], &case.dir.0);
    assert!(text.lines().any(|l| l.contains("hidden ") && l.ends_with("libx.c:2")), "{text}");
}
