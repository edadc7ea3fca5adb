//! `profile`: where CPU time went, by sampled stacks.

use std::collections::BTreeMap;
use std::fmt::Write;

use bpfrec_format::Source;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::stack_lines::{self, Names, Pair, Show, folded_name};
use super::{Context, Flag, Flags, OfStack, Report, ReportKind};
use crate::cut::{self, Cut};
use crate::error::Result;
use crate::filter::Filter;
use crate::flamegraph::{self, Line};
use crate::meta::Meta;
use crate::offcpu::What;
use crate::pipeline::{Need, Visitor};
use crate::slab::Slab;
use crate::symbols::coverage::Coverage;
use crate::text::{percent, plain};

/// In the list of reports.
pub const KIND: ReportKind = ReportKind {
    name: "profile",
    about: "CPU samples by stack",
    sources: &[Source::Profile],
    flags: &[
        Flag::new(Some('U'), "user-stacks-only", "User stacks only"),
        Flag::new(Some('K'), "kernel-stacks-only", "Kernel stacks only"),
        Flag::new(Some('f'), "folded", "One line a stack, for flamegraphs"),
        Flag::new(Some('d'), "delimited", "A delimiter between kernel and user stack"),
        Flag { short: None, long: "svg", value: Some("FILE"), help: "Also write a flamegraph" },
        Flag { short: None, long: "top", value: Some("N"), help: "Only the N stacks with the most samples" },
    ],
    new: |flags, filter| Ok(Box::new(Profile::new(flags, filter)?)),
};

/// What is counted: process, name of the thread, stacks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    pid: u32,
    comm: u32,
    stacks: Pair,
}

/// Gathers samples. Memory grows with distinct stacks.
pub struct Profile {
    filter: Filter,
    show: Show,
    folded: bool,
    svg: Option<String>,
    top: usize,
    comms: Names,
    counts: FxHashMap<Key, u64>,
    samples: u64,
}

impl Profile {
    /// As asked.
    pub fn new(flags: &Flags, filter: &Filter) -> Result<Profile> {
        Ok(Profile {
            filter: filter.clone(),
            show: Show::of(flags)?,
            folded: flags.has("folded"),
            svg: flags.value("svg").map(Into::into),
            top: stack_lines::top(flags)?,
            comms: Names::default(),
            counts: FxHashMap::default(),
            samples: 0,
        })
    }

    /// Stacks by falling count; those with the same count by what they are.
    fn sorted(&self) -> Vec<(Key, u64)> {
        let mut all: Vec<(Key, u64)> = self.counts.iter().map(|(k, n)| (*k, *n)).collect();
        all.sort_by_key(|(k, n)| (std::cmp::Reverse(*n), k.pid, self.comms.get(k.comm), k.stacks));
        all.truncate(self.top);
        all
    }

    fn folded(&self, context: &Context<'_>, out: &mut String) {
        let line = |(key, count): (Key, u64)| {
            let mut line = folded_name(self.comms.get(key.comm));
            key.stacks.folded(context, self.show.delimited, &mut line);
            (line, count)
        };
        stack_lines::folded_lines(self.sorted().into_iter().map(line), 1, out);
    }

    /// All stacks with their samples.
    pub(crate) fn of_stacks(&self) -> Vec<OfStack<'_>> {
        let of = |(key, count): (Key, u64)| OfStack {
            pid: key.pid,
            tid: None,
            comm: self.comms.get(key.comm).into(),
            kernel: key.stacks.kernel,
            user: key.stacks.user,
            what: What::Wait,
            op: None,
            values: [count, 0, 0, 0],
        };
        self.sorted().into_iter().map(of).collect()
    }

    /// The flamegraph of what was gathered.
    pub fn flamegraph(&self, context: &Context<'_>) -> Result<Vec<u8>> {
        let line = |(key, count): (Key, u64)| Line {
            process: self.comms.get(key.comm).into(),
            frames: key.stacks.cells(context, key.pid),
            count,
        };
        let seconds = self.filter.duration_ns as f64 / 1e9;
        let host = context.meta.item("host");
        let title = format!("CPU profile of {}: {seconds:.1} s, {} samples", plain(host), self.samples);
        flamegraph::svg(&title, "samples", self.sorted().into_iter().map(line).collect())
    }

    /// Frames in samples by binary, and how many of them have a function's name.
    pub fn coverage(&self, context: &Context<'_>) -> Coverage {
        let (symbols, mut coverage) = (context.symbols(), Coverage::default());
        for (key, count) in &self.counts {
            for id in [key.stacks.kernel, key.stacks.user].into_iter().filter(|id| *id != 0) {
                coverage.add(symbols, symbols.stack(id), *count);
            }
        }
        coverage
    }

    /// Frames in samples that have a function's name, and all.
    pub fn named(&self, context: &Context<'_>) -> (u64, u64) {
        let all = self.coverage(context).all;
        (all.named, all.frames)
    }

    /// Binaries in which user stacks end too early.
    pub fn cut(&self, context: &Context<'_>) -> Vec<Cut> {
        let mut by_stack: BTreeMap<u64, u64> = BTreeMap::new();
        let with_user = self.counts.iter().filter(|(k, _)| k.stacks.user != 0);
        with_user.for_each(|(k, n)| *by_stack.entry(k.stacks.user).or_default() += n);
        let symbols = context.symbols();
        cut::cut(symbols, by_stack.into_iter().filter_map(|(id, n)| Some((symbols.stack(id)?, n))))
    }

    /// Samples whose stack's definition is missing.
    fn missed(&self, context: &Context<'_>) -> u64 {
        self.counts.iter().filter(|(k, _)| k.stacks.is_missed(context)).map(|(_, n)| n).sum()
    }
}

impl Visitor for Profile {
    fn wants(&self, need: &Need<'_>) -> bool {
        let fields = ["tid", "pid", "kernel_stack_id", "user_stack_id", "cgroup_id"];
        matches!(need, Need::Field(kind, field) if kind.name == "cpu_sample" && fields.contains(field))
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        let Some(table) = slab.table("cpu_sample") else { return Ok(()) };
        let (tid, pid, cgroup) = (table.ints("tid"), table.ints("pid"), table.ints("cgroup_id"));
        let (kernel, user) = (table.ints("kernel_stack_id"), table.ints("user_stack_id"));
        for row in 0..table.rows() {
            let (ts, pid) = (table.ts[row], pid.get32(row));
            if !self.filter.takes(ts, pid, cgroup.get(row)) {
                continue;
            }
            let comm = self.comms.of(&meta.tasks, tid.get32(row), ts);
            let stacks = self.show.pair(kernel.get(row), user.get(row));
            let weight = meta.sheds.weight(ts);
            *self.counts.entry(Key { pid, comm, stacks }).or_default() += weight;
            self.samples += weight;
        }
        Ok(())
    }
}

impl Report for Profile {
    fn text(&self, context: &Context<'_>, out: &mut String) {
        if self.folded {
            return self.folded(context, out);
        }
        for (key, count) in self.sorted() {
            key.stacks.text(context, self.show.delimited.then_some("--"), out);
            let comm = plain(self.comms.get(key.comm));
            let _ = writeln!(out, "    {:<16} {comm} ({})\n        {count}\n", "-", key.pid);
        }
    }

    fn json(&self, context: &Context<'_>) -> Value {
        let stack = |(key, count): (Key, u64)| {
            json!({
                "pid": key.pid,
                "comm": self.comms.get(key.comm),
                "count": count,
                "kernel": key.stacks.kernel(context).json(),
                "user": key.stacks.user(context).json(),
            })
        };
        let (named, frames) = self.named(context);
        let cut = |c: Cut| json!({"binary": c.binary, "samples": c.samples, "of": c.of});
        json!({
            "unit": "samples",
            "samples": self.samples,
            "sample_hz": context.meta.number("sample_hz"),
            "stacks": self.sorted().into_iter().map(stack).collect::<Vec<_>>(),
            "frames": frames,
            "frames_named": named,
            "stacks_missed": self.missed(context),
            "stacks_cut": self.cut(context).into_iter().map(cut).collect::<Vec<_>>(),
        })
    }

    fn notes(&self, context: &Context<'_>) -> Vec<String> {
        let (missed, (named, frames)) = (self.missed(context), self.named(context));
        let mut notes = vec![format!("{} samples, {:.1} % of frames named", self.samples, percent(named, frames))];
        if missed > 0 {
            notes.push(format!("{missed} samples have a stack whose definition is missing"));
        }
        notes.extend(cut::note(context.meta, &self.cut(context)));
        notes
    }

    fn is_for_programs(&self) -> bool {
        self.folded
    }

    fn files(&self, context: &Context<'_>) -> Result<Vec<(String, Vec<u8>)>> {
        let svg = self.svg.as_ref().map(|path| Ok((path.clone(), self.flamegraph(context)?)));
        svg.into_iter().collect()
    }
}
