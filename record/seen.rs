//! What is known of processes and their binaries, from the records of the kernel and from /proc; shared by the thread
//! that waits for records, the one that takes snapshots and the main loop.

use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use bpfrec_format::table::Value;
use bpfrec_format::{BlockType, Table, meta};

use crate::binaries::Binaries;
use crate::images::Images;
use crate::modules::Modules;
use crate::processes::Mapping;
use crate::sideband::{MOUNT, Record, Sideband};

/// Records for which room is kept.
const ROOM: usize = 1024;

/// See the module.
pub struct Seen {
    /// Binaries.
    pub binaries: Binaries,
    /// Who maps them.
    pub images: Images,
    /// The kernel's records.
    pub sideband: Option<Sideband>,
    /// Room for them.
    records: Vec<(u64, Record)>,
    /// The kernel's modules.
    pub modules: Option<Modules>,
    mappings: Table,
    functions: Table,
    /// Tables about the kernel that go to the file as they are.
    kernel: Vec<Table>,
    namespaces: Table,
}

/// What [`Seen::read`] read.
#[derive(Clone, Copy, Debug, Default)]
pub struct News {
    /// Whether there was a binary that was not known before.
    pub binaries: bool,
    /// How many records there were.
    pub records: usize,
}

/// Shared between threads. It is locked while files are read, so nobody waits for it without a limit.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Seen>>);

impl Shared {
    /// Nothing is known yet.
    pub fn new() -> Shared {
        Shared(Arc::new(Mutex::new(Seen {
            binaries: Binaries::default(),
            images: Images::default(),
            sideband: None,
            records: Vec::new(),
            modules: None,
            mappings: Table::new(&meta::kind(meta::MAPPING)),
            functions: Table::new(&meta::kind(meta::KERNEL_SYMBOL_CHANGE)),
            kernel: Vec::new(),
            namespaces: Table::new(&meta::kind(meta::TASK_NAMESPACES)),
        })))
    }

    /// Waits.
    pub fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits at most so long: a file of a binary may lie on a file system that does not answer.
    pub fn lock_within(&self, limit: Duration) -> Option<MutexGuard<'_, Seen>> {
        let start = Instant::now();
        loop {
            match self.0.try_lock() {
                Ok(seen) => return Some(seen),
                Err(TryLockError::Poisoned(seen)) => return Some(seen.into_inner()),
                Err(TryLockError::WouldBlock) if start.elapsed() >= limit => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl Seen {
    /// Reads the kernel's records.
    pub fn read(&mut self) -> News {
        self.look_at_modules(false);
        let Some(sideband) = &mut self.sideband else { return News::default() };
        let mut records = std::mem::take(&mut self.records);
        sideband.read(&mut records);
        let (before, count) = (self.binaries.list.len(), records.len());
        for (ts_ns, record) in records.drain(..) {
            match record {
                Record::Map(mut mapping) => {
                    self.map(&mut mapping, true);
                    // A file may take long to open, and a module may be gone by then.
                    self.look_at_modules(false);
                }
                Record::Fork { pid, parent } => self.images.fork(pid, parent, ts_ns),
                Record::Exec { pid } => self.images.exec(pid, ts_ns),
                Record::Exit { pid } => self.images.exit(pid),
                Record::Namespaces { pid, tid, inodes, moved } => {
                    // The other threads of a process may stay where they are.
                    if pid == tid {
                        self.images.enter(pid, inodes[MOUNT].into());
                    }
                    if moved {
                        let mut row = vec![ts_ns.into(), tid.into(), pid.into()];
                        row.extend(inodes.map(Value::from));
                        self.namespaces.push(&row);
                    }
                }
                Record::Symbol { addr, len, gone, bpf, name } => self.functions.push(&[
                    ts_ns.into(),
                    addr.into(),
                    len.into(),
                    u32::from(gone).into(),
                    name[..].into(),
                    if bpf { "bpf" } else { "" }.into(),
                ]),
            }
        }
        records.shrink_to(ROOM);
        self.records = records;
        News { binaries: self.binaries.list.len() > before, records: count }
    }

    /// Takes note of modules that came or went. `all`: also when it is not yet time to look.
    pub fn look_at_modules(&mut self, all: bool) {
        self.kernel.extend(self.modules.as_mut().map_or(Vec::new(), |modules| modules.changes(all)));
    }

    /// Takes note of a mapping; with `row` also for the file.
    pub fn map(&mut self, mapping: &mut Mapping, row: bool) {
        let (pid, images) = (mapping.pid, &self.images);
        // Only looked for when the process itself is gone.
        let neighbours = std::iter::once_with(|| images.neighbours(pid)).flatten();
        let binary = self.binaries.see(mapping, neighbours);
        self.images.map(mapping, binary);
        if row {
            mapping.push_to(&mut self.mappings);
        }
    }

    /// Changes since the last call, for the file.
    pub fn take(&mut self) -> Vec<(BlockType, Vec<Table>)> {
        let mut changes = Vec::new();
        let tables = [
            (&mut self.mappings, BlockType::Maps),
            (&mut self.functions, BlockType::KernelSymbols),
            (&mut self.namespaces, BlockType::Tasks),
        ];
        for (table, block_type) in tables {
            if table.rows() > 0 {
                let empty = Table::new(&meta::kind(table.kind));
                changes.push((block_type, vec![std::mem::replace(table, empty)]));
            }
        }
        if !self.kernel.is_empty() {
            changes.push((BlockType::KernelSymbols, std::mem::take(&mut self.kernel)));
        }
        changes.extend(self.binaries.take_rows());
        changes
    }
}
