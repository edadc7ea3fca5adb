//! User frames by name: from this test's own program, from libraries that are compiled here, from the trace alone.
#![cfg(target_os = "linux")]

mod common;

use bpfrec_analyze::symbols::elf::{Elf, content_id};
use bpfrec_analyze::symbols::{Frame, NameSource, Options, Symbols};
use bpfrec_analyze::{Filter, Meta, reports, symbolize};
use bpfrec_format::{Segment, Trace, append};
use common::program::{self, Dir, address, compile, describe, map, sample, strip};
use common::{Builder, T0, V};

/// Where this runs: the function that the test looks for.
#[inline(never)]
extern "C" fn a_function_that_is_looked_for(x: u64) -> u64 {
    std::hint::black_box(x.rotate_left(3))
}

const C: &str = "
    __attribute__((noinline)) static int hidden(int x) { __asm__ volatile(\"\" : \"+r\"(x)); return x * 3; }
    int shown(int x) { return hidden(x) + 1; }
    __attribute__((noinline)) static int hidden_too(int x) { __asm__ volatile(\"\" : \"+r\"(x)); return x * 5; }
    int shown_last(int x) { return hidden_too(x) + hidden(x); }";

/// The only frames of the samples, in the order of their stack ids from 1 on.
fn frames(trace: &Trace, options: &Options) -> (Vec<Vec<Frame>>, Symbols) {
    let mut meta = Meta::load(trace).unwrap();
    meta.names = options.clone();
    let symbols = Symbols::resolve(&meta);
    let stacks = (1..).map_while(|id| symbols.stack(id));
    (stacks.map(|s| symbols.frames_of(s).cloned().collect()).collect(), symbols)
}

/// Names and their sources.
fn names(trace: &Trace, options: &Options) -> Vec<(String, &'static str)> {
    let all = frames(trace, options).0;
    all.into_iter().map(|f| (f[0].name.clone(), f[0].source.name())).collect()
}

fn only_trace() -> Options {
    Options { trace_only: true, ..Options::default() }
}

fn symfs(dirs: &[&Dir]) -> Options {
    Options { symfs: dirs.iter().map(|d| d.0.clone()).collect(), ..Options::default() }
}

/// A trace with a leaf at each of the addresses.
fn trace_of(elf: &Elf, path: &str, build_id: &str, addresses: &[u64]) -> Builder {
    let mut b = Builder::new();
    map(&mut b, elf, path, build_id);
    addresses.iter().zip(1..).for_each(|(addr, stack)| sample(&mut b, elf, stack, *addr));
    b
}

/// A text report, with the notes below it.
fn report(trace: &Trace, name: &str, options: &Options) -> String {
    let mut meta = Meta::load(trace).unwrap();
    meta.names = options.clone();
    let filter = Filter::everything(&meta);
    let kind = reports::find(name).unwrap();
    reports::run(trace, &meta, kind, &reports::Flags::default(), &filter, false, &|_, _| {}).unwrap().output
}

#[test]
fn this_program_by_its_path() {
    assert_eq!(a_function_that_is_looked_for(1), 8);
    let exe = std::env::current_exe().unwrap();
    let elf = Elf::open(&exe).unwrap();
    let addr = address(&exe, "a_function_that_is_looked_for");
    assert!(!elf.build_id.is_empty(), "the linker gives build ids");
    let trace = trace_of(&elf, exe.to_str().unwrap(), &elf.build_id, &[addr, addr + 1]).trace();
    for (name, source) in names(&trace, &Options::default()) {
        assert!(name == "symbols::a_function_that_is_looked_for" && source == "local file", "{name} {source}");
    }
    // Not a byte of this machine when it is not wanted, and no name of a file that is another one.
    let of = |trace: Trace, options| names(&trace, &options).remove(0);
    let (name, source) = of(trace, only_trace());
    assert!(name.starts_with("[symbols-") && source == "none", "{name} {source}");
    for other in ["", "00112233445566778899aabbccddeeff00112233"] {
        let (name, source) = of(trace_of(&elf, exe.to_str().unwrap(), other, &[addr]).trace(), Options::default());
        assert!(name.starts_with("[symbols-") && source == "none", "{name} {source}");
    }
}

#[test]
fn a_stripped_library_and_its_debug_file() {
    let (host, debug, other) = (Dir::new(), Dir::new(), Dir::new());
    let lib = compile(&host, "libx.c", C, &["-O1", "-g"]);
    let addresses = ["hidden", "shown", "hidden_too", "shown_last"].map(|name| address(&lib, name));
    let separate = host.path("libx.debug");
    strip(&lib, &separate);
    let elf = Elf::open(&lib).unwrap();
    assert!(!elf.has_symtab && !Elf::open(&separate).unwrap().has_code());
    let path = lib.to_str().unwrap();
    let trace = trace_of(&elf, path, &elf.build_id, &addresses).trace();
    let list = |names: [&str; 4], source: [&'static str; 4]| -> Vec<(String, &'static str)> {
        names.iter().map(|n| (*n).to_owned()).zip(source).collect()
    };
    // Exported functions only; what lies between them keeps no name.
    let offset = |at: usize| {
        let code = elf.segments.iter().find(|s| s.is_code()).unwrap();
        format!("[libx.c.so+{:#x}]", addresses[at] - code.addr + code.offset)
    };
    let (local, none) = ("local file", "none");
    let expected = list([&offset(0), "shown", &offset(2), "shown_last"], [none, local, none, local]);
    assert_eq!(names(&trace, &Options::default()), expected);
    let text = report(&trace, "summary", &Options::default());
    let help =
        format!("# libx.c.so (build id {}): exported symbols only; put its debug file under --symfs", elf.build_id);
    assert!(text.contains(&help) && text.contains("symbols   50.0 % of frames"), "{text}");

    let (first, rest) = elf.build_id.split_at(2);
    for name in [
        format!(".build-id/{first}/{rest}.debug"),
        format!("usr/lib/debug/.build-id/{first}/{rest}.debug"),
        format!(".debug/.build-id/{first}/{rest}/debug"),
        format!(".build-id/{first}/{rest}/elf"),
        format!("usr/lib/debug{path}.debug"),
        "libx.c.so".into(),
    ] {
        let dir = Dir::new();
        dir.put(&separate, &name);
        let (all, symbols) = frames(&trace, &symfs(&[&dir]));
        let all: Vec<_> = all.iter().map(|f| (f[0].name.clone(), f[0].source.name())).collect();
        assert_eq!(all, list(["hidden", "shown", "hidden_too", "shown_last"], ["symfs"; 4]), "{name}");
        assert!(symbols.notes.is_empty() && symbols.binaries[0].help.is_none(), "{name}: {:?}", symbols.notes);
    }
    // Another build of the library, where the debug file should be: one sentence, and no name from it.
    let another = compile(&other, "liby.c", &C.replace("* 3", "* 7"), &["-O1", "-g"]);
    let lies = debug.put(&another, &format!(".build-id/{first}/{rest}.debug"));
    let (all, symbols) = frames(&trace, &symfs(&[&debug]));
    assert_eq!(all[0][0].source, NameSource::None);
    let other_id = Elf::open(&another).unwrap().build_id;
    let note = format!(
        "{} is not used for {path}: its build id is {other_id}, the recorded one is {}",
        lies.display(),
        elf.build_id
    );
    assert!(symbols.notes.len() == 1 && symbols.notes[0] == note, "{:?}", symbols.notes);
    for name in ["summary", "profile"] {
        let text = report(&trace, name, &symfs(&[&debug]));
        assert_eq!(text.matches(&note).count(), 1, "{text}");
    }
}

#[test]
fn only_what_the_trace_says() {
    let dir = Dir::new();
    let lib = compile(&dir, "libx.c", C, &["-O1"]);
    let elf = Elf::open(&lib).unwrap();
    let addr = address(&lib, "hidden");
    let id = program::unhex(&elf.build_id);
    let id: String = id.iter().map(|b| format!("{b:02x}")).collect();
    let symbol = |b: &mut Builder, addr: u64, len: u64, source: u64, name: &str| {
        let numbers = [("binary_id", program::BINARY), ("addr", addr), ("len_bytes", len), ("source", source)];
        b.row("binary_symbol", &[&numbers.map(|(n, v)| (n, V::N(v)))[..], &[("name", V::T(name))]].concat());
    };
    let trace = |missing: &str| {
        let mut b = trace_of(&elf, "/gone/libx.so", &id, &[addr, addr + 4, addr + 8, addr + 12, addr + 16]);
        describe(&mut b, &elf, "/gone/libx.so", &[("build_id", V::T(&id)), ("missing", V::T(missing))]);
        symbol(&mut b, addr, 4, 1, "_ZN3net4ConnC1Ev");
        symbol(&mut b, addr + 8, 0, 3, "Ljava/lang/String;::hashCode");
        symbol(&mut b, addr + 16, 1, 6, "_ZN4core3fmt5write17h0123456789abcdefE");
        b.trace()
    };
    let first = ("net::Conn::Conn()".to_owned(), "trace: symtab");
    let java = ("java.lang.String::hashCode".to_owned(), "trace: gnu_debugdata");
    let rust = ("core::fmt::write".to_owned(), "trace: added");
    let all = names(&trace(""), &only_trace());
    assert_eq!([&all[0], &all[2], &all[3], &all[4]], [&first, &java, &java, &rust]);
    assert_eq!(all[1].1, "none", "past the end of a function: {all:?}");
    // Where functions are missing, one without a length does not reach over them.
    let all = names(&trace("over --symbols-max"), &only_trace());
    assert_eq!((&all[2], all[3].1, &all[4]), (&java, "none", &rust), "{all:?}");
}

#[test]
fn without_a_build_id_by_device_inode_and_time() {
    let (dir, root, wrong) = (Dir::new(), Dir::new(), Dir::new());
    let lib = compile(&dir, "libx.c", C, &["-O1", "-Wl,--build-id=none"]);
    let other = compile(&wrong, "liby.c", &C.replace("* 3", "* 7"), &["-O1", "-Wl,--build-id=none"]);
    let elf = Elf::open(&lib).unwrap();
    assert!(elf.build_id.is_empty());
    let addr = address(&lib, "hidden");
    let content = content_id(&lib).unwrap();
    let trace = |ts: u64| {
        let mut b = trace_of(&elf, "/gone/libx.so", "", &[addr]);
        describe(&mut b, &elf, "/first/path.so", &[("ts_ns", V::N(ts)), ("content_id", V::T(&content))]);
        b.trace()
    };
    root.put(&lib, "gone/libx.so");
    wrong.put(&other, "gone/libx.so");
    let (all, symbols) = frames(&trace(T0), &symfs(&[&root]));
    assert_eq!((all[0][0].name.as_str(), symbols.notes.len()), ("hidden", 0));
    // A binary that was seen there only after the mapping is another one.
    let (all, symbols) = frames(&trace(T0 + 1), &symfs(&[&root]));
    assert_eq!(all[0][0].source, NameSource::None);
    assert!(symbols.notes[0].contains("the trace has no build id"), "{:?}", symbols.notes);
    let (all, symbols) = frames(&trace(T0), &symfs(&[&wrong]));
    assert_eq!(all[0][0].source, NameSource::None);
    assert!(symbols.notes[0].contains(&format!("the recorded one is {content}")), "{:?}", symbols.notes);
}

#[test]
fn lines_and_inlined_functions() {
    const SOURCE: &str = "volatile int sink;
static inline __attribute__((always_inline)) void innermost(int x) {
  for (int i = 0; i < x; i++) sink += i;
}
static inline __attribute__((always_inline)) void middle(int x) {
  innermost(x + 1);
}
__attribute__((noinline)) void outer(int x) {
  middle(x);
}
";
    let (dir, debug) = (Dir::new(), Dir::new());
    let lib = compile(&dir, "lines.c", SOURCE, &["-O2", "-g", "-gdwarf-4"]);
    let elf = Elf::open(&lib).unwrap();
    let begin = address(&lib, "outer");
    let addresses: Vec<u64> = (begin..begin + 24).collect();
    let separate = debug.path("lines.debug");
    let path = lib.to_str().unwrap().to_owned();
    let with = |lines, inlines| Options { lines, inlines, ..symfs(&[&debug]) };
    let mut seen = Vec::new();
    // The whole library, then a separate debug file, where nothing is but symbols and DWARF.
    for round in 0..2 {
        if round == 1 {
            strip(&lib, &separate);
            debug.put(&separate, &format!("usr/lib/debug{path}.debug"));
        }
        let trace = trace_of(&elf, &path, &elf.build_id, &addresses).trace();
        let (plain, _) = frames(&trace, &with(false, false));
        assert!(plain.iter().all(|f| f.len() == 1 && f[0].name == "outer" && f[0].line.is_none()), "{plain:?}");
        let (lines, _) = frames(&trace, &with(true, false));
        assert!(lines.iter().all(|f| f.len() == 1 && f[0].name == "outer"));
        let line = lines[0][0].line.as_ref().expect("a line");
        assert!(line.src.ends_with("lines.c") && (1..=10).contains(&line.line), "{line:?}");
        let (inlines, _) = frames(&trace, &with(true, true));
        let deep = inlines.iter().find(|f| f.len() == 3).expect("an address in `innermost`");
        let described: Vec<_> =
            deep.iter().map(|f| (f.name.as_str(), f.inlined, f.line.clone().unwrap().line)).collect();
        assert_eq!(described[1..], [("middle (inlined)", true, 6), ("outer", false, 9)]);
        assert!(described[0].0 == "innermost (inlined)" && described[0].1 && described[0].2 == 3, "{described:?}");
        assert_eq!((deep[0].func(), deep[1].func(), deep[2].func()), ("innermost", "middle", "outer"));
        assert!(deep[2].with_line().ends_with("lines.c:9"));
        // Whatever is asked for, a stack has the same id.
        let ids = |options: &Options| {
            let symbols = frames(&trace, options).1;
            (1..=24).map(|id| symbols.stack(id).unwrap().id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&with(false, false)), ids(&with(true, true)));
        seen.push(inlines.into_iter().map(|f| f.into_iter().map(|f| f.with_line()).collect()).collect::<Vec<Vec<_>>>());
    }
    assert_eq!(seen[0], seen[1], "the same from the debug file");
}

#[test]
fn cpp_names() {
    let dir = Dir::new();
    let source = "namespace net { struct Conn { Conn(int); int n; }; Conn::Conn(int x) : n(x) {} }
        template <class T> __attribute__((noinline)) T twice(T x) { return x + x; }
        template int twice<int>(int);";
    let lib = compile(&dir, "a.cc", source, &["-O1"]);
    let elf = Elf::open(&lib).unwrap();
    let addresses = ["_ZN3net4Conn", "twice"].map(|name| address(&lib, name));
    let trace = trace_of(&elf, lib.to_str().unwrap(), &elf.build_id, &addresses).trace();
    let all = names(&trace, &Options::default());
    assert_eq!((all[0].0.as_str(), all[1].0.as_str()), ("net::Conn::Conn(int)", "int twice<int>(int)"));
}

/// What `symbolize` makes of a trace.
fn symbolized(trace: &Trace, options: &Options) -> (Trace, symbolize::Symbolized) {
    let mut meta = Meta::load(trace).unwrap();
    meta.names = options.clone();
    let result = symbolize::symbolize(&meta);
    let bytes = append::append(&trace.segments[0].1, &result.tables, Vec::new()).unwrap();
    let segment = Segment::open(Box::new(bytes)).unwrap();
    (Trace { segments: vec![("n.bpr".into(), segment)], refused: Vec::new() }, result)
}

#[test]
fn names_that_are_added_later_stay() {
    let (dir, root) = (Dir::new(), Dir::new());
    let lib = compile(&dir, "libx.c", C, &["-O1", "-g"]);
    let addresses = ["hidden", "shown", "hidden_too", "shown_last"].map(|name| address(&lib, name));
    let separate = dir.path("libx.debug");
    let whole = root.put(&lib, "whole.so");
    strip(&lib, &separate);
    let elf = Elf::open(&lib).unwrap();
    let (first, rest) = elf.build_id.split_at(2);
    // With what the recorder says of the binary the debug file is enough; without, the program itself is needed.
    for described in [true, false] {
        let folder = Dir::new();
        folder.put(if described { &separate } else { &whole }, &format!(".build-id/{first}/{rest}.debug"));
        let mut b = trace_of(&elf, "/gone/libx.so", &elf.build_id, &addresses);
        if described {
            describe(
                &mut b,
                &elf,
                "/gone/libx.so",
                &[("build_id", V::T(&elf.build_id)), ("missing", V::T("no symbols in the file"))],
            );
        }
        let trace = b.trace();
        assert!(names(&trace, &only_trace()).iter().all(|(_, source)| *source == "none"));
        let (named, result) = symbolized(&trace, &symfs(&[&folder]));
        assert!(result.added.len() == 1 && result.added[0].functions >= 4, "{result:?}");
        assert!(result.lacking.is_empty() && result.notes.is_empty(), "{result:?}");
        let all = names(&named, &only_trace());
        let expected = ["hidden", "shown", "hidden_too", "shown_last"].map(|n| (n.to_owned(), "trace: added"));
        assert_eq!(all, expected);
        assert!(frames(&named, &only_trace()).1.binaries[0].help.is_none());
        // Once more adds nothing; and the frames are those of the first trace.
        let (again, result) = symbolized(&named, &symfs(&[&folder]));
        assert!(result.added.is_empty() && names(&again, &only_trace()) == expected, "{result:?}");
        let ids = |t: &Trace| frames(t, &only_trace()).0.iter().map(|f| f[0].id).collect::<Vec<_>>();
        assert_eq!(ids(&trace), ids(&named));
    }
    // Only a debug file, for a trace that does not say what is loaded: said, and nothing added.
    let folder = Dir::new();
    folder.put(&separate, &format!(".build-id/{first}/{rest}.debug"));
    let (_, result) =
        symbolized(&trace_of(&elf, "/gone/libx.so", &elf.build_id, &addresses).trace(), &symfs(&[&folder]));
    assert!(result.added.is_empty() && result.notes[0].contains("is only a debug file"), "{result:?}");
}

#[test]
fn the_kernel_hides_its_addresses_or_changes() {
    let trace = |addr: u64| {
        let mut b = Builder::new();
        b.row("kernel_symbol", &[("addr", V::N(addr)), ("type", V::N(b't'.into())), ("name", V::T("vfs_read"))]);
        let change = |ts: u64, gone: u64| {
            [("ts_ns", V::N(ts)), ("addr", V::N(0xffff_0000)), ("len_bytes", V::N(0x100)), ("gone", V::N(gone))]
        };
        for (ts, gone) in [(T0 + 10, 0), (T0 + 20, 1)] {
            b.row(
                "kernel_symbol_change",
                &[&change(ts, gone)[..], &[("name", V::T("bpf_prog_1")), ("module", V::T("bpf"))]].concat(),
            );
        }
        for (stack, ts, addr) in [(1, 5, 0xffff_0010), (2, 10, 0xffff_0010), (3, 20, 0xffff_0010), (4, 20, 0x8000_0001)]
        {
            let fields = [("ts_ns", V::N(T0 + ts)), ("stack_id", V::N(stack)), ("frames", V::L(&[addr]))];
            b.row("stack", &fields);
        }
        b.trace()
    };
    let (all, symbols) = frames(&trace(0x8000_0000), &only_trace());
    let all: Vec<_> = all.iter().map(|f| f[0].name.as_str()).collect();
    assert_eq!((all, symbols.notes.len()), (vec!["[unknown]", "bpf_prog_1", "[unknown]", "vfs_read"], 0));
    let (all, symbols) = frames(&trace(0), &only_trace());
    assert_eq!(all[3][0].name, "[unknown]");
    assert!(symbols.notes[0].contains("sysctl kernel.kptr_restrict=1"), "{:?}", symbols.notes);
}

#[test]
fn the_same_at_one_and_two_threads() {
    let dir = Dir::new();
    let lib = compile(&dir, "libx.c", C, &["-O2", "-g"]);
    let elf = Elf::open(&lib).unwrap();
    let begin = address(&lib, "hidden");
    let addresses: Vec<u64> = (begin..begin + 100).collect();
    let trace = trace_of(&elf, lib.to_str().unwrap(), &elf.build_id, &addresses).trace();
    let options = Options { lines: true, inlines: true, ..Options::default() };
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| format!("{:?}{}", frames(&trace, &options).0, report(&trace, "summary", &options)))
    };
    assert_eq!(with(1), with(2));
}

/// Prints the rate: `cargo test --release -p bpfrec-analyze --test symbols -- --nocapture a_million`.
#[test]
fn a_million_stacks_of_ten_thousand_addresses() {
    const STACKS: u64 = 1_000_000;
    let exe = std::env::current_exe().unwrap();
    let elf = Elf::open(&exe).unwrap();
    let functions = elf.functions().unwrap();
    let addresses: Vec<u64> = functions.iter().map(|f| f.addr).collect();
    let addresses: Vec<u64> =
        addresses.iter().cycle().zip(0..10_000).map(|(a, i)| a + i / addresses.len() as u64).collect();
    let mut b = Builder::new();
    map(&mut b, &elf, exe.to_str().unwrap(), &elf.build_id);
    let loaded: Vec<u64> = addresses.iter().map(|a| program::loaded(&elf, *a) + 1).collect();
    let mut frames = [0; 12];
    for stack in 1..=STACKS {
        frames.iter_mut().zip(0..).for_each(|(f, i)| *f = loaded[(stack * (i + 7) % 10_000) as usize]);
        let fields = [("ts_ns", V::N(T0 + stack)), ("stack_id", V::N(stack)), ("space", V::N(1)), ("pid", V::N(60))];
        b.row("stack", &[&fields[..], &[("frames", V::L(&frames))]].concat());
    }
    let trace = b.trace();
    let meta = Meta::load(&trace).unwrap();
    let begin = std::time::Instant::now();
    let symbols = Symbols::resolve(&meta);
    let took = begin.elapsed();
    let named = symbols.frames.iter().filter(|f| f.source == NameSource::LocalFile).count();
    assert!(named > 9_000 && symbols.stack(STACKS).is_some_and(|s| s.frames.len() == 12), "{named}");
    let (distinct, frames) = (symbols.frames.len() as f64, 12.0 * STACKS as f64);
    let seconds = took.as_secs_f64();
    eprintln!("{STACKS} stacks, {distinct} distinct places: {seconds:.2} s, {:.0} frames a second", frames / seconds);
    // Lookups alone, of the same addresses in one table of functions.
    let begin = std::time::Instant::now();
    let found = (0..100).flat_map(|_| &addresses).filter(|addr| functions.lookup(**addr).is_some()).count();
    let seconds = begin.elapsed().as_secs_f64();
    let (rate, all) = (100.0 * addresses.len() as f64 / seconds, functions.len());
    eprintln!("lookups alone, {all} functions: {rate:.0} addresses a second and thread");
    assert!(found > 90 * addresses.len(), "{found}");
}
