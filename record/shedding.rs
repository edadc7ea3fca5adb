//! Keeps a recording within its budget: measures each second, gives up or takes back what the controller says, tells the
//! BPF programs and the file.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bpfrec_format::{BlockType, EndReason, Source as Id, Table, meta};
use libbpf_rs::{MapCore as _, MapFlags};
use rustix::fs::{Mode, OFlags, fstatvfs, open};

use crate::args::{KeepFree, RecordArgs};
use crate::bpf::SharedMaps;
use crate::budget::{Change, Controller, EVERY, Measure, Step};
use crate::meter::Meter;
use crate::session::Session;
use crate::writer::Message;
use crate::{clock, stats};

/// What is still written after the last look at the disk has room in this, or in a quarter of what is free.
const MARGIN: u64 = 16 << 20;
/// Bytes in the file of a message that waits for the writer.
const QUEUED: u64 = 64 << 10;

/// `struct shed` of `bpf/shed.bpf.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Page {
    user_stacks: u32,
    kernel_stacks: u32,
    every: u32,
    sources: u32,
    since_ns: u64,
}

impl Page {
    /// What is given up with these steps; `since_ns` is when offcpu was last taken up again.
    fn of(shed: &[Change], since_ns: u64) -> Page {
        let mut page = Page { since_ns, ..Page::default() };
        for change in shed {
            match change.step {
                Step::UserStacks => page.user_stacks = 1,
                Step::KernelStacks => page.kernel_stacks = 1,
                Step::Sampling => page.every = EVERY,
                Step::Source(id) => page.sources |= 1 << id as u32,
            }
        }
        page
    }

    fn to_bytes(self) -> Vec<u8> {
        let words = [self.user_stacks, self.kernel_stacks, self.every, self.sources];
        words.iter().flat_map(|w| w.to_ne_bytes()).chain(self.since_ns.to_ne_bytes()).collect()
    }

    fn tell(self, shared: &SharedMaps) -> Result<()> {
        let page = shared.get(".data.shed")?;
        page.update(&0u32.to_ne_bytes(), &self.to_bytes(), MapFlags::ANY)
            .context("cannot tell the programs what to leave out")
    }
}

/// Free space on a file system, and how much of it is to stay.
struct Disk {
    path: PathBuf,
    /// Opened before rights are given up: its path may lead through folders of others.
    folder: OwnedFd,
    keep: u64,
    at_first: u64,
}

/// Bytes free for everybody, and bytes in all, of the file system that `folder` is on.
fn space(folder: &OwnedFd, path: &Path) -> Result<(u64, u64)> {
    let s = fstatvfs(folder).with_context(|| format!("cannot look at the file system of {}", path.display()))?;
    Ok((s.f_bavail.saturating_mul(s.f_frsize), s.f_blocks.saturating_mul(s.f_frsize)))
}

impl Disk {
    fn new(path: &Path, keep: KeepFree) -> Result<Disk> {
        let folder = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let folder = folder.with_context(|| format!("cannot look at the file system of {}", path.display()))?;
        let (at_first, all) = space(&folder, path)?;
        let keep = match keep {
            KeepFree::Bytes(bytes) => bytes,
            KeepFree::PartsPerMillion(ppm) => (u128::from(all) * u128::from(ppm) / 1_000_000) as u64,
        };
        Ok(Disk { path: path.into(), folder, keep, at_first })
    }

    fn margin(&self) -> u64 {
        MARGIN.min(self.at_first.saturating_sub(self.keep) / 4)
    }

    fn is_low(&self) -> Result<bool> {
        Ok(space(&self.folder, &self.path)?.0 < self.keep + self.margin())
    }
}

/// How much a file grew in the last second.
#[derive(Debug, Default)]
struct Growth(VecDeque<(Duration, u64)>);

impl Growth {
    /// Takes in the size now, and returns the growth. What a file begins with is no sign of what follows.
    fn add(&mut self, now: Duration, bytes: u64) -> u64 {
        if now < FIRST_LOOK / 2 {
            return 0;
        }
        self.0.push_back((now, bytes));
        while self.0.len() > 2 && now.saturating_sub(self.0[1].0) >= Duration::from_secs(1) {
            self.0.pop_front();
        }
        bytes - self.0[0].1.min(bytes)
    }
}

/// A budget and how it is kept.
pub struct Budget {
    cpu_ppm: Option<u64>,
    rss_bytes: Option<u64>,
    /// Size at which the events end: what follows them has room behind it.
    size_bytes: Option<u64>,
    disk: Option<Disk>,
    growth: Growth,
    controller: Controller,
    meter: Meter,
    /// When offcpu was last taken up again.
    since_ns: u64,
}

/// Where the output goes: a folder on its file system.
fn folder(args: &RecordArgs) -> &Path {
    if args.rotates() {
        return &args.output;
    }
    args.output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Budget {
    /// Of the command line, for these sources. To be called when the output is there.
    ///
    /// # Errors
    /// When the file system cannot be looked at.
    pub fn new(args: &RecordArgs, sources: &[Id], cpus: usize) -> Result<Budget> {
        let size_bytes = args.max_size.filter(|_| !args.rotates()).map(|max| max - args.symbols_bytes().max(max / 8));
        Ok(Budget {
            cpu_ppm: args.max_cpu,
            rss_bytes: args.max_rss,
            size_bytes,
            disk: args.keep_free.map(|keep| Disk::new(folder(args), keep)).transpose()?,
            growth: Growth::default(),
            controller: Controller::new(Step::of(sources)),
            meter: Meter::new(cpus),
            since_ns: 0,
        })
    }

    /// So many CPUs run now: shares are of all of them.
    pub fn of_cpus(&mut self, cpus: usize) {
        self.meter.of_cpus(cpus);
    }

    /// Whether there is anything to keep.
    fn is_any(&self) -> bool {
        self.cpu_ppm.is_some() || self.rss_bytes.is_some() || self.size_bytes.is_some() || self.disk.is_some()
    }
}

/// Refuses to begin where the disk is already as full as it may get, and what cannot be watched.
///
/// # Errors
/// When `--keep-free` has no file system to watch, or that has not enough left.
pub fn check(args: &RecordArgs) -> Result<()> {
    let Some(keep) = args.keep_free else { return Ok(()) };
    if args.output == Path::new("-") {
        bail!("--keep-free watches the file system of the output, and stdout has none: use -o FILE");
    }
    let folder = folder(args);
    // A folder of segments may not be there yet.
    let folder = if folder.exists() { folder } else { folder.parent().unwrap_or(Path::new(".")) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let disk = Disk::new(folder, keep)?;
    if disk.at_first <= disk.keep {
        bail!(
            "{}: {} bytes are free on this file system and --keep-free asks for {}: make room, or keep less",
            args.output.display(),
            disk.at_first,
            disk.keep
        );
    }
    Ok(())
}

/// A row of kind `shed`.
fn row(ts_ns: u64, change: &Change) -> Table {
    let mut table = Table::new(&meta::kind(meta::SHED));
    let ((step, source), m) = (change.step.numbers(), &change.measure);
    let every = if change.step == Step::Sampling && !change.restored { EVERY } else { 1 };
    table.push(&[
        ts_ns.into(),
        step.into(),
        source.into(),
        m.cause.into(),
        m.value.into(),
        m.limit.into(),
        u64::from(change.restored).into(),
        every.into(),
    ]);
    table
}

/// `cpu 1.80 % of 1.00 %`, `rss 70.1 MB of 67.1 MB`.
fn why(m: &Measure) -> String {
    let amount = |n: u64| match m.cause {
        meta::shed::CPU => format!("{:.2} %", n as f64 / 10_000.0),
        _ => crate::status::bytes(n),
    };
    format!("{} {} of {}", meta::shed::cause(m.cause), amount(m.value), amount(m.limit))
}

/// What a step gives up, in words.
fn what(step: Step) -> String {
    match step {
        Step::UserStacks => "user stacks are".into(),
        Step::KernelStacks => "kernel stacks are".into(),
        Step::Sampling => format!("all but one sample in {EVERY} are"),
        Step::Source(id) => format!("source {} is", id.name()),
    }
}

impl Session {
    /// Measures what the recording costs, and gives something up or takes it back. Once a second, before
    /// [`crate::bpf_time::BpfTime::tick`].
    pub fn keep_to_budget(&mut self) -> Result<()> {
        if !self.budget.is_any() {
            return Ok(());
        }
        let measures = self.measures()?;
        if let Some(change) = self.budget.controller.tick(self.started.elapsed(), &measures) {
            self.apply(&change)?;
            self.budget.meter.reset();
        } else if self.budget.controller.is_helpless(&measures) {
            self.status.say("all that can be left out is, and the recording still is beyond its budget");
        }
        if self.budget.cpu_ppm.is_some() {
            self.bpf_time.is_shed(!self.budget.controller.shed().is_empty());
        }
        if self.budget.meter.is_fresh() {
            self.bpf_time.again();
        }
        Ok(())
    }

    fn measures(&mut self) -> Result<Vec<Measure>> {
        let (lost, kept) = (self.losses.total, self.rings.drained.borrow().kept);
        let events = std::array::from_fn(|slot| kept[slot] + lost[slot]);
        let mut measures = Vec::new();
        let budget = &mut self.budget;
        if let Some(limit) = budget.cpu_ppm {
            let value = budget.meter.read(clock::mono_ns(), stats::own_cpu_ns(), events, &self.bpf_time);
            measures.extend(value.map(|value| Measure::cpu(value, limit)));
        }
        measures.extend(budget.rss_bytes.map(|limit| Measure::rss(stats::resident_bytes(), limit)));
        let bytes = self.writer.progress.bytes.load(Relaxed);
        measures.extend(budget.size_bytes.map(|limit| Measure::size(bytes, limit)));
        if let Some(disk) = &budget.disk {
            measures.push(Measure::free(space(&disk.folder, &disk.path)?.0, disk.keep + disk.margin(), disk.at_first));
        }
        Ok(measures)
    }

    /// Tells the programs, the file, and whoever watches. The row's time is such that all that is missing lies within.
    fn apply(&mut self, change: &Change) -> Result<()> {
        let began = clock::mono_ns();
        if change.restored && change.step == Step::Source(Id::Offcpu) {
            // First that all they know is old, then that they shall look again.
            self.budget.since_ns = began;
            let before = Page::of(self.budget.controller.shed(), began);
            Page { sources: before.sources | 1 << Id::Offcpu as u32, ..before }.tell(&self.shared)?;
        }
        Page::of(self.budget.controller.shed(), self.budget.since_ns).tell(&self.shared)?;
        let ts_ns = if change.restored { clock::mono_ns() } else { began };
        self.send(Message::Tables(BlockType::Loss, vec![row(ts_ns, change)]));
        if !change.restored {
            self.shed_at.push(ts_ns);
        } else {
            self.shed_at.pop();
        }
        let (what, verb) = (what(change.step), if change.restored { "recorded again" } else { "left out from now on" });
        self.status.say(&format!("{what} {verb}: {}", why(&change.measure)));
        Ok(())
    }

    /// Rows of what is given up now, for the begin of a segment.
    pub fn shed_rows(&self) -> Vec<(BlockType, Table)> {
        let shed = self.budget.controller.shed().iter().zip(&self.shed_at);
        shed.map(|(change, ts_ns)| (BlockType::Loss, row(*ts_ns, change))).collect()
    }

    /// Bytes of function names that may still be written.
    pub fn names_bytes(&self) -> u64 {
        let most = self.args.symbols_bytes();
        let Some(max) = self.args.max_size.filter(|_| !self.args.rotates()) else { return most };
        let progress = &self.writer.progress;
        let (bytes, queued) = (progress.bytes.load(Relaxed), self.writer.waiting() as u64 * QUEUED);
        most.min(max.saturating_sub(bytes + queued + max / 32))
    }

    /// Whether the file is as large, or the disk as full, as it may be.
    pub fn is_full(&mut self) -> Result<Option<EndReason>> {
        let bytes = self.writer.progress.bytes.load(Relaxed);
        let grown = self.budget.growth.add(self.started.elapsed(), bytes);
        // What lies in the rings and in the queue is still written.
        if self.budget.size_bytes.is_some_and(|limit| bytes + grown >= limit) {
            return Ok(Some(EndReason::SizeLimit));
        }
        match &self.budget.disk {
            Some(disk) if disk.is_low()? => {
                // Names of functions must not take what is to stay.
                self.args.symbols_max = self.args.symbols_max.min(disk.margin() / 4);
                Ok(Some(EndReason::DiskFull))
            }
            _ => Ok(None),
        }
    }
}

/// How long after the start the first look at the budget is: loading is no part of the recording.
pub const FIRST_LOOK: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_as_the_programs_read_it() {
        let measure = Measure::cpu(2, 1);
        let change = |step| Change { step, measure, restored: false };
        let shed = [Step::UserStacks, Step::Sampling, Step::Source(Id::Sched), Step::Source(Id::Block)].map(change);
        let page = Page::of(&shed, 77);
        assert_eq!(page, Page { user_stacks: 1, kernel_stacks: 0, every: EVERY, sources: 0b1100, since_ns: 77 });
        let bytes = page.to_bytes();
        assert_eq!((bytes.len(), bytes[0], bytes[12], bytes[16]), (24, 1, 12, 77));
    }

    #[test]
    fn growth_is_that_of_the_last_second() {
        let mut growth = Growth::default();
        let grown: Vec<u64> = (0..20).map(|i| growth.add(Duration::from_millis(250 * i), 1000 + i * i)).collect();
        assert_eq!(grown[..5], [0; 5]);
        // 36 at 1.5 s and 100 at 2.5 s.
        assert_eq!(grown[10], 100 - 36);
        assert_eq!(growth.add(Duration::from_secs(60), 1361), 0);
    }

    #[test]
    fn rows_and_lines_say_why() {
        let change = Change { step: Step::Source(Id::Kmem), measure: Measure::cpu(18_000, 10_000), restored: false };
        let table = row(5, &change);
        let kind = meta::kind(meta::SHED);
        let of = |name: &str| table.columns[kind.index_of(name).unwrap()].ints()[0];
        assert_eq!((of("ts_ns"), of("step"), of("source"), of("cause")), (5, 4, 5, 1));
        assert_eq!((of("value"), of("limit"), of("restored"), of("every")), (18_000, 10_000, 0, 1));
        assert_eq!(why(&change.measure), "cpu 1.80 % of 1.00 %");
        assert_eq!(why(&Measure::rss(70 << 20, 64 << 20)), "rss 73.4 MB of 67.1 MB");
    }
}
