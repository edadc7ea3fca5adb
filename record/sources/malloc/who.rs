//! Whose memory is recorded, and so which files may need probes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::cgroups;
use crate::pids;
use crate::processes::Mapping;
use crate::sources::Context;

/// Whose.
///
/// Of processes that are named probes are bound to each of them: no other process gets a breakpoint. A command's children
/// and the later processes of a cgroup cannot be named beforehand, and until the recorder knew them they would have run
/// unseen. So for these the file has the probes, every process that maps it pays for the trap, and the BPF program looks
/// whom it concerns.
pub enum Who {
    /// These processes, by the kernel's numbers, as everywhere here.
    Pids(Vec<u32>),
    /// What is in this cgroup and those below it.
    Cgroup {
        /// From the hierarchy's root.
        path: String,
        /// Number of the hierarchy.
        hierarchy: u32,
    },
    /// The recorder's command and its children.
    Family(Option<MapHandle>),
    /// Whoever maps a library that was named.
    Everyone,
}

impl Who {
    /// What the command line says.
    pub fn new(context: &Context<'_>) -> Result<Who> {
        let args = context.args;
        Ok(if !context.pids.is_empty() {
            Who::Pids(context.pids.to_vec())
        } else if let Some(cgroup) = context.cgroup {
            Who::Cgroup { path: cgroup.trim_end_matches('/').to_owned(), hierarchy: context.config.cgroup_hierarchy }
        } else if !args.command.is_empty() {
            Who::Family(None)
        } else if !args.memory.lib.is_empty() {
            Who::Everyone
        } else {
            bail!(
                "whose memory? -p PID, --cgroup PATH, a command (-- COMMAND), or --lib PATH for all that use a library"
            )
        })
    }

    /// Whether `pid` is one of them.
    pub fn has(&self, pid: u32) -> bool {
        match self {
            Who::Pids(pids) => pids.contains(&pid),
            Who::Cgroup { path, hierarchy } => in_cgroup(pid, path, *hierarchy),
            Who::Family(map) => {
                map.as_ref().is_some_and(|map| matches!(map.lookup(&pid.to_ne_bytes(), MapFlags::ANY), Ok(Some(_))))
            }
            Who::Everyone => false,
        }
    }

    /// The process that a probe of `pid`'s file is bound to, as it is called here; -1: none, all that map the file have it.
    pub fn bound_to(&self, pid: u32) -> i32 {
        if matches!(self, Who::Pids(_)) { pids::own(pid).map_or(-1, |pid| pid as i32) } else { -1 }
    }

    /// Processes that are there now.
    pub fn pids(&self) -> Vec<u32> {
        match self {
            Who::Pids(pids) => pids.clone(),
            Who::Cgroup { .. } => pids::all().into_iter().filter(|pid| self.has(*pid)).collect(),
            Who::Family(_) | Who::Everyone => Vec::new(),
        }
    }
}

/// Whether a process is in a cgroup or below it.
fn in_cgroup(pid: u32, path: &str, hierarchy: u32) -> bool {
    let text = fs::read_to_string(pids::proc(pid) + "/cgroup").unwrap_or_default();
    let own = cgroups::path_in(&text, hierarchy);
    own.and_then(|own| own.strip_prefix(path)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Files that a process maps for execution, each once.
pub fn mapped_by(pid: u32) -> Vec<Mapping> {
    let maps = fs::read(pids::proc(pid) + "/maps").unwrap_or_default();
    let mut mappings: Vec<Mapping> =
        maps.split(|b| *b == b'\n').filter_map(|line| Mapping::parse(line, pid, 0)).filter(|m| m.inode != 0).collect();
    mappings.sort_by_key(|m| (m.major, m.minor, m.inode));
    mappings.dedup_by_key(|m| (m.major, m.minor, m.inode));
    mappings
}

/// `path` as process `pid` sees it: in its own root, which is a container's.
pub fn seen_by(pid: u32, path: &Path) -> PathBuf {
    match path.strip_prefix("/") {
        Ok(inside) => Path::new(&pids::proc(pid)).join("root").join(inside),
        Err(_) => path.to_owned(),
    }
}
