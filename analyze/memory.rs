//! Lives of memory: from each allocation to its free, of processes (`malloc`) and of the kernel (`kmem`).
//!
//! Processes: by process, address and time. A free is told at the entry of the call, an allocation at its return, so an
//! address never looks free while somebody has it. `realloc`, `munmap` and `mremap` that fail put back what they took.
//! An exec empties a process, an exit ends it. A forked child has a copy of its parent's memory: what it frees of that
//! was allocated by another and ends nothing; memory counts once, where it was allocated. Mappings and pages are ranges:
//! one end of them, the middle or several may go at once; an allocation is over when its last byte is.
//!
//! Where allocations are sampled, or the kernel's are recorded with a filter, frees are recorded by their address alone:
//! there the free of a range's first byte ends all of it. A child that shares its parent's memory until it execs (vfork)
//! looks like one with a copy.
//!
//! Memory: 49 bytes a live allocation (40, and 5 a slot of a table that is half full at least), about 100 of pages and
//! mappings, both as measured by `tests/memory_large.rs`; what ends goes on at once, slab by slab. And 24 bytes a distinct
//! stack and cgroup.

mod kernel;
mod processes;
mod ranges;
mod store;
mod user;

use bpfrec_format::Source;
use bpfrec_format::events::call;

use crate::losses::Spans;
use crate::meta::Meta;
use crate::slab::{EventTable, Slab};
use crate::view::Ints;

/// Functions of the C library have the numbers of [`call`]; these are the kernel's.
pub mod op {
    use super::call;

    /// An object of the slab allocator.
    pub const SLAB: u8 = 0x60;
    /// Pages.
    pub const PAGES: u8 = 0x61;
    /// Memory of which each CPU has its own.
    pub const PERCPU: u8 = 0x62;

    /// Name of an operation.
    pub fn name(op: u8) -> &'static str {
        match op {
            SLAB => "slab",
            PAGES => "pages",
            PERCPU => "percpu",
            call => call::name(call.into()),
        }
    }

    /// Whether it is the kernel's memory.
    pub fn is_kernel(op: u8) -> bool {
        (SLAB..=PERCPU).contains(&op)
    }
}

/// An allocation, or the part of one that was freed apart from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it was allocated, CLOCK_MONOTONIC.
    pub ts_ns: u64,
    /// Address; of pages the number of the first page frame.
    pub addr: u64,
    /// Bytes that were asked for.
    pub bytes: u64,
    /// Stack of the allocation; 0: none.
    pub stack_id: u64,
    /// Cgroup of the thread that asked.
    pub cgroup_id: u64,
    /// Thread that asked.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// Allocations that this one stands for, in thousandths.
    pub weight_milli: u32,
    /// How it was asked for: a number of [`op`] or [`call`].
    pub op: u8,
    /// A part whose allocation counts with another part.
    pub part: bool,
    /// How it ended; `None` while it lives.
    pub end: Option<End>,
}

/// The end of a [`Life`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub ts_ns: u64,
    /// Thread that ended it; the process where that is what ended.
    pub tid: u32,
    /// How.
    pub fate: Fate,
}

/// How memory ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was freed.
    Freed,
    /// Its address was given out again, or mapped over, although nothing told of a free.
    Replaced,
    /// The process runs another program now.
    Exec,
    /// The process ended without freeing it.
    Exit,
}

impl Fate {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Fate::Freed => "freed",
            Fate::Replaced => "replaced",
            Fate::Exec => "exec",
            Fate::Exit => "exit",
        }
    }
}

/// A free, whether its allocation is known or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// When, CLOCK_MONOTONIC.
    pub ts_ns: u64,
    /// Address; of pages the number of the first page frame.
    pub addr: u64,
    /// Bytes, where ranges are freed; else 0.
    pub bytes: u64,
    /// Cgroup of the thread that frees.
    pub cgroup_id: u64,
    /// Thread that frees.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// How: a number of [`op`] or [`call`].
    pub op: u8,
    /// What is known of the allocation.
    pub of: Of,
    /// When that was.
    pub alloc_ns: Option<u64>,
}

/// What a [`Free`] frees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    /// An allocation of the trace.
    Known,
    /// In part an allocation of the trace: a range that reaches further.
    Partly,
    /// Memory from before the recording.
    Before,
    /// Memory that a forked process has from its parent.
    Inherited,
    /// Memory of which the trace should know, and does not: some allocator that is not probed, or what glibc frees a second
    /// time when a thread ends: the pieces that the thread had freed and kept for itself.
    Unknown,
    /// The same, where events were lost before.
    Lost,
    /// A mapping of a file, or one from elsewhere: only mappings without a file are told of.
    Mapping,
    /// Nothing: the call failed.
    Nothing,
}

impl Of {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Of::Known => "known",
            Of::Partly => "partly known",
            Of::Before => "before start",
            Of::Inherited => "inherited",
            Of::Unknown => "unknown",
            Of::Lost => "lost",
            Of::Mapping => "other mapping",
            Of::Nothing => "not done",
        }
    }
}

/// What ended in a stretch of time: lives in the order in which their end became certain.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) lives: Vec<Life>,
    pub(crate) frees: Vec<Free>,
}

/// Kinds of events; of those of the same time what frees comes first.
const USER: [&str; 2] = ["malloc_free", "malloc_alloc"];
const KERNEL: [&str; 6] = ["kmem_free", "page_free", "percpu_free", "kmem_alloc", "page_alloc", "percpu_alloc"];

/// Kinds that the tables `alloc` and `free` hold.
pub fn is_kind(kind: &str) -> bool {
    USER.contains(&kind) || KERNEL.contains(&kind)
}

/// Pairs slab after slab.
pub(crate) struct Pairing {
    user: user::Processes,
    kernel: kernel::Kernel,
}

impl Pairing {
    /// `malloc`, `kmem`: where events of these sources were lost.
    pub(crate) fn new(meta: &Meta, malloc: Spans, kmem: Spans) -> Self {
        let page = meta.number("page_size").filter(|size| size.is_power_of_two()).unwrap_or(4096);
        let sampled = |source: Source| {
            let number = |what: &str| meta.number(&format!("{}_{what}", source.name()));
            number("sample").is_some_and(|n| n > 1) || number("sample_bytes").is_some_and(|n| n > 0)
        };
        let filtered = meta.recorded.pids.is_some() || meta.recorded.cgroups.is_some();
        Pairing {
            user: user::Processes::new(&meta.tasks, malloc, page, sampled(Source::Malloc)),
            kernel: kernel::Kernel::new(kmem, page, sampled(Source::Kmem) || filtered),
        }
    }

    /// What ended in a slab.
    pub(crate) fn slab(&mut self, slab: &Slab) -> Ended {
        for (from, to) in &slab.damaged {
            self.user.spans.add(*from, *to);
            self.kernel.spans.add(*from, *to);
        }
        let mut ended = Ended::default();
        in_order(slab, &USER, |kind, event| match kind {
            0 => self.user.free(event, &mut ended),
            _ => self.user.alloc(event, &mut ended),
        });
        in_order(slab, &KERNEL, |kind, event| self.kernel.event(kind, event, &mut ended));
        ended
    }

    /// What is still open when the events are over.
    pub(crate) fn finish(&mut self) -> Ended {
        let mut ended = Ended::default();
        self.user.finish(&mut ended);
        ended
    }

    /// Some more of what still lives: by process, each with its allocations by time and its mappings by address, the kernel last. Empty when that was all.
    pub(crate) fn rest(&mut self) -> Vec<Life> {
        let lives = self.user.rest();
        if lives.is_empty() { self.kernel.rest() } else { lives }
    }
}

/// An allocation or a free as recorded.
#[derive(Clone, Copy)]
struct Event {
    ts_ns: u64,
    addr: u64,
    bytes: u64,
    stack_id: u64,
    cgroup_id: u64,
    tid: u32,
    pid: u32,
    weight_milli: u32,
    call: u8,
}

impl Event {
    fn free(&self, op: u8, of: Of, alloc_ns: Option<u64>) -> Free {
        let Event { ts_ns, addr, bytes, cgroup_id, tid, pid, .. } = *self;
        Free { ts_ns, addr, bytes, cgroup_id, tid, pid, op, of, alloc_ns }
    }

    fn end(&self, fate: Fate) -> End {
        End { ts_ns: self.ts_ns, tid: self.tid, fate }
    }
}

struct Events<'a> {
    kind: usize,
    table: &'a EventTable,
    at: usize,
    ints: [Ints<'a>; 8],
}

impl Events<'_> {
    fn event(&self) -> Event {
        let [addr, bytes, stack_id, cgroup_id, tid, pid, weight_milli, call] = self.ints.map(|ints| ints.get(self.at));
        Event {
            ts_ns: self.table.ts[self.at],
            addr,
            bytes,
            stack_id,
            cgroup_id,
            tid: tid as u32,
            pid: pid as u32,
            // Nothing stands for less than itself.
            weight_milli: weight_milli.clamp(1000, u32::MAX.into()) as u32,
            call: u8::try_from(call).unwrap_or(u8::MAX),
        }
    }
}

/// Gives the events of these kinds in order, with the position of their kind.
fn in_order(slab: &Slab, kinds: &[&str], mut take: impl FnMut(usize, &Event)) {
    let events = |(kind, name): (usize, &&str)| {
        let table = slab.table(name)?;
        let stack = if name.starts_with("malloc") { "user_stack_id" } else { "kernel_stack_id" };
        let ints = ["addr", "bytes", stack, "cgroup_id", "tid", "pid", "weight_milli", "call"].map(|f| table.ints(f));
        Some(Events { kind, table, at: 0, ints })
    };
    let mut tables: Vec<Events<'_>> = kinds.iter().enumerate().filter_map(events).collect();
    while let Some(first) = tables.iter_mut().filter(|t| t.at < t.table.rows()).min_by_key(|t| t.table.ts[t.at]) {
        take(first.kind, &first.event());
        first.at += 1;
    }
}
