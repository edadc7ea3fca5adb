//! Stacks in reports: as lines of text, as a folded line, as boxes of a flamegraph, as JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::{Context, Flags};
use crate::error::{Error, Result};
use crate::flamegraph::Cell;
use crate::symbols::{Frame, NameSource};
use crate::tasks::Tasks;
use crate::text::plain;

/// The frames of a stack, the leaf first, or that they are missing.
pub(super) enum Frames<'a> {
    /// No stack was recorded, or none is asked for.
    None,
    /// Its definition is missing; what stands for it.
    Missed(&'static str),
    /// Its frames.
    Some(Vec<&'a Frame>),
}

impl<'a> Frames<'a> {
    /// Names, the leaf first.
    fn names(&self) -> Vec<&str> {
        match self {
            Frames::None => Vec::new(),
            Frames::Missed(name) => vec![name],
            Frames::Some(frames) => frames.iter().map(|f| f.name.as_str()).collect(),
        }
    }

    /// Names with their lines in the source, where these are known, the leaf first.
    fn with_lines(&self) -> Vec<Cow<'_, str>> {
        match self {
            Frames::None => Vec::new(),
            Frames::Missed(name) => vec![Cow::from(*name)],
            Frames::Some(frames) => frames.iter().map(|f| f.with_line().into()).collect(),
        }
    }

    /// As [`Frames::with_lines`]; null where they are missing.
    pub(super) fn json(&self) -> Value {
        match self {
            Frames::Missed(_) => Value::Null,
            frames => frames.with_lines().into_iter().map(Value::from).collect(),
        }
    }

    /// Frames that have a function's name, and all.
    fn named(&self) -> (u64, u64) {
        match self {
            Frames::None => (0, 0),
            Frames::Missed(_) => (0, 1),
            Frames::Some(all) => (all.iter().filter(|f| f.source != NameSource::None).count() as u64, all.len() as u64),
        }
    }

    /// Boxes, the leaf first.
    fn cells(&self, exe: &str) -> Vec<Cell> {
        match self {
            Frames::None => Vec::new(),
            Frames::Missed(name) => vec![Cell::other(name)],
            Frames::Some(frames) => frames.iter().map(|f| Cell::of(f, exe)).collect(),
        }
    }
}

/// A kernel and a user stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pair {
    /// Id of the kernel stack; 0: none.
    pub kernel: u64,
    /// Id of the user stack; 0: none.
    pub user: u64,
}

/// Which stacks are shown: `-U`, `-K`, `-d`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Show {
    pub kernel: bool,
    pub user: bool,
    pub delimited: bool,
}

impl Show {
    /// As asked.
    pub(super) fn of(flags: &Flags) -> Result<Show> {
        flags.one_of(&["user-stacks-only", "kernel-stacks-only"])?;
        Ok(Show {
            kernel: !flags.has("user-stacks-only"),
            user: !flags.has("kernel-stacks-only"),
            delimited: flags.has("delimited"),
        })
    }

    /// What of two stacks is wanted.
    pub(super) fn pair(&self, kernel: u64, user: u64) -> Pair {
        Pair { kernel: if self.kernel { kernel } else { 0 }, user: if self.user { user } else { 0 } }
    }
}

impl Pair {
    fn frames<'a>(context: &'a Context<'_>, id: u64, missed: &'static str) -> Frames<'a> {
        match (id != 0).then(|| context.symbols().stack(id)) {
            None => Frames::None,
            Some(None) => Frames::Missed(missed),
            Some(Some(stack)) => Frames::Some(context.symbols().frames_of(stack).collect()),
        }
    }

    /// Frames of the kernel.
    pub(super) fn kernel<'a>(&self, context: &'a Context<'_>) -> Frames<'a> {
        Self::frames(context, self.kernel, "[Missed Kernel Stack]")
    }

    /// Frames of the program.
    pub(super) fn user<'a>(&self, context: &'a Context<'_>) -> Frames<'a> {
        Self::frames(context, self.user, "[Missed User Stack]")
    }

    /// Lines, the leaf first, as BCC's.
    pub(super) fn text(&self, context: &Context<'_>, delimiter: Option<&str>, out: &mut String) {
        let (kernel, user) = (self.kernel(context), self.user(context));
        let delimiter = delimiter.filter(|_| self.kernel != 0 && self.user != 0);
        let delimiter = delimiter.map(Cow::from);
        for name in kernel.with_lines().into_iter().chain(delimiter).chain(user.with_lines()) {
            let _ = writeln!(out, "    {}", plain(&name));
        }
    }

    /// Lines, the root first.
    pub(super) fn text_from_root(&self, context: &Context<'_>, delimiter: Option<&str>, out: &mut String) {
        let mut lines = String::new();
        self.text(context, delimiter, &mut lines);
        lines.lines().rev().for_each(|line| {
            let _ = writeln!(out, "{line}");
        });
    }

    /// Parts of a folded line, the root first: each with a `;` before it.
    pub(super) fn folded(&self, context: &Context<'_>, delimited: bool, line: &mut String) {
        let (kernel, user) = (self.kernel(context), self.user(context));
        let delimiter = (delimited && self.kernel != 0 && self.user != 0).then_some("-");
        for name in user.names().into_iter().rev().chain(delimiter).chain(kernel.names().into_iter().rev()) {
            folded_part(name, line);
        }
    }

    /// The same, the leaf first.
    pub(super) fn folded_from_leaf(&self, context: &Context<'_>, delimited: bool, line: &mut String) {
        let (kernel, user) = (self.kernel(context), self.user(context));
        let delimiter = (delimited && self.kernel != 0 && self.user != 0).then_some("-");
        for name in kernel.names().into_iter().chain(delimiter).chain(user.names()) {
            folded_part(name, line);
        }
    }

    /// Boxes, the root first. `pid`: the process, whose own program has its own colour.
    pub(crate) fn cells(&self, context: &Context<'_>, pid: u32) -> Vec<Cell> {
        let seen = context.meta.stacks.get(self.user).map_or(context.meta.end_ns, |s| s.ts_ns);
        let exe = context.meta.tasks.at(pid, seen).map_or("", |t| t.exe.as_str());
        let mut cells = self.kernel(context).cells(exe);
        cells.extend(self.user(context).cells(exe));
        cells.reverse();
        cells
    }

    /// Frames that have a function's name, and all.
    pub(super) fn named(&self, context: &Context<'_>) -> (u64, u64) {
        let (kernel, user) = (self.kernel(context).named(), self.user(context).named());
        (kernel.0 + user.0, kernel.1 + user.1)
    }

    /// Whether a definition is missing.
    pub(super) fn is_missed(&self, context: &Context<'_>) -> bool {
        [self.kernel, self.user].into_iter().any(|id| id != 0 && context.meta.stacks.get(id).is_none())
    }
}

/// A name as a part of a folded line: `;` parts frames, and the last space the count.
pub(crate) fn folded_name(name: &str) -> String {
    plain(name).replace(';', ":")
}

/// Adds a part to a folded line.
pub(crate) fn folded_part(name: &str, line: &mut String) {
    line.push(';');
    line.push_str(&folded_name(name));
}

/// Prints folded lines, those that are the same as one, by falling value; a value is divided by `unit`.
pub(crate) fn folded_lines(lines: impl IntoIterator<Item = (String, u64)>, unit: u64, out: &mut String) {
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for (line, value) in lines {
        let sum = all.entry(line).or_default();
        *sum = sum.saturating_add(value);
    }
    // Divided after they were summed: of many waits of 900 ns nothing would be left.
    let mut all: Vec<_> = all.into_iter().map(|(line, value)| (line, value / unit)).collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (line, value) in all {
        let _ = writeln!(out, "{line} {value}");
    }
}

/// `--top N`; all without it.
pub(super) fn top(flags: &Flags) -> Result<usize> {
    let top = flags.value("top").map_or(Ok(usize::MAX), str::parse);
    top.map_err(|_| Error::asked("--top takes a number"))
}

/// Threads whose names are remembered.
const KNOWN: usize = 256;

/// Names, each once.
#[derive(Default)]
pub(crate) struct Names {
    all: Vec<String>,
    numbers: FxHashMap<String, u32>,
    /// Tid, from when to when it bears a name, and the name's number.
    known: Vec<(u32, u64, u64, u32)>,
}

impl Names {
    /// Number of a thread's name at a moment. The same few threads come again and again.
    pub(crate) fn of(&mut self, tasks: &Tasks, tid: u32, ts_ns: u64) -> u32 {
        // A span that ends before it begins holds for no moment.
        self.known.resize(KNOWN, (0, 1, 0, 0));
        let (known, from_ns, to_ns, number) = self.known[tid as usize % KNOWN];
        if known == tid && ts_ns >= from_ns && ts_ns <= to_ns {
            return number;
        }
        let (comm, from_ns, to_ns) = tasks.comm_span(tid, ts_ns);
        let number = self.number(comm);
        self.known[tid as usize % KNOWN] = (tid, from_ns, to_ns, number);
        number
    }

    /// Number of a name.
    pub(super) fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.all.len() as u32;
        self.all.push(name.into());
        self.numbers.insert(name.into(), number);
        number
    }

    /// The name.
    pub(crate) fn get(&self, number: u32) -> &str {
        &self.all[number as usize]
    }
}
