//! Traces made by hand, and an output in memory.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod program;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use bpfrec_analyze::reports::{self, Flags, Outcome};
use bpfrec_analyze::{Filter, Meta, Output};
use bpfrec_format::table::Value;
use bpfrec_format::writer::Chunk;
use bpfrec_format::{BlockType, EndReason, Kind, Registry, Segment, SegmentIds, SegmentWriter, Table, Trace, meta};

/// One second.
pub const S: u64 = 1_000_000_000;
/// Start of all traces here.
pub const T0: u64 = 1000 * S;

/// A value of a field by its name.
#[derive(Clone, Copy)]
pub enum V<'a> {
    /// A number.
    N(u64),
    /// A text.
    T(&'a str),
    /// A list.
    L(&'a [u64]),
}

/// A trace that is being made.
pub struct Builder {
    writer: SegmentWriter<Vec<u8>>,
    /// Kinds that may be written.
    pub registry: Registry,
    chunks: BTreeMap<u32, Vec<(u16, Vec<u8>, u64)>>,
    meta: BTreeMap<(u8, u16), Table>,
}

impl Builder {
    /// A trace of all sources.
    pub fn new() -> Self {
        Self::with(Registry::default(), &[])
    }

    /// A trace with more kinds and with HEADER items, new or other ones.
    pub fn with(registry: Registry, more: &[(&str, &str)]) -> Self {
        let items = [
            ("host", "box"),
            ("kernel", "6.1.0"),
            ("arch", "x86_64"),
            ("cpus_online", "2"),
            ("sources", "sched,block,profile"),
            ("sample_hz", "99"),
            ("start_mono_ns", "1000000000000"),
            ("start_realtime_ns", "1700000000000000000"),
            ("recorder_pid", "4000"),
            ("disk.8:0", "sda"),
        ];
        let usual = items.iter().filter(|(key, _)| more.iter().all(|(other, _)| other != key));
        let items: Vec<_> = usual.chain(more).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let ids = SegmentIds { trace_id: 7, segment: 0, first_seq: 0 };
        let writer = SegmentWriter::new(Vec::new(), ids, &registry, &items).unwrap();
        Builder { writer, registry, chunks: BTreeMap::new(), meta: BTreeMap::new() }
    }

    fn kind(&self, name: &str) -> Arc<Kind> {
        self.registry.by_name(name).unwrap_or_else(|| panic!("no kind {name}")).clone()
    }

    /// Adds an event on a CPU.
    pub fn event(&mut self, cpu: u32, name: &str, ts: u64, fields: &[(&str, u64)]) -> &mut Self {
        let kind = self.kind(name);
        let mut row = vec![0u8; kind.row_size as usize];
        row[..8].copy_from_slice(&ts.to_le_bytes());
        for (name, value) in fields {
            let f = &kind.fields[kind.index_of(name).unwrap_or_else(|| panic!("no field {name}"))];
            let (at, width) = (f.offset as usize, f.width as usize);
            row[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        self.chunks.entry(cpu).or_default().push((kind.id, row, ts));
        self
    }

    /// A switch on a CPU: (thread, state) that leaves, thread that comes; pids are the tids.
    pub fn switch(&mut self, cpu: u32, ts: u64, prev: u64, state: u64, next: u64) -> &mut Self {
        let fields = [
            ("prev_tid", prev),
            ("prev_pid", prev),
            ("prev_state", state),
            ("next_tid", next),
            ("next_pid", next),
            ("next_cgroup_id", next * 10),
            ("prev_cgroup_id", prev * 10),
        ];
        self.event(cpu, "sched_switch", ts, &fields)
    }

    /// A wakeup.
    pub fn wakeup(&mut self, cpu: u32, ts: u64, tid: u64) -> &mut Self {
        self.event(cpu, "sched_wakeup", ts, &[("tid", tid), ("pid", tid), ("cgroup_id", tid * 10)])
    }

    /// What happens to a request.
    pub fn block(&mut self, what: &str, ts: u64, rq: u64, fields: &[(&str, u64)]) -> &mut Self {
        let mut all = vec![("rq", rq), ("dev", 8 << 20), ("bytes", 4096), ("tid", 50), ("pid", 50), ("sector", rq)];
        all.extend_from_slice(fields);
        self.event(0, what, ts, &all)
    }

    /// A trace of memory: all that follows is of one cgroup.
    pub fn of_memory() -> Self {
        Self::with(Registry::default(), &[("sources", "malloc,kmem")])
    }

    /// Memory that a process got, by a number of [`bpfrec_format::events::call`].
    pub fn malloc(
        &mut self,
        ts: u64,
        (pid, tid): (u64, u64),
        call: u32,
        addr: u64,
        bytes: u64,
        stack: u64,
    ) -> &mut Self {
        let fields = [
            ("pid", pid),
            ("tid", tid),
            ("call", call.into()),
            ("addr", addr),
            ("bytes", bytes),
            ("user_stack_id", stack),
            ("weight_milli", 1000),
            ("cgroup_id", 10),
        ];
        self.event((tid % 3) as u32, "malloc_alloc", ts, &fields)
    }

    /// Memory that a process gives back.
    pub fn free(&mut self, ts: u64, (pid, tid): (u64, u64), call: u32, addr: u64, bytes: u64) -> &mut Self {
        let fields =
            [("pid", pid), ("tid", tid), ("call", call.into()), ("addr", addr), ("bytes", bytes), ("cgroup_id", 10)];
        self.event((tid % 3) as u32, "malloc_free", ts, &fields)
    }

    /// Writes the events so far, one block a CPU.
    pub fn flush(&mut self) -> &mut Self {
        for (cpu, events) in std::mem::take(&mut self.chunks) {
            let mut chunk = Chunk { stream: cpu, ..Chunk::default() };
            chunk.ts_min_ns = events.iter().map(|e| e.2).min().unwrap();
            chunk.ts_max_ns = events.iter().map(|e| e.2).max().unwrap();
            for (kind, row, _) in events {
                match chunk.rows.iter_mut().find(|(k, _)| *k == kind) {
                    Some((_, rows)) => rows.extend_from_slice(&row),
                    None => chunk.rows.push((kind, row)),
                }
            }
            self.writer.write(chunk.encode(&self.registry, None, false).unwrap()).unwrap();
        }
        self
    }

    /// Writes a block of events of one kind: fields in the order of `fields`, `ts_ns` among them; for many of them.
    pub fn block_of<'a>(&mut self, cpu: u32, name: &str, fields: &[&str], rows: impl Iterator<Item = &'a [u64]>) {
        let kind = self.kind(name);
        let field = |name: &&str| &kind.fields[kind.index_of(name).unwrap_or_else(|| panic!("no field {name}"))];
        let places: Vec<(usize, usize)> =
            fields.iter().map(field).map(|f| (f.offset as usize, f.width as usize)).collect();
        let (mut bytes, mut chunk) = (Vec::new(), Chunk { stream: cpu, ts_min_ns: u64::MAX, ..Chunk::default() });
        for row in rows {
            let start = bytes.len();
            bytes.resize(start + kind.row_size as usize, 0);
            for ((at, width), value) in places.iter().zip(row) {
                bytes[start + at..start + at + width].copy_from_slice(&value.to_le_bytes()[..*width]);
            }
            (chunk.ts_min_ns, chunk.ts_max_ns) = (chunk.ts_min_ns.min(row[0]), chunk.ts_max_ns.max(row[0]));
        }
        chunk.rows.push((kind.id, bytes));
        self.writer.write(chunk.encode(&self.registry, None, false).unwrap()).unwrap();
    }

    /// Adds a row that is no event, or one that stands beside tasks and cgroups. Missing fields are 0 and empty.
    pub fn row(&mut self, name: &str, fields: &[(&str, V<'_>)]) -> &mut Self {
        let kind = self.kind(name);
        let block = kind.block_type();
        let table = self.meta.entry((block as u8, kind.id)).or_insert_with(|| Table::new(&kind));
        let values: Vec<Value<'_>> = kind
            .fields
            .iter()
            .map(|f| match (fields.iter().find(|(n, _)| *n == f.name), f.ty) {
                (Some((_, V::N(n))), _) => Value::Int(*n),
                (Some((_, V::T(t))), _) => Value::Text(t.as_bytes()),
                (Some((_, V::L(l))), _) => Value::List(l),
                (None, bpfrec_format::Type::Text) => Value::Text(&[]),
                (None, bpfrec_format::Type::List) => Value::List(&[]),
                (None, _) => Value::Int(0),
            })
            .collect();
        table.push(&values);
        self
    }

    /// A task that was there at the start.
    pub fn task(&mut self, tid: u64, pid: u64, comm: &str) -> &mut Self {
        let fields =
            [("ts_ns", V::N(T0)), ("tid", V::N(tid)), ("pid", V::N(pid)), ("start_ns", V::N(S)), ("comm", V::T(comm))];
        self.row("task", &fields)
    }

    /// The whole file.
    pub fn bytes(mut self) -> Vec<u8> {
        self.flush();
        for ((block, _), table) in &self.meta {
            self.writer.write_tables(BlockType::from_number(*block).unwrap(), &[table]).unwrap();
        }
        self.writer.finish(EndReason::Exit).unwrap().0
    }

    /// The trace.
    pub fn trace(self) -> Trace {
        open(self.bytes())
    }
}

/// A trace of one file in memory.
pub fn open(bytes: Vec<u8>) -> Trace {
    Trace { segments: vec![("x.bpr".into(), Segment::open(Box::new(bytes)).unwrap())], refused: Vec::new() }
}

/// Makes a report. `flags`: long names, with a value after `=`.
pub fn report(trace: &Trace, name: &str, flags: &[&'static str], json: bool) -> Outcome {
    let meta = Meta::load(trace).unwrap();
    report_of(trace, name, flags, json, &Filter::everything(&meta))
}

/// Makes a report of a part.
pub fn report_of(trace: &Trace, name: &str, flags: &[&'static str], json: bool, filter: &Filter) -> Outcome {
    let meta = Meta::load(trace).unwrap();
    let split = |f: &&'static str| f.split_once('=').map_or((*f, String::new()), |(f, v)| (f, v.to_owned()));
    let flags = Flags(flags.iter().map(split).collect());
    reports::run(trace, &meta, reports::find(name).unwrap(), &flags, filter, json, &|_, _| {}).unwrap()
}

/// JSON of a report.
pub fn json(trace: &Trace, name: &str, flags: &[&'static str]) -> serde_json::Value {
    serde_json::from_str(&report(trace, name, flags, true).output).unwrap()
}

/// Files in memory.
#[derive(Default, Clone)]
pub struct Files(pub Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

struct File(Files, String);

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.0.lock().unwrap().get_mut(&self.1).unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Output for Files {
    fn create(&self, name: &str) -> std::io::Result<Box<dyn Write + Send>> {
        self.0.lock().unwrap().insert(name.into(), Vec::new());
        Ok(Box::new(File(self.clone(), name.into())))
    }
}

/// Everything of a trace, by `threads` threads.
pub fn analyze(trace: &Trace, threads: usize) -> (bpfrec_analyze::everything::Summary, BTreeMap<String, Vec<u8>>) {
    let files = Files::default();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let summary = pool.install(|| {
        let meta = Meta::load(trace).unwrap();
        bpfrec_analyze::analyze(trace, &meta, &files, &|_, _| {}).unwrap()
    });
    let files = files.0.lock().unwrap().clone();
    (summary, files)
}

/// LOSS of a source.
pub fn loss(builder: &mut Builder, source: bpfrec_format::Source, from: u64, to: u64, lost: u64) {
    let reason = meta::reason::RING_FULL;
    let (from, to) = (("ts_from_ns", V::N(from)), ("ts_to_ns", V::N(to)));
    builder.row("loss", &[("source", V::N(source as u64)), from, to, ("reason", V::N(reason)), ("lost", V::N(lost))]);
}
