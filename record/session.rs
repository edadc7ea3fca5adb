//! One recording: open, load, attach, drain, finish.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use bpfrec_format::writer::Chunk;
use bpfrec_format::{BlockType, EndReason, Registry, Source as Id, Table, meta};
use libbpf_rs::btf::Btf;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};

use crate::args::RecordArgs;
use crate::bpf::{Loaded, SharedMaps};
use crate::command::{self, Running};
use crate::filter::Filter;
use crate::layout::Config;
use crate::rings::{POLL, Rings};
use crate::sideband::Sideband;
use crate::snapshot::Snapshot;
use crate::sources::{self, Context, Source};
use crate::stats::{self, BpfTime, Losses};
use crate::status::{Figures, Status};
use crate::writer::{Message, Outcome, Plan, Writer};
use crate::{clock, kernel, limits};

/// Exit code when the disk was full.
const DISK_FULL: u8 = 4;
/// Totals and clocks go to the file this often.
const CHECKPOINT: Duration = Duration::from_secs(10);
/// After a stop the writer gets this long to take what is in the rings.
const LAST_CALL: Duration = Duration::from_secs(10);

/// Runs `bpfrec record`; returns the exit code.
pub fn run(args: RecordArgs) -> Result<u8> {
    limits::check()?;
    // Said here, before half a second of loading; the file itself is created with O_EXCL.
    if !args.force && !args.rotates() && args.output != Path::new("-") && args.output.symlink_metadata().is_ok() {
        bail!("{} exists: --force replaces it, -o FILE writes elsewhere", args.output.display());
    }
    crate::messages::collect();
    let mut session = Session::start(args)?;
    let reason = session.record()?;
    session.finish(reason)
}

struct Session {
    args: RecordArgs,
    status: Status,
    stop: Arc<AtomicBool>,
    shared: SharedMaps,
    tasks: Loaded,
    sources: Vec<(Id, Loaded)>,
    rings: Rings,
    sideband: Option<Sideband>,
    snapshot: Snapshot,
    losses: Losses,
    bpf_time: BpfTime,
    writer: Writer,
    command: Option<Running>,
    exit_code: u8,
    started: Instant,
    segment_started: Instant,
    stopped: Option<Instant>,
    epoch: u32,
    wakeups: u64,
    unsent: u64,
}

/// The sources to record, and whether each was asked for by name.
fn choose(args: &RecordArgs) -> Result<Vec<(Box<dyn Source>, bool)>> {
    let known: Vec<_> = sources::all().iter().map(|s| s.name()).collect();
    if let Some(unknown) = args.sources.iter().find(|s| !known.contains(&&***s)) {
        bail!("there is no source {unknown:?}: known are {}", known.join(", "));
    }
    let named = !args.sources.is_empty();
    let wanted = |name: &str| match named {
        true => args.sources.iter().any(|s| s == name),
        false => sources::DEFAULT.contains(&name),
    };
    Ok(sources::all().into_iter().filter(|s| wanted(s.name())).map(|s| (s, named)).collect())
}

/// Default size of a CPU's ring: 4 MiB, and on wide machines less, so that all together stay at 128 MiB.
fn ring_bytes(args: &RecordArgs, cpus: usize) -> u32 {
    let default = ((128 << 20) / cpus.max(1) as u64).clamp(256 << 10, 4 << 20);
    let bytes = args.ring_size.unwrap_or(default).clamp(4096, 1 << 30);
    // A power of two, and not more than was asked for.
    1 << bytes.ilog2()
}

fn id_of(name: &str) -> Id {
    Id::ALL.iter().copied().find(|id| id.name() == name).unwrap_or(Id::Recorder)
}

impl Session {
    fn start(args: RecordArgs) -> Result<Session> {
        let status = Status::new(args.quiet);
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        let registry = Arc::new(Registry::default());
        let cpus = limits::online_cpus()?;
        let btf = Btf::from_vmlinux().context("cannot read the kernel's type information")?;
        let filter = Filter::new(&args)?;
        let ring_bytes = ring_bytes(&args, cpus.len());
        let mut config = Config { own_pid: std::process::id(), wake_bytes: ring_bytes / 4, ..Config::default() };
        filter.configure(&mut config);
        let context = Context { btf: &btf, config, frequency: args.frequency, cpus: &cpus };

        // Load everything; nothing runs yet.
        let mut shared = SharedMaps::new(&cpus, ring_bytes)?;
        let mut tasks = sources::task::load(config, &mut shared).context("the task programs")?;
        filter.fill(&shared)?;
        let mut loaded = Vec::new();
        let mut items = kernel::items();
        for (source, named) in choose(&args)? {
            match source.load(&context, &mut shared) {
                Ok(object) => loaded.push((source, named, object)),
                Err(error) if named => return Err(error.context(format!("source {}", source.name()))),
                Err(error) => status.say(&format!("source {} is left out: {error:#}", source.name())),
            }
        }
        let rings = Rings::open(&shared, Arc::clone(&registry))?;
        let losses = Losses::new(MapHandle::try_from(shared.get("lost")?)?);

        // From here on what changes is seen; then what is there already is read. So nothing falls in between.
        let sideband = match Sideband::open(&cpus) {
            Ok(sideband) => Some(sideband),
            Err(error) => {
                status.say(&format!("mappings made from now on are not recorded: {error:#}"));
                None
            }
        };
        sources::task::attach(&mut tasks).context("the task programs")?;
        let mut snapshot = Snapshot::new(Arc::clone(&registry));
        let iterator = tasks.links.last().ok_or_else(|| anyhow!("the task iterator is not attached"))?;
        let (first, warnings) = snapshot.take(iterator)?;
        warnings.iter().for_each(|w| status.say(&format!("warning: {w}")));

        let mut names = Vec::new();
        let mut attached = Vec::new();
        for (source, named, mut object) in loaded {
            match source.attach(&context, &mut object) {
                Ok(()) => {
                    items.extend(source.items(&context));
                    names.push(source.name());
                    attached.push((id_of(source.name()), object));
                }
                Err(error) if named => return Err(error.context(format!("source {}", source.name()))),
                Err(error) => status.say(&format!("source {} is left out: {error:#}", source.name())),
            }
        }
        if attached.is_empty() {
            bail!("no source can be recorded on this kernel");
        }
        items.push(("sources".into(), names.join(",")));
        items.push(("start_mono_ns".into(), clock::mono_ns().to_string()));
        items.push(("start_realtime_ns".into(), clock::realtime_ns().to_string()));
        items.push(("ring_bytes".into(), ring_bytes.to_string()));
        items.extend(filter.items(&args));
        items.extend(command::name(&args.command).map(|name| ("command".into(), name)));

        let objects = attached.iter().map(|(id, l)| (*id, l.object())).chain([(Id::Task, tasks.object())]);
        let bpf_time = BpfTime::start(objects)?;
        let writer = Writer::start(Plan {
            path: args.output.clone(),
            rotates: args.rotates(),
            force: args.force,
            max_bytes: args.max_size,
            trace_id: random_id()?,
            items,
            registry,
        })?;
        let command = Running::start(&args.command)?;
        let now = Instant::now();
        let session = Session {
            args,
            status,
            stop,
            shared,
            tasks,
            sources: attached,
            rings,
            sideband,
            snapshot,
            losses,
            bpf_time,
            writer,
            command,
            exit_code: 0,
            started: now,
            segment_started: now,
            stopped: None,
            epoch: 0,
            wakeups: 0,
            unsent: 0,
        };
        for (block_type, table) in first {
            session.send(Message::Tables(block_type, vec![table]));
        }
        if let Some(pid) = session.command.as_ref().map(Running::pid) {
            session.tell("command_pid", &pid.to_string());
        }
        Ok(session)
    }

    /// Returns whether the message was taken.
    fn send(&self, message: Message) -> bool {
        let late = || self.stopped.is_some_and(|at| at.elapsed() > LAST_CALL);
        self.writer.send(message, &late).is_ok()
    }

    /// Adds a fact to the header: HEADER blocks may come at any time.
    fn tell(&self, key: &str, value: &str) {
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
            let full = self.writer.progress.segment_bytes.load(Ordering::Relaxed) >= self.args.segment_bytes();
            let old = self.args.rotate_time.is_some_and(|t| self.segment_started.elapsed() >= t);
            if self.args.rotates() && (full || old) {
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
        let (chunks, stacks, tasks) = {
            let mut drained = self.rings.drained.borrow_mut();
            (drained.take_chunks(all), drained.take_stacks(), drained.take_tasks()?)
        };
        if let Some(mappings) = self.sideband.as_mut().and_then(|s| s.read(&mut self.snapshot.build_ids)) {
            self.send(Message::Tables(BlockType::Maps, vec![mappings]));
        }
        let of = |block_type| {
            let kinds = Registry::default();
            let is = |t: &&Table| kinds.get(t.kind).is_some_and(|k| k.block_type() == block_type);
            tasks.iter().filter(is).cloned().collect::<Vec<_>>()
        };
        for block_type in [BlockType::Tasks, BlockType::Cgroups] {
            let tables = if tasks.is_empty() { Vec::new() } else { of(block_type) };
            if !tables.is_empty() {
                self.send(Message::Tables(block_type, tables));
            }
        }
        if let Some(stacks) = stacks {
            self.send(Message::Tables(BlockType::Stacks, vec![stacks]));
        }
        for chunk in chunks {
            self.send_chunk(chunk);
        }
        Ok(())
    }

    fn send_chunk(&mut self, mut chunk: Chunk) {
        chunk.lost_total = self.losses.by_cpu.get(chunk.stream as usize).copied().unwrap_or(0);
        let kinds = Registry::default();
        let size = |kind: u16| kinds.get(kind).map_or(1, |k| k.row_size as usize);
        let events: usize = chunk.rows.iter().map(|(kind, rows)| rows.len() / size(*kind)).sum();
        if !self.send(Message::Chunk(chunk)) {
            self.unsent += events as u64;
        }
    }

    fn count_losses(&mut self) -> Result<()> {
        if let Some(table) = self.losses.read()? {
            self.send(Message::Tables(BlockType::Loss, vec![table]));
        }
        let lost = self.sideband.as_mut().map_or(0, Sideband::take_lost);
        if lost > 0 {
            let now = clock::mono_ns();
            let row = stats::loss_row(Id::Task as u16, None, (now, now), meta::reason::MAPPINGS_LOST, lost);
            self.send(Message::Tables(BlockType::Loss, vec![row]));
        }
        Ok(())
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
        for id in self.sources.iter().map(|(id, _)| *id).chain([Id::Task]) {
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
        self.send(Message::Tables(BlockType::Clock, vec![clock::pair()]));
        self.send(Message::Checkpoint(vec![by_source, recorder]));
    }

    /// A new segment: stacks are defined anew from now on, and what runs is written again.
    fn rotate(&mut self) -> Result<()> {
        self.epoch += 1;
        // Only sources with stacks bring this map.
        if let Ok(epoch) = self.shared.get("epoch") {
            epoch.update(&0u32.to_ne_bytes(), &self.epoch.to_ne_bytes(), MapFlags::ANY)?;
        }
        self.drain(true)?;
        self.checkpoint();
        let iterator = self.tasks.links.last().ok_or_else(|| anyhow!("the task iterator is not attached"))?;
        let (tables, _) = self.snapshot.take(iterator)?;
        self.send(Message::Rotate(tables));
        self.segment_started = Instant::now();
        // The writer says the size of the segment that ended until it has begun the new one.
        self.writer.progress.segment_bytes.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn finish(mut self, reason: EndReason) -> Result<u8> {
        let ended = self.started.elapsed();
        self.stopped = Some(Instant::now());
        self.bpf_time.stop();
        // Detached before the last drain: nothing can come after it.
        for (_, loaded) in &mut self.sources {
            loaded.links.clear();
        }
        self.drain(true)?;
        self.count_losses()?;
        if self.unsent > 0 {
            let now = clock::mono_ns();
            let row = stats::loss_row(0, None, (now, now), meta::reason::QUEUE_FULL, self.unsent);
            self.send(Message::Tables(BlockType::Loss, vec![row]));
        }
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

fn random_id() -> Result<u64> {
    let mut bytes = [0u8; 8];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
