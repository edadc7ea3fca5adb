//! Which processes and cgroups are recorded: told to the kernel, which does the filtering.

use std::path::Path;

use anyhow::{Context, Result, bail};
use libbpf_rs::{MapCore, MapFlags};

use crate::args::RecordArgs;
use crate::bpf::SharedMaps;
use crate::cgroups::{self, Family, Hierarchy};
use crate::layout::Config;
use crate::pids;

/// Ids that the user asked for.
pub struct Filter {
    pids: Vec<u32>,
    cgroup: Option<Family>,
}

impl Filter {
    /// Looks up what the arguments mean.
    pub fn new(args: &RecordArgs, hierarchy: &Hierarchy) -> Result<Filter> {
        for pid in &args.pid {
            if !Path::new(&format!("/proc/{pid}")).exists() {
                bail!("there is no process {pid}{}", if pids::are_hosts() { "" } else { " in this pid namespace" });
            }
        }
        // They are meant as they are called here.
        let pids = args.pid.iter().filter_map(|pid| pids::kernels(*pid)).collect();
        let mount = hierarchy.mount.as_deref();
        let cgroup = args.cgroup.as_ref().map(|path| cgroups::family(path, mount)).transpose()?;
        Ok(Filter { pids, cgroup })
    }

    /// Sets the flags of the programs.
    pub fn configure(&self, config: &mut Config) {
        config.filter_pid = u32::from(!self.pids.is_empty());
        config.filter_cgroup = u32::from(self.cgroup.is_some());
    }

    /// Fills the maps.
    pub fn fill(&self, shared: &SharedMaps) -> Result<()> {
        let too_many = "too many for the filter: name fewer";
        for pid in &self.pids {
            shared.get("pids")?.update(&pid.to_ne_bytes(), &[1], MapFlags::ANY).context(too_many)?;
        }
        for id in self.cgroup.iter().flat_map(|c| &c.ids) {
            shared.get("cgroups")?.update(&id.to_ne_bytes(), &[1], MapFlags::ANY).context(too_many)?;
        }
        Ok(())
    }

    /// The processes, by the kernel's numbers.
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// The cgroup, from the hierarchy's root.
    pub fn cgroup(&self) -> Option<&str> {
        self.cgroup.as_ref().map(|c| c.path.as_str())
    }

    /// Facts for the header.
    pub fn items(&self) -> Vec<(String, String)> {
        let mut items = Vec::new();
        if !self.pids.is_empty() {
            let pids: Vec<_> = self.pids.iter().map(u32::to_string).collect();
            items.push(("filter_pids".into(), pids.join(",")));
        }
        if let Some(cgroup) = &self.cgroup {
            items.push(("filter_cgroup".into(), cgroup.path.clone()));
        }
        items
    }
}
