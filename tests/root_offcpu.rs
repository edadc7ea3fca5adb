//! Needs root: waits are as long as the program itself says, with the stacks of where it waited.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use bpfrec_format::events::offcpu_flag;
use common::*;
use serde_json::Value;

/// A thread, or a function in it: what `waits` says of its own time.
#[derive(Clone, Copy, Debug)]
struct Said {
    tid: u64,
    begin_ns: u64,
    wall_ns: u64,
    cpu_ns: u64,
}

impl Said {
    fn off_ns(&self) -> f64 {
        (self.wall_ns - self.cpu_ns) as f64
    }
}

/// The output of `waits`.
#[derive(Default)]
struct Truth {
    of: BTreeMap<String, Said>,
    functions: BTreeMap<u64, String>,
}

impl Truth {
    fn add(&mut self, line: &str) {
        let fields: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| fields[at].parse().unwrap_or_else(|_| panic!("{line}"));
        if fields[0] == "at" {
            self.functions.insert(number(2), fields[1].into());
        } else {
            let said = Said { tid: number(1), begin_ns: number(2), wall_ns: number(3), cpu_ns: number(4) };
            self.of.insert(fields[0].into(), said);
        }
    }

    fn parse(output: &str) -> Truth {
        let mut truth = Truth::default();
        output.lines().for_each(|line| truth.add(line));
        truth
    }

    /// The functions that `waits` told of, among the frames.
    fn named(&self, frames: &[u64]) -> BTreeSet<&str> {
        let name = |ip: &u64| {
            let (at, name) = self.functions.range(..=ip).next_back()?;
            // They are smaller than that, and 512 apart.
            (ip - at < 400).then_some(name.as_str())
        };
        frames.iter().filter_map(name).collect()
    }
}

/// Rows of source offcpu.
fn rows(trace: &Path) -> Vec<Value> {
    let mut rows = Vec::new();
    replay(trace, |event| {
        if event["kind"].as_str().unwrap().starts_with("offcpu_") {
            rows.push(event.clone());
        }
    });
    rows
}

/// Nanoseconds of a wait that lie in the time that is told of.
fn inside(row: &Value, said: &Said) -> u64 {
    let end = number(row, "ts_ns");
    let begin = end - number(row, "wait_ns");
    end.min(said.begin_ns + said.wall_ns).saturating_sub(begin.max(said.begin_ns))
}

/// A recording of `waits`, with what it says of itself.
struct Recorded {
    truth: Truth,
    rows: Vec<Value>,
    stacks: BTreeMap<u64, Vec<u64>>,
    info: Value,
}

fn record_waits(scratch: &Scratch, name: &str, rounds: u32, options: &[&str]) -> Recorded {
    let trace = scratch.path(name);
    let options: Vec<_> = ["-e", "offcpu"].iter().chain(options).copied().collect();
    let script = format!("exec {} {rounds} \"$dir/file\"", load("waits").display());
    let truth = Truth::parse(&record_while(scratch, &trace, &options, &script));
    assert_no_loss(&trace);
    Recorded { truth, rows: rows(&trace), stacks: stacks(&trace), info: info(&trace) }
}

impl Recorded {
    /// Rows of a thread within its time, with their nanoseconds in it.
    fn of_thread(&self, name: &str) -> impl Iterator<Item = (&Value, u64)> {
        let said = self.truth.of[name];
        let rows = self.rows.iter().filter(move |row| number(row, "tid") == said.tid);
        rows.map(move |row| (row, inside(row, &said))).filter(|(_, ns)| *ns > 0)
    }

    fn frames(&self, row: &Value, field: &str) -> &[u64] {
        self.stacks.get(&number(row, field)).map_or(&[], Vec::as_slice)
    }

    fn waits_in(&self, row: &Value, function: &str) -> bool {
        self.truth.named(self.frames(row, "user_stack_id")).contains(function)
    }

    fn sum_in(&self, thread: &str, function: &str) -> f64 {
        self.of_thread(thread).filter(|(row, _)| self.waits_in(row, function)).map(|(_, ns)| ns as f64).sum()
    }

    fn assert_total(&self, thread: &str) {
        let sum: u64 = self.of_thread(thread).map(|(_, ns)| ns).sum();
        assert_near(&format!("{thread} off the CPU, ns"), sum as f64, self.truth.of[thread].off_ns(), 0.01);
    }

    /// Kernel stacks of at least a tenth of the waits in `function`, as text.
    fn main_kernel_stacks(&self, function: &str) -> BTreeSet<String> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let seen = |row: &&Value| number(row, "flags") & u64::from(offcpu_flag::END_UNSEEN) == 0;
        let here: Vec<_> =
            self.of_thread("waiter").map(|(row, _)| row).filter(seen).filter(|r| self.waits_in(r, function)).collect();
        for row in &here {
            *counts.entry(format!("{:x?}", self.frames(row, "kernel_stack_id"))).or_default() += 1;
        }
        counts.into_iter().filter(|(_, n)| n * 10 > here.len()).map(|(stack, _)| stack).collect()
    }
}

const FUNCTIONS: [&str; 4] = ["wait_clock", "wait_lock", "wait_pipe", "wait_disk"];

#[test]
fn root_waits_add_up_by_thread_and_by_function() {
    let Some(_alone) = alone_as_root("waits") else { return };
    let scratch = Scratch::new();
    let seen = record_waits(&scratch, "t.bpr", 60, &[]);
    seen.assert_total("waiter");
    seen.assert_total("twofold");
    let truth = &seen.truth.of;
    // Each within 2 % of itself, and so their proportions.
    for function in FUNCTIONS {
        assert_near(function, seen.sum_in("waiter", function), truth[function].off_ns(), 0.02);
    }
    // The same instruction and stack pointer, but two callers.
    for caller in ["caller_one", "caller_two"] {
        assert_near(caller, seen.sum_in("twofold", caller), truth[caller].off_ns(), 0.02);
    }
    let counts = seen.info["stack_counts"].as_array().unwrap();
    assert_eq!(counts.len(), 2, "{counts:?}");
    for space in counts {
        let user = space["space"] == "user";
        // 60 waits a place may be too few for the user's: two places that share an entry forget each other.
        assert!(user || number(space, "remembered") > 0, "{space}");
        assert!(number(space, "walked") > 0 && number(space, "checked") > 0, "{space}");
        // In programs without frame pointers (others of this machine) the chain may lead through data that another thread changes between
        // the two walks.
        let allowed = if user { 1 + number(space, "checked") / 50 } else { 0 };
        assert!(number(space, "wrong") <= allowed, "{space}");
    }
    // Whoever holds the lock wakes the waiter.
    let helper = truth["helper"].tid;
    let locks: Vec<_> = seen.of_thread("waiter").filter(|(row, _)| seen.waits_in(row, "wait_lock")).collect();
    let long = locks.iter().filter(|(row, ns)| *ns > 5_000_000 && number(row, "prev_state") & 1 == 1);
    let woken = long.clone().filter(|(row, _)| number(row, "waker_tid") == helper).count();
    assert!(woken * 10 > long.clone().count() * 8 && woken > 40, "{woken} of {} by the helper", long.count());
    assert!(seen.rows.iter().all(|row| number(row, "queued_ns") <= number(row, "wait_ns")));
}

#[test]
fn root_remembered_stacks_are_those_that_are_walked() {
    let Some(_alone) = alone_as_root("remembered stacks") else { return };
    let scratch = Scratch::new();
    let remembered = record_waits(&scratch, "remembered.bpr", 40, &[]);
    let exact = record_waits(&scratch, "exact.bpr", 40, &["--exact-stacks"]);
    let flags = u64::from(offcpu_flag::KERNEL_REMEMBERED);
    let marked = |seen: &Recorded| seen.rows.iter().filter(|row| number(row, "flags") & flags == flags).count();
    assert!(marked(&remembered) > 100, "{} rows with a remembered stack", marked(&remembered));
    assert_eq!(marked(&exact), 0);
    for function in ["wait_clock", "wait_lock", "wait_pipe"] {
        let (a, b) = (remembered.main_kernel_stacks(function), exact.main_kernel_stacks(function));
        assert!(!a.is_empty() && a.iter().all(|stack| stack.len() > 40), "{function}: {a:?}");
        assert_eq!(a, b, "kernel stacks of {function}");
    }
}

/// How often threads of the process left the CPU with each user stack.
fn by_user_stack(trace: &Path, pid: u64) -> BTreeMap<u64, u64> {
    let mut found = BTreeMap::new();
    for row in rows(trace).iter().filter(|row| row["kind"] == "offcpu_wait" && row["pid"] == pid) {
        *found.entry(number(row, "user_stack_id")).or_default() += 1;
    }
    found
}

#[test]
fn root_a_caller_further_up_that_changes_is_noticed() {
    let Some(_alone) = alone_as_root("callers that change") else { return };
    let scratch = Scratch::new();
    // 20 stacks a thread, a thousand waits from each before the next: the registers are the same.
    let (ways, each) = (20, 1000);
    for (options, most) in [(&["-e", "offcpu"][..], 200), (&["-e", "offcpu", "--exact-stacks"], 0)] {
        let trace = scratch.path("t.bpr");
        let options = [options, &["--force"]].concat();
        let out = record_while(
            &scratch,
            &trace,
            &options,
            &format!("exec {} {} {each}", load("paths").display(), ways * each),
        );
        assert_no_loss(&trace);
        let found = by_user_stack(&trace, printed(&out, "pid").parse().unwrap());
        // Besides them the process waits a few times when it begins and ends, and now and then a thread is preempted.
        let frequent: Vec<u64> = found.values().copied().filter(|n| *n >= each / 2).collect();
        let wrong: u64 = frequent.iter().map(|n| n.abs_diff(each)).sum();
        println!("{options:?}: {} stacks, {wrong} waits with another", frequent.len());
        assert_eq!(frequent.len() as u64, 2 * ways, "{found:?}");
        assert!(wrong <= most + 6 * ways, "{wrong} waits have another stack: {frequent:?}");
        let info = info(&trace);
        let user = info["stack_counts"].as_array().unwrap().iter().find(|s| s["space"] == "user").unwrap();
        let remembered = user["remembered"].as_u64().unwrap();
        assert_eq!(remembered > 0, most > 0, "{user}");
        // That kernel stacks are the same as at an earlier wait is told by what is read of them; the kernel walks one in 64, too.
        let kernel = info["stack_counts"].as_array().unwrap().iter().find(|s| s["space"] == "kernel").unwrap();
        assert!(number(kernel, "checked") > 100 && number(kernel, "wrong") == 0, "{kernel}");
    }
}

#[test]
fn root_short_waits_are_summed_up() {
    let Some(_alone) = alone_as_root("short waits") else { return };
    let scratch = Scratch::new();
    let seen = record_waits(&scratch, "t.bpr", 60, &["--min-wait", "15ms", "--waker-stacks"]);
    let of = |kind: &str| seen.rows.iter().filter(|row| row["kind"] == kind).collect::<Vec<_>>();
    let seen_to_end = |row: &&&Value| number(row, "flags") & u64::from(offcpu_flag::END_UNSEEN) == 0;
    assert!(of("offcpu_wait").iter().filter(seen_to_end).all(|row| number(row, "wait_ns") >= 15_000_000));
    let waiter = seen.truth.of["waiter"];
    let short = of("offcpu_short").into_iter().filter(|row| number(row, "tid") == waiter.tid);
    let (rows, count) = short.fold((0, 0), |(rows, count), row| (rows + 1, count + number(row, "count")));
    assert!((1..30).contains(&rows) && count >= 3 * 60, "{count} short waits in {rows} rows");
    // A sum does not tell where its parts lie, so this is over the life of the thread.
    let all = seen.rows.iter().filter(|row| number(row, "tid") == waiter.tid);
    let sum: u64 = all.map(|row| number(row, "wait_ns")).sum();
    assert!(sum as f64 > 0.99 * waiter.off_ns(), "{sum} ns, said {}", waiter.off_ns());
    let helped = seen.rows.iter().filter(|row| number(row, "waker_kernel_stack_id") != 0).count();
    assert!(helped > 10, "{helped} rows with the waker's stack");
}

/// A `waits` that runs on, killed with its owner.
struct Running {
    child: Child,
    truth: Truth,
    /// Kept open: whoever writes into a closed pipe is killed.
    _output: BufReader<ChildStdout>,
}

impl Running {
    fn start(scratch: &Scratch, name: &str) -> Running {
        let mut command = Command::new("stdbuf");
        command.arg("-oL").arg(load("waits")).arg("1000000").arg(scratch.path(name));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut truth = Truth::default();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        while !truth.of.contains_key("forever") {
            let mut line = String::new();
            assert!(output.read_line(&mut line).unwrap() > 0, "waits ended early");
            truth.add(line.trim_end());
        }
        Running { child, truth, _output: output }
    }

    fn forever(&self) -> u64 {
        self.truth.of["forever"].tid
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn root_a_thread_that_is_blocked_all_the_time_is_there() {
    let Some(_alone) = alone_as_root("blocked threads") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let before = Running::start(&scratch, "before");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let recording = Attached::start(&scratch, &trace, &["-e", "offcpu"]);
    let during = Running::start(&scratch, "during");
    std::thread::sleep(std::time::Duration::from_millis(700));
    recording.finish();
    let (rows, stacks) = (rows(&trace), stacks(&trace));
    let open = |tid: u64| {
        let of: Vec<_> = rows.iter().filter(|r| number(r, "tid") == tid && r["kind"] == "offcpu_open").collect();
        assert_eq!(of.len(), 1, "open rows of {tid}: {of:?}");
        of[0]
    };
    let began_before = u64::from(offcpu_flag::BEGAN_BEFORE);
    for (load, flag) in [(&before, began_before), (&during, 0)] {
        let row = open(load.forever());
        assert_eq!(number(row, "flags") & began_before, flag, "{row}");
        assert_eq!(number(row, "prev_state") & 1, 1, "interruptible: {row}");
        assert!(number(row, "wait_ns") > 500_000_000, "{row}");
        assert_eq!(number(row, "queued_ns"), 0, "{row}");
        assert!(stacks.contains_key(&number(row, "kernel_stack_id")), "{row}");
    }
    // Its user stack was taken when it left.
    let row = open(during.forever());
    assert!(during.truth.named(&stacks[&number(row, "user_stack_id")]).contains("wait_forever"), "{row}");
    assert!(rows.iter().all(|row| number(row, "tid") != 0), "the idle task has no waits");
}

#[test]
fn root_only_the_chosen_processes_wait() {
    let Some(_alone) = alone_as_root("filtered waits") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let (chosen, other) = (Running::start(&scratch, "chosen"), Running::start(&scratch, "other"));
    let pid = u64::from(chosen.child.id());
    record_while(&scratch, &trace, &["-e", "offcpu", "-p", &pid.to_string()], "sleep 1");
    drop(other);
    let rows = rows(&trace);
    assert!(rows.len() > 50, "{} rows", rows.len());
    assert!(rows.iter().all(|row| row["pid"] == pid), "rows of other processes");
    assert!(rows.iter().any(|row| number(row, "tid") == chosen.forever() && row["kind"] == "offcpu_open"));
}
