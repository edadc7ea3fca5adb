//! Tasks and cgroups that come and go. Always on, and loaded first: its object brings the maps that all share.

use anyhow::{Context as _, Result};
use libbpf_rs::Link;
use libbpf_rs::btf::types::Typedef;

use crate::bpf::{self, Loaded, SharedMaps};
use crate::layout::Config;
use crate::types::Types;

mod skel {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/task.skel.rs"));
}

mod raw {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/task_raw.skel.rs"));
}

/// Loads the programs. A kernel without modules has no tracepoints for them, one with a single CPU none for CPUs that go.
///
/// # Errors
/// Also when the types are of a file, and not those of this kernel.
pub fn load(config: Config, shared: &mut SharedMaps, types: &Types) -> Result<Loaded> {
    let has = |name: &str| types.btf.type_by_name::<Typedef<'_>>(&format!("btf_trace_{name}")).is_some();
    let (modules, cpus) = (has("module_load"), has("cpuhp_enter"));
    let wanted = |program: &str| match program {
        "module_load" | "module_free" => modules,
        "cpuhp_enter" => cpus,
        _ => true,
    };
    let loaded = match &types.file {
        None => bpf::load(skel::TaskSkelBuilder::default(), config, shared, &wanted),
        Some(file) => bpf::load(raw::TaskSkelBuilder::default(), config, shared, &wanted)
            .with_context(|| format!("with the types of {}", file.display())),
    };
    let loaded = loaded.context("the task programs")?;
    types.check(&loaded)?;
    Ok(loaded)
}

/// Attaches all of them, the iterator last. Returns its link; `None` where the kernel has no types of its own.
pub fn attach(loaded: &mut Loaded) -> Result<Option<Link>> {
    // `check_types` is run, not attached.
    let others = |name: &str| !["dump_tasks", "check_types"].contains(&name);
    loaded.attach(&|name, program| if others(name) { bpf::attach_one(name, program) } else { Ok(vec![]) })?;
    let before = loaded.links.len();
    loaded.attach(&|name, program| if name == "dump_tasks" { bpf::attach_one(name, program) } else { Ok(vec![]) })?;
    Ok(loaded.links.split_off(before).pop())
}
