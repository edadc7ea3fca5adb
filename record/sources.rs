//! What can be recorded. A new source is one file in `sources/`, one in `bpf/`, its events in `format-spec/events/`,
//! and a line in [`all`].

mod block;
mod kmem;
pub mod malloc;
mod offcpu;
mod profile;
mod sched;
pub mod task;

use anyhow::Result;
use bpfrec_format::{Source as Id, Table};
use libbpf_rs::btf::Btf;

use crate::args::RecordArgs;
use crate::bpf::{Loaded, SharedMaps};
use crate::layout::Config;

/// What a source may need to know.
pub struct Context<'a> {
    /// The kernel's types.
    pub btf: &'a Btf<'a>,
    /// They are of a file: only raw tracepoints can be had.
    pub raw: bool,
    /// Configuration of the BPF programs.
    pub config: Config,
    /// The command line.
    pub args: &'a RecordArgs,
    /// The processes that are recorded, by the kernel's numbers; none: all.
    pub pids: &'a [u32],
    /// The cgroup that is recorded, from the hierarchy's root.
    pub cgroup: Option<&'a str>,
    /// CPUs that are plugged in; some may not run.
    pub cpus: &'a [u32],
}

/// Something that can be recorded.
pub trait Source {
    /// Name on the command line.
    fn name(&self) -> &'static str;

    /// Loads the programs.
    fn load(&self, context: &Context<'_>, shared: &mut SharedMaps) -> Result<Loaded>;

    /// Attaches them.
    fn attach(&self, context: &Context<'_>, loaded: &mut Loaded) -> Result<()> {
        let _ = context;
        loaded.attach(&crate::bpf::attach_one)
    }

    /// A CPU runs that did not before, or that was away since: what is bound to CPUs must be made for it.
    fn cpu_came(&self, cpu: u32, loaded: &mut Loaded) -> Result<()> {
        let _ = (cpu, loaded);
        Ok(())
    }

    /// Facts for the file's header.
    fn items(&self, context: &Context<'_>) -> Vec<(String, String)> {
        let _ = context;
        Vec::new()
    }

    /// What it leaves out, a sentence each, since the last call.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether it attaches programs while the recording runs, too.
    fn attaches_later(&self) -> bool {
        false
    }

    /// Whether that takes a perf event.
    fn attaches_by_perf_events(&self) -> bool {
        false
    }

    /// Mappings that processes have made since, rows of kind `mapping`, for sources that probe files. Returns further
    /// facts for the header.
    fn mapped(&self, mappings: &Table, loaded: &mut Loaded) -> Vec<(String, String)> {
        let _ = (mappings, loaded);
        Vec::new()
    }
}

/// A source that runs.
pub struct Attached {
    /// Its number.
    pub id: Id,
    /// What it can do.
    pub source: Box<dyn Source>,
    /// Its programs.
    pub loaded: Loaded,
}

/// All sources, in the order in which they are attached: the sampler last, so that it does not see the attaching.
pub fn all() -> Vec<Box<dyn Source>> {
    vec![
        Box::new(sched::Sched),
        Box::<offcpu::Offcpu>::default(),
        Box::new(block::Block),
        Box::new(malloc::Malloc::default()),
        Box::new(kmem::Kmem),
        Box::<profile::Profile>::default(),
    ]
}

/// Whether the source `name` is to be recorded.
pub fn is_wanted(args: &RecordArgs, name: &str) -> bool {
    match args.sources.as_slice() {
        [] => DEFAULT.contains(&name),
        named => named.iter().any(|n| n == name),
    }
}

/// Names of [`all`], for the command line.
pub const NAMES: [&str; 6] = ["sched", "offcpu", "block", "malloc", "kmem", "profile"];

/// What is recorded when no source is asked for.
pub const DEFAULT: [&str; 3] = ["sched", "block", "profile"];

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_those_of_the_sources() {
        assert_eq!(super::all().iter().map(|s| s.name()).collect::<Vec<_>>(), super::NAMES);
    }
}
