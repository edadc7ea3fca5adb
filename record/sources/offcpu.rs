//! Waits of threads, with their stacks.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};

use anyhow::{Context as _, Result, bail};
use libbpf_rs::Iter;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Var;

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
    /// Whether the kernel tells of interrupts.
    interrupts: Cell<bool>,
}

/// Programs for a wakeup: on kernels that do not tell of interrupts, and on others.
const WAKINGS: [&str; 2] = ["offcpu_waking", "offcpu_waking_told"];

/// Whether the kernel tells that a CPU serves an interrupt: `in_interrupt` of `bpf/fixes.bpf.h`. The variable must be known
/// by its type and, for a program that names it to be taken, also be in the list of symbols, which may lack all data.
fn tells_interrupts(btf: &Btf<'_>) -> bool {
    let names = ["__preempt_count", "pcpu_hot"];
    // Not by name: 6.12 has a struct of the same name as the variable, and that would be found in its place.
    let variables: Vec<_> = btf.type_by_kind::<Var<'_>>().filter_map(|v| v.name()).collect();
    let Some(name) = names.iter().find(|name| variables.iter().any(|v| v == *name)) else { return false };
    let Ok(list) = File::open("/proc/kallsyms") else { return false };
    let is_it = |line: &[u8]| line.split(|b| b.is_ascii_whitespace()).nth(2) == Some(name.as_bytes());
    cfg!(target_arch = "x86_64") && BufReader::new(list).split(b'\n').map_while(Result::ok).any(|line| is_it(&line))
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
        if context.raw {
            bail!(
                "this kernel has no type information of its own, and waits need it: stacks of threads that are not running are to \
                 be had with it only (--btf does not help)"
            );
        }
        let Some(args) = tracepoint_args(context.btf, "sched_switch") else {
            bail!("this kernel has no scheduler tracepoints in its type information");
        };
        let mut config = context.config;
        config.switch_state_arg = u32::from(args >= 4);
        config.switch_rows = is_wanted(context.args, "sched").into();
        // Whether tracing programs may use task storage (5.12) is not to be seen in the type information: try.
        config.task_storage = 1;
        self.task_storage.set(true);
        self.interrupts.set(tells_interrupts(context.btf));
        let waking = self.waking();
        let wanted = |program: &str| !WAKINGS.contains(&program) || program == waking;
        let storage = bpf::load(skel::OffcpuSkelBuilder::default(), config, shared, &wanted);
        storage.or_else(|_| {
            config.task_storage = 0;
            self.task_storage.set(false);
            let wanted = |program: &str| !MAKERS.contains(&program) && wanted(program);
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
        loaded.attach(&some(&WAKINGS))?;
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
            ("offcpu_interrupts".into(), if self.interrupts.get() { "told" } else { "not told" }.into()),
        ]
    }
}

impl Offcpu {
    fn waking(&self) -> &'static str {
        WAKINGS[usize::from(self.interrupts.get())]
    }
}
