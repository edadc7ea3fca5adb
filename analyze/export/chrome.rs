//! `chrome`: trace event JSON, for chrome://tracing, Perfetto and speedscope.
//!
//! Times are microseconds since the start of the recording, with nanoseconds behind the point. Threads: what ran (`X`), waits and
//! the run queue (`b`, `e`), wakeups as flows from the waker to where the thread ran. CPUs, requests, counters and losses
//! are processes of their own, with numbers above all pids. CPU samples stand in `samples`, their stacks in `stackFrames`.

use std::fmt::Write as _;

use bpfrec_format::Source;
use rustc_hash::FxHashSet;

use super::counters::Counters;
use super::items::{Item, Sink, Takes, What, left};
use super::scene::{Lost, Scene, json};
use super::spool::Spool;
use super::tree::Tree;
use super::{Format, Make, Out};
use crate::block_io::flags_and_operation;
use crate::error::Result;
use crate::offcpu::state_name;

/// In the list of formats.
pub const FORMAT: Format = Format {
    name: "chrome",
    file: "trace.json",
    about: "Trace event JSON, for chrome://tracing, Perfetto, speedscope",
    is_text: true,
    of_one_weight: false,
    sources: &[Source::Sched, Source::Block, Source::Profile, Source::Offcpu, Source::Malloc, Source::Kmem],
    make: Make::InTime(
        Takes { states: true, waits_of_switches: true, io: true, samples: true, memory: true },
        |scene, out| Ok(Box::new(Chrome::new(scene, out)?)),
    ),
};

/// Linux gives out pids below 1 << 22.
const CPUS: u32 = 1 << 23;
const DISKS: u32 = CPUS + 1;
const COUNTERS: u32 = CPUS + 2;
const LOSSES: u32 = CPUS + 3;

struct Chrome<'a> {
    scene: &'a Scene<'a>,
    out: &'a mut Out<'a>,
    /// Events so far.
    events: u64,
    /// Ids of asynchronous events and of flows.
    next_id: u64,
    named: FxHashSet<(u32, u32)>,
    counters: Counters,
    tree: Tree,
    /// Samples wait until all events are written.
    spool: Spool,
    samples: u64,
    line: String,
}

impl<'a> Chrome<'a> {
    fn new(scene: &'a Scene<'a>, out: &'a mut Out<'a>) -> Result<Self> {
        let meta = scene.meta;
        let about = serde_json::json!({
            "exporter": concat!("bpfrec ", env!("CARGO_PKG_VERSION")),
            "host": meta.item("host"),
            "start_unix_ns": meta.clock.unix_ns(meta.start_ns).to_string(),
            "start_monotonic_ns": meta.start_ns.to_string(),
        });
        write!(out, "{{\"displayTimeUnit\":\"ns\",\"otherData\":{about},\"traceEvents\":[")?;
        let mut spool = Spool::default();
        spool.column();
        let (counters, tree) = (Counters::new(scene), Tree::default());
        let (named, line) = (FxHashSet::default(), String::new());
        Ok(Chrome { scene, out, events: 0, next_id: 0, named, counters, tree, spool, samples: 0, line })
    }

    /// A moment in microseconds.
    fn at(&self, ns: u64) -> String {
        let since = i128::from(ns) - i128::from(self.scene.meta.start_ns);
        let sign = if since < 0 { "-" } else { "" };
        format!("{sign}{}.{:03}", since.unsigned_abs() / 1000, since.unsigned_abs() % 1000)
    }

    /// Writes one event: the fields that all have, then `rest`.
    fn event(&mut self, ph: &str, ts_ns: u64, pid: u32, tid: u32, rest: &str) -> Result<()> {
        let (comma, ts) = (if self.events > 0 { "," } else { "" }, self.at(ts_ns));
        self.events += 1;
        Ok(write!(self.out, "{comma}\n{{\"ph\":\"{ph}\",\"ts\":{ts},\"pid\":{pid},\"tid\":{tid}{rest}}}")?)
    }

    /// Names a thread and its process when they are first seen.
    fn name(&mut self, pid: u32, tid: u32, process: &str, thread: &str) -> Result<()> {
        if self.named.insert((pid, u32::MAX)) {
            let rest = format!(",\"name\":\"process_name\",\"args\":{{\"name\":{}}}", json(process));
            self.event("M", self.scene.meta.start_ns, pid, tid, &rest)?;
        }
        if self.named.insert((pid, tid)) {
            let rest = format!(",\"name\":\"thread_name\",\"args\":{{\"name\":{}}}", json(thread));
            self.event("M", self.scene.meta.start_ns, pid, tid, &rest)?;
        }
        Ok(())
    }

    fn thread(&mut self, pid: u32, tid: u32, ts_ns: u64) -> Result<()> {
        if self.named.contains(&(pid, tid)) {
            return Ok(());
        }
        let name = |tid: u32| self.scene.meta.tasks.at(tid, ts_ns).map_or("", |task| task.last_comm());
        let (process, thread) = (name(pid), name(tid));
        self.name(pid, tid, process, thread)
    }

    /// An event of its own row: begin and end.
    fn apart(
        &mut self,
        (from_ns, to_ns): (u64, u64),
        pid: u32,
        tid: u32,
        cat: &str,
        name: &str,
        args: &str,
    ) -> Result<()> {
        self.next_id += 1;
        let rest = format!(",\"cat\":\"{cat}\",\"id\":\"{:#x}\",\"name\":{}", self.next_id, json(name));
        self.event("b", from_ns, pid, tid, &format!("{rest},\"args\":{{{args}}}"))?;
        self.event("e", to_ns, pid, tid, &rest)
    }

    fn running(&mut self, item: &Item, cpu: u32, end: Option<(u32, bool)>) -> Result<()> {
        let Item { start_ns, end_ns, tid, pid, .. } = *item;
        let (dur, comm, left) = (end_ns - start_ns, json(self.scene.comm(tid, end_ns)), left(end));
        let dur = format!("{}.{:03}", dur / 1000, dur % 1000);
        let cgroup = json(&self.scene.meta.cgroups.path(item.cgroup_id));
        let args = format!("\"comm\":{comm},\"left\":\"{left}\",\"cgroup\":{cgroup}");
        let rest =
            format!(",\"dur\":{dur},\"cat\":\"sched\",\"name\":\"on CPU {cpu}\",\"args\":{{{args},\"cpu\":{cpu}}}");
        self.event("X", start_ns, pid, tid, &rest)?;
        self.name(CPUS, cpu, "CPUs", &format!("CPU {cpu}"))?;
        let rest =
            format!(",\"dur\":{dur},\"cat\":\"cpu\",\"name\":{comm},\"args\":{{{args},\"tid\":{tid},\"pid\":{pid}}}");
        self.event("X", start_ns, CPUS, cpu, &rest)
    }

    fn runnable(&mut self, item: &Item, cpu: u32, waker: Option<u32>) -> Result<()> {
        let Item { start_ns, end_ns, tid, pid, .. } = *item;
        let args = format!("\"cpu\":{cpu}");
        self.apart((start_ns, end_ns), pid, tid, "runq", "waits for a CPU", &args)?;
        let Some(waker) = waker else { return Ok(()) };
        let waker_pid = self.scene.meta.tasks.at(waker, start_ns).map_or(waker, |task| task.pid);
        self.thread(waker_pid, waker, start_ns)?;
        self.next_id += 1;
        let rest = format!(",\"cat\":\"wakeup\",\"id\":{},\"name\":\"wakeup\"", self.next_id);
        self.event("s", start_ns, waker_pid, waker, &rest)?;
        self.event("f", end_ns, pid, tid, &format!("{rest},\"bp\":\"e\""))
    }

    fn sample(&mut self, item: &Item, cpu: u32, kernel: u64, user: u64) -> Result<()> {
        let leaf = self.tree.sample(self.scene, kernel, user);
        let Item { start_ns, tid, pid, .. } = *item;
        let at = self.at(start_ns);
        self.line.clear();
        let _ = write!(
            self.line,
            "\n{{\"cpu\":{cpu},\"name\":\"cpu\",\"ts\":{at},\"pid\":{pid},\"tid\":{tid},\"weight\":1,\"sf\":{leaf}}}"
        );
        self.samples += 1;
        self.spool.json(0, &self.line)
    }
}

impl Sink for Chrome<'_> {
    fn item(&mut self, item: &Item) -> Result<()> {
        let scene = self.scene;
        let Item { start_ns, end_ns, tid, pid, .. } = *item;
        self.counters.item(item);
        if matches!(item.what, What::Memory(_)) {
            return Ok(());
        }
        self.thread(pid, tid, end_ns)?;
        match &item.what {
            What::Running { cpu, end } => self.running(item, *cpu, *end),
            What::Runnable { cpu, waker } => self.runnable(item, *cpu, *waker),
            What::Off(off) => {
                let leaf = self.tree.leaf(scene, off.kernel, off.user, off.what);
                let place = leaf.map(|leaf| self.tree.nodes[leaf as usize].1);
                let args = place.map_or(String::new(), |place| {
                    format!("\"in\":{},\"sf\":{}", json(scene.name(place)), leaf.unwrap_or(0))
                });
                self.apart((start_ns, end_ns), pid, tid, "offcpu", state_name(off.state), &args)
            }
            What::Io(io) => {
                let (disk, op) = (scene.meta.disk(io.dev), flags_and_operation(io.cmd_flags));
                self.name(DISKS, io.dev, "block I/O", &disk)?;
                let args = format!(
                    "\"disk\":{},\"bytes\":{},\"sector\":{},\"device_ns\":{},\"error\":{},\"comm\":{},\"tid\":{tid},\"pid\":{pid}",
                    json(&disk),
                    io.bytes,
                    io.sector,
                    io.device_ns(),
                    io.error,
                    json(scene.comm(tid, start_ns)),
                );
                self.apart((start_ns, end_ns), DISKS, io.dev, "block", &format!("{disk} {op}"), &args)
            }
            What::Sample { cpu, kernel, user } => self.sample(item, *cpu, *kernel, *user),
            What::Memory(_) => Ok(()),
        }
    }

    fn lost(&mut self, lost: &Lost) -> Result<()> {
        self.name(LOSSES, 0, "lost events", "lost events")?;
        let cpu = lost.cpu.map_or("null".to_owned(), |cpu| cpu.to_string());
        let args = format!("\"events\":{},\"why\":{},\"cpu\":{cpu}", lost.events, json(&lost.why));
        let name = format!("lost: {}", lost.what);
        self.apart((lost.from_ns, lost.to_ns), LOSSES, 0, "lost", &name, &args)
    }

    fn end(&mut self) -> Result<Vec<String>> {
        let counters = std::mem::replace(&mut self.counters, Counters::new(self.scene));
        for (of, values) in counters.series() {
            self.name(COUNTERS, 0, "counters", "counters")?;
            let (name, unit) = (json(&of.name(self.scene)), if of.is_bytes() { "bytes" } else { "number" });
            for (ts_ns, value) in values {
                self.event("C", ts_ns, COUNTERS, 0, &format!(",\"name\":{name},\"args\":{{\"{unit}\":{value}}}"))?;
            }
        }
        write!(self.out, "\n]")?;
        if !self.tree.nodes.is_empty() {
            write!(self.out, ",\n\"stackFrames\":{{")?;
            for (number, (parent, place)) in self.tree.nodes.iter().enumerate() {
                let comma = if number > 0 { "," } else { "" };
                let parent = parent.map_or(String::new(), |parent| format!(",\"parent\":{parent}"));
                let (name, category) = (json(self.scene.name(*place)), json(&self.scene.binary(*place)));
                write!(self.out, "{comma}\n\"{number}\":{{\"name\":{name},\"category\":{category}{parent}}}")?;
            }
            write!(self.out, "\n}}")?;
        }
        if self.samples > 0 {
            write!(self.out, ",\n\"samples\":[")?;
            self.spool.copy(0, self.out)?;
            write!(self.out, "\n]")?;
        }
        writeln!(self.out, "}}")?;
        Ok(Vec::new())
    }
}
