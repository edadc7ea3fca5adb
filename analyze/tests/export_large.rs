//! Exports of a trace and of one four times as long: what is held in memory does not grow with the length.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use bpfrec_analyze::export::{self, Asked, FORMATS};
use bpfrec_analyze::{Filter, Meta};
use bpfrec_format::{Registry, Trace};
use common::{Builder, T0, V};

/// Counts what is allocated now and what was at the most.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls go on to the system's allocator as they are.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's pointer, which `alloc` gave out with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Rounds of one block a kind.
const ROUNDS: u64 = 16;
/// Events of a kind in a block.
const BLOCK: u64 = 10_000;
const THREADS: u64 = 50;
/// What a trace that is four times as long may take more: the buffer of columns, which the short one does not fill, and what
/// two threads happen to hold at the same moment. The longer output is larger by hundreds of MiB.
const MORE: usize = 24 << 20;

/// Threads that take turns on a CPU, with samples, waits and requests.
fn trace(rounds: u64) -> Trace {
    let mut b = Builder::with(Registry::default(), &[("sources", "sched,block,profile,offcpu,malloc")]);
    for tid in 100..100 + THREADS {
        b.task(tid, tid, &format!("thread {tid}"));
    }
    for stack in 1..50u64 {
        let frames: Vec<u64> = (0..20).map(|depth| 0x1000 + stack * 64 + depth).collect();
        b.row("stack", &[("ts_ns", V::N(T0)), ("stack_id", V::N(stack)), ("frames", V::L(&frames))]);
    }
    for round in 0..rounds {
        let rows = |row: &dyn Fn(u64, u64, u64) -> Vec<u64>| -> Vec<Vec<u64>> {
            let numbers = round * BLOCK..(round + 1) * BLOCK;
            numbers.map(|i| row(T0 + i * 10_000, 100 + i % THREADS, 100 + (i + 1) % THREADS)).collect()
        };
        let mut block = |name: &str, fields: &[&str], rows: Vec<Vec<u64>>| {
            b.block_of(0, name, fields, rows.iter().map(Vec::as_slice));
        };
        let switch = ["ts_ns", "prev_tid", "prev_pid", "prev_state", "next_tid", "next_pid"];
        block(
            "sched_wakeup",
            &["ts_ns", "tid", "pid", "waker_tid"],
            rows(&|ts, from, to| vec![ts - 500, to, to, from]),
        );
        block("sched_switch", &switch, rows(&|ts, from, to| vec![ts, from, from, 1, to, to]));
        let sample = ["ts_ns", "tid", "pid", "kernel_stack_id"];
        block("cpu_sample", &sample, rows(&|ts, tid, _| vec![ts + 5, tid, tid, 1 + ts / 10_000 % 49]));
        let wait = ["ts_ns", "tid", "pid", "prev_state", "count", "wait_ns", "kernel_stack_id"];
        block("offcpu_wait", &wait, rows(&|ts, _, to| vec![ts, to, to, 1, 1, 9_000, 1 + ts / 10_000 % 49]));
        let request = ["ts_ns", "tid", "pid", "rq", "dev", "bytes"];
        block("block_issue", &request, rows(&|ts, tid, _| vec![ts + 1, tid, tid, ts, 8 << 20, 4096]));
        block("block_complete", &request, rows(&|ts, tid, _| vec![ts + 9, tid, tid, ts, 8 << 20, 4096]));
        let alloc = ["ts_ns", "tid", "pid", "call", "weight_milli", "addr", "bytes", "user_stack_id"];
        block("malloc_alloc", &alloc, rows(&|ts, tid, _| vec![ts, tid, tid, 1, 1000, ts, 64, 1]));
        block(
            "malloc_free",
            &["ts_ns", "tid", "pid", "call", "addr"],
            rows(&|ts, tid, _| vec![ts + 7, tid, tid, 10, ts]),
        );
    }
    b.trace()
}

/// Takes everything and keeps its length.
struct Nowhere(u64);

impl std::io::Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Bytes held at the most beside the trace, and bytes written.
fn peak(trace: &Trace, format: &export::Format) -> (usize, u64) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let mut meta = Meta::load(trace).unwrap();
    meta.names.trace_only = true;
    let filter = Filter::everything(&meta);
    let mut out = Nowhere(0);
    export::run(trace, &meta, format, &Asked::default(), &filter, &mut out, &|_, _| {}).unwrap();
    (PEAK.load(Ordering::Relaxed) - before, out.0)
}

#[test]
fn memory_does_not_grow_with_the_length() {
    let (short, long) = (trace(ROUNDS), trace(4 * ROUNDS));
    for format in FORMATS {
        // Once before, so that what is made only once is there.
        peak(&short, format);
        let [(a, written), (b, written_long)] = [peak(&short, format), peak(&long, format)];
        println!(
            "{:<10} {:>4} MiB for {:>4} MiB, {:>4} MiB for {:>4} MiB",
            format.name,
            a >> 20,
            written >> 20,
            b >> 20,
            written_long >> 20
        );
        assert!(b < a + MORE, "{}: {a} bytes, of a trace four times as long {b}", format.name);
    }
}
