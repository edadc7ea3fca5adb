//! Tasks and cgroups that come and go. Always on, and loaded first: its object brings the maps that all share.

use anyhow::Result;

use crate::bpf::{self, Loaded, SharedMaps};
use crate::layout::Config;

mod skel {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/task.skel.rs"));
}

/// Loads the programs.
pub fn load(config: Config, shared: &mut SharedMaps) -> Result<Loaded> {
    bpf::load(skel::TaskSkelBuilder::default(), config, shared, &|_| true)
}

/// Attaches all of them, the iterator too. The iterator's link is the last one of `links`.
pub fn attach(loaded: &mut Loaded) -> Result<()> {
    loaded.attach(&|name, program| if name == "dump_tasks" { Ok(vec![]) } else { bpf::attach_one(name, program) })?;
    loaded.attach(&|name, program| if name == "dump_tasks" { bpf::attach_one(name, program) } else { Ok(vec![]) })
}
