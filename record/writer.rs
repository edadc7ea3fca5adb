//! The writer thread: chunks and tables come through a bounded queue, are encoded, compressed and appended.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use bpfrec_format::writer::Chunk;
use bpfrec_format::{Block, BlockType, EndReason, Registry, Table};

use crate::segments::{QUEUE, Segments};
use crate::snapshot::Tables;
use crate::steps::WriterSteps;

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
    /// Messages in the queue.
    pub queued: AtomicUsize,
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
    queue: SyncSender<Message>,
    /// What the thread tells.
    pub progress: Arc<Progress>,
    thread: Option<JoinHandle<Result<Outcome>>>,
    /// Messages that waited and bytes that were written, and since when.
    moved: Cell<((usize, u64), Instant)>,
}

impl Writer {
    /// Starts the thread for an output that is there.
    pub fn start(mut segments: Segments) -> Result<Writer> {
        let (queue, messages) = sync_channel(QUEUE);
        let progress = Arc::clone(&segments.progress);
        let work = move || {
            let result = segments.run(&messages);
            if result.is_err() {
                segments.progress.failed.store(true, Ordering::Relaxed);
            }
            result
        };
        let thread = std::thread::Builder::new().name("bpfrec-writer".into()).spawn(work)?;
        Ok(Writer { queue, progress, thread: Some(thread), moved: Cell::new(((0, 0), Instant::now())) })
    }

    /// Hands a message on. While the queue is full this waits, the rings fill and the kernel counts what they lose; it
    /// gives up, and returns the message, when `give_up` says so.
    pub fn send(&self, mut message: Message, give_up: &dyn Fn() -> bool) -> Result<(), Message> {
        loop {
            // Counted before it is sent: the thread takes it off again and must not come first.
            self.progress.queued.fetch_add(1, Ordering::Relaxed);
            match self.queue.try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => {
                    self.progress.queued.fetch_sub(1, Ordering::Relaxed);
                    if give_up() || self.progress.failed.load(Ordering::Relaxed) || self.is_over() {
                        return Err(back);
                    }
                    message = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    /// Whether the thread has ended.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// How long the thread has taken nothing of what waits for it. To be asked now and then.
    pub fn stalled(&self) -> Duration {
        let progress = &self.progress;
        let now = (progress.queued.load(Ordering::Relaxed), progress.bytes.load(Ordering::Relaxed));
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
        // No message comes any more.
        self.queue = sync_channel(0).0;
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
