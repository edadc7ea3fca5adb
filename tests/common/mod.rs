//! What the tests that record this machine share: the binary, the workloads of `tests/load`, traces, cgroups.

#![allow(dead_code, missing_docs)] // Each test file uses its part.

pub mod diary;
pub mod foreign;
pub mod host;
pub mod memory;
pub mod nobody;
mod reading;
mod recording;
pub mod refused;
pub mod twins;

pub use reading::*;
pub use recording::*;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The built command.
pub const BPFREC: &str = env!("CARGO_BIN_EXE_bpfrec");

/// A system call that the recorder's filter does not foresee ends it, and so fails the test.
pub const STRICT: [&str; 2] = ["--sandbox", "kill"];

/// Holds other recordings of this process off.
pub struct Alone(#[allow(dead_code)] MutexGuard<'static, ()>);

/// Alone and root, or `None` after a line that says why the test is left out. Without BPFREC_NO_ROOT=1 the lack of
/// root is a failure: a suite that leaves out its heart must not look green.
pub fn alone_as_root(test: &str) -> Option<Alone> {
    static LOCK: Mutex<()> = Mutex::new(());
    if std::env::var_os("BPFREC_NO_ROOT").is_some_and(|v| v == "1") {
        skip(test, "BPFREC_NO_ROOT=1");
        return None;
    }
    assert!(rustix::process::geteuid().is_root(), "{test} needs root (BPFREC_NO_ROOT=1 leaves such tests out)");
    Some(Alone(LOCK.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// Says that `test` is left out, where the test harness does not swallow it.
pub fn skip(test: &str, reason: &str) {
    let mut terminal = std::io::stderr();
    writeln!(terminal, "SKIPPED: {test}: {reason}").unwrap();
}

/// A folder on a real disk, gone with its owner.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("root-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A workload of `tests/load` or `bench/load`, compiled once.
pub fn load(name: &str) -> PathBuf {
    static LOCK: Mutex<()> = Mutex::new(());
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let _one = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("load");
        fs::create_dir_all(&dir).unwrap();
        dir
    });
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = [format!("tests/load/{name}.c"), format!("bench/load/{name}.c")];
    let source = sources.iter().map(|s| root.join(s)).find(|s| s.exists()).expect("a workload of that name");
    let binary = dir.join(name);
    let written = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    if written(&binary) < written(&source) {
        let status = Command::new("cc")
            .args(["-O1", "-fno-omit-frame-pointer", "-o"])
            .args([&binary, &source])
            .status()
            .expect("a C compiler");
        assert!(status.success(), "{name} did not compile");
    }
    binary
}

/// CLOCK_MONOTONIC, the clock of all events.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Waits until `condition` holds; panics after `limit`, which says that it never will.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "{what}: not so after {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Standard output and error as text.
pub fn texts(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into(), String::from_utf8_lossy(&output.stderr).into())
}

/// Runs `bpfrec` to its end.
pub fn bpfrec<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Command::new(BPFREC).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Runs `bpfrec`, expects success, returns its standard output.
pub fn bpfrec_ok(args: &[&str]) -> String {
    let output = bpfrec(args);
    let (out, err) = texts(&output);
    assert!(output.status.success(), "bpfrec {args:?}: {}\n{out}{err}", output.status);
    out
}

/// `got` lies between two shares of `expected`: below it where events may not have been seen (see [`MISSED`]).
pub fn assert_between(what: &str, got: f64, expected: f64, low: f64, high: f64) {
    let range = expected * low..=expected * high;
    assert!(range.contains(&got), "{what}: {got}, expected {expected}, from {low} to {high} of it");
}

/// Share of the interrupts, and of the switches away from one process, of which a virtual machine that hides a process may
/// show nothing: no BPF program runs while it is on the CPU. What a visible task does itself is always seen.
pub const MISSED: f64 = 0.2;

/// A value that a script printed as `NAME VALUE`.
pub fn printed<'a>(output: &'a str, name: &str) -> &'a str {
    let found = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no line {name} in {output:?}"))
}

/// `got` lies within `share` (0.1 is 10 %) of `expected`.
pub fn assert_near(what: &str, got: f64, expected: f64, share: f64) {
    let off = (got - expected).abs() / expected;
    assert!(off <= share, "{what}: {got}, expected {expected} within {} %, is {:.1} % off", share * 100.0, off * 100.0);
}

/// A small file system, unmounted with its owner.
pub struct Tmpfs(pub PathBuf);

impl Tmpfs {
    pub fn mount(at: PathBuf, options: &str) -> Tmpfs {
        fs::create_dir(&at).unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&at).status().unwrap();
        assert!(status.success(), "mount {}", at.display());
        Tmpfs(at)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Where cgroup v2 is mounted.
pub fn cgroup_mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let found = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| PathBuf::from(before.split(' ').nth(4).unwrap()))
    });
    found.expect("a mounted cgroup2 file system")
}
