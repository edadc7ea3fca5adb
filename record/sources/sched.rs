//! The scheduler.

use anyhow::Result;

use super::{Context, Source, is_wanted};
use crate::bpf::{self, Loaded, SharedMaps};
use crate::limits::tracepoint_args;

mod skel {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/sched.skel.rs"));
}

mod raw {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/sched_raw.skel.rs"));
}

/// Source `sched`.
pub struct Sched;

impl Source for Sched {
    fn name(&self) -> &'static str {
        "sched"
    }

    fn load(&self, context: &Context<'_>, shared: &mut SharedMaps) -> Result<Loaded> {
        let mut config = context.config;
        config.switch_state_arg = u32::from(tracepoint_args(context.btf, "sched_switch") >= Some(4));
        // Where `offcpu` is recorded its program on the same tracepoint writes these rows: two would cost more.
        let wanted = |program: &str| program != "sched_switch" || !is_wanted(context.args, "offcpu");
        match context.raw {
            false => bpf::load(skel::SchedSkelBuilder::default(), config, shared, &wanted),
            true => bpf::load(raw::SchedSkelBuilder::default(), config, shared, &wanted),
        }
    }

    fn attach(&self, _context: &Context<'_>, loaded: &mut Loaded) -> Result<()> {
        // `flush` is run, not attached.
        loaded.attach(&|name, program| if name == "flush" { Ok(Vec::new()) } else { bpf::attach_one(name, program) })
    }
}
