//! Threads of a profile: their samples and markers.

use rustc_hash::FxHashMap;

use crate::error::Result;
use crate::export::Out;
use crate::export::scene::{Scene, json};
use crate::export::spool::Spool;

/// A thread: thread, process, and the task's position, as tids are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Who {
    pid: u32,
    tid: u32,
    task: Option<u32>,
}

impl Who {
    /// Stands for no thread: here losses are told.
    pub(super) const LOSSES: Who = Who { pid: u32::MAX, tid: u32::MAX, task: None };

    /// The thread that had `tid` at a moment.
    pub(super) fn of(scene: &Scene<'_>, tid: u32, pid: u32, ts_ns: u64) -> Who {
        Who { pid, tid, task: scene.meta.tasks.lookup(tid, ts_ns) }
    }
}

/// Columns of a thread, in the spool: stacks and times of samples; names, begins, ends, data of markers.
struct Thread {
    columns: [usize; 6],
    samples: u64,
    markers: u64,
}

/// All threads.
#[derive(Default)]
pub(super) struct Threads {
    all: FxHashMap<Who, Thread>,
    spool: Spool,
}

/// So many times the same value.
fn repeat(out: &mut Out<'_>, value: &str, times: u64) -> Result<()> {
    for number in 0..times {
        write!(out, "{}{value}", if number > 0 { "," } else { "" })?;
    }
    Ok(())
}

impl Threads {
    fn thread(&mut self, who: Who) -> &mut Thread {
        let spool = &mut self.spool;
        let new = || Thread { columns: [(); 6].map(|()| spool.column()), samples: 0, markers: 0 };
        self.all.entry(who).or_insert_with(new)
    }

    /// A CPU sample: stack and time.
    pub(super) fn sample(&mut self, who: Who, stack: &str, time: &str) -> Result<()> {
        let thread = self.thread(who);
        thread.samples += 1;
        let columns = thread.columns;
        self.spool.json(columns[0], stack)?;
        self.spool.json(columns[1], time)
    }

    /// A marker: name, begin, end, data.
    pub(super) fn marker(&mut self, who: Who, values: [&str; 4]) -> Result<()> {
        let thread = self.thread(who);
        thread.markers += 1;
        let columns = thread.columns;
        columns[2..].iter().zip(values).try_for_each(|(column, value)| self.spool.json(*column, value))
    }

    /// Writes all threads, by process.
    pub(super) fn write(&mut self, scene: &Scene<'_>, out: &mut Out<'_>) -> Result<()> {
        let mut order: Vec<Who> = self.all.keys().copied().collect();
        order.sort_unstable_by_key(|who| (who.pid, who.task.is_none(), who.task, who.tid));
        let mut lives: FxHashMap<u32, Vec<Option<u32>>> = FxHashMap::default();
        write!(out, ",\n\"threads\":[")?;
        for (number, who) in order.into_iter().enumerate() {
            let task = who.task.map(|id| &scene.meta.tasks.all()[id as usize]);
            let start_ns = task.map_or(scene.meta.start_ns, |t| t.start_ns);
            let leader = if who.tid == who.pid { who.task } else { scene.meta.tasks.lookup(who.pid, start_ns) };
            let of_pid = lives.entry(who.pid).or_default();
            let life = of_pid.iter().position(|known| *known == leader).unwrap_or(of_pid.len());
            if life == of_pid.len() {
                of_pid.push(leader);
            }
            let leader = leader.map_or("", |id| scene.meta.tasks.all()[id as usize].last_comm());
            let (name, process) = match who {
                Who::LOSSES => ("lost events", "lost events"),
                Who { tid: 0, .. } => ("swapper", "swapper"),
                _ => (task.map_or("", |t| t.last_comm()), leader),
            };
            // Pids are texts: a process with a pid that another had is told apart, as the profiler itself does.
            let pid = match (who, life) {
                (Who::LOSSES, _) => "lost".to_owned(),
                (_, 0) => who.pid.to_string(),
                _ => format!("{}.{life}", who.pid),
            };
            let ms = |ns: u64| (i128::from(ns) - i128::from(scene.meta.start_ns)).max(0) as f64 / 1e6;
            let end = task.and_then(|t| t.end_ns).map_or("null".to_owned(), |ns| ms(ns).to_string());
            let tid = if who == Who::LOSSES { "\"lost\"".into() } else { who.tid.to_string() };
            let (start, main) = (ms(start_ns), who.tid == who.pid);
            let Some(thread) = self.all.get(&who) else { continue };
            let Thread { columns, samples, markers } = *thread;
            write!(
                out,
                "{}\n{{\"processType\":\"default\",\"processStartupTime\":0,\"processShutdownTime\":null,\
                 \"registerTime\":{start},\"unregisterTime\":{end},\"pausedRanges\":[],\"name\":{},\"processName\":{},\
                 \"isMainThread\":{main},\"pid\":{},\"tid\":{tid},\"showMarkersInTimeline\":true,\n",
                if number > 0 { "," } else { "" },
                json(name),
                json(process),
                json(&pid),
            )?;
            let mut copy = |name: &str, column: usize, out: &mut Out<'_>| -> Result<()> {
                write!(out, ",\n\"{name}\":[")?;
                self.spool.copy(column, out)?;
                Ok(write!(out, "]")?)
            };
            write!(out, "\"samples\":{{\"length\":{samples},\"weight\":null,\"weightType\":\"samples\"")?;
            copy("stack", columns[0], out)?;
            copy("time", columns[1], out)?;
            write!(out, "}},\n\"markers\":{{\"length\":{markers}")?;
            let names = ["name", "startTime", "endTime", "data"];
            names.iter().zip(&columns[2..]).try_for_each(|(name, column)| copy(name, *column, out))?;
            // 1: each has a begin and an end.
            write!(out, ",\n\"phase\":[")?;
            repeat(out, "1", markers)?;
            write!(out, "],\n\"category\":[")?;
            repeat(out, "0", markers)?;
            write!(out, "]}}}}")?;
        }
        Ok(write!(out, "\n]")?)
    }
}
