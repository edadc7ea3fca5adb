//! What the tests that record this machine share: the binary, the workloads of `tests/load`, traces, cgroups.

#![allow(dead_code, missing_docs)] // Each test file uses its part.

pub mod diary;
pub mod foreign;
pub mod host;
pub mod memory;
pub mod nobody;
pub mod refused;
pub mod twins;

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

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

/// Records while `script` (for sh) runs and returns the script's standard output. `$dir` is `scratch`.
pub fn record_while(scratch: &Scratch, trace: &Path, options: &[&str], script: &str) -> String {
    let output = Command::new(BPFREC)
        .arg("record")
        .args(STRICT)
        .args(["-q", "-o"])
        .arg(trace)
        .args(options)
        .args(["--", "sh", "-euc", script])
        .env("dir", &scratch.0)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = texts(&output);
    assert!(output.status.success(), "record {options:?}: {}\n{out}{err}", output.status);
    out
}

/// A recording under way, killed with its owner.
pub struct Recording(pub Child);

impl Recording {
    /// Starts a recording and waits until it has written something.
    pub fn start(trace: &Path, options: &[&str]) -> Recording {
        let child = Command::new(BPFREC)
            .arg("record")
            .args(STRICT)
            .args(["-q", "-o"])
            .arg(trace)
            .args(options)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut recording = Recording(child);
        wait_until("the trace has begun", Duration::from_secs(20), || {
            if let Some(status) = recording.0.try_wait().unwrap() {
                panic!("record {options:?} ended at once: {status}");
            }
            fs::metadata(trace).is_ok_and(|m| m.is_dir() || m.len() > 0)
        });
        recording
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Interrupts the recording and returns its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::INT);
        self.0.wait().unwrap().code()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A recording whose probes are attached: it has started its command, which ends when the recording is to end.
pub struct Attached {
    child: Child,
    marker: PathBuf,
}

impl Attached {
    pub fn start(scratch: &Scratch, trace: &Path, options: &[&str]) -> Attached {
        let marker = scratch.path("recording");
        let child = Command::new(BPFREC)
            .arg("record")
            .args(STRICT)
            .args(["-q", "-o"])
            .arg(trace)
            .args(options)
            .args(["--", "sh", "-c", ">\"$marker\"; while [ -e \"$marker\" ]; do sleep 0.1; done"])
            .env("marker", &marker)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut attached = Attached { child, marker };
        wait_until("the probes are attached", Duration::from_secs(20), || {
            if let Some(status) = attached.child.try_wait().unwrap() {
                panic!("record {options:?} ended at once: {status}");
            }
            attached.marker.exists()
        });
        attached
    }

    /// The recorder's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn finish(mut self) {
        fs::remove_file(&self.marker).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "record: {status}");
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.marker);
        let _ = self.child.wait();
    }
}

/// `bpfrec info --json`.
pub fn info(trace: &Path) -> Value {
    let output = bpfrec([Path::new("info"), trace, Path::new("--json")]);
    let (out, err) = texts(&output);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("info --json: {e}: {}\n{out}{err}", output.status))
}

/// `bpfrec report NAME --json`. Exit code 3 tells of lost events: which of them matter, the test knows.
pub fn report(name: &str, trace: &Path, options: &[&str]) -> Value {
    let mut args = vec!["report", name, trace.to_str().unwrap(), "--json"];
    args.extend(options);
    let output = bpfrec(&args);
    let (out, err) = texts(&output);
    assert!(matches!(output.status.code(), Some(0 | 3)), "bpfrec {args:?}: {}\n{out}{err}", output.status);
    serde_json::from_str(&out).unwrap()
}

/// `got` lies between two shares of `expected`: below it where events may not have been seen (see [`MISSED`]).
pub fn assert_between(what: &str, got: f64, expected: f64, low: f64, high: f64) {
    let range = expected * low..=expected * high;
    assert!(range.contains(&got), "{what}: {got}, expected {expected}, from {low} to {high} of it");
}

/// Share of the interrupts, and of the switches away from one process, of which a virtual machine that hides a process may
/// show nothing: no BPF program runs while it is on the CPU. What a visible task does itself is always seen.
pub const MISSED: f64 = 0.2;

/// How often threads of a cgroup went to sleep.
pub fn sleeps_in(trace: &Path, cgroup_path: &str) -> u64 {
    let (mut id, mut sleeps) = (None, 0);
    replay(trace, |event| {
        if event["kind"] == "cgroup_mkdir" && event["path"] == cgroup_path {
            id = event["cgroup_id"].as_u64();
        }
        // 1: interruptible sleep.
        let slept = event["kind"] == "sched_switch" && event["prev_state"].as_u64().is_some_and(|s| s & 1 == 1);
        sleeps += u64::from(slept && id.is_some() && event["prev_cgroup_id"].as_u64() == id);
    });
    assert!(id.is_some(), "no cgroup_mkdir of {cgroup_path} in the trace");
    sleeps
}

/// Whether nothing was lost: exact counts can be expected then.
pub fn assert_no_loss(trace: &Path) {
    let info = info(trace);
    assert_eq!(info["lost"], 0, "events were lost: {info}");
}

/// Count and sum in nanoseconds over all groups of a histogram report.
pub fn totals(report: &Value) -> (u64, u64) {
    let groups = report["groups"].as_array().expect("groups");
    let sum = |field: &str| groups.iter().map(|g| g[field].as_u64().expect("a number")).sum();
    (sum("count"), sum("sum_ns"))
}

/// Buckets of a histogram report, added up over its groups: lower bound to count.
pub fn buckets(report: &Value) -> std::collections::BTreeMap<u64, u64> {
    let mut all = std::collections::BTreeMap::new();
    for bucket in report["groups"].as_array().expect("groups").iter().flat_map(|g| g["buckets"].as_array().unwrap()) {
        *all.entry(bucket["low"].as_u64().unwrap()).or_insert(0) += bucket["count"].as_u64().unwrap();
    }
    all
}

/// Calls `each` for every event of `replay --json`.
pub fn replay(trace: &Path, mut each: impl FnMut(&Value)) {
    let output = bpfrec([Path::new("replay"), trace, Path::new("--json")]);
    let (out, err) = texts(&output);
    assert!(matches!(output.status.code(), Some(0 | 3)), "replay: {}\n{err}", output.status);
    for line in out.lines() {
        each(&serde_json::from_str(line).unwrap_or_else(|e| panic!("replay --json: {e}: {line}")));
    }
}

/// Every value of a trace, unpacked: numbers as eight bytes, texts as they are.
pub fn all_bytes(trace: &Path) -> Vec<u8> {
    use bpfrec_format::Column;
    let trace = bpfrec_format::Trace::open(trace).unwrap();
    let mut bytes = Vec::new();
    for (segment, block) in trace.blocks() {
        for table in trace.segments[segment].1.read(block, &|_| true).unwrap().tables {
            for column in table.columns {
                match column {
                    Column::Int(ints) => bytes.extend(ints.iter().flat_map(|n| n.to_le_bytes())),
                    Column::Text(text) => bytes.extend(text.data),
                    Column::List(list) => bytes.extend(list.data.iter().flat_map(|n| n.to_le_bytes())),
                }
            }
        }
    }
    bytes
}

/// Folded stacks of `report profile -f`: frames from the outermost on, and their samples.
pub fn folded(trace: &Path, options: &[&str]) -> Vec<(Vec<String>, u64)> {
    let mut args = vec!["report", "profile", trace.to_str().unwrap(), "-f"];
    args.extend(options);
    let text = bpfrec_ok(&args);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (stack, count) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not folded: {line}"));
            (stack.split(';').map(String::from).collect(), count.parse().unwrap())
        })
        .collect()
}

/// Samples in whose stack a function's name is, exactly or with an offset or a mark behind it.
pub fn samples_in(stacks: &[(Vec<String>, u64)], function: &str) -> u64 {
    let is = |frame: &String| {
        frame.strip_prefix(function).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    stacks.iter().filter(|(frames, _)| frames.iter().any(is)).map(|(_, count)| count).sum()
}

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

/// The mixed load of `bench/load`, for `seconds`, stopped with its owner.
pub struct MixedLoad(Child);

impl MixedLoad {
    pub fn start(scratch: &Scratch, seconds: u32) -> MixedLoad {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/load/mixed.sh");
        MixedLoad(Command::new(script).arg(seconds.to_string()).arg(&scratch.0).spawn().unwrap())
    }

    pub fn wait(&mut self) {
        let status = self.0.wait().unwrap();
        assert!(status.success(), "mixed.sh: {status}");
    }
}

impl Drop for MixedLoad {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
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
