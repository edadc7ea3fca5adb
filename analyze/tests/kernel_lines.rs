//! Source lines of kernel frames, from a small ELF that is linked as a kernel is and runs at another address, and from a
//! module that is not linked at all.
#![cfg(target_os = "linux")]

mod common;

use std::path::{Path, PathBuf};

use bpfrec_analyze::Meta;
use bpfrec_analyze::symbols::elf::Elf;
use bpfrec_analyze::symbols::{Frame, NameSource, Options, Symbols};
use bpfrec_format::{Registry, Trace};
use common::program::{Dir, address, tool};
use common::{Builder, T0, V};

/// How far off the kernel lies that was recorded.
const KASLR: u64 = 0x1a40_0000;
/// Where the module's code lay.
const TEXT: u64 = 0xffff_ffff_c012_3000;

const KERNEL: &str = "\
__asm__(\".globl _stext\\n_stext: nop\\n\");
volatile int sink;
static inline __attribute__((always_inline)) void inlined_into(int x)
{
\tsink = x * 3;
}
__attribute__((noinline)) void vfs_work(int x)
{
\tinlined_into(x);
}
void _start(void) { vfs_work(1); }
";

const MODULE: &str = "\
volatile int sink;
__attribute__((noinline)) void mod_work(int x)
{
\tsink = x * 7;
}
__attribute__((section(\".init.text\"), noinline)) void mod_init(int x)
{
\tsink = x * 9;
}
";

fn build(dir: &Dir, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let (file, out) = (dir.path(&format!("{name}.c")), dir.path(name));
    std::fs::write(&file, source).unwrap();
    let fixed = ["-g", "-O1", "-fno-pic", "-mcmodel=kernel", "-fcf-protection=none", "-o", out.to_str().unwrap()];
    tool("cc", &[&fixed[..], &[file.to_str().unwrap()], flags].concat());
    out
}

fn vmlinux(dir: &Dir) -> PathBuf {
    let flags = ["-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0xffffffff81000000", "-Wl,--build-id=sha1"];
    build(dir, "vmlinux", KERNEL, &flags)
}

/// Not linked to an end, but with a build id.
fn module(dir: &Dir) -> PathBuf {
    let object = build(dir, "mod.o", MODULE, &["-c"]);
    let out = dir.path("a_module.ko");
    tool("ld", &["-r", "--build-id=sha1", "-o", out.to_str().unwrap(), object.to_str().unwrap()]);
    out
}

/// A trace of kernel stacks: each address alone, as a leaf.
fn trace(kernel: &str, symbols: &[(u64, &str, &str)], module_id: &str, leaves: &[u64]) -> Trace {
    let mut b = Builder::with(Registry::default(), &[("kernel_build_id", kernel)]);
    for (addr, name, module) in symbols {
        let fields =
            [("addr", V::N(*addr)), ("type", V::N(b't'.into())), ("name", V::T(name)), ("module", V::T(module))];
        b.row("kernel_symbol", &fields);
    }
    let fields =
        [("ts_ns", V::N(T0)), ("name", V::T("a_module")), ("text_addr", V::N(TEXT)), ("build_id", V::T(module_id))];
    b.row("kernel_module", &fields);
    for (addr, stack) in leaves.iter().zip(1..) {
        b.row("stack", &[("ts_ns", V::N(T0 + 1)), ("stack_id", V::N(stack)), ("frames", V::L(&[*addr]))]);
    }
    b.trace()
}

fn frames(trace: &Trace, options: Options) -> (Vec<Vec<Frame>>, Vec<String>) {
    let mut meta = Meta::load(trace).unwrap();
    meta.names = options;
    let symbols = Symbols::resolve(&meta);
    let stacks = (1..).map_while(|id| symbols.stack(id));
    (stacks.map(|s| symbols.frames_of(s).cloned().collect()).collect(), symbols.notes)
}

fn with_lines(dir: &Path) -> Options {
    Options { symfs: vec![dir.into()], trace_only: true, lines: true, inlines: true, ..Options::default() }
}

fn shown(frames: &[Frame]) -> Vec<String> {
    let name = |f: &Frame| f.with_line().replace('/', " ");
    frames
        .iter()
        .map(|f| name(f).split(' ').filter(|w| !w.is_empty()).map(String::from).collect::<Vec<_>>())
        .map(|w| {
            let (first, last) = (w.first().cloned().unwrap_or_default(), w.last().cloned().unwrap_or_default());
            format!("{first} {last}")
        })
        .collect()
}

#[test]
fn lines_of_the_kernel_wherever_it_lies() {
    let (dir, empty) = (Dir::new(), Dir::new());
    let vmlinux = vmlinux(&dir);
    let id = Elf::open(&vmlinux).unwrap().build_id;
    let here = |name: &str| address(&vmlinux, name) + KASLR;
    let stext = Elf::open(&vmlinux).unwrap().address_of("_stext").unwrap() + KASLR;
    let symbols = [(stext, "_stext", ""), (here("vfs_work"), "vfs_work", ""), (here("_start"), "_start", "")];
    let leaves = [here("vfs_work"), here("_start")];
    let trace = trace(&id, &symbols, "", &leaves);
    let (all, notes) = frames(&trace, with_lines(&dir.0));
    assert!(notes.is_empty(), "{notes:?}");
    // The first instruction of vfs_work belongs to what was inlined, or to the function; both stand in lines of their own.
    let work = shown(&all[0]);
    assert!(work.last().unwrap().starts_with("vfs_work vmlinux.c:"), "{work:?}");
    assert!(shown(&all[1])[0].starts_with("_start vmlinux.c:11"), "{:?}", shown(&all[1]));
    assert!(all.iter().flatten().all(|f| f.kernel && f.source == NameSource::Kallsyms), "{all:?}");
    // Every address of the function: the inlined one is seen somewhere, always below the function that it went into.
    let leaves: Vec<u64> = (0..8).map(|at| here("vfs_work") + at).collect();
    let whole = self::trace(&id, &symbols, "", &leaves);
    let (all, _) = frames(&whole, with_lines(&dir.0));
    let inlined: Vec<_> = all.iter().filter(|f| f.len() == 2).map(|f| shown(f)).collect();
    assert!(!inlined.is_empty(), "{all:?}");
    for stack in inlined {
        assert_eq!(stack, ["inlined_into vmlinux.c:5", "vfs_work vmlinux.c:9"]);
    }
    // Without it: the names stay, and one sentence says what would help. Another build is refused.
    let (all, notes) = frames(&trace, with_lines(&empty.0));
    assert_eq!((all[0][0].name.as_str(), &all[0][0].line), ("vfs_work", &None));
    assert!(notes.len() == 1 && notes[0].contains("put its vmlinux under --symfs"), "{notes:?}");
    let other = self::trace("00112233445566778899aabbccddeeff00112233", &symbols, "", &leaves);
    let (all, notes) = frames(&other, with_lines(&dir.0));
    assert!(all.iter().flatten().all(|f| f.line.is_none()));
    assert!(notes.iter().any(|n| n.contains("is not used") && n.contains(&id)), "{notes:?}");
    let (all, notes) = frames(&other, Options { symfs: vec![dir.0.clone()], trace_only: true, ..Options::default() });
    assert!(all[0].len() == 1 && notes.is_empty(), "nobody asked for lines: {notes:?}");
}

#[test]
fn lines_of_a_module_by_its_section() {
    let dir = Dir::new();
    let file = module(&dir);
    let elf = Elf::open(&file).unwrap();
    assert_eq!(elf.build_id.len(), 40, "the linker gives it a build id");
    let at = |name: &str| TEXT + symbol(&file, name);
    // Both functions begin their sections: at run time they lie apart.
    let init = TEXT + 0x8000;
    let symbols = [(at("mod_work"), "mod_work", "a_module"), (init, "mod_init", "a_module")];
    let (first, rest) = elf.build_id.split_at(2);
    let folder = Dir::new();
    folder.put(&file, &format!("usr/lib/debug/.build-id/{first}/{rest}.debug"));
    let trace = trace("", &symbols, &elf.build_id, &[at("mod_work"), init]);
    let (all, notes) = frames(&trace, with_lines(&folder.0));
    assert!(notes.is_empty(), "{notes:?}");
    assert!(shown(&all[0])[0].starts_with("mod_work mod.o.c:"), "{:?}", shown(&all[0]));
    assert_eq!((all[1][0].name.as_str(), &all[1][0].line), ("mod_init", &None));
}

/// A function's place in its section.
fn symbol(file: &Path, name: &str) -> u64 {
    use object::{Object, ObjectSymbol};
    let bytes = std::fs::read(file).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    elf.symbols().find(|s| s.name() == Ok(name)).unwrap().address()
}
