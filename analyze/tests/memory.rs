//! Lives of memory, held against a model that knows nothing of addresses given out twice: processes that allocate, free,
//! move, fork, exec and end, and a kernel that gives pages back in other portions than it got them.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use bpfrec_analyze::memory::{Fate, Free, Life, Of};
use bpfrec_analyze::pipeline::{Need, Options, Visitor, visit};
use bpfrec_analyze::slab::Slab;
use bpfrec_analyze::{Meta, Result};
use bpfrec_format::events::call;
use bpfrec_format::{Source, Trace};
use common::{Builder, T0, V};
use proptest::prelude::*;

const PAGE: u64 = 4096;

/// All lives and frees, in the order in which they come.
#[derive(Default)]
struct Seen {
    lives: Vec<Life>,
    frees: Vec<Free>,
}

impl Visitor for Seen {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Lives)
    }
    fn slab(&mut self, _: &Meta, slab: &Slab) -> Result<()> {
        self.lives.extend_from_slice(&slab.lives);
        self.frees.extend_from_slice(&slab.frees);
        Ok(())
    }
}

fn seen(trace: &Trace, slab_rows: u64) -> Seen {
    let mut seen = Seen::default();
    let options = Options { slab_rows, ..Options::default() };
    visit(trace, &Meta::load(trace).unwrap(), &options, &mut [&mut seen]).unwrap();
    seen
}

impl Seen {
    fn outstanding(&self) -> impl Iterator<Item = &Life> {
        self.lives.iter().filter(|l| l.end.is_none_or(|end| end.fate == Fate::Exit))
    }

    fn of(&self, of: Of) -> usize {
        self.frees.iter().filter(|f| f.of == of).count()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Alloc {
    ts: u64,
    tid: u64,
    bytes: u64,
    stack: u64,
}

/// What a thread is in the middle of.
#[derive(Clone, Copy)]
enum Call {
    Realloc { old: u64, moved: bool, failed: bool },
    Munmap { start: u64, failed: bool },
    Mremap { start: u64, failed: bool },
}

#[derive(Clone, Default)]
struct Process {
    heap: BTreeMap<u64, Alloc>,
    /// Allocation of each page.
    pages: BTreeMap<u64, Alloc>,
    /// What it has of its parent.
    inherited: BTreeSet<u64>,
    threads: Vec<u64>,
    busy: BTreeMap<u64, Call>,
}

struct World {
    b: Builder,
    x: u64,
    ts: u64,
    next: u64,
    processes: BTreeMap<u64, Process>,
    /// (pid, address, allocation) and (pid, page, allocation) of processes that ended.
    left: Vec<(u64, u64, Alloc)>,
    left_pages: Vec<(u64, u64, Alloc)>,
    /// Frees that found nothing: of inherited memory.
    strange: usize,
    failed: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let mut b = Builder::of_memory();
        let mut processes = BTreeMap::new();
        for pid in [100, 200] {
            b.task(pid, pid, "p").task(pid + 1, pid, "t");
            processes.insert(pid, Process { threads: vec![pid, pid + 1], ..Process::default() });
        }
        let x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        World { b, x, ts: T0, next: 1000, processes, left: vec![], left_pages: vec![], strange: 0, failed: 0 }
    }

    fn random(&mut self, n: u64) -> u64 {
        self.x = self.x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.x >> 33) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.random(from.len() as u64) as usize])
    }

    fn task(&mut self, name: &str, tid: u64, pid: u64) {
        let start = if name == "sched_fork" { self.ts } else { 0 };
        let fields = [("ts_ns", self.ts), ("tid", tid), ("pid", pid), ("parent_tid", 1), ("start_ns", start)];
        self.b.row(name, &fields.map(|(n, v)| (n, V::N(v))));
    }

    fn step(&mut self) {
        self.ts += 1 + self.random(1000);
        let pids: Vec<u64> = self.processes.keys().copied().collect();
        let pid = self.pick(&pids).unwrap();
        let mut p = self.processes.remove(&pid).unwrap();
        let tid = self.pick(&p.threads.clone()).unwrap();
        let keep = match p.busy.remove(&tid) {
            Some(call) => {
                self.end_of(call, &mut p, (pid, tid));
                true
            }
            None => self.act(&mut p, (pid, tid)),
        };
        if keep {
            self.processes.insert(pid, p);
        }
    }

    fn free_addr(&mut self, p: &Process) -> u64 {
        loop {
            let addr = 0x1000 + 16 * self.random(60);
            let held = p.busy.values().any(|c| matches!(c, Call::Realloc { old, moved, .. } if *old == addr && !moved));
            if !p.heap.contains_key(&addr) && !p.inherited.contains(&addr) && !held {
                return addr;
            }
        }
    }

    fn alloc(&mut self, p: &mut Process, who: (u64, u64), call: u32, addr: u64) {
        let a = Alloc { ts: self.ts, tid: who.1, bytes: 1 + self.random(500), stack: 1 + self.random(5) };
        self.b.malloc(self.ts, who, call, addr, a.bytes, a.stack);
        p.heap.insert(addr, a);
    }

    fn map(&mut self, p: &mut Process, who: (u64, u64), call: u32, start: u64) {
        let pages = 1 + self.random(8);
        // Mapped over what is there.
        let bytes = pages * PAGE - self.random(2) * self.random(PAGE);
        let a = Alloc { ts: self.ts, tid: who.1, bytes, stack: 9 };
        self.b.malloc(self.ts, who, call, start * PAGE, bytes, a.stack);
        p.pages.extend((start..start + pages).map(|page| (page, a)));
    }

    fn act(&mut self, p: &mut Process, who: (u64, u64)) -> bool {
        let (pid, tid) = who;
        let failing =
            |addr: &u64| p.busy.values().any(|c| matches!(c, Call::Realloc { old, failed: true, .. } if old == addr));
        let own: Vec<u64> = p.heap.keys().copied().filter(|addr| !failing(addr)).collect();
        let theirs: Vec<u64> = p.inherited.iter().copied().collect();
        match self.random(200) {
            0..60 if own.len() < 25 => {
                let addr = self.free_addr(p);
                let call = self.pick(&[call::MALLOC, call::CALLOC, call::POSIX_MEMALIGN, call::NEW]).unwrap();
                self.alloc(p, who, call, addr);
            }
            60..110 => {
                let Some(addr) = self.pick(&own) else { return true };
                self.b.free(self.ts, who, call::FREE, addr, 0);
                p.heap.remove(&addr);
            }
            110..115 => {
                let Some(addr) = self.pick(&theirs) else { return true };
                self.b.free(self.ts, who, call::FREE, addr, 0);
                p.inherited.remove(&addr);
                self.strange += 1;
            }
            115..140 => {
                let Some(old) = self.pick(&own) else { return true };
                self.b.free(self.ts, who, call::REALLOC, old, 0);
                let (moved, failed) = (self.random(2) == 0, self.random(4) == 0);
                if !failed {
                    p.heap.remove(&old);
                }
                p.busy.insert(tid, Call::Realloc { old, moved: moved && !failed, failed });
            }
            140..155 => {
                let start = 1000 + self.random(40);
                self.map(p, who, call::MMAP, start);
            }
            155..175 => {
                let (start, len) = (1000 + self.random(45), 1 + self.random(12));
                let failed = self.random(4) == 0;
                let map = self.random(4) == 0;
                let (name, bytes) = (if map { call::MREMAP } else { call::MUNMAP }, len * PAGE - self.random(PAGE));
                self.b.free(self.ts, who, name, start * PAGE, bytes);
                let call = if map { Call::Mremap { start, failed } } else { Call::Munmap { start, failed } };
                if failed {
                    // Before anybody else does anything: what fails leaves the pages where they are.
                    self.ts += 1;
                    self.end_of(call, p, who);
                } else {
                    p.pages.retain(|page, _| !(start..start + len).contains(page));
                    p.busy.insert(tid, call);
                }
            }
            175..180 if self.processes.len() < 6 => {
                self.next += 10;
                let child = self.next;
                self.task("sched_fork", child, child);
                let inherited = own.iter().chain(&theirs).copied().collect();
                self.processes.insert(child, Process { inherited, threads: vec![child], ..Process::default() });
            }
            180..182 if p.threads.len() < 4 => {
                self.next += 10;
                self.task("sched_fork", self.next, pid);
                p.threads.push(self.next);
            }
            182..184 => {
                // The other threads end; now and then nobody tells.
                for thread in p.threads.clone().into_iter().filter(|t| *t != pid) {
                    if self.random(2) == 0 {
                        self.task("sched_exit", thread, pid);
                        self.ts += 3;
                    }
                }
                self.task("sched_exec", pid, pid);
                *p = Process { threads: vec![pid], ..Process::default() };
            }
            184 if self.processes.len() > 1 => {
                // The leader goes first; what the others do still counts.
                let mut threads = p.threads.clone();
                self.task("sched_exit", pid, pid);
                threads.retain(|t| *t != pid);
                if let Some(other) = threads.first() {
                    self.ts += 5;
                    let addr = self.free_addr(p);
                    self.alloc(p, (pid, *other), call::MALLOC, addr);
                }
                for thread in threads {
                    self.ts += 5;
                    self.task("sched_exit", thread, pid);
                }
                self.leave(pid, p);
                return false;
            }
            _ => {}
        }
        true
    }

    fn end_of(&mut self, call: Call, p: &mut Process, who: (u64, u64)) {
        match call {
            Call::Realloc { old, failed: true, .. } => {
                self.b.malloc(self.ts, who, call::FAILED, old, 0, 0);
                self.failed += 1;
            }
            Call::Realloc { old, moved, .. } => {
                let addr = if moved { self.free_addr(p) } else { old };
                self.alloc(p, who, call::REALLOC, addr);
            }
            Call::Munmap { start, failed: true } | Call::Mremap { start, failed: true } => {
                self.b.malloc(self.ts, who, call::FAILED, start * PAGE, 0, 0);
                self.failed += 1;
            }
            Call::Munmap { .. } => {}
            Call::Mremap { .. } => {
                let start = 1000 + self.random(40);
                self.map(p, who, call::MREMAP, start);
            }
        }
    }

    fn leave(&mut self, pid: u64, p: &Process) {
        // A realloc that will fail and has not yet is as good as a free: nobody can know.
        let failing =
            |addr: &u64| p.busy.values().any(|c| matches!(c, Call::Realloc { old, failed: true, .. } if old == addr));
        self.left.extend(p.heap.iter().filter(|(addr, _)| !failing(addr)).map(|(addr, a)| (pid, *addr, *a)));
        self.left_pages.extend(p.pages.iter().map(|(page, a)| (pid, *page, *a)));
    }

    /// The trace, and what must be outstanding in it.
    fn finish(mut self) -> Told {
        for (pid, p) in std::mem::take(&mut self.processes) {
            self.leave(pid, &p);
        }
        self.left.sort_unstable();
        self.left_pages.sort_unstable();
        (self.left, self.left_pages, self.strange, self.failed, self.b.trace())
    }
}

type Told = (Vec<(u64, u64, Alloc)>, Vec<(u64, u64, Alloc)>, usize, usize, Trace);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_outstanding_is_what_the_model_has(seed in any::<u64>(), steps in 1usize..3000, flush in 50usize..500) {
        let mut world = World::new(seed);
        for step in 0..steps {
            world.step();
            if step % flush == 0 {
                world.b.flush();
            }
        }
        let (heap, pages, strange, failed, trace) = world.finish();
        let all = seen(&trace, u64::MAX);
        let (mut found, mut found_pages, mut mappings) = (Vec::new(), Vec::new(), 0);
        for l in all.outstanding() {
            let (pid, a) = (l.pid.into(), Alloc { ts: l.ts_ns, tid: l.tid.into(), bytes: l.bytes, stack: l.stack_id });
            if l.op == call::MMAP as u8 || l.op == call::MREMAP as u8 {
                mappings += usize::from(!l.part);
                let end = (l.addr + l.bytes).div_ceil(PAGE);
                found_pages.extend((l.addr / PAGE..end).map(|page| (pid, page, l.ts_ns, l.tid.into(), l.stack_id)));
            } else {
                prop_assert!(!l.part);
                found.push((pid, l.addr, a));
            }
        }
        found.sort_unstable();
        found_pages.sort_unstable();
        prop_assert_eq!(found, heap);
        let whole: BTreeSet<_> = pages.iter().map(|(pid, _, a)| (pid, a.ts, a.tid)).collect();
        prop_assert_eq!(mappings, whole.len());
        let pages: Vec<_> = pages.iter().map(|(pid, page, a)| (*pid, *page, a.ts, a.tid, a.stack)).collect();
        prop_assert_eq!(found_pages, pages);
        prop_assert_eq!(all.of(Of::Inherited), strange);
        prop_assert_eq!(all.of(Of::Nothing), failed);
        prop_assert_eq!(all.of(Of::Before) + all.of(Of::Unknown) + all.of(Of::Lost), 0);
        let heap_replaced = |l: &&Life| l.end.is_some_and(|e| e.fate == Fate::Replaced) && l.op != call::MMAP as u8 && l.op != call::MREMAP as u8;
        prop_assert_eq!(all.lives.iter().filter(heap_replaced).count(), 0);
        for slab_rows in [1, 300] {
            let cut = seen(&trace, slab_rows);
            prop_assert!(cut.lives == all.lives && cut.frees == all.frees);
        }
    }

    /// Pages: allocated in blocks, freed in any portions, some never allocated in the trace.
    #[test]
    fn pages_in_any_portions(seed in any::<u64>(), steps in 1usize..2000) {
        let mut x = seed | 1;
        let mut random = |n: u64| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 33) % n
        };
        let mut b = Builder::of_memory();
        let mut pages: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut known, mut partly, mut before) = (0, 0, 0);
        for step in 0..steps as u64 {
            let (ts, order) = (T0 + step * 10, random(5));
            let (start, len) = (random(64) >> order << order, 1u64 << order);
            let range = start..start + len;
            let there = range.clone().filter(|p| pages.contains_key(p)).count() as u64;
            let fields = [("addr", start), ("bytes", len * PAGE), ("tid", 7), ("pid", 7), ("weight_milli", 1000)];
            if there == 0 && random(3) > 0 {
                b.event((step % 2) as u32, "page_alloc", ts, &fields);
                range.for_each(|p| assert_eq!(pages.insert(p, ts), None));
            } else {
                b.event((step % 2) as u32, "page_free", ts, &fields[..2]);
                pages.retain(|p, _| !range.contains(p));
                *(if there == 0 { &mut before } else if there < len { &mut partly } else { &mut known }) += 1;
            }
        }
        let all = seen(&b.trace(), 100);
        let mut found = BTreeMap::new();
        for l in all.outstanding() {
            (l.addr..l.addr + l.bytes / PAGE).for_each(|p| assert_eq!(found.insert(p, l.ts_ns), None));
        }
        let allocations: BTreeSet<u64> = pages.values().copied().collect();
        prop_assert_eq!(all.outstanding().filter(|l| !l.part).count(), allocations.len());
        prop_assert_eq!(found, pages);
        prop_assert_eq!((all.of(Of::Known), all.of(Of::Partly), all.of(Of::Before)), (known, partly, before));
    }
}

/// (address, bytes, part) of what lives.
fn lives(b: Builder) -> Vec<(u64, u64, bool)> {
    let mut found: Vec<_> = seen(&b.trace(), 3).outstanding().map(|l| (l.addr, l.bytes, l.part)).collect();
    found.sort_unstable();
    found
}

#[test]
fn a_hole_in_a_mapping_leaves_one_allocation() {
    let who = (5, 5);
    let mut b = Builder::of_memory();
    b.malloc(T0, who, call::MMAP, 0x10000, 10 * PAGE, 1);
    b.free(T0 + 1, who, call::MUNMAP, 0x12000, 2 * PAGE);
    b.malloc(T0 + 2, who, call::MALLOC, 0x40, 1, 1);
    let left = lives(b);
    assert_eq!(
        left.iter().map(|l| (l.0, l.1)).collect::<Vec<_>>(),
        [(0x40, 1), (0x10000, 2 * PAGE), (0x14000, 6 * PAGE)]
    );
    assert_eq!(left.iter().filter(|l| !l.2).count(), 2);

    // A munmap of the hole that fails puts it back as it was.
    let mut b = Builder::of_memory();
    b.malloc(T0, who, call::MMAP, 0x10000, 10 * PAGE, 1);
    b.free(T0 + 1, who, call::MUNMAP, 0x12000, 2 * PAGE).malloc(T0 + 2, who, call::FAILED, 0x12000, 0, 0);
    assert_eq!(lives(b), [(0x10000, 10 * PAGE, false)]);

    // One munmap of two mappings and what lies between; the last bytes of a page go with it.
    let mut b = Builder::of_memory();
    b.malloc(T0, who, call::MMAP, 0x10000, PAGE, 1).malloc(T0 + 1, who, call::MMAP, 0x20000, PAGE + 5, 1);
    b.free(T0 + 2, who, call::MUNMAP, 0x10000, 0x11005);
    assert_eq!(lives(b), []);
}

#[test]
fn a_realloc_that_fails_keeps_age_and_stack() {
    let who = (5, 6);
    let mut b = Builder::of_memory();
    b.malloc(T0, who, call::MALLOC, 0x40, 100, 3);
    b.free(T0 + 10, who, call::REALLOC, 0x40, 0).malloc(T0 + 20, who, call::FAILED, 0x40, 0, 8);
    let all = seen(&b.trace(), 1);
    let [life] = all.lives[..] else { panic!("{:?}", all.lives) };
    assert_eq!((life.ts_ns, life.stack_id, life.bytes, life.end), (T0, 3, 100, None));
    assert_eq!(all.frees.iter().map(|f| f.of).collect::<Vec<_>>(), [Of::Nothing]);
}

#[test]
fn frees_without_allocation_say_why() {
    let mut b = Builder::of_memory();
    b.task(5, 5, "old");
    b.free(T0 + 1, (5, 5), call::FREE, 0x40, 0);
    b.malloc(T0 + 2, (5, 5), call::MALLOC, 0x80, 1, 1);
    // A child frees its copy: the parent's stands.
    b.row("sched_fork", &[("ts_ns", V::N(T0 + 3)), ("tid", V::N(9)), ("pid", V::N(9)), ("start_ns", V::N(T0 + 3))]);
    b.free(T0 + 4, (9, 9), call::FREE, 0x80, 0);
    b.row("sched_exec", &[("ts_ns", V::N(T0 + 5)), ("tid", V::N(9)), ("pid", V::N(9)), ("start_ns", V::N(T0 + 3))]);
    b.free(T0 + 6, (9, 9), call::FREE, 0x80, 0);
    // A file's mapping, and nothing at all.
    b.free(T0 + 7, (9, 9), call::MUNMAP, 0x7000, 4096).free(T0 + 7, (9, 9), call::FREE, 0, 0);
    common::loss(&mut b, Source::Malloc, T0 + 8, T0 + 9, 1);
    b.free(T0 + 10, (9, 9), call::FREE, 0x90, 0);
    let all = seen(&b.trace(), 1);
    let mut of: Vec<_> = all.frees.iter().map(|f| (f.ts_ns - T0, f.of)).collect();
    of.sort_unstable();
    assert_eq!(of, [(1, Of::Before), (4, Of::Inherited), (6, Of::Unknown), (7, Of::Mapping), (10, Of::Lost)]);
    assert_eq!(all.outstanding().map(|l| (l.pid, l.addr)).collect::<Vec<_>>(), [(5, 0x80)]);
}

#[test]
fn an_address_given_out_twice_counts_once() {
    let mut b = Builder::of_memory();
    b.malloc(T0, (5, 5), call::MALLOC, 0x40, 100, 1).malloc(T0 + 1, (5, 5), call::MALLOC, 0x40, 7, 2);
    for (name, addr) in [("kmem_alloc", 0x1000), ("percpu_alloc", 0x1000), ("page_alloc", 0x1000)] {
        for ts in [T0, T0 + 5] {
            b.event(0, name, ts, &[("addr", addr), ("bytes", 8192), ("kernel_stack_id", ts - T0)]);
        }
    }
    // What kfree(NULL) and an empty kmalloc tell is no memory.
    b.event(0, "kmem_free", T0 + 9, &[("addr", 0)]).event(0, "kmem_free", T0 + 9, &[("addr", 16)]);
    let all = seen(&b.trace(), 1);
    assert_eq!(all.outstanding().map(|l| l.stack_id).collect::<Vec<_>>(), [2, 5, 5, 5]);
    assert_eq!(all.lives.iter().filter(|l| l.end.is_some_and(|e| e.fate == Fate::Replaced)).count(), 4);
    assert!(all.frees.is_empty());
}

#[test]
fn of_what_is_sampled_the_first_byte_stands_for_all() {
    let page = |b: &mut Builder, name: &str, ts: u64, frame: u64, pages: u64| {
        let fields = [("addr", frame), ("bytes", pages * PAGE), ("tid", 7), ("pid", 7), ("weight_milli", 16_000)];
        b.event(0, name, T0 + ts, &fields[..if name == "page_free" { 2 } else { 5 }]);
    };
    let mut b = Builder::of_memory();
    page(&mut b, "page_alloc", 1, 32, 8);
    page(&mut b, "page_alloc", 2, 64, 8);
    // One by one: the others are not told. And one of the middle that the hash happens to take.
    page(&mut b, "page_free", 3, 32, 1);
    page(&mut b, "page_free", 4, 67, 1);
    assert_eq!(lives(b), [(64, 8 * PAGE, false)]);

    // With a filter frees are recorded by the first frame, whatever the weight.
    for (filter, left) in [(None, 7 * PAGE), (Some(("filter_pids", "7")), 0)] {
        let items: Vec<_> = [("sources", "malloc,kmem")].into_iter().chain(filter).collect();
        let mut b = Builder::with(bpfrec_format::Registry::default(), &items);
        b.event(0, "page_alloc", T0, &[("addr", 32), ("bytes", 8 * PAGE), ("tid", 7), ("pid", 7)]);
        page(&mut b, "page_free", 3, 32, 1);
        assert_eq!(lives(b).iter().map(|l| l.1).sum::<u64>(), left);
    }
}

#[test]
fn a_realloc_whose_end_is_not_told_is_over_with_the_next_call() {
    let who = (5, 6);
    let mut b = Builder::of_memory();
    // realloc(p, 0) frees, and its return tells nothing.
    b.malloc(T0, who, call::MALLOC, 0x40, 100, 3).free(T0 + 10, who, call::REALLOC, 0x40, 0);
    b.malloc(T0 + 20, who, call::MALLOC, 0x40, 7, 4).free(T0 + 30, who, call::REALLOC, 0x40, 0);
    let all = seen(&b.trace(), 1);
    let ends: Vec<_> = all.lives.iter().map(|l| (l.bytes, l.end.map(|e| (e.ts_ns - T0, e.fate)))).collect();
    assert_eq!(ends, [(100, Some((10, Fate::Freed))), (7, Some((30, Fate::Freed)))]);
}
