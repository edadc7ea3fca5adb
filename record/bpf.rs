//! BPF objects: opened from their skeletons, given the configuration and the shared maps, loaded, attached.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use libbpf_rs::libbpf_sys;
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, MapType, Object, OpenMap, OpenObject, ProgramMut};

use crate::layout::Config;
use crate::types::Types;
use crate::{memory, pids};

/// Maps that all objects use, whichever of them declares them.
pub struct SharedMaps {
    maps: Vec<(String, MapHandle)>,
    /// Each CPU's ring, with its number.
    pub rings: Vec<(u32, MapHandle)>,
    /// The file with the kernel's types; `None`: its own.
    pub types: Option<PathBuf>,
}

impl SharedMaps {
    /// For programs that write no events, on a kernel with types of its own.
    pub fn none() -> Self {
        SharedMaps { maps: Vec::new(), rings: Vec::new(), types: None }
    }

    /// Makes a ring for each of `cpus`. The other maps come with the first object that is loaded.
    pub fn new(cpus: &[u32], ring_bytes: u32, types: &Types) -> Result<Self> {
        let mut shared = SharedMaps { maps: Vec::new(), rings: Vec::new(), types: types.file.clone() };
        for &cpu in cpus {
            shared.rings.push((cpu, ring(&format!("bpfrec_ring_{cpu}"), ring_bytes)?));
        }
        Ok(shared)
    }

    /// Makes a ring for a CPU that has none yet, and shows it to the programs.
    pub fn add_ring(&mut self, cpu: u32, ring_bytes: u32) -> Result<&MapHandle> {
        let ring = ring(&format!("bpfrec_ring_{cpu}"), ring_bytes)?;
        show(self.get("rings")?, cpu, &ring)?;
        self.rings.push((cpu, ring));
        self.rings.last().map(|(_, ring)| ring).ok_or_else(|| anyhow!("no CPU has a ring"))
    }

    /// The map called `name`.
    pub fn get(&self, name: &str) -> Result<&MapHandle> {
        let found = self.maps.iter().find(|(n, _)| n == name);
        found.map(|(_, m)| m).ok_or_else(|| anyhow!("no loaded program uses the map {name}"))
    }
}

fn ring(name: &str, bytes: u32) -> Result<MapHandle> {
    let opts = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    MapHandle::create(MapType::RingBuf, Some(name), 0, 0, bytes, &opts)
        .map_err(|error| memory::explain(error, &format!("the ring {name}"), bytes.into()))
}

fn show(rings: &MapHandle, cpu: u32, ring: &MapHandle) -> Result<()> {
    let fd = ring.as_fd().as_raw_fd().to_ne_bytes();
    rings.update(&cpu.to_ne_bytes(), &fd, MapFlags::ANY).with_context(|| format!("the ring of CPU {cpu}"))
}

/// Runs a raw tracepoint program once, on CPU `on` or on this one, and returns what it returned (BPF_PROG_TEST_RUN,
/// 1b4d60ec162f "bpf: Enable BPF_PROG_TEST_RUN for raw_tracepoint").
///
/// # Errors
/// ENXIO when `on` is offline.
pub fn run(program: &OwnedFd, on: Option<u32>) -> io::Result<u32> {
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        flags: if on.is_some() { libbpf_sys::BPF_F_TEST_RUN_ON_CPU } else { 0 },
        cpu: on.unwrap_or(0),
        ..Default::default()
    };
    // SAFETY: `options` is whole, says its size, and lends no other memory.
    match unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) } {
        0.. => Ok(options.retval),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// Bytes of keys and values, which is nearly all of a map.
fn size_of_map(map: &OpenMap<'_>) -> u64 {
    let entry = u64::from(map.key_size()) + u64::from(map.value_size());
    u64::from(map.max_entries()) * entry.max(1)
}

/// A loaded object and what keeps it attached.
pub struct Loaded {
    skeleton: Box<dyn Skel<'static>>,
    /// Dropping these detaches.
    pub links: Vec<Link>,
    /// Iterator over rows that are only known when all others have been made.
    pub last: Option<Link>,
}

/// Maps that belong to one object alone.
const OWN: [&str; 4] = ["scratch", "issuers", "live", "words"];

/// Whether a map is used with this configuration. Programs that name one that is not made are told so by constants.
fn is_used(map: &str, config: &Config) -> bool {
    match map {
        "live" => config.keep_live != 0,
        "threads" | "thread_storage" => config.task_storage != 0,
        "threads_by_tid" | "new_thread" => config.task_storage == 0,
        _ => true,
    }
}

/// Opens, configures and loads an object. Programs for which `wanted` says no are left out.
pub fn load<B>(mut builder: B, config: Config, shared: &mut SharedMaps, wanted: &dyn Fn(&str) -> bool) -> Result<Loaded>
where
    B: SkelBuilder<'static>,
    <B::Output as OpenSkel<'static>>::Output: 'static,
{
    // libbpf-rs keeps the object in storage that the caller lends. It lives as long as the recording, and so does
    // the process: a few hundred bytes an object are simpler than a struct that borrows from itself.
    let storage: &'static mut MaybeUninit<OpenObject> = Box::leak(Box::new(MaybeUninit::uninit()));
    if let Some(file) = &shared.types {
        builder.object_builder_mut().btf_custom_path(file)?;
    }
    let mut open = builder.open(storage).context("cannot open")?;
    let object = open.open_object_mut();
    let possible = libbpf_rs::num_possible_cpus().context("cannot count CPUs")? as u32;
    for mut map in object.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if !is_used(&name, &config) {
            map.set_autocreate(false)?;
        } else if name.ends_with(".rodata.cfg") {
            map.set_initial_value(&config.to_bytes()).context("struct config differs between C and Rust")?;
        } else if let Some((_, handle)) = shared.maps.iter().find(|(n, _)| *n == name) {
            map.reuse_fd(handle.as_fd()).with_context(|| format!("cannot share the map {name}"))?;
        } else if name == "copy_ring" {
            map.set_max_entries(config.copy_ring_bytes())?;
        } else if name == "batches" {
            map.set_max_entries(possible * crate::batches::SLOTS)?;
        } else if name == "hotplug" {
            map.set_max_entries(possible + 1)?;
        } else if name == "thread_table" {
            // The iterator that makes the storage shows no thread outside of the recorder's pid namespace.
            map.set_max_entries(if config.task_storage == 1 && pids::are_hosts() { 1024 } else { 16384 })?;
        } else if name == "rings" {
            map.set_max_entries(possible)?;
            let template = &shared.rings.first().ok_or_else(|| anyhow!("no CPU has a ring"))?.1;
            map.set_inner_map_fd(template.as_fd())?;
        }
    }
    for mut program in object.progs_mut() {
        let name = program.name().to_string_lossy().into_owned();
        program.set_autoload(wanted(&name));
        if config.uprobe_multi != 0 && program.section() == "uprobe" {
            program.set_attach_type(libbpf_rs::ProgramAttachType::TraceUprobeMulti);
        }
    }
    let sizes: Vec<_> = open.open_object().maps().map(|m| (m.name().to_owned(), size_of_map(&m))).collect();
    let skeleton = open.load().map_err(|error| {
        let size = |name: &str| sizes.iter().find(|(n, _)| n == name).map_or(0, |(_, bytes)| *bytes);
        match memory::of_messages(&crate::messages::all(), &size) {
            Some(lacks) => anyhow::Error::new(error).context(lacks),
            None => {
                anyhow::Error::new(error).context(format!("the kernel refused a program{}", crate::messages::last()))
            }
        }
    })?;
    for map in skeleton.object().maps() {
        let name = map.name().to_string_lossy().into_owned();
        if !map.autocreate()
            || name.contains(".rodata")
            || OWN.contains(&&*name)
            || shared.maps.iter().any(|(n, _)| *n == name)
        {
            continue;
        }
        let handle = MapHandle::try_from(&map).with_context(|| format!("map {name}"))?;
        if name == "rings" {
            for (cpu, ring) in &shared.rings {
                show(&handle, *cpu, ring)?;
            }
        }
        shared.maps.push((name, handle));
    }
    Ok(Loaded { skeleton: Box::new(skeleton), links: Vec::new(), last: None })
}

impl Loaded {
    /// The loaded object.
    pub fn object(&self) -> &Object {
        self.skeleton.object()
    }

    /// The program called `name`.
    pub fn program(&self, name: &str) -> Result<OwnedFd> {
        let program = self.object().progs().find(|p| p.name() == name);
        let program = program.ok_or_else(|| anyhow!("there is no program {name}"))?;
        Ok(program.as_fd().try_clone_to_owned()?)
    }

    /// Detaches everything. The kernel waits some 50 ms for each uprobe, so they wait together.
    pub fn detach(&mut self) {
        while !self.links.is_empty() {
            let some = self.links.split_off(self.links.len().saturating_sub(64));
            std::thread::scope(|scope| {
                for link in some {
                    scope.spawn(move || drop(link));
                }
            });
        }
    }

    /// Attaches one program, by name; its links are kept behind those that are there.
    pub fn attach_to(&mut self, name: &str, attach: &dyn Fn(&ProgramMut<'_>) -> Result<Link>) -> Result<()> {
        let program = self.skeleton.object_mut().progs_mut().find(|p| p.name().to_string_lossy() == name);
        let program = program.ok_or_else(|| anyhow!("there is no program {name}"))?;
        self.links.push(attach(&program).with_context(|| format!("cannot attach {name}"))?);
        Ok(())
    }

    /// Attaches with `attach` each program that was loaded and for which it returns links.
    pub fn attach(&mut self, attach: &dyn Fn(&str, &ProgramMut<'_>) -> Result<Vec<Link>>) -> Result<()> {
        for program in self.skeleton.object_mut().progs_mut() {
            if !program.autoload() {
                continue;
            }
            let name = program.name().to_string_lossy().into_owned();
            self.links.extend(attach(&name, &program).with_context(|| format!("cannot attach {name}"))?);
        }
        Ok(())
    }
}

/// Lets the programs of memory record allocations, or no longer: only while all their probes are there.
pub fn open_gate(shared: &SharedMaps, open: bool) -> Result<()> {
    // Only these sources bring the map.
    let Ok(gate) = shared.get("gate") else { return Ok(()) };
    Ok(gate.update(&0u32.to_ne_bytes(), &u32::from(open).to_ne_bytes(), MapFlags::ANY)?)
}

/// Attaches a program where its section says.
pub fn attach_one(_name: &str, program: &ProgramMut<'_>) -> Result<Vec<Link>> {
    Ok(vec![program.attach()?])
}
