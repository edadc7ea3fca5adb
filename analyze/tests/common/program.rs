//! Programs that a test compiles, and traces whose stacks lie in them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use bpfrec_analyze::symbols::elf::Elf;

use super::{Builder, T0, V};

/// A folder, gone with its owner.
pub struct Dir(pub PathBuf);

impl Dir {
    /// A new one.
    pub fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("names-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A copy of `file`, with the folders to it.
    pub fn put(&self, file: &Path, name: &str) -> PathBuf {
        let to = self.0.join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(file, &to).unwrap();
        to
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a tool of the toolchain.
pub fn tool(name: &str, args: &[&str]) {
    let output = Command::new(name).args(args).output().unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(output.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A shared library of a source in C or, by its name, in C++.
pub fn compile(dir: &Dir, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let (file, out) = (dir.path(name), dir.path(&format!("{name}.so")));
    std::fs::write(&file, source).unwrap();
    let compiler = if name.ends_with(".cc") { "c++" } else { "cc" };
    let fixed = ["-shared", "-fPIC", "-Wl,--build-id=sha1", "-o", out.to_str().unwrap(), file.to_str().unwrap()];
    tool(compiler, &[&fixed[..], flags].concat());
    out
}

/// `file` without symbols but the exported ones; what was taken out goes into `debug`.
pub fn strip(file: &Path, debug: &Path) {
    let (file, debug) = (file.to_str().unwrap(), debug.to_str().unwrap());
    tool("objcopy", &["--only-keep-debug", file, debug]);
    tool("strip", &["--strip-all", file]);
}

/// The first address of a function whose symbol has `name` in it.
pub fn address(file: &Path, name: &str) -> u64 {
    let functions = Elf::open(file).expect("an ELF file").functions().unwrap();
    let is_it = |f: &bpfrec_analyze::symbols::functions::Function<'_>| String::from_utf8_lossy(f.name).contains(name);
    functions.iter().find(is_it).unwrap_or_else(|| panic!("{}: no {name}", file.display())).addr
}

/// Bytes of an id in hex.
pub fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Where the trace has the library in memory.
pub const BASE: u64 = 0x7f00_0000_0000;

/// Maps `elf` into process 60 under `path`, with the build id `build_id` (hex; may be empty).
pub fn map(b: &mut Builder, elf: &Elf, path: &str, build_id: &str) {
    let code = elf.segments.iter().find(|s| s.is_code() && s.len > 0).expect("code");
    let offset = code.offset & !0xfff;
    let id = String::from_utf8(build_id.bytes().collect()).unwrap();
    b.row(
        "mapping",
        &[
            ("ts_ns", V::N(T0)),
            ("pid", V::N(60)),
            ("start_addr", V::N(BASE)),
            ("len_bytes", V::N((code.len + 0x1fff) & !0xfff)),
            ("offset_bytes", V::N(offset)),
            ("inode", V::N(77)),
            ("dev_major", V::N(8)),
            ("build_id", V::T(&id)),
            ("path", V::T(path)),
        ],
    );
}

/// The address in memory of one in the binary.
pub fn loaded(elf: &Elf, addr: u64) -> u64 {
    let code = elf.segments.iter().find(|s| s.is_code() && s.len > 0).expect("code");
    BASE + (addr - code.addr + code.offset) - (code.offset & !0xfff)
}

/// A sample whose only frame is the leaf `addr` of the binary.
pub fn sample(b: &mut Builder, elf: &Elf, stack: u64, addr: u64) {
    let frames = [loaded(elf, addr)];
    let fields = [("ts_ns", V::N(T0)), ("stack_id", V::N(stack)), ("space", V::N(1)), ("pid", V::N(60))];
    b.row("stack", &[&fields[..], &[("frames", V::L(&frames))]].concat());
    b.event(0, "cpu_sample", T0 + stack, &[("tid", 60), ("pid", 60), ("user_stack_id", stack)]);
}

/// What the recorder would say of the binary.
pub fn describe(b: &mut Builder, elf: &Elf, path: &str, more: &[(&str, V<'_>)]) {
    let id = &[("ts_ns", V::N(T0)), ("binary_id", V::N(BINARY)), ("path", V::T(path))];
    // Of a field that is given twice the first one stands.
    b.row("binary", &[more, &id[..], &[("inode", V::N(77)), ("dev_major", V::N(8))]].concat());
    for s in &elf.segments {
        let numbers = [("offset_bytes", s.offset), ("len_bytes", s.len), ("addr", s.addr), ("flags", s.flags.into())];
        let numbers = numbers.map(|(name, v)| (name, V::N(v)));
        b.row("binary_segment", &[&[("binary_id", V::N(BINARY))], &numbers[..]].concat());
    }
}

/// Its number.
pub const BINARY: u64 = 0x1234;
