//! Stacks as one tree of functions, from the process down.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::columns::{As, Columns};
use super::gather::{Of, StackKey};
use crate::flamegraph::Cell;
use crate::memory::op;
use crate::reports::Context;
use crate::reports::offcputime::Offcputime;
use crate::symbols::{Frame, NameSource};
use crate::text::plain;

/// Places in a function that are told.
const PLACES: usize = 4;
/// `Func::kind` of a process; functions have those of [`Cell::parts`].
const PROCESS: u8 = 4;

/// A function: boxes of it are one where they stand on the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Func {
    name: String,
    kind: u8,
    binary: String,
    source: &'static str,
}

/// The tree. Node 0 is its root; parents come before their children.
#[derive(Default)]
pub(super) struct Tree {
    funcs: Vec<Func>,
    /// Addresses in the file, or offsets in the kernel's function, by function.
    places: Vec<BTreeSet<u64>>,
    numbers: FxHashMap<Func, u32>,
    parents: Vec<u32>,
    of: Vec<u32>,
    nodes: FxHashMap<(u32, u32), u32>,
    most: usize,
    /// Stacks that the page has no room for.
    pub(super) left_out: u64,
}

impl Tree {
    /// Of at most about `most` nodes.
    pub(super) fn new(most: usize) -> Tree {
        let mut tree = Tree { most, ..Tree::default() };
        let root = tree.func(Func { name: "all".into(), kind: PROCESS, binary: String::new(), source: "" });
        (tree.parents, tree.of) = (vec![0], vec![root]);
        tree
    }

    fn func(&mut self, func: Func) -> u32 {
        if let Some(number) = self.numbers.get(&func) {
            return *number;
        }
        let number = self.funcs.len() as u32;
        self.funcs.push(func.clone());
        self.places.push(BTreeSet::new());
        self.numbers.insert(func, number);
        number
    }

    fn below(&mut self, parent: u32, func: u32) -> u32 {
        let (parents, of) = (&mut self.parents, &mut self.of);
        *self.nodes.entry((parent, func)).or_insert_with(|| {
            parents.push(parent);
            of.push(func);
            parents.len() as u32 - 1
        })
    }

    fn named(&mut self, parent: u32, name: &str, kind: u8) -> u32 {
        let func = self.func(Func { name: name.into(), kind, binary: String::new(), source: "" });
        self.below(parent, func)
    }

    /// The node of a stack of a process.
    pub(super) fn add(&mut self, context: &Context<'_>, key: &StackKey, seen_ns: u64) -> u32 {
        let meta = context.meta;
        let process = match key.of {
            Of::Memory(op) if op::is_kernel(op) => format!("kernel: {}", op::name(op)),
            _ => meta.tasks.comm(key.pid, seen_ns).to_owned(),
        };
        let mut node = self.named(0, if process.is_empty() { "[unknown]" } else { &process }, PROCESS);
        if self.parents.len() > self.most {
            self.left_out += 1;
            return self.named(node, "[stacks that this page has no room for]", 3);
        }
        let exe = meta.stacks.get(key.user).map_or(seen_ns, |s| s.ts_ns);
        let exe = meta.tasks.at(key.pid, exe).map_or("", |t| t.exe.as_str());
        for (id, missed) in [(key.user, "[Missed User Stack]"), (key.kernel, "[Missed Kernel Stack]")] {
            if id == 0 {
                continue;
            }
            let Some(stack) = context.symbols().stack(id) else {
                node = self.named(node, missed, 3);
                continue;
            };
            let frames: Vec<&Frame> = context.symbols().frames_of(stack).rev().collect();
            // A stack that was walked through code without frame pointers is a tower of unknown frames: one stands for all.
            let unknown = |f: &Frame| f.source == NameSource::None && f.binary.is_empty();
            for frame in
                frames.chunk_by(|a, b| unknown(a) && unknown(b) && a.kernel == b.kernel).filter_map(|run| run.first())
            {
                let cell = Cell::of(frame, exe);
                let (name, kind) = cell.parts();
                let source = frame.source.name();
                let func = self.func(Func { name: name.into(), kind, binary: frame.binary.clone(), source });
                if self.places[func as usize].len() < PLACES {
                    self.places[func as usize].insert(frame.offset);
                }
                node = self.below(node, func);
            }
        }
        let mark = match key.of {
            Of::Wait(what) => Offcputime::mark(meta, what),
            _ => None,
        };
        mark.map_or(node, |mark| self.named(node, &mark, 3))
    }

    /// Adds the tree to the columns, gives its functions.
    pub(super) fn write(&self, columns: &mut Columns) -> Value {
        let (mut strings, mut numbers) = (Vec::new(), FxHashMap::default());
        let mut number = |text: &str| {
            *numbers.entry(text.to_owned()).or_insert_with(|| {
                strings.push(plain(text).into_owned());
                strings.len() as u64 - 1
            })
        };
        columns.add("node.parent", As::Differences, self.parents.iter().map(|n| u64::from(*n)));
        columns.add("node.func", As::Values, self.of.iter().map(|n| u64::from(*n)));
        columns.add("func.name", As::Differences, self.funcs.iter().map(|f| number(&f.name)));
        columns.add("func.kind", As::Values, self.funcs.iter().map(|f| u64::from(f.kind)));
        columns.add("func.binary", As::Values, self.funcs.iter().map(|f| number(&f.binary)));
        columns.add("func.source", As::Values, self.funcs.iter().map(|f| number(f.source)));
        let hex = |places: &BTreeSet<u64>| places.iter().map(|p| format!("{p:#x}")).collect::<Vec<_>>().join(" ");
        let places: Vec<String> = self.places.iter().map(hex).collect();
        json!({"strings": strings, "places": places})
    }

    /// Whether a box of `func` stands anywhere on the way to `node`, itself included.
    pub(super) fn has(&self, mut node: u32, func: impl Fn(&str, u8) -> bool) -> bool {
        while node != 0 {
            let of = &self.funcs[self.of[node as usize] as usize];
            if func(&of.name, of.kind) {
                return true;
            }
            node = self.parents[node as usize];
        }
        false
    }

    /// Name of a node's function, whether it is one, and its binary.
    pub(super) fn name(&self, node: u32) -> (&str, bool, &str) {
        let of = &self.funcs[self.of[node as usize] as usize];
        (&of.name, of.kind < 3, &of.binary)
    }

    /// Number of a node's function.
    pub(super) fn func_of(&self, node: u32) -> u32 {
        self.of[node as usize]
    }
}
