//! What can be recorded. A new source is one file in `sources/`, one in `bpf/`, its events in `format-spec/events.rs`,
//! and a line in [`all`].

mod block;
mod offcpu;
mod profile;
mod sched;
pub mod task;

use anyhow::Result;
use libbpf_rs::btf::Btf;

use crate::bpf::{Loaded, SharedMaps};
use crate::layout::Config;

/// What a source may need to know.
pub struct Context<'a> {
    /// The kernel's types.
    pub btf: &'a Btf<'a>,
    /// Configuration of the BPF programs.
    pub config: Config,
    /// Samples a second.
    pub frequency: u32,
    /// CPUs that run.
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

    /// Facts for the file's header.
    fn items(&self, context: &Context<'_>) -> Vec<(String, String)> {
        let _ = context;
        Vec::new()
    }
}

/// All sources, in the order in which they are attached: the sampler last, so that it does not see the attaching.
pub fn all() -> Vec<Box<dyn Source>> {
    vec![Box::new(sched::Sched), Box::<offcpu::Offcpu>::default(), Box::new(block::Block), Box::new(profile::Profile)]
}

/// Names of [`all`], for the command line.
pub const NAMES: [&str; 4] = ["sched", "offcpu", "block", "profile"];

/// What is recorded when no source is asked for.
pub const DEFAULT: [&str; 3] = ["sched", "block", "profile"];

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_those_of_the_sources() {
        assert_eq!(super::all().iter().map(|s| s.name()).collect::<Vec<_>>(), super::NAMES);
    }
}
