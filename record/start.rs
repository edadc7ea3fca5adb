//! The beginning of a recording: load, watch, take stock, attach, open the file. In this order nothing falls in between.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use bpfrec_format::{BlockType, Registry, Source as Id, meta};
use libbpf_rs::MapHandle;

use crate::args::{RecordArgs, Unwind};
use crate::batches::Batches;
use crate::bpf::{self, SharedMaps};
use crate::bpf_time::BpfTime;
use crate::cgroups::Hierarchy;
use crate::clock::Clocks;
use crate::command::{self, Running, Waiting};
use crate::confine;
use crate::filter::Filter;
use crate::hits::Hits;
use crate::hotplug::Hotplug;
use crate::jit::Jit;
use crate::layout::Config;
use crate::modules::Modules;
use crate::processes::Mapping;
use crate::rings::Rings;
use crate::seen::Shared;
use crate::segments::Segments;
use crate::session::Session;
use crate::shedding::Budget;
use crate::sideband::Sideband;
use crate::snapshot::Snapshot;
use crate::sources::{self, Attached, Context, Source};
use crate::stats::Losses;
use crate::status::Status;
use crate::steps::DrainSteps;
use crate::types::Types;
use crate::unwind::Unwinding;
use crate::watch::Watch;
use crate::writer::{Message, Plan, Writer};
use crate::{clock, kernel, limits, pids};

/// The sources to record, and whether each was asked for by name.
fn choose(args: &RecordArgs) -> Vec<(Box<dyn Source>, bool)> {
    let named = !args.sources.is_empty();
    sources::all().into_iter().filter(|s| sources::is_wanted(args, s.name())).map(|s| (s, named)).collect()
}

/// Default size of a CPU's ring: 4 MiB, and on wide machines less, so that all together stay at 128 MiB.
fn ring_bytes(args: &RecordArgs, cpus: usize) -> u32 {
    let default = ((128 << 20) / cpus.max(1) as u64).clamp(256 << 10, 4 << 20);
    let bytes = args.ring_size.unwrap_or(default).clamp(16384, 1 << 30);
    // A power of two, and not more than was asked for.
    1 << bytes.ilog2()
}

/// Size of the ring of stack copies: 2 MiB a CPU, 64 MiB in all at the most.
fn copy_ring_bytes(cpus: usize) -> u32 {
    (2 << 20) * (cpus.clamp(1, 32).next_power_of_two() as u32)
}

fn id_of(name: &str) -> Id {
    Id::ALL.iter().copied().find(|id| id.name() == name).unwrap_or(Id::Recorder)
}

impl Session {
    /// Loads and attaches everything, creates the output and starts the command.
    pub fn start(args: RecordArgs) -> Result<Session> {
        let status = Status::new(args.quiet);
        let stop = crate::signals::watch()?;
        let registry = Arc::new(Registry::default());
        let pids = pids::enter()?;
        if pids.is_some() {
            status.say(&format!("warning: {}", pids::NOTE));
        }
        let cpus = limits::present_cpus()?;
        let types = Types::find(args.btf.as_deref())?;
        let hierarchy = Hierarchy::find();
        let filter = Filter::new(&args, &hierarchy)?;
        let ring_bytes = ring_bytes(&args, cpus.len());
        let mut config = Config {
            own_pid: pids::recorder(),
            wake_bytes: ring_bytes / 4,
            min_wait_ns: args.min_wait.as_nanos().try_into().context("--min-wait is 4 s at most")?,
            exact_stacks: args.exact_stacks.into(),
            waker_stacks: args.waker_stacks.into(),
            ..Config::default()
        };
        if let Unwind::Dwarf(bytes) = args.unwind {
            (config.unwind_bytes, config.copy_wake_bytes) = (bytes, copy_ring_bytes(cpus.len()) / 4);
        }
        filter.configure(&mut config);
        hierarchy.configure(&mut config);
        args.memory.configure(&mut config);
        let context = Context {
            btf: &types.btf,
            raw: types.are_foreign(),
            config,
            args: &args,
            pids: filter.pids(),
            cgroup: filter.cgroup(),
            cpus: &cpus,
        };

        // Load everything; nothing runs yet.
        let mut shared = SharedMaps::new(&cpus, ring_bytes, &types)?;
        let mut tasks = sources::task::load(config, &mut shared, &types)?;
        filter.fill(&shared)?;
        let mut loaded = Vec::new();
        let mut items = kernel::items();
        items.extend(types.items());
        items.push(("cgroup_hierarchy".into(), hierarchy.name.into()));
        if types.are_foreign() {
            status.say("types of a file are used, so tasks that run already are read from /proc");
        }
        for (source, named) in choose(&args) {
            match source.load(&context, &mut shared) {
                Ok(object) => loaded.push((source, named, object)),
                Err(error) if named => return Err(error.context(format!("source {}", source.name()))),
                Err(error) => status.say(&format!("source {} is left out: {error:#}", source.name())),
            }
        }
        let mut rings = Rings::open(&shared, Arc::clone(&registry))?;
        let losses = Losses::new(MapHandle::try_from(shared.get("lost")?)?);

        // From here on what changes is seen; then what is there already is read. So nothing falls in between.
        let seen = Shared::new();
        match Sideband::open(&cpus) {
            Ok(sideband) => seen.lock().sideband = Some(sideband),
            Err(error) => status.say(&format!("mappings made from now on are not recorded: {error:#}")),
        }
        let iterator = sources::task::attach(&mut tasks).context("the task programs")?;
        seen.lock().modules = Some(Modules::start(tasks.object())?);
        let mut watch = Watch::start(seen.clone())?;
        let hotplug = Hotplug::new(shared.get("hotplug")?, seen.lock().sideband.as_ref(), ring_bytes)?;
        let mut snapshot = Snapshot::new(Arc::clone(&registry), seen.clone(), hierarchy, iterator);
        let (first, warnings) = snapshot.take()?;
        warnings.iter().for_each(|w| status.say(&format!("warning: {w}")));

        let kallsyms = first.iter().find(|(_, table)| table.kind == meta::KERNEL_SYMBOL);
        items.extend(kallsyms.and_then(|(_, t)| kernel::hidden(t)).map(|by| ("kernel_symbols_hidden".into(), by)));

        let mut names = Vec::new();
        let mut attached = Vec::new();
        for (source, named, mut object) in loaded {
            match source.attach(&context, &mut object) {
                Ok(()) => {
                    if let Some(batches) = Batches::of(&object, &shared) {
                        rings.add_batches(batches);
                    }
                    items.extend(source.items(&context));
                    source.notes().iter().for_each(|note| status.say(note));
                    names.push(source.name());
                    attached.push(Attached { id: id_of(source.name()), source, loaded: object });
                }
                Err(error) if named => return Err(error.context(format!("source {}", source.name()))),
                Err(error) => status.say(&format!("source {} is left out: {error:#}", source.name())),
            }
        }
        bpf::open_gate(&shared, true)?;
        if attached.is_empty() {
            bail!("no source can be recorded on this kernel");
        }
        items.push(("sources".into(), names.join(",")));
        items.push(("start_mono_ns".into(), clock::mono_ns().to_string()));
        items.push(("start_realtime_ns".into(), clock::realtime_ns().to_string()));
        items.push(("symbols".into(), args.symbols.name().into()));
        items.push(("ring_bytes".into(), ring_bytes.to_string()));
        items.push(("page_cache_bytes".into(), crate::output::PAGE_CACHE.to_string()));
        items.extend(args.budget_items());
        if let Unwind::Dwarf(bytes) = args.unwind {
            items.push(("unwind".into(), format!("dwarf,{bytes}")));
        }
        items.extend(filter.items());
        items.extend(command::name(&args.command).map(|name| ("command".into(), name)));

        let objects = attached.iter().map(|a| (a.id, a.loaded.object())).chain([(Id::Task, tasks.object())]);
        let kept = confine::choose(&args, &attached, &cpus, &status)?;
        let bpf_time = BpfTime::start(objects, args.max_cpu.is_some(), kept.has_admin())?;
        if !bpf_time.is_on() {
            status.say("what the BPF programs cost is not known: the kernel counts it only for CAP_SYS_ADMIN");
        }
        let output = Segments::open(Plan {
            path: args.output.clone(),
            rotates: args.rotates(),
            force: args.force,
            max_bytes: args.max_size.filter(|_| args.rotates()),
            trace_id: random_id()?,
            items,
            registry: Arc::clone(&registry),
        })?;
        let budget = Budget::new(&args, &attached.iter().map(|a| a.id).collect::<Vec<_>>(), hotplug.running())?;

        // All that needs rights is there. The command has them; this process and the threads that stay do not.
        let command = Waiting::start(&args.command)?;
        let told = confine::enter(&args, kept, &attached, &status)?;
        let watch_with_all = std::mem::replace(&mut watch, Watch::start(seen.clone())?);
        drop(watch_with_all);
        let writer = Writer::start(output)?;
        let unwinding = matches!(args.unwind, Unwind::Dwarf(_)).then(Unwinding::start).transpose()?;
        // Only sources with stacks bring this map, and only stacks need names.
        let mut jit = shared.get("epoch").is_ok().then(|| Jit::start(Arc::clone(&registry))).transpose()?;
        if let Some(jit) = &mut jit {
            let maps = first.iter().filter(|(block_type, _)| *block_type == BlockType::Maps);
            maps.for_each(|(_, table)| jit.mapped(&Mapping::of_table(table)));
        }
        let command = command.map(Waiting::go).transpose()?;
        if let Some(end) = command.as_ref().and_then(Running::end) {
            rings.wake_on(end)?;
        }
        confine::look(kept, &status);
        let now = Instant::now();
        let session = Session {
            args,
            registry: Arc::clone(&registry),
            status,
            stop,
            shared,
            tasks,
            _pids: pids,
            sources: attached,
            rings,
            unwinding,
            jit,
            seen,
            hits: Hits::default(),
            watch,
            hotplug,
            snapshot: Some(snapshot),
            rotation: None,
            losses,
            bpf_time,
            clocks: Clocks::new(),
            steps: DrainSteps::begin(),
            budget,
            shed_at: Vec::new(),
            left_out: [0; 16],
            losses_read_ns: clock::mono_ns(),
            writer,
            command,
            exit_code: 0,
            started: now,
            segment_started: now,
            stopped: Cell::new(None),
            seen_read: Instant::now(),
            ending: Cell::new(false),
            epoch: 0,
            wakeups: 0,
            held: Cell::new(None),
            unsent: 0,
        };
        for (block_type, table) in first {
            session.send(Message::Tables(block_type, vec![table]));
        }
        told.iter().for_each(|(key, value)| session.tell(key, value));
        if let Some(pid) = session.command.as_ref().and_then(|command| pids::kernels(command.pid())) {
            session.tell("command_pid", &pid.to_string());
        }
        Ok(session)
    }
}

fn random_id() -> Result<u64> {
    let mut bytes = [0u8; 8];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
