//! One recording: open, load, attach, drain, finish.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bpfrec_format::writer::Chunk;
use bpfrec_format::{BlockType, EndReason, Registry, Source as Id, Table, meta};
use libbpf_rs::{Link, MapCore as _, MapFlags};

use crate::args::RecordArgs;
use crate::bpf::{self, Loaded, SharedMaps};
use crate::command::Running;
use crate::hits::Hits;
use crate::jit::Jit;
use crate::modules::Modules;
use crate::processes::Mapping;
use crate::rings::{POLL, Rings};
use crate::rotation::Rotation;
use crate::seen::Shared;
use crate::sideband::Sideband;
use crate::snapshot::Snapshot;
use crate::sources::Attached;
use crate::stats::{self, BpfTime, Losses};
use crate::status::{Figures, Status};
use crate::unwind::Unwinding;
use crate::watch::Watch;
use crate::writer::{Message, Outcome, Writer};
use crate::{clock, limits};

/// Exit code when the disk was full.
const DISK_FULL: u8 = 4;
/// Totals and clocks go to the file this often.
const CHECKPOINT: Duration = Duration::from_secs(10);
/// A thread that reads a binary is waited for so long where it matters.
const LOCK: Duration = Duration::from_secs(2);
/// After a stop the writer gets this long to take what is in the rings.
const LAST_CALL: Duration = Duration::from_secs(10);

/// Runs `bpfrec record`; returns the exit code.
pub fn run(args: RecordArgs) -> Result<u8> {
    limits::check()?;
    check_output(&args)?;
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
    } else if !args.force && !args.rotates() && args.output.symlink_metadata().is_ok() {
        bail!("{path} exists: --force replaces it, -o FILE writes elsewhere");
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
    /// Kernel modules that are loaded.
    pub modules: Modules,
    /// The thread that the kernel's records wake.
    pub watch: Watch,
    /// Away while a rotation uses it.
    pub snapshot: Option<Snapshot>,
    pub rotation: Option<Rotation>,
    /// Link of the task iterator.
    pub iterator: Arc<Link>,
    pub losses: Losses,
    pub bpf_time: BpfTime,
    /// Runs of probes that the kernel left out, by source, and when they were last looked at.
    pub left_out: [u64; 16],
    pub losses_read_ns: u64,
    pub writer: Writer,
    pub command: Option<Running>,
    /// Of the command.
    pub exit_code: u8,
    pub started: Instant,
    pub segment_started: Instant,
    pub stopped: Option<Instant>,
    /// Number of the segment, as the BPF programs know it.
    pub epoch: u32,
    pub wakeups: u64,
    /// Events that the writer could not take.
    pub unsent: u64,
}

impl Session {
    /// Returns whether the message was taken.
    pub fn send(&self, message: Message) -> bool {
        let late = || self.stopped.is_some_and(|at| at.elapsed() > LAST_CALL);
        self.writer.send(message, &late).is_ok()
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
            let left = self.args.duration.map_or(POLL, |d| d.saturating_sub(self.started.elapsed()));
            self.rings.wait(left);
            self.wakeups += 1;
            let reason = self.over()?;
            self.drain(false)?;
            if reason.is_some() || second.elapsed() >= Duration::from_secs(1) {
                second = Instant::now();
                self.count_losses()?;
                self.bpf_time.tick();
                // Every second: a module may come, be sampled and go again.
                self.look_at_modules();
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
        Ok(self.writer.is_over().then_some(EndReason::WriteError))
    }

    /// Moves what the rings hold to the writer: definitions before the events that refer to them.
    fn drain(&mut self, all: bool) -> Result<()> {
        self.rings.drain()?;
        // The thread that holds the lock is reading the same records; what it finds goes out the next time.
        let patience = if all { LOCK } else { Duration::ZERO };
        let changes = self.seen.lock_within(patience).map(|mut seen| {
            seen.read();
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
            (drained.take_chunks(all), drained.take_stacks(), drained.take_tasks()?)
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

    /// Rows that a source can tell only when its other programs are detached.
    fn last_rows(&mut self) -> Result<()> {
        let links: Vec<Link> = self.sources.iter_mut().filter_map(|s| s.loaded.last.take()).collect();
        let mut rows = vec![0; 64 << 10];
        for link in links {
            let mut iterator = libbpf_rs::Iter::new(&link)?;
            let mut filled = 0;
            loop {
                let read = std::io::Read::read(&mut iterator, &mut rows[filled..]).context("reading what is left")?;
                if read == 0 {
                    break;
                }
                filled += read;
                let taken = self.rings.drained.borrow_mut().events(0, &rows[..filled]);
                rows.copy_within(taken..filled, 0);
                filled -= taken;
                // Their stacks come through a ring that would not hold all of them.
                self.drain(false)?;
            }
        }
        Ok(())
    }

    fn count_losses(&mut self) -> Result<()> {
        if let Some(table) = self.losses.read()? {
            self.send(Message::Tables(BlockType::Loss, vec![table]));
        }
        for id in Id::ALL.iter().copied() {
            let left_out = self.bpf_time.runs(id).left_out;
            let new = left_out - self.left_out[id as usize].min(left_out);
            self.left_out[id as usize] = left_out;
            if new > 0 {
                self.losses.total[id as usize] += new;
                let span = (self.losses_read_ns, clock::mono_ns());
                let row = stats::loss_row(id as u16, None, span, meta::reason::PROBE_BUSY, new);
                self.send(Message::Tables(BlockType::Loss, vec![row]));
            }
        }
        self.losses_read_ns = clock::mono_ns();
        let lost = self.seen.lock_within(Duration::ZERO).map_or(0, |mut seen| {
            self.hits.resolve(&mut seen);
            seen.sideband.as_mut().map_or(0, Sideband::take_lost)
        });
        if lost > 0 {
            let now = clock::mono_ns();
            let row = stats::loss_row(Id::Task as u16, None, (now, now), meta::reason::MAPPINGS_LOST, lost);
            self.send(Message::Tables(BlockType::Loss, vec![row]));
        }
        Ok(())
    }

    /// Modules make no records when they come and go.
    fn look_at_modules(&mut self) {
        match self.modules.changes() {
            Ok(Some(table)) => self.send_change(BlockType::KernelSymbols, vec![table]),
            Ok(None) => {}
            Err(error) => self.status.say(&format!("modules loaded meanwhile have no names: {error:#}")),
        }
    }

    fn figures(&self) -> Figures {
        let (cpu_ns, max_rss_bytes) = stats::own_usage();
        let measured: u64 = Id::ALL.iter().map(|id| self.bpf_time.runs(*id).run_ns).sum();
        Figures {
            elapsed: self.started.elapsed(),
            events: self.rings.drained.borrow().kept.iter().sum(),
            bytes: self.writer.progress.bytes.load(Ordering::Relaxed),
            lost: self.losses.total.iter().sum::<u64>() + self.unsent,
            cpu_ns,
            bpf_ns: self.scaled(measured),
            max_rss_bytes,
        }
    }

    /// What was measured in windows, for the whole time.
    fn scaled(&self, measured_ns: u64) -> u64 {
        let window = self.bpf_time.measured().as_nanos().max(1);
        (u128::from(measured_ns) * self.started.elapsed().as_nanos().max(window) / window) as u64
    }

    fn checkpoint(&self) {
        let now = clock::mono_ns();
        let mut by_source = Table::new(&meta::kind(meta::SOURCE_STATS));
        let kept = self.rings.drained.borrow().kept;
        for id in self.sources.iter().map(|s| s.id).chain([Id::Task]) {
            let runs = self.bpf_time.runs(id);
            let slot = id as usize;
            by_source.push(&[
                now.into(),
                (slot as u64).into(),
                kept[slot].into(),
                self.losses.total[slot].into(),
                self.scaled(runs.run_ns).into(),
                self.scaled(runs.runs).into(),
            ]);
        }
        let f = self.figures();
        let mut recorder = Table::new(&meta::kind(meta::RECORDER_STATS));
        recorder.push(&[
            now.into(),
            f.cpu_ns.into(),
            f.max_rss_bytes.into(),
            f.bytes.into(),
            self.wakeups.into(),
            f.bpf_ns.into(),
            (self.bpf_time.measured().as_nanos() as u64).into(),
        ]);
        let mut tables = vec![by_source, recorder];
        tables.extend(self.shared.get("stack_counts").and_then(|map| stats::stacks(map, Id::Offcpu)).ok());
        self.send(Message::Tables(BlockType::Clock, vec![clock::pair()]));
        self.send(Message::Checkpoint(tables));
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
                let (snapshot, tables) = rotation.finish()?;
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
            self.rotation = Some(Rotation::start(snapshot, Arc::clone(&self.iterator))?);
        }
        Ok(())
    }

    /// Waits for the stacks that are still being walked, and says how they were.
    fn finish_unwinding(&mut self) -> Result<()> {
        let Some(mut unwinding) = self.unwinding.take() else { return Ok(()) };
        unwinding.finish(LAST_CALL).iter().for_each(|sample| self.rings.drained.borrow_mut().unwound(sample));
        let counts = unwinding.counts();
        self.tell("unwound_whole", &counts.whole.to_string());
        self.tell("unwound_cut", &counts.cut.to_string());
        self.tell("unwound_by_frame_pointers", &counts.by_frame_pointers.to_string());
        self.drain(true)
    }

    /// Takes the last names of compiled code, and says what of them is missing.
    fn finish_jit(&mut self) {
        let Some(mut jit) = self.jit.take() else { return };
        let ended = jit.finish(LAST_CALL, &mut |table| {
            self.send(Message::Tables(BlockType::JitSymbols, vec![table]));
        });
        if !ended {
            self.status.say("warning: a file with names of compiled code could not be read to its end in time");
        }
        let seen = jit.seen;
        let counts = [
            ("jit_files", seen.files),
            ("jit_functions", seen.functions),
            ("jit_bad_lines", seen.bad_lines),
            ("jit_other_clock", seen.other_clock),
            ("jit_refused", seen.refused),
            ("jit_left_bytes", seen.left_bytes),
            ("jit_left_processes", seen.left_processes),
        ];
        counts.iter().filter(|(_, n)| *n > 0).for_each(|(key, n)| self.tell(key, &n.to_string()));
    }

    fn finish(mut self, reason: EndReason) -> Result<u8> {
        let ended = self.started.elapsed();
        self.stopped = Some(Instant::now());
        self.bpf_time.stop();
        bpf::open_gate(&self.shared, false)?;
        // Detached before the last drain: nothing can come after it.
        for attached in &mut self.sources {
            attached.loaded.detach();
        }
        self.tasks.links.clear();
        self.watch.stop();
        self.last_rows()?;
        loop {
            let before = self.rings.drained.borrow().kept;
            self.drain(true)?;
            if self.rings.drained.borrow().kept == before {
                break;
            }
        }
        self.finish_unwinding()?;
        self.finish_jit();
        self.count_losses()?;
        if self.unsent > 0 {
            let now = clock::mono_ns();
            let row = stats::loss_row(0, None, (now, now), meta::reason::QUEUE_FULL, self.unsent);
            self.send(Message::Tables(BlockType::Loss, vec![row]));
        }
        self.look_at_modules();
        self.write_symbols();
        self.checkpoint();
        let mut figures = self.figures();
        self.send(Message::Finish(reason));
        let progress = Arc::clone(&self.writer.progress);
        let outcome = self.writer.join();
        figures.elapsed = ended;
        figures.bytes = progress.bytes.load(Ordering::Relaxed);
        figures.lost += progress.undefined_stacks.load(Ordering::Relaxed);
        let path = self.args.output.display().to_string();
        match outcome.with_context(|| format!("{path}: writing failed; what was written before can be read"))? {
            Outcome::Whole => {
                self.status.finish(figures, &path);
                Ok(self.exit_code)
            }
            Outcome::DiskFull => {
                self.status.finish(figures, &path);
                eprintln!("bpfrec: {path}: the disk is full; the recording is whole up to there");
                Ok(DISK_FULL)
            }
        }
    }
}
