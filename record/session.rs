//! One recording: open, load, attach, drain, finish.

use std::cell::Cell;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bpfrec_format::writer::Chunk;
use bpfrec_format::{BlockType, EndReason, Registry, Table, meta};
use libbpf_rs::{MapCore as _, MapFlags};

use crate::args::RecordArgs;
use crate::bpf::{Loaded, SharedMaps};
use crate::bpf_time::BpfTime;
use crate::clock::Clocks;
use crate::command::Running;
use crate::drained::CHUNK_AGE;
use crate::finish::LAST_CALL;
use crate::held::Held;
use crate::hits::Hits;
use crate::hotplug::Hotplug;
use crate::jit::Jit;
use crate::processes::Mapping;
use crate::rings::{IDLE_POLL, POLL, Rings};
use crate::rotation::Rotation;
use crate::seen::Shared;
use crate::shedding::{Budget, FIRST_LOOK};
use crate::snapshot::Snapshot;
use crate::sources::Attached;
use crate::stats::Losses;
use crate::status::Status;
use crate::steps::DrainSteps;
use crate::unwind::Unwinding;
use crate::watch::Watch;
use crate::writer::{Message, Writer};

/// Totals and clocks go to the file this often.
const CHECKPOINT: Duration = Duration::from_secs(10);
/// The kernel's records are read this often also when the thread that they wake does not.
const READ: Duration = Duration::from_millis(500);
/// A thread that reads a binary is waited for so long where it matters.
pub const LOCK: Duration = Duration::from_secs(2);

/// Runs `bpfrec record`; returns the exit code.
pub fn run(args: RecordArgs) -> Result<u8> {
    crate::limits::check()?;
    if args.list_sources {
        crate::messages::collect();
        return crate::abilities::print(&args).map(|()| 0);
    }
    check_output(&args)?;
    crate::confine::check(&args)?;
    crate::shedding::check(&args)?;
    crate::messages::collect();
    let mut session = Session::start(args)?;
    let reason = session.record()?;
    session.finish(reason)
}

/// Says what is wrong with the output before anything is loaded; the file itself is created with O_EXCL later.
fn check_output(args: &RecordArgs) -> Result<()> {
    let path = args.output.display();
    if args.output == Path::new("-") {
        if args.rotates() {
            bail!("segments need a directory: -o DIR instead of -o -");
        }
        if std::io::stdout().is_terminal() {
            bail!("stdout is a terminal, and a trace is not text: redirect it, or use -o FILE");
        }
    } else if !args.rotates() {
        crate::output::check(&args.output, args.force)?;
    } else if args.output.exists() && !args.output.is_dir() {
        bail!("{path} is no directory, and segments need one: -o DIR");
    }
    Ok(())
}

/// A recording that runs.
pub(crate) struct Session {
    pub args: RecordArgs,
    pub registry: Arc<Registry>,
    pub status: Status,
    /// Set by signals.
    pub stop: Arc<AtomicBool>,
    pub shared: SharedMaps,
    /// The task programs.
    pub tasks: Loaded,
    /// Those that translate pids, where that is needed.
    pub _pids: Option<Loaded>,
    pub sources: Vec<Attached>,
    pub rings: Rings,
    /// Walks user stacks, where that is asked for.
    pub unwinding: Option<Unwinding>,
    /// Names of compiled code, where stacks are recorded.
    pub jit: Option<Jit>,
    /// What is known of processes and binaries.
    pub seen: Shared,
    /// Code that stacks hit.
    pub hits: Hits,
    /// The thread that the kernel's records wake.
    pub watch: Watch,
    /// CPUs that come and go.
    pub hotplug: Hotplug,
    /// Away while a rotation uses it.
    pub snapshot: Option<Snapshot>,
    pub rotation: Option<Rotation>,
    pub losses: Losses,
    pub bpf_time: BpfTime,
    pub clocks: Clocks,
    /// CPU time of this thread.
    pub steps: DrainSteps,
    /// What the recording may cost.
    pub budget: Budget,
    /// When each step that is given up was, the oldest first, CLOCK_MONOTONIC.
    pub shed_at: Vec<u64>,
    /// Runs of probes that the kernel left out, by source, and when they were last looked at.
    pub left_out: [u64; 16],
    pub losses_read_ns: u64,
    pub writer: Writer,
    pub command: Option<Running>,
    /// Of the command.
    pub exit_code: u8,
    pub started: Instant,
    pub segment_started: Instant,
    pub stopped: Cell<Option<Instant>>,
    /// When this thread last read the kernel's records itself.
    pub seen_read: Instant,
    /// Whether the last messages are sent, which the writer gets all the time that it needs for.
    pub ending: Cell<bool>,
    /// Number of the segment, as the BPF programs know it.
    pub epoch: u32,
    pub wakeups: u64,
    /// Since when the writer keeps tables back.
    pub held: Cell<Option<Instant>>,
    /// Events that the writer could not take.
    pub unsent: u64,
}

impl Session {
    /// Returns whether the message was taken.
    pub fn send(&self, message: Message) -> bool {
        if matches!(message, Message::Tables(of, _) if Held::takes(of)) {
            self.held.set(self.held.get().or_else(|| Some(Instant::now())));
        }
        let give_up = || if self.ending.get() { self.is_stuck() } else { self.is_late() };
        self.writer.send(message, &give_up).is_ok()
    }

    /// Whether the recording was to stop some time ago. Asked while the writer takes nothing: then nobody else looks.
    fn is_late(&self) -> bool {
        let due = self.stop.load(Ordering::Relaxed) || self.args.duration.is_some_and(|d| self.started.elapsed() >= d);
        if due && self.stopped.get().is_none() {
            self.stopped.set(Some(Instant::now()));
        }
        // Begins to look at what the writer does.
        self.writer.stalled();
        self.stopped.get().is_some_and(|at| at.elapsed() > LAST_CALL)
    }

    /// Whether the output takes nothing any more. A disk, however slow, is waited for, until somebody asks again to stop.
    pub fn is_stuck(&self) -> bool {
        let again = self.args.output == Path::new("-") || self.stop.load(Ordering::Relaxed);
        self.writer.stalled() > LAST_CALL && again
    }

    /// Adds a fact to the header: HEADER blocks may come at any time.
    pub fn tell(&self, key: &str, value: &str) {
        let mut items = Table::new(&meta::kind(meta::HEADER_ITEM));
        items.push(&[key.into(), value.into()]);
        self.send(Message::Tables(BlockType::Header, vec![items]));
    }

    fn record(&mut self) -> Result<EndReason> {
        let (mut second, mut checkpoint) = (Instant::now(), Instant::now());
        loop {
            let until =
                |end: Option<Duration>, since: Instant| end.map_or(IDLE_POLL, |d| d.saturating_sub(since.elapsed()));
            // A new segment in the making is looked after until it is there, what is held must not grow old, and some commands
            // do not tell that they have ended.
            let silent = self.command.as_ref().is_some_and(|command| command.end().is_none());
            let soon = silent || self.held.get().is_some() || self.rotation.is_some();
            let next = if soon { POLL } else { until(self.args.rotate_time, self.segment_started) };
            self.writer.wake();
            self.rings.wait(next.min(until(self.args.duration, self.started)));
            self.wakeups += 1;
            self.follow_cpus()?;
            let reason = self.over()?;
            self.drain(false)?;
            if let Some(clocks) = self.clocks.look() {
                self.send(Message::Tables(BlockType::Clock, vec![clocks]));
            }
            if reason.is_some() || second.elapsed() >= Duration::from_secs(1) {
                second = Instant::now();
                self.count_losses()?;
                if self.started.elapsed() >= FIRST_LOOK {
                    self.keep_to_budget()?;
                }
                self.bpf_time.tick();
                let figures = self.figures();
                self.status.tick(figures);
            }
            if let Some(reason) = reason {
                return Ok(reason);
            }
            if checkpoint.elapsed() >= CHECKPOINT {
                checkpoint = Instant::now();
                self.checkpoint();
            }
            if self.args.rotates() {
                self.rotate()?;
            }
        }
    }

    /// Whether the recording is over, and why.
    fn over(&mut self) -> Result<Option<EndReason>> {
        if let Some(code) = self.command.as_mut().map(Running::exit_code).transpose()?.flatten() {
            self.exit_code = code;
            self.command = None;
            self.tell("command_exit_code", &code.to_string());
            return Ok(Some(EndReason::Exit));
        }
        if self.args.duration.is_some_and(|d| self.started.elapsed() >= d) {
            return Ok(Some(EndReason::Exit));
        }
        if self.stop.load(Ordering::Relaxed) {
            return Ok(Some(EndReason::Signal));
        }
        if self.writer.is_over() {
            return Ok(Some(EndReason::WriteError));
        }
        self.is_full()
    }

    /// Moves what the rings hold to the writer: definitions before the events that refer to them.
    pub fn drain(&mut self, all: bool) -> Result<()> {
        self.writer.progress.take_written(&mut self.rings.drained.borrow_mut().written);
        self.rings.drain(all)?;
        // The thread that holds the lock is reading the same records; what it finds goes out the next time.
        let patience = if all { LOCK } else { Duration::ZERO };
        let changes = self.seen.lock_within(patience).map(|mut seen| {
            // The watching thread has read them a moment ago. Who is to find a binary by an address wants the last ones too.
            if all || self.unwinding.is_some() || self.hits.is_full() || self.seen_read.elapsed() >= READ {
                self.seen_read = Instant::now();
                seen.read();
            }
            if self.hits.is_full() {
                self.hits.resolve(&mut seen);
            }
            seen.take()
        });
        let mut mapped = Vec::new();
        for (block_type, tables) in changes.into_iter().flatten() {
            for mappings in tables.iter().filter(|t| t.kind == meta::MAPPING) {
                mapped.extend(Mapping::of_table(mappings));
                let items = self.sources.iter_mut().flat_map(|s| s.source.mapped(mappings, &mut s.loaded));
                for (key, value) in items.collect::<Vec<_>>() {
                    self.tell(&key, &value);
                }
                self.sources.iter().flat_map(|s| s.source.notes()).for_each(|note| self.status.say(&note));
            }
            self.send_change(block_type, tables);
        }
        if let Some(unwinding) = &mut self.unwinding {
            let mut drained = self.rings.drained.borrow_mut();
            let copies = drained.take_copies();
            unwinding.pass(&mapped, copies).iter().for_each(|sample| drained.unwound(sample));
        }
        let (chunks, stacks, tasks) = {
            let mut drained = self.rings.drained.borrow_mut();
            (drained.take_chunks(all || self.rings.idle), drained.take_stacks(), drained.take_tasks()?)
        };
        for block_type in [BlockType::Tasks, BlockType::Cgroups] {
            let is = |t: &&Table| self.registry.get(t.kind).is_some_and(|k| k.block_type() == block_type);
            let mut tables: Vec<_> = tasks.iter().filter(is).cloned().collect();
            let described = |t: &Table| crate::cgroups::described(self.registry.get(t.kind)?, t);
            let described: Vec<_> = tables.iter().filter_map(described).collect();
            tables.extend(described);
            if !tables.is_empty() {
                self.send_change(block_type, tables);
            }
        }
        if let Some(stacks) = stacks {
            self.hits.add(&stacks);
            self.send(Message::Tables(BlockType::Stacks, vec![stacks]));
        }
        for chunk in chunks {
            self.send_chunk(chunk);
        }
        let mut compiled = Vec::new();
        if let Some(jit) = &mut self.jit {
            jit.mapped(&mapped);
            jit.tasks(&tasks);
            compiled = jit.tables();
        }
        for table in compiled {
            self.send(Message::Tables(BlockType::JitSymbols, vec![table]));
        }
        if self.held.get().is_some_and(|since| all || self.rings.idle || since.elapsed() >= CHUNK_AGE) {
            self.held.set(None);
            self.send(Message::Release);
        }
        Ok(())
    }

    /// Sends a change of what runs; a segment in the making needs it too.
    fn send_change(&mut self, block_type: BlockType, tables: Vec<Table>) {
        if let Some(rotation) = &mut self.rotation {
            rotation.note(block_type, &tables);
        }
        self.send(Message::Tables(block_type, tables));
    }

    fn send_chunk(&mut self, mut chunk: Chunk) {
        chunk.lost_total = self.losses.by_cpu.get(chunk.stream as usize).copied().unwrap_or(0);
        let size = |kind: u16| self.registry.get(kind).map_or(1, |k| k.row_size as usize);
        let events: usize = chunk.rows.iter().map(|(kind, rows)| rows.len() / size(*kind)).sum();
        if !self.send(Message::Chunk(chunk)) {
            self.unsent += events as u64;
        }
    }

    /// Begins a new segment when the old one is large or old enough, and changes over once what runs has been read.
    fn rotate(&mut self) -> Result<()> {
        if let Some(rotation) = self.rotation.take_if(|r| r.is_ready()) {
            self.epoch += 1;
            // From now on stacks are defined anew. Only sources with stacks bring this map.
            if let Ok(epoch) = self.shared.get("epoch") {
                epoch.update(&0u32.to_ne_bytes(), &self.epoch.to_ne_bytes(), MapFlags::ANY)?;
            }
            self.rings.drained.borrow_mut().next_segment();
            self.rotation = Some(rotation);
            self.drain(true)?;
            self.checkpoint();
            if let Some(rotation) = self.rotation.take() {
                let (snapshot, mut tables) = rotation.finish()?;
                tables.extend(self.shed_rows());
                self.snapshot = Some(snapshot);
                self.send(Message::Rotate(tables));
                if let Some(jit) = &mut self.jit {
                    jit.again();
                }
            }
            self.segment_started = Instant::now();
            // The writer says the size of the segment that ended until it has begun the new one.
            self.writer.progress.segment_bytes.store(0, Ordering::Relaxed);
            return Ok(());
        }
        let full = self.writer.progress.segment_bytes.load(Ordering::Relaxed) >= self.args.segment_bytes();
        let old = self.args.rotate_time.is_some_and(|t| self.segment_started.elapsed() >= t);
        if (full || old)
            && let Some(snapshot) = self.snapshot.take()
        {
            // Without the lock the new segment lacks the binaries that are not seen again; the old one has them.
            if let Some(mut seen) = self.seen.lock_within(LOCK) {
                seen.binaries.next_segment();
            }
            self.rotation = Some(Rotation::start(snapshot)?);
        }
        Ok(())
    }
}
