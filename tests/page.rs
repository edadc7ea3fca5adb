//! `report.html` in a real browser: it loads without an error, any part of it has the figures of the reports, names of the
//! host are text and nothing else. `page_check.py` drives the browser.
#![cfg(feature = "analyze")]

#[path = "../analyze/tests/common/mod.rs"]
mod traces;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use bpfrec_format::Registry;
use bpfrec_format::events::call;
use traces::{Builder, S, T0, V};

const MS: u64 = S / 1000;
/// What a host may call its processes, cgroups, files, functions and itself.
const HOSTILE: [&str; 7] = [
    "</script><script>window.hacked=1;alert(1)</script>",
    "<img src=x onerror=\"window.hacked=1;alert(1)\">",
    "\"';</style><script>window.hacked=1</script>",
    "line\u{2028}break\u{2029}--><!--",
    "${window.hacked=1}`+alert(1)+`",
    "javascript:alert(1)",
    "<svg/onload=alert(1)>\u{202e}\u{0}",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder that goes when the test is over.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("bpfrec-page-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Python with playwright, and Chromium; what is missing.
fn browser() -> Result<(PathBuf, PathBuf), &'static str> {
    let python = std::env::var_os("BPFREC_PYTHON").map_or_else(|| root().join("target/venv/bin/python"), PathBuf::from);
    let has = Command::new(&python).args(["-c", "import playwright"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        return Err("no Python with playwright: scripts/deps test");
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut names = std::env::split_paths(&paths).flat_map(|dir| ["chromium", "chromium-browser"].map(|n| dir.join(n)));
    names.find(|path| path.is_file()).map(|chromium| (python, chromium)).ok_or("no chromium: scripts/deps test")
}

/// Makes the page of a trace and has it checked.
fn check(test: &str, trace: &Path, more: &[&str]) {
    let (python, chromium) = match browser() {
        Ok(found) => found,
        Err(reason) => {
            // Not eprintln, which the test harness captures.
            let mut terminal = std::io::stderr();
            return writeln!(terminal, "SKIPPED: {test}: {reason}").unwrap();
        }
    };
    let dir = Dir::new(test);
    let page = dir.0.join("report.html");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfrec"));
    let made = command.args(["report", "html", "--trace-only"]).arg(trace).arg("-o").arg(&page).output().unwrap();
    let error = String::from_utf8_lossy(&made.stderr);
    assert!(matches!(made.status.code(), Some(0 | 3)), "{error}");
    let mut command = Command::new(python);
    command.arg(root().join("tests/page_check.py")).arg(chromium).arg(env!("CARGO_BIN_EXE_bpfrec"));
    let output = command.arg(trace).arg(&page).args(more).output().unwrap();
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.ends_with("checks done\n"), "{test}:\n{text}{error}");
    println!("{text}");
}

#[test]
fn page_of_a_recording() {
    check("page_of_a_recording", &root().join("testdata/v1/mixed-6.18.bpr"), &[]);
}

#[test]
fn page_of_a_recording_in_segments() {
    check("page_of_a_recording_in_segments", &root().join("testdata/v1/segments-6.1.bpr"), &[]);
}

#[test]
fn page_of_hostile_names() {
    let dir = Dir::new("trace");
    let path = dir.0.join("hostile.bpr");
    std::fs::write(&path, hostile()).unwrap();
    check("page_of_hostile_names", &path, &["hostile"]);
}

/// All sources, and names that would run if they could. Some events lie on the very edges of bins.
fn hostile() -> Vec<u8> {
    let items = [
        ("sources", "sched,block,profile,offcpu,malloc"),
        ("host", HOSTILE[0]),
        ("kernel", HOSTILE[1]),
        ("command", HOSTILE[2]),
        ("disk.8:0", HOSTILE[3]),
    ];
    let mut b = Builder::with(Registry::default(), &items);
    for pid in 1..=6u64 {
        for tid in [pid * 10, pid * 10 + 1] {
            let name = HOSTILE[(tid % 7) as usize];
            let fields = [("ts_ns", V::N(T0)), ("tid", V::N(tid)), ("pid", V::N(pid * 10)), ("start_ns", V::N(S))];
            b.row("task", &[&fields[..], &[("comm", V::T(name)), ("exe", V::T(HOSTILE[1]))]].concat());
        }
    }
    let cgroup = |b: &mut Builder, id: u64, path: &str| {
        b.row("cgroup", &[("ts_ns", V::N(T0)), ("cgroup_id", V::N(id)), ("path", V::T(path))]);
    };
    cgroup(&mut b, 100, "/");
    cgroup(&mut b, 101, &format!("/{}", HOSTILE[0]));
    cgroup(&mut b, 102, &format!("/{}/below", HOSTILE[0]));
    cgroup(&mut b, 103, "/other it's");
    for (addr, name) in [(4096, HOSTILE[1]), (8192, HOSTILE[4]), (12288, "plain")] {
        b.row("kernel_symbol", &[("addr", V::N(addr)), ("name", V::T(name)), ("type", V::N(u64::from(b't')))]);
    }
    for (id, user, frames) in
        [(7, 0, &[4100, 8200][..]), (8, 0, &[12300, 8200][..]), (9, 1, &[77, 99][..]), (11, 1, &[78][..])]
    {
        let fields = [("ts_ns", V::N(T0)), ("stack_id", V::N(id)), ("space", V::N(user)), ("pid", V::N(10))];
        b.row("stack", &[&fields[..], &[("frames", V::L(frames))]].concat());
    }
    events(&mut b);
    traces::loss(&mut b, bpfrec_format::Source::Block, T0 + 2 * S, T0 + 2 * S + 80 * MS, 33);
    b.bytes()
}

fn events(b: &mut Builder) {
    let mut x = 99u64;
    let mut random = |n: u64| {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 33) % n
    };
    let who = |tid: u64| (tid, tid / 10 * 10, 100 + tid / 10 % 4);
    for cpu in 0..2u32 {
        let (mut at, mut prev) = (T0 + 3, 0u64);
        while at < T0 + 4 * S {
            // Every seventh begins where a bin does.
            at += 1 + random(4 * MS);
            at = if random(7) == 0 { at.next_multiple_of(20 * MS) } else { at };
            let next = (1 + random(6)) * 10 + u64::from(cpu);
            let ((tid, pid, cgroup), (next_tid, next_pid, next_cgroup)) = (who(prev), who(next));
            let woken = [("tid", next_tid), ("pid", next_pid), ("cgroup_id", next_cgroup)];
            b.event(cpu, "sched_wakeup", at - random(MS), &woken);
            let fields = [
                ("prev_tid", tid),
                ("prev_pid", pid),
                ("prev_cgroup_id", cgroup),
                ("prev_state", random(2)),
                ("next_tid", next_tid),
                ("next_pid", next_pid),
                ("next_cgroup_id", next_cgroup),
            ];
            b.event(cpu, "sched_switch", at, &fields);
            let mine = [("tid", next_tid), ("pid", next_pid), ("cgroup_id", next_cgroup)];
            let stacks = [
                ("kernel_stack_id", [0, 7, 8][random(3) as usize]),
                ("user_stack_id", [0, 9, 12345][random(3) as usize]),
            ];
            b.event(cpu, "cpu_sample", at, &[&mine[..], &stacks].concat());
            let rq = 1 + random(1 << 30);
            let io = [("rq", rq), ("dev", 8 << 20), ("bytes", 4096), ("cmd_flags", random(2))];
            b.event(cpu, "block_issue", at, &[&mine[..], &io].concat());
            b.event(cpu, "block_complete", at + random(30 * MS), &[("rq", rq), ("bytes", 4096)]);
            let most = if random(9) == 0 { S } else { 5 * MS };
            let wait = 1 + random(most);
            if at - T0 > wait {
                let off = [("wait_ns", wait), ("queued_ns", random(wait)), ("prev_state", 1), ("count", 1)];
                b.event(cpu, "offcpu_wait", at, &[&mine[..], &off, &stacks].concat());
            }
            memory(b, at, next_pid, next_tid, &mut random);
            prev = next;
        }
        b.flush();
    }
}

/// An allocation that may be freed, soon or late, at times on an edge.
fn memory(b: &mut Builder, at: u64, pid: u64, tid: u64, random: &mut dyn FnMut(u64) -> u64) {
    let addr = (1 + random(1 << 40)) * 16;
    b.malloc(at, (pid, tid), call::MALLOC, addr, 1 + random(9000), [9, 11][random(2) as usize]);
    if random(3) > 0 {
        b.free(at + 1 + random(S), (pid, tid), call::FREE, addr, 0);
    }
}
