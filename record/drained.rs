//! What the rings carried, until it is handed on: events in a chunk a CPU, stack definitions and task events in tables.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bpfrec_format::writer::Chunk;
use bpfrec_format::{Kind, Registry, Source, Table, meta};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::layout::{CopyRecord, StackRecord};
use crate::unwind::Unwound;

/// Rows of a chunk, in bytes: NOTES.md has the measurements behind it.
pub const CHUNK_BYTES: usize = 256 << 10;
/// A chunk goes to the file at this age. With [`POLL`](crate::rings::POLL) before it and the write after it, a second is never reached.
pub const CHUNK_AGE: Duration = Duration::from_millis(300);
/// Unwound stacks that are known to be defined, at the most.
const DEFINED: usize = 1 << 18;

/// What has been drained and not yet handed on.
pub struct Drained {
    registry: Arc<Registry>,
    /// Source and bytes of a row by kind: of kinds that are not events, none.
    shapes: Vec<Option<(u16, u16)>>,
    cpus: Vec<Cpu>,
    /// Full chunks, oldest first.
    pub full: Vec<Chunk>,
    /// Chunks that are written, for their memory.
    pub written: Vec<Chunk>,
    stacks: Table,
    tasks: FxHashMap<u16, Vec<u8>>,
    copies: Vec<CopyRecord>,
    /// Unwound stacks that this segment defines.
    defined: FxHashSet<u64>,
    /// Events by source, since the start.
    pub kept: [u64; 16],
}

struct Cpu {
    chunk: Chunk,
    bytes: usize,
    since: Instant,
}

impl Cpu {
    fn new(cpu: u32) -> Self {
        Cpu { chunk: Chunk { stream: cpu, ..Chunk::default() }, bytes: 0, since: Instant::now() }
    }

    /// The next rows go where those of a chunk were that is written: no memory is asked for, and none grows step by step.
    fn take(&mut self, written: Option<Chunk>) -> Chunk {
        let mut next = Chunk { stream: self.chunk.stream, rows: written.unwrap_or_default().rows, ..Chunk::default() };
        next.rows.iter_mut().for_each(|(_, rows)| rows.clear());
        self.bytes = 0;
        std::mem::replace(&mut self.chunk, next)
    }
}

/// Rows of one kind.
struct Rows<'a> {
    bytes: &'a [u8],
    count: usize,
    first_ns: u64,
    last_ns: u64,
}

/// Time and kind of a row: the head that all events have in common.
fn head(row: &[u8]) -> Option<(u64, u16)> {
    let ts = u64::from_ne_bytes(row.get(..8)?.try_into().ok()?);
    Some((ts, u16::from_ne_bytes(row.get(8..10)?.try_into().ok()?)))
}

impl Drained {
    /// Nothing yet.
    pub fn new(registry: Arc<Registry>) -> Drained {
        let mut shapes = Vec::new();
        for kind in registry.kinds().iter().filter(|k| k.is_event()) {
            shapes.resize(usize::from(kind.id), None);
            shapes.push(Some((kind.source, kind.row_size as u16)));
        }
        Drained {
            registry,
            shapes,
            cpus: Vec::new(),
            full: Vec::new(),
            written: Vec::new(),
            stacks: Table::new(&meta::kind(meta::STACK)),
            tasks: FxHashMap::default(),
            copies: Vec::new(),
            defined: FxHashSet::default(),
            kept: [0; 16],
        }
    }

    /// Whether no events wait for a chunk to be old enough.
    pub fn is_empty(&self) -> bool {
        self.cpus.iter().all(|cpu| cpu.bytes == 0)
    }

    fn kind(&self, row: &[u8]) -> Option<(u64, &Arc<Kind>)> {
        let (ts, kind) = head(row)?;
        self.registry.get(kind).filter(|k| k.row_size as usize == row.len()).map(|k| (ts, k))
    }

    /// Takes in the rows of a record: one, or many from a batch. Returns the bytes of those that are there as a whole.
    pub fn events(&mut self, slot: usize, record: &[u8]) -> usize {
        let mut left = record;
        while let Some((kind, source, rows, rest)) = self.run(left) {
            self.rows(slot, kind, source, rows);
            left = rest;
        }
        record.len() - left.len()
    }

    /// The rows of one kind that a record begins with: kind, source, their bytes, and what comes after them.
    fn run<'a>(&self, record: &'a [u8]) -> Option<(u16, u16, Rows<'a>, &'a [u8])> {
        let (_, kind) = head(record)?;
        let (source, size) = (*self.shapes.get(usize::from(kind))?)?;
        let size = usize::from(size);
        let (mut count, mut first_ns, mut last_ns) = (0, u64::MAX, 0);
        for (ts, _) in record.chunks_exact(size).map_while(head).take_while(|(_, of)| *of == kind) {
            (count, first_ns, last_ns) = (count + 1, first_ns.min(ts), last_ns.max(ts));
        }
        let (bytes, rest) = record.split_at(count * size);
        (count > 0).then_some((kind, source, Rows { bytes, count, first_ns, last_ns }, rest))
    }

    /// Takes in rows of one kind that a CPU wrote one after the other.
    fn rows(&mut self, slot: usize, kind: u16, source: u16, rows: Rows<'_>) {
        self.kept[usize::from(source) & 15] += rows.count as u64;
        let cpu = &mut self.cpus[slot];
        let chunk = &mut cpu.chunk;
        if cpu.bytes == 0 {
            cpu.since = Instant::now();
            (chunk.ts_min_ns, chunk.ts_max_ns) = (u64::MAX, 0);
        }
        chunk.ts_min_ns = chunk.ts_min_ns.min(rows.first_ns);
        chunk.ts_max_ns = chunk.ts_max_ns.max(rows.last_ns);
        match chunk.rows.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, of)) => of.extend_from_slice(rows.bytes),
            None => chunk.rows.push((kind, rows.bytes.to_vec())),
        }
        cpu.bytes += rows.bytes.len();
        if cpu.bytes >= CHUNK_BYTES {
            self.full.push(cpu.take(self.written.pop()));
        }
    }

    pub fn task(&mut self, row: &[u8]) {
        let Some((_, kind)) = self.kind(row) else {
            debug_assert!(false, "the task ring carried {} bytes that are no event", row.len());
            return;
        };
        let id = kind.id;
        self.kept[Source::Task as usize] += 1;
        self.tasks.entry(id).or_default().extend_from_slice(row);
    }

    pub fn stack(&mut self, record: &[u8]) {
        let Some(s) = StackRecord::parse(record) else {
            debug_assert!(false, "the stack ring carried a record of {} bytes", record.len());
            return;
        };
        let space = if s.user { meta::space::USER } else { meta::space::KERNEL };
        self.stacks.push(&[
            s.ts_ns.into(),
            s.stack_id.into(),
            space.into(),
            s.pid.into(),
            s.exec_id.into(),
            s.frames[..].into(),
        ]);
    }

    pub fn copy(&mut self, record: &[u8]) {
        match CopyRecord::parse(record) {
            Some(copy) => self.copies.push(copy),
            None => debug_assert!(false, "the ring of stack copies carried a record of {} bytes", record.len()),
        }
    }

    /// Copies of stacks since the last call.
    pub fn take_copies(&mut self) -> Vec<CopyRecord> {
        std::mem::take(&mut self.copies)
    }

    /// Takes a sample whose stack has been walked.
    pub fn unwound(&mut self, sample: &Unwound) {
        // To define a stack again does no harm.
        if self.defined.len() >= DEFINED {
            self.defined.clear();
        }
        if let Some(s) = &sample.stack
            && self.defined.insert(s.id)
        {
            let (ts, user) = (s.ts_ns, meta::space::USER);
            self.stacks.push(&[
                ts.into(),
                s.id.into(),
                user.into(),
                s.pid.into(),
                s.exec_id.into(),
                s.frames[..].into(),
            ]);
        }
        let slot = self.slot_of(sample.cpu);
        let taken = self.events(slot, &sample.row);
        debug_assert_eq!(taken, sample.row.len(), "a sample with a copied stack is no event");
    }

    /// Where the events of a CPU are gathered.
    pub fn slot_of(&mut self, cpu: u32) -> usize {
        self.cpus.iter().position(|c| c.chunk.stream == cpu).unwrap_or_else(|| {
            self.cpus.push(Cpu::new(cpu));
            self.cpus.len() - 1
        })
    }

    /// A new segment: stacks are defined anew.
    pub fn next_segment(&mut self) {
        self.defined.clear();
    }

    /// Chunks that are full or old enough; all with `force`.
    pub fn take_chunks(&mut self, force: bool) -> Vec<Chunk> {
        let mut chunks = std::mem::take(&mut self.full);
        for cpu in &mut self.cpus {
            if cpu.bytes > 0 && (force || cpu.since.elapsed() >= CHUNK_AGE) {
                chunks.push(cpu.take(self.written.pop()));
            }
        }
        chunks
    }

    /// Stack definitions since the last call.
    pub fn take_stacks(&mut self) -> Option<Table> {
        let empty = Table::new(&meta::kind(meta::STACK));
        (self.stacks.rows() > 0).then(|| std::mem::replace(&mut self.stacks, empty))
    }

    /// Task and cgroup events since the last call, a table a kind.
    pub fn take_tasks(&mut self) -> Result<Vec<Table>> {
        let mut tables = Vec::new();
        for (id, rows) in self.tasks.iter_mut().filter(|(_, rows)| !rows.is_empty()) {
            let kind = self.registry.get(*id).context("an unregistered kind")?;
            tables.push(Table::from_rows(kind, rows)?);
            rows.clear();
        }
        tables.sort_by_key(|table| table.kind);
        Ok(tables)
    }
}
