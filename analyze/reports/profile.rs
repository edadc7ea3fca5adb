//! `profile`: where CPU time went, by sampled stacks.

use std::collections::BTreeMap;
use std::fmt::Write;

use bpfrec_format::Source;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::{Context, Flag, Flags, Report, ReportKind};
use crate::cut::{self, Cut};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::flamegraph::{self, Line};
use crate::meta::Meta;
use crate::pipeline::{Need, Visitor};
use crate::slab::Slab;
use crate::symbols::{Frame, NameSource};
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

/// What is counted: process, name of the thread, kernel stack, user stack.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    pid: u32,
    comm: u32,
    kernel: u64,
    user: u64,
}

/// Gathers samples. Memory grows with distinct stacks.
pub struct Profile {
    filter: Filter,
    user: bool,
    kernel: bool,
    folded: bool,
    delimited: bool,
    svg: Option<String>,
    top: usize,
    comms: Vec<String>,
    numbers: FxHashMap<String, u32>,
    counts: FxHashMap<Key, u64>,
    samples: u64,
}

/// The frames of a stack, or that it is missing.
enum Frames<'a> {
    None,
    Missed,
    Some(Vec<&'a Frame>),
}

impl Profile {
    /// As asked.
    pub fn new(flags: &Flags, filter: &Filter) -> Result<Profile> {
        flags.one_of(&["user-stacks-only", "kernel-stacks-only"])?;
        let top = flags.value("top").map_or(Ok(usize::MAX), str::parse);
        Ok(Profile {
            filter: filter.clone(),
            user: !flags.has("kernel-stacks-only"),
            kernel: !flags.has("user-stacks-only"),
            folded: flags.has("folded"),
            delimited: flags.has("delimited"),
            svg: flags.value("svg").map(Into::into),
            top: top.map_err(|_| Error::asked("--top takes a number"))?,
            comms: Vec::new(),
            numbers: FxHashMap::default(),
            counts: FxHashMap::default(),
            samples: 0,
        })
    }

    fn number_of(&mut self, comm: &str) -> u32 {
        if let Some(number) = self.numbers.get(comm) {
            return *number;
        }
        let number = self.comms.len() as u32;
        self.comms.push(comm.into());
        self.numbers.insert(comm.into(), number);
        number
    }

    fn frames<'a>(&self, context: &'a Context<'_>, id: u64, wanted: bool) -> Frames<'a> {
        match (wanted && id != 0).then(|| context.symbols().stack(id)) {
            None => Frames::None,
            Some(None) => Frames::Missed,
            Some(Some(stack)) => Frames::Some(context.symbols().frames_of(stack).collect()),
        }
    }

    /// Stacks by falling count; those with the same count by what they are.
    fn sorted(&self) -> Vec<(Key, u64)> {
        let mut all: Vec<(Key, u64)> = self.counts.iter().map(|(k, n)| (*k, *n)).collect();
        all.sort_by_key(|(k, n)| (std::cmp::Reverse(*n), k.pid, &self.comms[k.comm as usize], k.kernel, k.user));
        all.truncate(self.top);
        all
    }

    fn folded(&self, context: &Context<'_>, out: &mut String) {
        let mut lines: BTreeMap<String, u64> = BTreeMap::new();
        for (key, count) in self.sorted() {
            let mut line = folded_name(&self.comms[key.comm as usize]);
            let mut part = |frames: Frames<'_>, missed: &str, delimit: bool| match frames {
                Frames::None => false,
                frames => {
                    if delimit {
                        line.push_str(";-");
                    }
                    match frames {
                        Frames::Some(frames) => {
                            for frame in frames.iter().rev() {
                                line.push(';');
                                line.push_str(&folded_name(&frame.name));
                            }
                        }
                        _ => {
                            line.push(';');
                            line.push_str(missed);
                        }
                    }
                    true
                }
            };
            let user = part(self.frames(context, key.user, self.user), "[Missed User Stack]", false);
            let kernel = self.frames(context, key.kernel, self.kernel);
            part(kernel, "[Missed Kernel Stack]", user && self.delimited);
            *lines.entry(line).or_default() += count;
        }
        let mut lines: Vec<_> = lines.into_iter().collect();
        lines.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        for (line, count) in lines {
            let _ = writeln!(out, "{line} {count}");
        }
    }

    /// The flamegraph of what was gathered.
    pub fn flamegraph(&self, context: &Context<'_>) -> Result<Vec<u8>> {
        let mut lines = Vec::new();
        for (key, count) in self.sorted() {
            let mut frames = Vec::new();
            let user = self.frames(context, key.user, self.user);
            let kernel = self.frames(context, key.kernel, self.kernel);
            for (stack, missed) in [(user, "[Missed User Stack]"), (kernel, "[Missed Kernel Stack]")] {
                match stack {
                    Frames::None => {}
                    Frames::Missed => frames.push(flamegraph::Cell::other(missed)),
                    Frames::Some(stack) => {
                        let seen = context.meta.stacks.get(key.user).map_or(context.meta.end_ns, |s| s.ts_ns);
                        let exe = context.meta.tasks.at(key.pid, seen);
                        let exe = exe.map_or("", |t| t.exe.as_str());
                        frames.extend(stack.iter().rev().map(|f| flamegraph::Cell::of(f, exe)));
                    }
                }
            }
            lines.push(Line { process: self.comms[key.comm as usize].clone(), frames, count });
        }
        let seconds = self.filter.duration_ns as f64 / 1e9;
        let host = context.meta.item("host");
        let title = format!("CPU profile of {}: {seconds:.1} s, {} samples", plain(host), self.samples);
        flamegraph::svg(&title, lines)
    }

    /// Frames in samples, and how many of them have a function's name.
    pub fn named(&self, context: &Context<'_>) -> (u64, u64) {
        let (mut all, mut named) = (0, 0);
        for (key, count) in &self.counts {
            for (id, wanted) in [(key.kernel, self.kernel), (key.user, self.user)] {
                match self.frames(context, id, wanted) {
                    Frames::None => {}
                    Frames::Missed => all += count,
                    Frames::Some(frames) => {
                        all += count * frames.len() as u64;
                        named += count * frames.iter().filter(|f| f.source != NameSource::None).count() as u64;
                    }
                }
            }
        }
        (named, all)
    }

    /// Binaries in which user stacks end too early.
    pub fn cut(&self, context: &Context<'_>) -> Vec<Cut> {
        let mut by_stack: BTreeMap<u64, u64> = BTreeMap::new();
        self.counts.iter().filter(|(k, _)| k.user != 0).for_each(|(k, n)| *by_stack.entry(k.user).or_default() += n);
        let symbols = context.symbols();
        cut::cut(symbols, by_stack.into_iter().filter_map(|(id, n)| Some((symbols.stack(id)?, n))))
    }

    /// Samples whose stack's definition is missing.
    fn missed(&self, context: &Context<'_>) -> u64 {
        let missing = |id: u64| id != 0 && context.meta.stacks.get(id).is_none();
        self.counts.iter().filter(|(k, _)| missing(k.kernel) || missing(k.user)).map(|(_, n)| n).sum()
    }
}

/// A name as a part of a folded line: `;` parts frames, and the last space the count.
fn folded_name(name: &str) -> String {
    plain(name).replace(';', ":")
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
            let comm = self.number_of(meta.tasks.comm(tid.get32(row), ts));
            let of = |wanted: bool, id: u64| if wanted { id } else { 0 };
            let (kernel, user) = (of(self.kernel, kernel.get(row)), of(self.user, user.get(row)));
            *self.counts.entry(Key { pid, comm, kernel, user }).or_default() += 1;
            self.samples += 1;
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
            let mut part = |frames: Frames<'_>, missed: &str, delimit: bool| match frames {
                Frames::None => false,
                frames => {
                    if delimit {
                        out.push_str("    --\n");
                    }
                    match frames {
                        Frames::Some(frames) => {
                            for frame in frames {
                                let _ = writeln!(out, "    {}", plain(&frame.name));
                            }
                        }
                        _ => {
                            let _ = writeln!(out, "    {missed}");
                        }
                    }
                    true
                }
            };
            let kernel = self.frames(context, key.kernel, self.kernel);
            let kernel = part(kernel, "[Missed Kernel Stack]", false);
            let user = self.frames(context, key.user, self.user);
            part(user, "[Missed User Stack]", kernel && self.delimited);
            let comm = plain(&self.comms[key.comm as usize]);
            let _ = writeln!(out, "    {:<16} {comm} ({})\n        {count}\n", "-", key.pid);
        }
    }

    fn json(&self, context: &Context<'_>) -> Value {
        let names = |frames: Frames<'_>| match frames {
            Frames::None => json!([]),
            Frames::Missed => Value::Null,
            Frames::Some(frames) => frames.iter().map(|f| Value::from(f.name.as_str())).collect(),
        };
        let stack = |(key, count): (Key, u64)| {
            json!({
                "pid": key.pid,
                "comm": self.comms[key.comm as usize],
                "count": count,
                "kernel": names(self.frames(context, key.kernel, self.kernel)),
                "user": names(self.frames(context, key.user, self.user)),
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
