//! Tasks and cgroups that come and go. Always on, and loaded first: its object brings the maps that all share.

use anyhow::Result;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Typedef;

use crate::bpf::{self, Loaded, SharedMaps};
use crate::layout::Config;

mod skel {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/task.skel.rs"));
}

/// Loads the programs. A kernel without modules has no tracepoints for them, one with a single CPU none for CPUs that go.
pub fn load(config: Config, shared: &mut SharedMaps, btf: &Btf<'_>) -> Result<Loaded> {
    let has = |tracepoint: &str| btf.type_by_name::<Typedef<'_>>(&format!("btf_trace_{tracepoint}")).is_some();
    let (modules, cpus) = (has("module_load"), has("cpuhp_enter"));
    let wanted = |program: &str| match program {
        "module_load" | "module_free" => modules,
        "cpuhp_enter" => cpus,
        _ => true,
    };
    bpf::load(skel::TaskSkelBuilder::default(), config, shared, &wanted)
}

/// Attaches all of them, the iterator too. The iterator's link is the last one of `links`.
pub fn attach(loaded: &mut Loaded) -> Result<()> {
    loaded.attach(&|name, program| if name == "dump_tasks" { Ok(vec![]) } else { bpf::attach_one(name, program) })?;
    loaded.attach(&|name, program| if name == "dump_tasks" { bpf::attach_one(name, program) } else { Ok(vec![]) })
}
