//! `memleak`: memory that was allocated and not freed, by stack; how it grows, and what comes and goes.
//!
//! Memory: what [`crate::memory`] needs, and about 800 bytes a distinct stack and process.

mod group;
mod growth;
mod rows;
mod text;

use std::collections::BTreeMap;

use bpfrec_format::Source;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::{Context, Flag, Flags, OfStack, Report, ReportKind};
use crate::error::{Error, Result};
use crate::filter::{Filter, parse_duration};
use crate::histogram::{Histogram, Unit};
use crate::losses::Spans;
use crate::memory::{Fate, Life, Of, op};
use crate::meta::Meta;
use crate::offcpu::What;
use crate::pipeline::{Need, Visitor};
use crate::slab::Slab;
use group::{Group, Key};
pub(crate) use rows::Grown;

/// In the list of reports.
pub const KIND: ReportKind = ReportKind {
    name: "memleak",
    about: "Memory that was allocated and not freed, by stack, with its growth and churn",
    sources: &[Source::Malloc, Source::Kmem],
    flags: &[
        value(Some('o'), "older", "AGE", "Only what is older than this at the end, in ms or as 2s [500]"),
        value(None, "newer", "AGE", "Only what is younger than this at the end"),
        value(Some('T'), "top", "N", "Stacks to print [10]"),
        value(Some('z'), "min-size", "BYTES", "Only allocations of this size or more"),
        value(Some('Z'), "max-size", "BYTES", "Only allocations of this size or less"),
        Flag::new(Some('a'), "show-allocs", "Also each address"),
        value(None, "sort", "size|count", "Order of stacks [size]"),
        Flag::new(None, "combined-only", "Totals by stack only, whatever the age"),
        Flag::new(Some('P'), "pids", "A table per process"),
        Flag::new(None, "per-cgroup", "A table per cgroup"),
        Flag::new(None, "user", "Memory of processes only"),
        Flag::new(None, "kernel", "Memory of the kernel only"),
        Flag::new(None, "running", "Without what processes had when they ended"),
        value(None, "svg", "FILE", "Also write a flamegraph of outstanding bytes"),
    ],
    new: |flags, filter| Ok(Box::new(Memleak::new(flags, filter)?)),
};

const fn value(short: Option<char>, long: &'static str, name: &'static str, help: &'static str) -> Flag {
    Flag { short, long, value: Some(name), help }
}

/// BCC's `-o`.
const OLDER_NS: u64 = 500_000_000;
const TOP: usize = 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    All,
    Process,
    Cgroup,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Size,
    Count,
}

/// Gathers lives.
pub struct Memleak {
    filter: Filter,
    older_ns: Option<u64>,
    newer_ns: u64,
    sizes: std::ops::RangeInclusive<u64>,
    top: Option<usize>,
    sort: Sort,
    by: By,
    addresses: bool,
    combined: bool,
    running: bool,
    sides: [bool; 2],
    svg: Option<String>,
    width: Option<usize>,
    numbers: FxHashMap<Key, u32>,
    groups: Vec<Group>,
    /// By kernel, section.
    ages: BTreeMap<(bool, u64), Histogram>,
    /// Sizes and addresses of what is outstanding, where asked for.
    shown: BTreeMap<(bool, u64), Vec<(u64, u64)>>,
    /// By kernel.
    frees: [BTreeMap<Of, u64>; 2],
    replaced: [u64; 2],
    /// Where events were lost, by kernel; `None` before the first slab.
    spans: Option<[Spans; 2]>,
}

impl Memleak {
    /// As asked.
    pub fn new(flags: &Flags, filter: &Filter) -> Result<Memleak> {
        flags.one_of(&["pids", "per-cgroup"])?;
        flags.one_of(&["user", "kernel"])?;
        flags.one_of(&["combined-only", "older"])?;
        flags.one_of(&["combined-only", "newer"])?;
        let number = |flag: &str| {
            let parsed = flags.value(flag).map(|v| v.parse::<u64>());
            parsed.transpose().map_err(|_| Error::asked(format!("--{flag} takes a number")))
        };
        // BCC's ages are in ms.
        let age = |flag: &str| {
            let ms = |v: &str| if v.bytes().all(|b| b.is_ascii_digit()) { format!("{v}ms") } else { v.to_owned() };
            flags.value(flag).map(|v| parse_duration(&ms(v))).transpose()
        };
        let sort = match flags.value("sort") {
            None | Some("size") => Sort::Size,
            Some("count") => Sort::Count,
            Some(other) => return Err(Error::asked(format!("--sort takes size or count, not `{other}`"))),
        };
        let by = match (flags.has("pids"), flags.has("per-cgroup")) {
            (true, _) => By::Process,
            (_, true) => By::Cgroup,
            _ => By::All,
        };
        Ok(Memleak {
            filter: filter.clone(),
            older_ns: age("older")?,
            newer_ns: age("newer")?.unwrap_or(u64::MAX),
            sizes: number("min-size")?.unwrap_or(0)..=number("max-size")?.unwrap_or(u64::MAX),
            top: number("top")?.map(|n| n as usize),
            sort,
            by,
            addresses: flags.has("show-allocs"),
            combined: flags.has("combined-only"),
            running: flags.has("running"),
            sides: [!flags.has("kernel"), !flags.has("user")],
            svg: flags.value("svg").map(Into::into),
            width: flags.width(),
            numbers: FxHashMap::default(),
            groups: Vec::new(),
            ages: BTreeMap::new(),
            shown: BTreeMap::new(),
            frees: Default::default(),
            replaced: [0; 2],
            spans: None,
        })
    }

    fn life(&mut self, life: &Life, last_ns: u64) {
        let kernel = op::is_kernel(life.op);
        if !self.filter.takes(life.ts_ns, life.pid, life.cgroup_id)
            || !self.sides[usize::from(kernel)]
            || !self.sizes.contains(&life.bytes)
        {
            return;
        }
        let section = match self.by {
            By::All => 0,
            By::Process => life.pid.into(),
            By::Cgroup => life.cgroup_id,
        };
        let pid = if kernel { 0 } else { life.pid };
        let key = Key { kernel, section, op: life.op, stack: life.stack_id, pid };
        let groups = &mut self.groups;
        let number = *self.numbers.entry(key).or_insert_with(|| {
            groups.push(Group::new(key, life.ts_ns));
            groups.len() as u32 - 1
        });
        let group = &mut self.groups[number as usize];
        let bytes = i64::try_from(u128::from(life.bytes) * u128::from(life.weight_milli) / 1000).unwrap_or(i64::MAX);
        group.first_ns = group.first_ns.min(life.ts_ns);
        group.estimate |= life.weight_milli > 1000;
        group.recorded += u64::from(!life.part);
        group.allocated.add(life);
        group.came.add(life.ts_ns, bytes);
        group.over_time.add(life.ts_ns, bytes);
        let end = life.end.filter(|end| end.ts_ns <= last_ns);
        let ended = match end {
            Some(end) if end.fate != Fate::Exit => {
                group.freed.add(life);
                group.over_time.add(end.ts_ns, -bytes);
                if end.fate == Fate::Freed && end.tid != life.tid {
                    group.by_other.add(life);
                }
                self.replaced[usize::from(kernel)] += u64::from(end.fate == Fate::Replaced && !is_mapping(life.op));
                return;
            }
            Some(end) => {
                group.ended_ns = group.ended_ns.max(end.ts_ns);
                true
            }
            None => {
                group.runs = true;
                false
            }
        };
        if ended && self.running {
            return;
        }
        let until = end.map_or(last_ns, |end| end.ts_ns);
        let age = until.saturating_sub(life.ts_ns);
        // Nothing can free any more what a process had when it ended: there it is hidden only when asked for.
        let older = self.older_ns.unwrap_or(if ended { 0 } else { OLDER_NS });
        if !self.combined && (age < older || age > self.newer_ns) {
            group.hidden.add(life);
            return;
        }
        let out = &mut group.outstanding;
        out.all.add(life);
        out.recorded += u64::from(!life.part);
        out.oldest_ns = out.oldest_ns.max(age);
        let (bytes, weight) = (life.bytes as f64, f64::from(life.weight_milli) / 1000.0);
        out.variance.0 += bytes * bytes * weight * (weight - 1.0);
        out.variance.1 += if life.part { 0.0 } else { weight * (weight - 1.0) };
        if ended {
            out.ended.add(life);
        }
        // A free that comes later shows that nothing happened before.
        let seen_later = life.end.is_some_and(|end| end.ts_ns > last_ns && end.fate == Fate::Freed);
        let spans = self.spans.as_ref().map(|spans| &spans[usize::from(kernel)]);
        if !seen_later && spans.is_some_and(|spans| spans.touch(life.ts_ns, until)) {
            out.uncertain.add(life);
        }
        if !life.part {
            self.ages.entry((kernel, section)).or_default().add(age, Unit::Msecs);
        }
        if self.addresses {
            self.shown.entry((kernel, section)).or_default().push((life.bytes, life.addr));
        }
    }

    /// All stacks of each process and of the kernel, with what was allocated and what is outstanding.
    pub(crate) fn of_stacks<'a>(&self, meta: &'a Meta) -> Vec<OfStack<'a>> {
        let mut groups: Vec<&Group> = self.groups.iter().collect();
        groups.sort_unstable_by_key(|g| g.key);
        let of = |g: &Group| {
            let Key { kernel, stack, pid, op, .. } = g.key;
            let of_kernel = |of: u64| if kernel { (of, 0) } else { (0, of) };
            let ((kernel_stack, user), all, live) = (of_kernel(stack), &g.allocated, &g.outstanding.all);
            OfStack {
                pid,
                tid: None,
                comm: if kernel { "[kernel]" } else { meta.tasks.comm(pid, g.first_ns) }.into(),
                kernel: kernel_stack,
                user,
                what: What::Wait,
                op: Some(op),
                values: [all.count(), all.bytes(), live.count(), live.bytes()],
            }
        };
        groups.into_iter().map(of).collect()
    }

    /// Stacks with their growth, the largest first.
    pub(crate) fn grown(&self, context: &Context<'_>) -> Vec<Grown> {
        rows::grown(self, context)
    }

    /// The moment for which outstanding memory is told.
    fn last_ns(&self, meta: &Meta) -> u64 {
        self.filter.to_ns.min(meta.end_ns)
    }

    fn seconds(&self) -> f64 {
        (self.filter.duration_ns as f64 / 1e9).max(1e-9)
    }
}

fn is_mapping(op: u8) -> bool {
    use bpfrec_format::events::call;
    [call::MMAP, call::MREMAP].contains(&op.into())
}

impl Visitor for Memleak {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Lives)
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        let spans = self.spans.get_or_insert_with(|| {
            [Source::Malloc, Source::Kmem].map(|source| {
                let mut spans = meta.losses.spans(source);
                meta.damage.spans.iter().for_each(|(from, to)| spans.add(from, to));
                spans
            })
        });
        for (from, to) in &slab.damaged {
            spans.iter_mut().for_each(|s| s.add(*from, *to));
        }
        let last_ns = self.last_ns(meta);
        slab.lives.iter().for_each(|life| self.life(life, last_ns));
        for free in &slab.frees {
            let kernel = op::is_kernel(free.op);
            // The kernel frees what a process allocated wherever it likes.
            let mine = if kernel {
                (self.filter.from_ns..=self.filter.to_ns).contains(&free.ts_ns)
            } else {
                self.filter.takes(free.ts_ns, free.pid, free.cgroup_id)
            };
            if mine && self.sides[usize::from(kernel)] {
                *self.frees[usize::from(kernel)].entry(free.of).or_default() += 1;
            }
        }
        Ok(())
    }
}

impl Report for Memleak {
    fn text(&self, context: &Context<'_>, out: &mut String) {
        text::write(self, context, out);
    }

    fn json(&self, context: &Context<'_>) -> Value {
        let frees = |side: usize| {
            let of = |of: Of| self.frees[side].get(&of).copied().unwrap_or(0);
            json!({
                "known": of(Of::Known),
                "partly_known": of(Of::Partly),
                "before_start": of(Of::Before),
                "inherited": of(Of::Inherited),
                "unknown": of(Of::Unknown),
                "lost": of(Of::Lost),
                "not_done": of(Of::Nothing),
                "not_seen": self.replaced[side],
            })
        };
        let groups: Vec<Value> = rows::sections(self, context).iter().map(|s| s.json(self, context)).collect();
        json!({
            "unit": "bytes",
            "at": context.meta.clock.unix_ns(self.last_ns(context.meta)),
            "seconds": self.seconds(),
            "older_ns": (!self.combined).then_some(self.older_ns.unwrap_or(OLDER_NS)),
            "groups": groups,
            "frees": {"user": frees(0), "kernel": frees(1)},
        })
    }

    fn notes(&self, context: &Context<'_>) -> Vec<String> {
        text::notes(self, context)
    }

    fn files(&self, context: &Context<'_>) -> Result<Vec<(String, Vec<u8>)>> {
        let svg = self.svg.as_ref().map(|path| Ok((path.clone(), rows::flamegraph(self, context)?)));
        svg.into_iter().collect()
    }
}
