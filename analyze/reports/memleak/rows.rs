//! What was gathered, as rows: stacks of the same functions together, in order.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bpfrec_format::Source;
use serde_json::{Value, json};

use super::group::{Group, Outstanding};
use super::growth::{self, Growth, Verdict};
use super::{By, Memleak, Sort};
use crate::error::Result;
use crate::flamegraph::{self, Cell, Line};
use crate::memory::op;
use crate::reports::Context;
use crate::symbols::{Frame, NameSource};
use crate::text::{self, plain};

/// A table: the kernel's memory or that of processes, of all, of a process or of a cgroup.
pub(super) struct Section {
    pub(super) kernel: bool,
    pub(super) id: u64,
    /// When it was first seen.
    pub(super) first_ns: u64,
    /// In the order asked for.
    pub(super) rows: Vec<Group>,
    pub(super) total: Outstanding,
    pub(super) estimate: bool,
}

/// By operation and stack; a stack whose definition is missing is one by its id.
type Rows = BTreeMap<(u8, bool, u64), Group>;

/// All tables.
pub(super) fn sections(report: &Memleak, context: &Context<'_>) -> Vec<Section> {
    let mut sections: BTreeMap<(bool, u64), Rows> = BTreeMap::new();
    if report.by == By::All {
        for (kernel, source) in [(false, Source::Malloc), (true, Source::Kmem)] {
            if report.sides[usize::from(kernel)] && context.meta.has_source(source) {
                sections.entry((kernel, 0)).or_default();
            }
        }
    }
    let mut groups: Vec<&Group> = report.groups.iter().collect();
    groups.sort_unstable_by_key(|g| g.key);
    for group in groups {
        let stack = context.symbols().stack(group.key.stack);
        let same = (group.key.op, stack.is_some(), stack.map_or(group.key.stack, |s| s.id));
        let rows = sections.entry((group.key.kernel, group.key.section)).or_default();
        rows.entry(same).and_modify(|all| all.join(group)).or_insert_with(|| group.clone());
    }
    let section = |((kernel, id), rows): ((bool, u64), Rows)| {
        let mut rows: Vec<Group> = rows.into_values().collect();
        let mut total = Outstanding::default();
        rows.iter().for_each(|row| total.join(&row.outstanding));
        let amounts = |g: &Group| (g.outstanding.all.bytes, g.outstanding.all.count);
        // Stable: rows that are alike stay in the order of their stacks.
        match report.sort {
            Sort::Size => rows.sort_by_key(|g| Reverse(amounts(g))),
            Sort::Count => rows.sort_by_key(|g| Reverse((amounts(g).1, amounts(g).0))),
        }
        let first_ns = rows.iter().map(|r| r.first_ns).min().unwrap_or(0);
        let estimate = rows.iter().any(|r| r.estimate);
        Section { kernel, id, first_ns, rows, total, estimate }
    };
    sections.into_iter().map(section).collect()
}

/// How a stack's memory grows.
pub(crate) struct Grown {
    pub(crate) kernel: bool,
    pub(crate) op: u8,
    /// Hash of its frames; its id where they are not known.
    pub(crate) stack: u64,
    /// Outstanding at the end.
    pub(crate) bytes: u64,
    pub(crate) bytes_per_s: f64,
    pub(crate) verdict: &'static str,
    pub(crate) grows: bool,
    /// From samples.
    pub(crate) estimate: bool,
    /// Of `bytes`, what processes had when they ended.
    pub(crate) ended: u64,
    /// Of `bytes`, what may have been freed in a gap.
    pub(crate) uncertain: u64,
    /// A process of it.
    pub(crate) pid: u32,
    /// Functions, the innermost first.
    pub(crate) names: Vec<String>,
}

/// All stacks, the largest first.
pub(super) fn grown(report: &Memleak, context: &Context<'_>) -> Vec<Grown> {
    let of = |group: &Group| {
        let (growth, stack) = (group.growth(report, context), context.symbols().stack(group.key.stack));
        let frames = group.frames(context).unwrap_or_default();
        Grown {
            kernel: group.key.kernel,
            op: group.key.op,
            stack: stack.map_or(group.key.stack, |s| s.id),
            bytes: group.outstanding.all.bytes(),
            bytes_per_s: growth.bytes_per_s,
            verdict: growth.verdict.name(),
            grows: growth.verdict == Verdict::Grows,
            estimate: group.estimate,
            ended: group.outstanding.ended.bytes(),
            uncertain: group.outstanding.uncertain.bytes(),
            pid: group.key.pid,
            names: frames.into_iter().map(|f| f.name.clone()).collect(),
        }
    };
    let mut all: Vec<Grown> = sections(report, context).iter().flat_map(|s| s.rows.iter().map(of)).collect();
    all.sort_by_key(|g| Reverse(g.bytes));
    all
}

impl Section {
    /// Stacks with outstanding allocations.
    pub(super) fn leaks(&self) -> impl Iterator<Item = &Group> {
        self.rows.iter().filter(|r| r.outstanding.all.bytes > 0 || r.outstanding.recorded > 0)
    }

    /// What the table is of.
    pub(super) fn label(&self, by: By, context: &Context<'_>) -> String {
        match by {
            By::All => String::new(),
            By::Process => context.meta.tasks.comm(self.id as u32, self.first_ns).into(),
            By::Cgroup => context.meta.cgroups.path(self.id),
        }
    }

    pub(super) fn json(&self, report: &Memleak, context: &Context<'_>) -> Value {
        let label = self.label(report.by, context);
        let side = if self.kernel { "kernel" } else { "user" };
        let key = match report.by {
            By::All => json!({"side": side}),
            By::Process => json!({"side": side, "pid": self.id, "comm": label}),
            By::Cgroup => json!({"side": side, "cgroup": label, "cgroup_id": self.id}),
        };
        let rows = self.rows.iter().take(report.top.unwrap_or(usize::MAX));
        let addresses = report.shown.get(&(self.kernel, self.id)).map(|shown| {
            let shown = sorted(shown).into_iter().map(|(bytes, addr)| json!({"addr": addr, "bytes": bytes}));
            shown.collect::<Vec<_>>()
        });
        json!({
            "key": key,
            "outstanding": outstanding_json(&self.total),
            "estimate": self.estimate,
            "ages": report.ages.get(&(self.kernel, self.id)).map_or(json!({}), |ages| ages.json(json!({}))),
            "stacks": rows.map(|row| row.json(report, context)).collect::<Vec<_>>(),
            "addresses": addresses,
        })
    }
}

/// By size, then address.
pub(super) fn sorted(shown: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut shown = shown.to_vec();
    shown.sort_unstable();
    shown
}

fn outstanding_json(o: &Outstanding) -> Value {
    let (bytes, count) = o.error();
    json!({
        "bytes": o.all.bytes(),
        "count": o.all.count(),
        "bytes_error": bytes,
        "count_error": count,
        "recorded": o.recorded,
        "uncertain_bytes": o.uncertain.bytes(),
        "uncertain_count": o.uncertain.count(),
        "ended_bytes": o.ended.bytes(),
        "ended_count": o.ended.count(),
        "oldest_ns": o.oldest_ns,
    })
}

impl Group {
    /// How it grows, up to the end of the window or of its processes.
    pub(super) fn growth(&self, report: &Memleak, context: &Context<'_>) -> Growth {
        let last = report.last_ns(context.meta);
        let until = if self.runs || self.ended_ns == 0 { last } else { self.ended_ns };
        let freed = i64::try_from(self.freed.bytes()).unwrap_or(i64::MAX);
        growth::judge(&self.over_time, &self.came, self.recorded, freed, until.max(self.first_ns))
    }

    fn json(&self, report: &Memleak, context: &Context<'_>) -> Value {
        let (growth, seconds) = (self.growth(report, context), report.seconds());
        let rate = |n: u64| n as f64 / seconds;
        let mut all = outstanding_json(&self.outstanding);
        let more = json!({
            "op": op::name(self.key.op),
            "estimate": self.estimate,
            "growth_bytes_per_s": growth.bytes_per_s,
            "verdict": growth.verdict.name(),
            "allocated_count": self.allocated.count(),
            "allocated_bytes": self.allocated.bytes(),
            "freed_count": self.freed.count(),
            "freed_bytes": self.freed.bytes(),
            "freed_by_other_thread": self.by_other.count(),
            "allocs_per_s": rate(self.allocated.count()),
            "alloc_bytes_per_s": rate(self.allocated.bytes()),
            "frees_per_s": rate(self.freed.count()),
            "free_bytes_per_s": rate(self.freed.bytes()),
            "stack": self.frames(context).map_or(Value::Null, |frames| {
                frames.iter().map(|f| Value::from(f.name.as_str())).collect()
            }),
        });
        if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
            all.extend(more);
        }
        all
    }

    /// Its frames, the leaf first; `None` when they are not known.
    fn frames<'a>(&self, context: &'a Context<'_>) -> Option<Vec<&'a Frame>> {
        let stack = context.symbols().stack(self.key.stack)?;
        Some(context.symbols().frames_of(stack).collect())
    }

    fn missing(&self) -> &'static str {
        match (self.key.stack, self.key.kernel) {
            (0, _) => "[no stack]",
            (_, true) => "[Missed Kernel Stack]",
            (_, false) => "[Missed User Stack]",
        }
    }

    /// Its frames as BCC prints them: function, and the file that it is in.
    pub(super) fn lines(&self, context: &Context<'_>) -> Vec<String> {
        let Some(frames) = self.frames(context) else { return vec![self.missing().into()] };
        let line = |f: &&Frame| {
            let name = plain(&f.name);
            match f.source {
                NameSource::None => name.into_owned(),
                _ if f.kernel => {
                    let module = if f.binary.is_empty() { "kernel" } else { &f.binary };
                    format!("{name}+{:#x} [{}]", f.offset, plain(module))
                }
                // Where in the file, so that calls of the same function can be told apart.
                _ => {
                    let file = f.binary.rsplit('/').next().unwrap_or_default();
                    format!("{name} [{}+{:#x}]", plain(file), f.offset)
                }
            }
        };
        frames.iter().map(line).collect()
    }

    /// Its innermost functions in one line.
    pub(super) fn short(&self, context: &Context<'_>) -> String {
        let Some(frames) = self.frames(context) else { return self.missing().into() };
        let names: Vec<_> = frames.iter().take(4).map(|f| plain(&f.name)).collect();
        names.join(" < ")
    }
}

/// Outstanding bytes as a flamegraph.
pub(super) fn flamegraph(report: &Memleak, context: &Context<'_>) -> Result<Vec<u8>> {
    let mut groups: Vec<&Group> = report.groups.iter().collect();
    groups.sort_unstable_by_key(|g| g.key);
    let mut total = 0u64;
    let mut lines = Vec::new();
    for group in groups {
        let (key, count) = (group.key, group.outstanding.all.bytes());
        let task = context.meta.tasks.at(key.pid, group.first_ns);
        let exe = task.map_or("", |t| t.exe.as_str());
        let process = match key.kernel {
            true => format!("kernel: {}", op::name(key.op)),
            false => context.meta.tasks.comm(key.pid, group.first_ns).to_owned(),
        };
        let frames = match group.frames(context) {
            Some(frames) => frames.iter().rev().map(|f| Cell::of(f, exe)).collect(),
            None => vec![Cell::other(group.missing())],
        };
        if count > 0 {
            total = total.saturating_add(count);
            lines.push(Line { process, frames, count });
        }
    }
    let estimate = if report.groups.iter().any(|g| g.estimate) { ", an estimate" } else { "" };
    let host = context.meta.item("host");
    let title = format!("Outstanding memory of {}: {}{estimate}", plain(host), text::bytes(total));
    flamegraph::svg(&title, "bytes", lines)
}
