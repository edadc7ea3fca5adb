//! The programs that do nothing, attached while this lives.

use std::mem::MaybeUninit;

use anyhow::{Context, Result};
use libbpf_rs::Link;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

mod skel {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/empty.skel.rs"));
}

/// Attached programs.
pub struct Empty(#[allow(dead_code, reason = "dropping a link detaches")] [Link; 2]);

impl Empty {
    /// Loads and attaches them.
    pub fn attach() -> Result<Empty> {
        let mut storage = MaybeUninit::uninit();
        let open = skel::EmptySkelBuilder::default().open(&mut storage).context("empty.bpf.c")?;
        let loaded = open.load().context("empty.bpf.c does not load")?;
        let switch = loaded.progs.empty_switch.attach().context("sched_switch")?;
        Ok(Empty([switch, loaded.progs.empty_wakeup.attach().context("sched_wakeup")?]))
    }
}
