//! One trace of a comparison, with names in place of numbers: nothing of it refers to the trace any more.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bpfrec_format::meta::reason;
use bpfrec_format::{Source, Trace};

use super::gather::{Gather, Lengths, StackKey, Sums, Waiting, Who};
use super::noise::Pair;
use super::stretches::{FEWEST, Stretches};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::flamegraph::Cell;
use crate::meta::Meta;
use crate::pipeline::{self, Options};
use crate::reports::offcputime::Offcputime;
use crate::reports::{self, Context};
use crate::text;

/// Sources that are compared.
pub(super) const SOURCES: [Source; 4] = [Source::Sched, Source::Block, Source::Profile, Source::Offcpu];

/// A box of a flamegraph: its name, and what it is as `Cell::parts` has it; 4: the thread.
pub(super) type Frame = (String, u8);
/// A stack from the thread down to the leaf.
pub(super) type Path = Vec<Frame>;
/// Amounts by stretch.
pub(super) type Amounts = BTreeMap<u32, u64>;

/// Amounts by cgroup and by process.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) cgroups: BTreeMap<String, Amounts>,
    pub(super) processes: BTreeMap<String, Amounts>,
}

/// A trace that was read, or the part of it that was asked for.
pub struct Side {
    /// As it was called on the command line.
    pub(super) name: String,
    pub(super) host: String,
    pub(super) kernel: String,
    pub(super) cpus: String,
    /// Begin of the part, since 1970.
    pub(super) begin_unix_ns: i64,
    /// Length of the part.
    pub(super) duration_ns: u64,
    pub(super) sample_hz: Option<u64>,
    pub(super) stretches: Stretches,
    pub(super) lost: BTreeMap<&'static str, u64>,
    /// What else the reader should know of this trace.
    pub(super) notes: Vec<String>,
    pub(super) lossy: bool,
    recorded: Vec<Source>,
    clean: BTreeMap<&'static str, Vec<bool>>,
    lengths: [Vec<Lengths>; 3],
    pub(super) cpu: Ledger,
    pub(super) queued: Ledger,
    pub(super) requests: Ledger,
    pub(super) sampled: Ledger,
    pub(super) samples: BTreeMap<Path, Amounts>,
    pub(super) off: BTreeMap<Path, Amounts>,
    /// Waits that this is of.
    pub(super) waits: BTreeMap<Path, Amounts>,
}

impl Side {
    /// Reads a part of a trace. `length_ns`: of stretches, as [`super::length_ns`] has it for both sides; `None` where one of
    /// them is unfit. `name`: what people call the trace.
    pub fn read(
        trace: &Trace,
        meta: &Meta,
        filter: &Filter,
        name: &str,
        length_ns: Option<u64>,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Side> {
        let recorded: Vec<Source> = SOURCES.into_iter().filter(|s| meta.has_source(*s)).collect();
        if recorded.is_empty() {
            let names = SOURCES.map(|s| format!("`{}`", s.name())).join(", ");
            return Err(Error::asked(format!("the trace has none of the sources {names}, which are compared")));
        }
        let (from_ns, to_ns) = (filter.from_ns.max(meta.first_ns), filter.to_ns.min(meta.end_ns));
        let mut gather = Gather::new(filter, Stretches::new(from_ns, to_ns, length_ns));
        // A wait that began in the window is told at its end.
        let options = Options { progress, ..Options::default() };
        let reading = pipeline::visit(trace, meta, &options, &mut [&mut gather])?;
        let context = Context { meta, reading: &reading, filter, symbols: &OnceLock::new() };

        let mut clean = BTreeMap::new();
        let mut notes = Vec::new();
        let mut lost = BTreeMap::new();
        for source in &recorded {
            let mut spans = meta.losses.spans(*source);
            reading.damage.spans.iter().for_each(|(from, to)| spans.add(from, to));
            clean.insert(source.name(), gather.stretches.clean(&spans));
            lost.insert(source.name(), context.lost(&[*source]));
            for (reason, n) in meta.losses.incomplete(*source, filter.window()) {
                notes.push(format!("incomplete: {} x {} ({})", text::count(n), reason::text(reason), source.name()));
            }
        }
        notes.extend(reports::damage_note(&reading.damage));
        let [samples, off, waits] =
            [&gather.samples, &gather.off, &gather.waits].map(|sums| paths(sums, &gather, &context));
        if let Some(symbols) = context.symbols.get() {
            notes.extend(symbols.notes.iter().map(|note| text::plain(note).into_owned()));
        }
        let ledger = |sums: &Sums<Who>| named(sums, meta, &gather);
        Ok(Side {
            name: name.into(),
            host: meta.item("host").into(),
            kernel: meta.item("kernel").into(),
            cpus: meta.item("cpus_online").into(),
            begin_unix_ns: meta.clock.unix_ns(from_ns),
            duration_ns: to_ns.saturating_sub(from_ns),
            sample_hz: meta.number("sample_hz"),
            lossy: lost.values().any(|n| *n > 0) || reading.damage.any(),
            lost,
            notes,
            recorded,
            clean,
            cpu: ledger(&gather.cpu),
            queued: ledger(&gather.queued),
            requests: ledger(&gather.requests),
            sampled: ledger(&gather.sampled),
            samples,
            off,
            waits,
            stretches: gather.stretches,
            lengths: gather.lengths,
        })
    }

    /// Whether a source was recorded.
    pub(super) fn has(&self, source: Source) -> bool {
        self.recorded.contains(&source)
    }

    /// Stretches of a source that are compared: those without losses; all where losses leave too few. And whether they give
    /// a verdict.
    pub(super) fn kept(&self, source: Source) -> (Vec<usize>, bool) {
        let all = || (0..self.stretches.count).collect::<Vec<_>>();
        let Some(clean) = self.clean.get(source.name()) else { return (all(), false) };
        let kept: Vec<usize> = all().into_iter().filter(|i| clean[*i]).collect();
        if kept.len() < FEWEST { (all(), false) } else { (kept, true) }
    }

    /// Lengths of waits in a stretch.
    pub(super) fn lengths(&self, waiting: Waiting, stretch: usize) -> &Lengths {
        &self.lengths[waiting as usize][stretch]
    }

    /// Seconds in a stretch.
    pub(super) fn stretch_s(&self) -> f64 {
        self.stretches.length_ns as f64 / 1e9
    }
}

/// By path and name. Cgroups and processes of the same name are told together.
fn named(sums: &Sums<Who>, meta: &Meta, gather: &Gather) -> Ledger {
    let mut ledger = Ledger::default();
    for ((who, stretch), amount) in &sums.0 {
        let amounts = match who {
            Who::Cgroup(id) => ledger.cgroups.entry(meta.cgroups.path(*id)).or_default(),
            Who::Process(comm) => {
                let comm = gather.comms.get(*comm);
                ledger.processes.entry(if comm.is_empty() { "[unknown]" } else { comm }.into()).or_default()
            }
        };
        *amounts.entry(*stretch).or_default() += amount;
    }
    ledger
}

/// Stacks by the names of their functions.
fn paths(sums: &Sums<StackKey>, gather: &Gather, context: &Context<'_>) -> BTreeMap<Path, Amounts> {
    let mut by_key: BTreeMap<StackKey, Amounts> = BTreeMap::new();
    for ((key, stretch), amount) in &sums.0 {
        by_key.entry(*key).or_default().insert(*stretch, *amount);
    }
    let mut paths: BTreeMap<Path, Amounts> = BTreeMap::new();
    for (key, amounts) in by_key {
        let sums = paths.entry(path(&key, gather, context)).or_default();
        amounts.into_iter().for_each(|(stretch, amount)| *sums.entry(stretch).or_default() += amount);
    }
    paths
}

fn path(key: &StackKey, gather: &Gather, context: &Context<'_>) -> Path {
    let comm = gather.comms.get(key.comm);
    let mut path = vec![(if comm.is_empty() { "[unknown]" } else { comm }.to_owned(), THREAD)];
    let mark = Offcputime::mark(context.meta, key.what).map(|mark| Cell::other(&mark));
    for cell in key.stacks.cells(context, key.pid).iter().chain(&mark) {
        let (name, kind) = cell.parts();
        // A stack that was walked through code without frame pointers is a tower of unknown frames: one stands for all.
        if !(name == "[unknown]" && path.last().is_some_and(|last| last.0 == name)) {
            path.push((name.to_owned(), kind));
        }
    }
    path
}

/// `Frame::1` of a thread.
pub(super) const THREAD: u8 = 4;

/// Of each kept stretch the amount and the whole.
pub(super) fn pairs(kept: &[usize], part: impl Fn(usize) -> f64, whole: impl Fn(usize) -> f64) -> Vec<Pair> {
    kept.iter().map(|stretch| (part(*stretch), whole(*stretch))).collect()
}
