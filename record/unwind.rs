//! User stacks by `.eh_frame`, for `--unwind dwarf`: a thread walks copies of registers and stack memory that the BPF
//! program sent, and gives back addresses. The copies stay in memory and are dropped when they have been walked.

mod arch;
mod binaries;
mod process;

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use rustc_hash::FxHashMap;

use crate::layout::{CopyRecord, USER_STACK_ID, user_stack_id};
use crate::processes::Mapping;
use process::{End, Process, Tools};

/// Batches that may wait for the thread: beyond them stacks are those of frame pointers.
const QUEUE: usize = 8;
/// Processes whose mappings are kept.
const PROCESSES: usize = 4096;
/// A process that was not sampled for so long is forgotten when there are too many.
const IDLE_NS: u64 = 10_000_000_000;
/// Mappings of late, for processes that are gone before their first sample is looked at.
const RECENT: usize = 16_384;

/// How user stacks were walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// To the start of the thread.
    pub whole: u64,
    /// By tables, not to the start.
    pub cut: u64,
    /// By frame pointers, as tables led nowhere or the thread could not keep up.
    pub by_frame_pointers: u64,
}

/// A sample whose stack has been walked.
#[derive(Debug)]
pub struct Unwound {
    /// CPU whose event it is.
    pub cpu: u32,
    /// The event.
    pub row: Vec<u8>,
    /// Time, process, its exec, id and frames of its stack; `None` for no stack at all.
    pub stack: Option<Stack>,
    how: How,
}

/// A stack that was walked.
#[derive(Debug)]
pub struct Stack {
    /// When it was seen.
    pub ts_ns: u64,
    /// Process.
    pub pid: u32,
    /// Its exec.
    pub exec_id: u64,
    /// Its id.
    pub id: u64,
    /// Addresses, innermost first.
    pub frames: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Whole,
    Cut,
    FramePointers,
}

struct Batch {
    mappings: Vec<Mapping>,
    copies: Vec<CopyRecord>,
}

/// The thread and its two ends.
pub struct Unwinding {
    queue: Option<SyncSender<Batch>>,
    results: Receiver<Vec<Unwound>>,
    thread: Option<JoinHandle<()>>,
    /// For the next batch.
    mappings: Vec<Mapping>,
    counts: Counts,
}

impl Unwinding {
    /// Starts the thread.
    pub fn start() -> Result<Unwinding> {
        let (queue, batches) = sync_channel(QUEUE);
        let (send, results) = channel();
        let work = move || Worker::default().run(&batches, &send);
        let thread = std::thread::Builder::new().name("bpfrec-unwind".into()).spawn(work)?;
        Ok(Unwinding {
            queue: Some(queue),
            results,
            thread: Some(thread),
            mappings: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// Takes note of what was mapped and hands copies to the thread. Returns samples that are done.
    pub fn pass(&mut self, mappings: &[Mapping], copies: Vec<CopyRecord>) -> Vec<Unwound> {
        self.mappings.extend_from_slice(mappings);
        let mut done = Vec::new();
        if !copies.is_empty() {
            let batch = Batch { mappings: std::mem::take(&mut self.mappings), copies };
            let full = match self.queue.as_ref().map(|queue| queue.try_send(batch)) {
                Some(Ok(())) => None,
                Some(Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch))) => Some(batch),
                None => None,
            };
            if let Some(batch) = full {
                self.mappings = batch.mappings;
                done.extend(batch.copies.into_iter().map(by_frame_pointers));
            }
        }
        let excess = self.mappings.len().saturating_sub(RECENT);
        self.mappings.drain(..excess);
        done.extend(self.results.try_iter().flatten());
        self.count(done)
    }

    /// No more comes: waits for the rest, at most `limit`.
    pub fn finish(&mut self, limit: Duration) -> Vec<Unwound> {
        self.queue = None;
        let (start, mut done) = (std::time::Instant::now(), Vec::new());
        loop {
            match self.results.recv_timeout(limit.saturating_sub(start.elapsed())) {
                Ok(some) => done.extend(some),
                Err(RecvTimeoutError::Disconnected) => break,
                // What it still holds is told as lost by who counts the events.
                Err(RecvTimeoutError::Timeout) => return self.count(done),
            }
        }
        // It has ended: it has dropped its sender.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.count(done)
    }

    /// So far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn count(&mut self, done: Vec<Unwound>) -> Vec<Unwound> {
        for unwound in &done {
            match unwound.how {
                How::Whole => self.counts.whole += 1,
                How::Cut => self.counts.cut += 1,
                How::FramePointers => self.counts.by_frame_pointers += 1,
            }
        }
        done
    }
}

fn finished(copy: CopyRecord, frames: Vec<u64>, how: How) -> Unwound {
    let CopyRecord { mut row, ts_ns, pid, exec_id, cpu, .. } = copy;
    let stack = (!frames.is_empty()).then(|| {
        let id = user_stack_id(pid, exec_id, &frames);
        row[USER_STACK_ID].copy_from_slice(&id.to_ne_bytes());
        Stack { ts_ns, pid, exec_id, id, frames }
    });
    Unwound { cpu, row, stack, how }
}

fn by_frame_pointers(mut copy: CopyRecord) -> Unwound {
    let frames = std::mem::take(&mut copy.by_frame_pointers);
    finished(copy, frames, How::FramePointers)
}

/// What the thread knows.
#[derive(Default)]
struct Worker {
    tools: Tools,
    processes: FxHashMap<u32, Process>,
    recent: VecDeque<Mapping>,
}

impl Worker {
    fn run(&mut self, batches: &Receiver<Batch>, results: &Sender<Vec<Unwound>>) {
        for Batch { mut mappings, mut copies } in batches {
            // What was mapped before a sample is known when it is walked, and nothing that came later.
            mappings.sort_by_key(|m| m.ts_ns);
            copies.sort_by_key(|c| c.ts_ns);
            let mut mappings = mappings.into_iter().peekable();
            let mut done = Vec::with_capacity(copies.len());
            for copy in copies {
                while let Some(mapping) = mappings.next_if(|m| m.ts_ns <= copy.ts_ns) {
                    self.map(mapping);
                }
                done.push(self.unwind(copy));
            }
            mappings.for_each(|m| self.map(m));
            self.tidy();
            if results.send(done).is_err() {
                return;
            }
        }
    }

    fn map(&mut self, mapping: Mapping) {
        if let Some(process) = self.processes.get_mut(&mapping.pid)
            && mapping.ts_ns > process.known_ns
        {
            process.map(mapping.clone());
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(mapping);
    }

    fn unwind(&mut self, copy: CopyRecord) -> Unwound {
        if copy.stack.is_empty() {
            return by_frame_pointers(copy);
        }
        let (pid, exec_id) = (copy.pid, copy.exec_id);
        if self.processes.get(&pid).is_none_or(|p| p.exec_id != exec_id) {
            let recent = || {
                let mine = self.recent.iter().filter(|m| m.pid == pid).cloned();
                Process::new(exec_id, copy.ts_ns, mine)
            };
            self.processes.insert(pid, Process::read(pid, exec_id).unwrap_or_else(recent));
        }
        let Some(process) = self.processes.get_mut(&pid) else { return by_frame_pointers(copy) };
        process.used_ns = copy.ts_ns;
        let (mut frames, end) = process.walk(&copy, &mut self.tools);
        if end == End::Start {
            return finished(copy, frames, How::Whole);
        }
        // Frame pointers may lead on where the copy ended, if they pass by the same place.
        let last = frames.last().copied().unwrap_or_default();
        match copy.by_frame_pointers.iter().skip(1).position(|ip| *ip == last) {
            Some(at) if frames.len() > 1 => {
                frames.extend_from_slice(&copy.by_frame_pointers[at + 2..]);
                frames.truncate(process::MAX_FRAMES);
                finished(copy, frames, How::Cut)
            }
            None if frames.len() > 1 => finished(copy, frames, How::Cut),
            _ => by_frame_pointers(copy),
        }
    }

    /// Keeps memory bounded.
    fn tidy(&mut self) {
        if self.tools.binaries.is_full() {
            (self.tools, self.processes) = Default::default();
        }
        if self.processes.len() > PROCESSES {
            let now = crate::clock::mono_ns();
            self.processes.retain(|_, p| now.saturating_sub(p.used_ns) < IDLE_NS);
            if self.processes.len() > PROCESSES {
                self.processes.clear();
            }
        }
    }
}
