//! The writer thread: chunks and tables come through a bounded queue, are encoded, compressed and appended.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use bpfrec_format::writer::Chunk;
use bpfrec_format::{Block, BlockType, EndReason, Registry, Table};

use crate::drained::CHUNK_BYTES;
use crate::queue::{Sender, queue};
use crate::segments::{QUEUE, Segments};
use crate::snapshot::Tables;
use crate::steps::WriterSteps;

/// Written chunks whose memory is kept.
const SPARE: usize = 16;

/// What the writer is told.
pub enum Message {
    /// Events of a CPU.
    Chunk(Chunk),
    /// Tables for blocks of one type.
    Tables(BlockType, Vec<Table>),
    /// Tables that were kept back for others to join them are to be written.
    Release,
    /// A block that is ready.
    Block(Block),
    /// Totals.
    Checkpoint(Vec<Table>),
    /// A new segment begins with these tables.
    Rotate(Tables),
    /// The recording is over.
    Finish(EndReason),
}

/// What the writer tells while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes written in all segments.
    pub bytes: AtomicU64,
    /// Bytes written in this segment.
    pub segment_bytes: AtomicU64,
    /// Whether writing failed; the thread's result says why.
    pub failed: AtomicBool,
    /// Events whose stack was never defined.
    pub undefined_stacks: AtomicU64,
    /// CPU time of the thread.
    pub steps: WriterSteps,
    /// Chunks that are written, for the next rows: a few, and none with much room that it did not need.
    written: Mutex<Vec<Chunk>>,
}

impl Progress {
    /// Gives back the memory of a chunk.
    pub fn wrote(&self, chunk: Chunk) {
        let room: usize = chunk.rows.iter().map(|(_, rows)| rows.capacity()).sum();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.len() < SPARE && room <= 3 * CHUNK_BYTES {
            written.push(chunk);
        }
    }

    /// Takes what was given back, to the rest of the last time.
    pub fn take_written(&self, rest: &mut Vec<Chunk>) {
        rest.append(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner));
        rest.truncate(SPARE);
    }
}

/// What the writer wrote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// Everything.
    Whole,
    /// Everything until the disk was full.
    DiskFull,
}

/// Where segments go and how they begin.
pub struct Plan {
    /// File, directory of segments, or `-`.
    pub path: PathBuf,
    /// Whether `path` is a directory of segments.
    pub rotates: bool,
    /// Whether existing files may be replaced.
    pub force: bool,
    /// Size of all segments together.
    pub max_bytes: Option<u64>,
    /// Random id.
    pub trace_id: u64,
    /// Facts for each segment's header.
    pub items: Vec<(String, String)>,
    /// Kinds.
    pub registry: Arc<Registry>,
}

/// The other end of the queue.
pub struct Writer {
    /// Closed once no message comes any more.
    queue: Option<Sender<Message>>,
    /// What the thread tells.
    pub progress: Arc<Progress>,
    thread: Option<JoinHandle<Result<Outcome>>>,
    /// Messages that waited and bytes that were written, and since when.
    moved: Cell<((usize, u64), Instant)>,
    /// Each message wakes the thread: at the end of a recording they come far apart.
    pub at_once: Cell<bool>,
}

impl Writer {
    /// Starts the thread for an output that is there.
    pub fn start(mut segments: Segments) -> Result<Writer> {
        let (sender, messages) = queue(QUEUE);
        let progress = Arc::clone(&segments.progress);
        let work = move || {
            let result = segments.run(&messages);
            if result.is_err() {
                segments.progress.failed.store(true, Ordering::Relaxed);
            }
            result
        };
        let thread = std::thread::Builder::new().name("bpfrec-writer".into()).spawn(work)?;
        Ok(Writer {
            queue: Some(sender),
            progress,
            thread: Some(thread),
            moved: Cell::new(((0, 0), Instant::now())),
            at_once: Cell::new(false),
        })
    }

    /// Hands a message on, for a thread that is woken by a few of them, or by [`Writer::wake`]. While the queue is full this
    /// waits, the rings fill and the kernel counts what they lose; it gives up, and returns the message, when `give_up` says
    /// so.
    pub fn send(&self, mut message: Message, give_up: &dyn Fn() -> bool) -> Result<(), Message> {
        let Some(queue) = &self.queue else { return Err(message) };
        while let Err(back) = queue.put(message) {
            if give_up() || self.progress.failed.load(Ordering::Relaxed) || self.is_over() {
                return Err(back);
            }
            message = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.at_once.get() {
            queue.wake();
        }
        Ok(())
    }

    /// Nothing more comes for now.
    pub fn wake(&self) {
        self.queue.iter().for_each(Sender::wake);
    }

    /// Messages that the thread has not taken yet.
    pub fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, Sender::len)
    }

    /// Whether the thread has ended.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// How long the thread has taken nothing of what waits for it. To be asked now and then.
    pub fn stalled(&self) -> Duration {
        let now = (self.waiting(), self.progress.bytes.load(Ordering::Relaxed));
        let (before, since) = self.moved.get();
        if now == before && now.0 > 0 {
            return since.elapsed();
        }
        self.moved.set((now, Instant::now()));
        Duration::ZERO
    }

    /// Waits for the thread; it gives up when `give_up` says so of how long that takes.
    ///
    /// # Errors
    /// Why writing failed, or that it was given up.
    pub fn join(&mut self, give_up: &dyn Fn(Duration) -> bool) -> Result<Outcome> {
        self.queue = None;
        let thread = self.thread.take().ok_or_else(|| anyhow!("the writer was waited for twice"))?;
        let start = Instant::now();
        while !thread.is_finished() {
            if give_up(start.elapsed()) {
                bail!("the output takes nothing any more");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        thread.join().map_err(|_| anyhow!("the writer thread panicked"))?
    }
}
