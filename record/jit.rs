//! Names of code that is compiled while it runs: perf maps and jitdump files, read by a thread while they grow.
//!
//! A process is watched from its first executable mapping on that is no file. What it writes is found in its own root,
//! through handles that stay good when the process or its container is gone.

mod dump;
mod perf_map;
mod watch;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use bpfrec_format::{Column, Registry, Table, events, meta};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::processes::Mapping;
use watch::Watch;

/// Time between two looks at files that are known. It is how late a reused address may be noticed where the file's time
/// of change does not tell.
const TICK: Duration = Duration::from_millis(100);
/// Time between two looks for files that are not there yet: as long as nobody came, within these bounds. Who writes names
/// mostly does so from the start.
const SEARCH: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(4));
/// Processes that are watched at the same time.
const PROCESSES: usize = 512;
/// Bytes of maps that are read in all.
const TOTAL_BYTES: u64 = 256 << 20;
/// Bytes of a file that are read at a look.
const PIECE: usize = 2 << 20;
/// Rows that are handed on together.
const ROWS: usize = 1 << 14;
/// Messages that may wait for the thread.
const QUEUE: usize = 4096;

/// What the thread is told.
enum Told {
    Mapped(Mapping),
    /// By a process that is watched.
    Forked(u32),
    Exited(u32),
    /// A new segment began.
    Again,
}

/// What was seen in all, for the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Files that were read.
    pub files: u64,
    /// Functions.
    pub functions: u64,
    /// Lines and records that could not be understood.
    pub bad_lines: u64,
    /// Records whose times are not of CLOCK_MONOTONIC: they have the time when they were read.
    pub other_clock: u64,
    /// Files of another owner than the process, or of another kind.
    pub refused: u64,
    /// Bytes beyond the bounds.
    pub left_bytes: u64,
    /// Processes that were one too many.
    pub left_processes: u64,
}

/// Bytes that may still be read.
pub struct Budget {
    /// These.
    pub left: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { left: TOTAL_BYTES }
    }
}

impl Budget {
    /// Takes so many, if there are.
    pub fn take(&mut self, bytes: u64) -> bool {
        let enough = bytes <= self.left;
        self.left -= if enough { bytes } else { 0 };
        enough
    }
}

/// Rows of kind `jit_symbol` in the making.
pub struct Rows(Table);

impl Default for Rows {
    fn default() -> Self {
        Rows(Table::new(&meta::kind(meta::JIT_SYMBOL)))
    }
}

impl Rows {
    /// A line of a perf map.
    pub fn perf_map(&mut self, ts_ns: u64, pid: u32, addr: u64, len: u64, name: &[u8]) {
        self.push(ts_ns, pid, addr, len, meta::symbol_source::PERF_MAP, name);
    }

    /// A record of a jitdump file.
    pub fn jitdump(&mut self, ts_ns: u64, pid: u32, addr: u64, len: u64, name: &[u8]) {
        self.push(ts_ns, pid, addr, len, meta::symbol_source::JITDUMP, name);
    }

    fn push(&mut self, ts_ns: u64, pid: u32, addr: u64, len: u64, source: u64, name: &[u8]) {
        // Of no bytes nothing can run.
        if len > 0 {
            self.0.push(&[ts_ns.into(), pid.into(), addr.into(), len.into(), source.into(), name.into()]);
        }
    }

    /// What was gathered since the last call.
    pub fn take(&mut self) -> Table {
        std::mem::take(self).0
    }
}

/// The thread and its two ends.
pub struct Jit {
    registry: Arc<Registry>,
    tell: Option<SyncSender<Told>>,
    /// Processes that the thread was told of: of all others it need not know.
    watched: FxHashSet<u32>,
    tables: Receiver<(Table, Seen)>,
    /// As the thread told last.
    pub seen: Seen,
    /// Messages that it could not take.
    untold: u64,
}

impl Jit {
    /// Starts the thread. It sleeps until there is something to watch.
    pub fn start(registry: Arc<Registry>) -> Result<Jit> {
        let (tell, told) = sync_channel(QUEUE);
        let (send, tables) = sync_channel(4);
        let work = move || Watcher::new(send).run(&told);
        // Not joined: a file system that does not answer must not hold the recorder up.
        std::thread::Builder::new().name("bpfrec-jit".into()).spawn(work)?;
        Ok(Jit { registry, tell: Some(tell), watched: FxHashSet::default(), tables, seen: Seen::default(), untold: 0 })
    }

    fn tell(&mut self, told: Told) {
        if let Some(Err(TrySendError::Full(_))) = self.tell.as_ref().map(|tell| tell.try_send(told)) {
            self.untold += 1;
        }
    }

    /// Takes note of mappings.
    pub fn mapped(&mut self, mappings: &[Mapping]) {
        for mapping in mappings.iter().filter(|m| watch::is_compiled(m) || watch::is_dump(m)) {
            self.watched.insert(mapping.pid);
            self.tell(Told::Mapped(mapping.clone()));
        }
    }

    /// Takes note of forks and exits: tables of task events.
    pub fn tasks(&mut self, tables: &[Table]) {
        let mut told = Vec::new();
        for table in tables.iter().filter(|t| t.kind == events::SCHED_FORK || t.kind == events::SCHED_EXIT) {
            let Some(kind) = self.registry.get(table.kind) else { continue };
            let ints = |name: &str| table.column(kind, name).map_or(&[][..], Column::ints);
            let (tid, pid, ppid) = (ints("tid"), ints("pid"), ints("ppid"));
            for i in (0..table.rows()).filter(|i| tid[*i] == pid[*i]) {
                let (pid, parent) = (pid[i] as u32, ppid[i] as u32);
                if table.kind == events::SCHED_EXIT && self.watched.remove(&pid) {
                    told.push(Told::Exited(pid));
                } else if table.kind == events::SCHED_FORK && self.watched.contains(&parent) {
                    self.watched.insert(pid);
                    told.push(Told::Forked(pid));
                }
            }
        }
        told.into_iter().for_each(|told| self.tell(told));
    }

    /// A new segment began: what is known of living processes is to stand in it, too.
    pub fn again(&mut self) {
        self.tell(Told::Again);
    }

    /// Rows since the last call.
    pub fn tables(&mut self) -> Vec<Table> {
        let new: Vec<_> = self.tables.try_iter().collect();
        self.seen = new.last().map_or(self.seen, |(_, seen)| *seen);
        new.into_iter().map(|(table, _)| table).filter(|t| t.rows() > 0).collect()
    }

    /// Reads all once more and hands what comes to `each`. False when the thread did not end within `limit`.
    pub fn finish(&mut self, limit: Duration, each: &mut dyn FnMut(Table)) -> bool {
        self.tell = None;
        let start = Instant::now();
        let ended = loop {
            match self.tables.recv_timeout(limit.saturating_sub(start.elapsed())) {
                Ok((table, seen)) => {
                    self.seen = seen;
                    each(table);
                }
                Err(RecvTimeoutError::Disconnected) => break true,
                Err(RecvTimeoutError::Timeout) => break false,
            }
        };
        self.seen.left_processes += self.untold;
        ended
    }
}

/// What the thread knows.
struct Watcher {
    send: SyncSender<(Table, Seen)>,
    watched: FxHashMap<u32, Watch>,
    rows: Rows,
    budget: Budget,
    seen: Seen,
    /// When somebody came the last time.
    newest: Instant,
}

impl Watcher {
    fn new(send: SyncSender<(Table, Seen)>) -> Watcher {
        let (rows, budget, seen) = (Rows::default(), Budget::default(), Seen::default());
        Watcher { send, watched: FxHashMap::default(), rows, budget, seen, newest: Instant::now() }
    }

    fn run(&mut self, told: &Receiver<Told>) {
        let (mut looked, mut searched) = (Instant::now(), Instant::now());
        loop {
            // With nobody to watch there is nothing to do until somebody comes; most who could write names never do.
            let pause = self.newest.elapsed().clamp(SEARCH.0, SEARCH.1);
            let tick = if self.watched.values().any(Watch::has_files) { TICK } else { pause };
            let wait = if self.watched.is_empty() { Duration::MAX } else { tick.saturating_sub(looked.elapsed()) };
            match told.recv_timeout(wait) {
                Ok(told) => self.take(told),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if looked.elapsed() >= tick {
                looked = Instant::now();
                let search = searched.elapsed() >= pause;
                if search {
                    searched = looked;
                }
                self.look(search);
            }
            if !self.hand_on(1) {
                return;
            }
        }
        let pids: Vec<u32> = self.watched.keys().copied().collect();
        pids.into_iter().for_each(|pid| self.leave(pid));
        self.hand_on(0);
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Mapped(m) => {
                if let Some(watch) = self.watch(m.pid)
                    && watch::is_dump(&m)
                {
                    watch.add_dump(&m);
                }
            }
            Told::Forked(pid) => {
                self.watch(pid);
            }
            Told::Exited(pid) => self.leave(pid),
            Told::Again => {
                let watched: Vec<u32> = self.watched.keys().copied().collect();
                for pid in watched {
                    self.watched[&pid].again(&mut self.rows);
                    self.hand_on(ROWS);
                }
            }
        }
    }

    fn watch(&mut self, pid: u32) -> Option<&mut Watch> {
        if !self.watched.contains_key(&pid) {
            if self.watched.len() >= PROCESSES {
                self.seen.left_processes += 1;
                return None;
            }
            let mut watch = Watch::new(pid);
            watch.search(&mut self.seen);
            self.watched.insert(pid, watch);
            self.newest = Instant::now();
        }
        self.watched.get_mut(&pid)
    }

    fn look(&mut self, search: bool) {
        let pids: Vec<u32> = self.watched.keys().copied().collect();
        for pid in pids {
            let Some(watch) = self.watched.get_mut(&pid) else { continue };
            if search {
                watch.search(&mut self.seen);
            }
            watch.read(PIECE, &mut self.budget, &mut self.rows, &mut self.seen);
            self.hand_on(ROWS);
        }
    }

    /// The process is gone, or the recording is over: all that it wrote until now.
    fn leave(&mut self, pid: u32) {
        let Some(mut watch) = self.watched.remove(&pid) else { return };
        watch.search(&mut self.seen);
        watch.read(usize::MAX, &mut self.budget, &mut self.rows, &mut self.seen);
        self.seen.left_bytes += watch.left();
        self.hand_on(ROWS);
    }

    /// Hands rows on when there are so many. False when nobody takes them any more.
    fn hand_on(&mut self, at_least: usize) -> bool {
        if self.rows.0.rows() < at_least {
            return true;
        }
        let table = self.rows.take();
        self.seen.functions += table.rows() as u64;
        self.send.send((table, self.seen)).is_ok()
    }
}
