//! Memory of processes: uprobes on the functions of their allocators.

mod command;
mod exits;
mod functions;
mod probes;
mod who;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use bpfrec_format::{Column, Table, meta};
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Enum;
use libbpf_rs::{MapCore, MapHandle, ProgramType, libbpf_sys};

use self::probes::Probes;
use self::who::Who;
use super::{Context, Source};
use crate::bpf::{self, Loaded, SharedMaps};
use crate::processes::Mapping;
use crate::{open, pids};

mod skel {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/malloc.skel.rs"));
}

mod raw {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/malloc_raw.skel.rs"));
}

/// Source `malloc`.
#[derive(Default)]
pub struct Malloc {
    state: RefCell<Option<State>>,
}

/// What is needed after the start.
struct State {
    who: Who,
    /// Libraries that were named; empty: whatever is an allocator.
    libs: Vec<PathBuf>,
    probes: Probes,
    /// Paths of files with probes, for the header.
    files: Vec<String>,
}

impl Source for Malloc {
    fn name(&self) -> &'static str {
        "malloc"
    }

    fn load(&self, context: &Context<'_>, shared: &mut SharedMaps) -> Result<Loaded> {
        let who = Who::new(context)?;
        let mut config = context.config;
        config.keep_live = u32::from(config.sample_bytes != 0);
        config.family = u32::from(matches!(who, Who::Family(_)));
        config.task_storage = u32::from(!context.raw && has_task_storage());
        config.uprobe_multi = u32::from(has_uprobe_multi(context.btf));
        let wanted = |program: &str| match program {
            "family_grows" => config.family != 0,
            "thread_ends" => config.family != 0 || config.task_storage == 0,
            _ => true,
        };
        let loaded = match context.raw {
            false => bpf::load(skel::MallocSkelBuilder::default(), config, shared, &wanted)?,
            true => bpf::load(raw::MallocSkelBuilder::default(), config, shared, &wanted)?,
        };
        let who = match who {
            Who::Family(_) => Who::Family(Some(map(&loaded, "family")?)),
            other => other,
        };
        let memory = &context.args.memory;
        let probes = Probes::new(memory.prefix.clone(), config.uprobe_multi != 0);
        *self.state.borrow_mut() = Some(State { who, libs: memory.lib.clone(), probes, files: Vec::new() });
        Ok(loaded)
    }

    fn attach(&self, context: &Context<'_>, loaded: &mut Loaded) -> Result<()> {
        let mut state = self.state.borrow_mut();
        let state = state.as_mut().context("attached before it was loaded")?;
        loaded.attach(&|name, program| match name {
            "family_grows" | "thread_ends" => bpf::attach_one(name, program),
            _ => Ok(Vec::new()),
        })?;
        state.attach_libs(loaded)?;
        for pid in state.who.pids() {
            state.attach_process(pid, loaded)?;
        }
        if let (Who::Family(_), true) = (&state.who, state.libs.is_empty()) {
            for path in command::files(&context.args.command).iter().filter(|path| path.is_file()) {
                state.attach_path(path, -1, false, loaded)?;
            }
        }
        Ok(())
    }

    fn items(&self, context: &Context<'_>) -> Vec<(String, String)> {
        let mut items = context.args.memory.items("malloc");
        items.extend(self.state.borrow().as_ref().map(|s| ("malloc_files".into(), s.files.join(":"))));
        items
    }

    fn notes(&self) -> Vec<String> {
        self.state.borrow_mut().as_mut().map_or(Vec::new(), |state| state.probes.take_notes())
    }

    fn attaches_later(&self) -> bool {
        true
    }

    fn attaches_by_perf_events(&self) -> bool {
        self.state.borrow().as_ref().is_some_and(|state| !state.probes.is_multi())
    }

    fn mapped(&self, mappings: &Table, loaded: &mut Loaded) -> Vec<(String, String)> {
        let mut state = self.state.borrow_mut();
        let Some(state) = state.as_mut() else { return Vec::new() };
        let before = state.files.len();
        for mapping in rows(mappings) {
            // The process may have ended, or the file may be none that can be probed: then nothing more comes of it.
            if state.who.has(mapping.pid) {
                let _ = state.attach_mapping(&mapping, loaded);
            }
        }
        if state.files.len() > before { vec![("malloc_files".into(), state.files.join(":"))] } else { Vec::new() }
    }
}

impl State {
    /// Probes the libraries that were named, whether a process maps them by now or not.
    fn attach_libs(&mut self, loaded: &mut Loaded) -> Result<()> {
        for lib in self.libs.clone() {
            let mut found = false;
            for pid in self.who.pids() {
                let seen = who::seen_by(pid, &lib);
                found |= seen.is_file() && self.attach_path(&seen, self.who.bound_to(pid), true, loaded)?;
            }
            if !matches!(self.who, Who::Pids(_)) && lib.is_file() {
                found |= self.attach_path(&lib, -1, true, loaded)?;
            }
            if !found {
                bail!(
                    "{}: no such file, or no malloc in it (a program whose symbols were stripped does not tell; \
                     --prefix names functions such as je_malloc)",
                    lib.display()
                );
            }
        }
        Ok(())
    }

    /// Probes the allocators that a process maps. It is an error when it has none.
    fn attach_process(&mut self, pid: u32, loaded: &mut Loaded) -> Result<()> {
        let mut found = false;
        for mapping in who::mapped_by(pid) {
            match self.attach_mapping(&mapping, loaded) {
                Ok(new) => found |= new,
                // A process that ends meanwhile is no error.
                Err(_) if !Path::new(&pids::proc(pid)).exists() => return Ok(()),
                Err(error) => return Err(error.context(format!("process {pid}"))),
            }
        }
        if !found && matches!(self.who, Who::Pids(_)) && self.libs.is_empty() {
            bail!(
                "process {pid} maps no file with a malloc that can be found (a statically linked program without \
                 symbols does not tell; --prefix names functions such as je_malloc)"
            );
        }
        Ok(())
    }

    fn attach_mapping(&mut self, mapping: &Mapping, loaded: &mut Loaded) -> Result<bool> {
        let mut found = open::candidates(mapping, std::iter::empty()).filter(|found| found.sure);
        let Some(file) = found.next().map(|found| found.file) else { return Ok(false) };
        let path = Path::new(OsStr::from_bytes(&mapping.path));
        // Of files that were named only those, or what is at the same place in another container.
        let asked = !self.libs.is_empty();
        if asked && !self.probes.has(&file) && !self.libs.iter().any(|lib| lib == path) {
            return Ok(false);
        }
        self.attach_file(&file, path, self.who.bound_to(mapping.pid), asked, loaded)
    }

    fn attach_path(&mut self, path: &Path, pid: i32, asked: bool, loaded: &mut Loaded) -> Result<bool> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        self.attach_file(&file, path, pid, asked, loaded)
    }

    fn attach_file(&mut self, file: &File, path: &Path, pid: i32, asked: bool, loaded: &mut Loaded) -> Result<bool> {
        let name = path.display().to_string();
        let new = self.probes.attach(file, &name, pid, asked, loaded).with_context(|| name.clone())?;
        if new && !self.files.contains(&name) {
            self.files.push(name);
        }
        Ok(new)
    }
}

/// What the programs would have here, in words.
pub fn has(context: &Context<'_>) -> String {
    let threads = if !context.raw && has_task_storage() { "task storage" } else { "table" };
    let links = if has_uprobe_multi(context.btf) { "many uprobes a link" } else { "a link for each uprobe" };
    format!("states of threads in: {threads}; {links}")
}

/// Whether programs of uprobes can keep what they need to know in the task.
fn has_task_storage() -> bool {
    let helper = |id| ProgramType::Kprobe.is_helper_supported(id).unwrap_or(false);
    helper(libbpf_sys::BPF_FUNC_task_storage_get) && helper(libbpf_sys::BPF_FUNC_get_current_task_btf)
}

/// Whether one link can hold many uprobes, which then go at once: each link takes the kernel some 50 ms to end, one after
/// the other. Until 46ba0e49b642 ("bpf: fix multi-uprobe PID filtering logic") such a link missed a process's threads;
/// kernels with sessions (d920179b3d48, "bpf: Add support for uprobe multi session attach") have that behind them.
fn has_uprobe_multi(btf: &Btf<'_>) -> bool {
    let types = btf.type_by_name::<Enum<'_>>("bpf_attach_type");
    types.is_some_and(|t| t.iter().any(|m| m.name.is_some_and(|n| n == "BPF_TRACE_UPROBE_SESSION")))
}

fn map(loaded: &Loaded, name: &str) -> Result<MapHandle> {
    let map = loaded.object().maps().find(|m| m.name() == name).with_context(|| format!("there is no map {name}"))?;
    Ok(MapHandle::try_from(&map)?)
}

/// Mappings of files in a table of kind `mapping`.
fn rows(table: &Table) -> Vec<Mapping> {
    let kind = meta::kind(meta::MAPPING);
    let ints = |name: &str| table.column(&kind, name).map_or(&[][..], Column::ints);
    let (pid, start, len, inode) = (ints("pid"), ints("start_addr"), ints("len_bytes"), ints("inode"));
    let Some(Column::Text(paths)) = table.column(&kind, "path") else { return Vec::new() };
    let mapping = |i: usize| Mapping {
        pid: pid[i] as u32,
        start: start[i],
        len: len[i],
        inode: inode[i],
        path: paths.get(i).to_vec(),
        ..Mapping::default()
    };
    (0..table.rows()).map(mapping).filter(|m| m.path.starts_with(b"/")).collect()
}
