//! The kernel's memory: slab objects, pages, per-CPU memory.

use anyhow::{Result, bail};

use super::{Context, Source};
use crate::bpf::{self, Loaded, SharedMaps};
use crate::limits::{argument_named, tracepoint_args};

mod skel {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/kmem.skel.rs"));
}

/// Source `kmem`.
pub struct Kmem;

/// Tracepoint of a program: of the same name but for these.
fn tracepoint(program: &str) -> &str {
    match program {
        "percpu_alloc" => "percpu_alloc_percpu",
        "percpu_free" => "percpu_free_percpu",
        same => same,
    }
}

impl Source for Kmem {
    fn name(&self) -> &'static str {
        "kmem"
    }

    fn load(&self, context: &Context<'_>, shared: &mut SharedMaps) -> Result<Loaded> {
        let has = |program: &str| tracepoint_args(context.btf, tracepoint(program)).is_some();
        for needed in ["kmalloc", "kmem_cache_alloc", "kfree", "kmem_cache_free", "mm_page_alloc", "mm_page_free"] {
            if !has(needed) {
                bail!("this kernel has no tracepoint {needed} in its type information");
            }
        }
        // The bytes asked for are the first argument of type size_t.
        let size = |tracepoint: &str| argument_named(context.btf, tracepoint, "size_t").unwrap_or(0);
        let mut config = context.config;
        config.kmalloc_size_arg = size("kmalloc");
        config.kmalloc_node_size_arg = size("kmalloc_node");
        config.cache_alloc_size_arg = size("kmem_cache_alloc");
        config.cache_node_size_arg = size("kmem_cache_alloc_node");
        config.percpu_size_arg = size("percpu_alloc_percpu");
        if config.kmalloc_size_arg == 0 {
            bail!("this kernel's tracepoint kmalloc says no size");
        }
        config.page_bytes = rustix::param::page_size() as u32;
        config.possible_cpus = libbpf_rs::num_possible_cpus()? as u32;
        // Whoever frees may be another one than who is recorded.
        let filtered = config.filter_pid != 0 || config.filter_cgroup != 0;
        config.keep_live = u32::from(filtered || config.sample_bytes != 0);
        bpf::load(skel::KmemSkelBuilder::default(), config, shared, &has)
    }

    fn items(&self, context: &Context<'_>) -> Vec<(String, String)> {
        context.args.memory.items("kmem")
    }
}
