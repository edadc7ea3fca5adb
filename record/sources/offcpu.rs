//! Waits of threads, with their stacks.

use std::cell::Cell;
use std::io::Read;

use anyhow::{Context as _, Result, bail};
use libbpf_rs::Iter;

use super::{Context, Source, is_wanted};
use crate::bpf::{self, Loaded, SharedMaps};
use crate::limits::tracepoint_args;

mod skel {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/offcpu.skel.rs"));
}

/// Source `offcpu`.
#[derive(Default)]
pub struct Offcpu {
    /// Whether the kernel keeps our state of a thread with the thread.
    task_storage: Cell<bool>,
}

/// Programs that make the state of a thread in the kernel's task storage.
const MAKERS: [&str; 2] = ["offcpu_fork", "offcpu_prepare"];
/// The iterator over what is left at the end.
const REST: &str = "offcpu_rest";

impl Source for Offcpu {
    fn name(&self) -> &'static str {
        "offcpu"
    }

    fn load(&self, context: &Context<'_>, shared: &mut SharedMaps) -> Result<Loaded> {
        let Some(args) = tracepoint_args(context.btf, "sched_switch") else {
            bail!("this kernel has no scheduler tracepoints in its type information");
        };
        let mut config = context.config;
        config.switch_state_arg = u32::from(args >= 4);
        config.switch_rows = is_wanted(context.args, "sched").into();
        // Whether tracing programs may use task storage (5.12) is not to be seen in the type information: try.
        config.task_storage = 1;
        self.task_storage.set(true);
        let storage = bpf::load(skel::OffcpuSkelBuilder::default(), config, shared, &|_| true);
        storage.or_else(|_| {
            config.task_storage = 0;
            self.task_storage.set(false);
            let wanted = |program: &str| !MAKERS.contains(&program);
            bpf::load(skel::OffcpuSkelBuilder::default(), config, shared, &wanted)
        })
    }

    fn attach(&self, _context: &Context<'_>, loaded: &mut Loaded) -> Result<()> {
        // Threads that are there and threads to come have their state before the first switch is seen.
        let some = |names: &'static [&'static str]| {
            move |name: &str, program: &libbpf_rs::ProgramMut<'_>| {
                if names.contains(&name) { bpf::attach_one(name, program) } else { Ok(vec![]) }
            }
        };
        loaded.attach(&some(&["offcpu_fork"]))?;
        let before = loaded.links.len();
        loaded.attach(&some(&["offcpu_prepare"]))?;
        for link in loaded.links.split_off(before) {
            let mut nothing = Vec::new();
            Iter::new(&link)?.read_to_end(&mut nothing).context("cannot look at all threads")?;
        }
        loaded.attach(&some(&["offcpu_waking"]))?;
        loaded.attach(&some(&["offcpu_switch"]))?;
        let before = loaded.links.len();
        loaded.attach(&some(&[REST]))?;
        loaded.last = loaded.links.split_off(before).pop();
        Ok(())
    }

    fn items(&self, context: &Context<'_>) -> Vec<(String, String)> {
        let stacks = if context.config.exact_stacks == 1 { "exact" } else { "remembered" };
        let threads = if self.task_storage.get() { "task storage" } else { "table" };
        vec![
            ("offcpu_min_wait_ns".into(), context.config.min_wait_ns.to_string()),
            ("offcpu_stacks".into(), stacks.into()),
            ("offcpu_threads".into(), threads.into()),
        ]
    }
}
