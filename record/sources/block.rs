//! Block I/O.

use anyhow::{Result, bail};

use super::{Context, Source};
use crate::bpf::{self, Loaded, SharedMaps};
use crate::limits::tracepoint_args;

mod skel {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/block.skel.rs"));
}

mod raw {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/block_raw.skel.rs"));
}

/// Source `block`.
pub struct Block;

/// Tracepoint of each program.
const TRACEPOINTS: [(&str, &str); 6] = [
    ("block_insert", "block_rq_insert"),
    ("block_issue", "block_rq_issue"),
    ("block_requeue", "block_rq_requeue"),
    ("block_merge", "block_rq_merge"),
    ("block_complete", "block_rq_complete"),
    ("block_error", "block_rq_error"),
];

impl Source for Block {
    fn name(&self) -> &'static str {
        "block"
    }

    fn load(&self, context: &Context<'_>, shared: &mut SharedMaps) -> Result<Loaded> {
        let args = |tracepoint: &str| tracepoint_args(context.btf, tracepoint);
        if args("block_rq_issue").is_none() || args("block_rq_complete").is_none() {
            bail!("this kernel has no block tracepoints in its type information");
        }
        // With two arguments the queue comes first.
        let position = |tracepoint: &str| u32::from(args(tracepoint) == Some(2));
        let mut config = context.config;
        config.insert_rq_arg = position("block_rq_insert");
        config.issue_rq_arg = position("block_rq_issue");
        config.requeue_rq_arg = position("block_rq_requeue");
        config.merge_rq_arg = position("block_rq_merge");
        let has = |program: &str| {
            let tracepoint = TRACEPOINTS.iter().find(|(p, _)| *p == program).map_or(program, |(_, t)| t);
            args(tracepoint).is_some()
        };
        match context.raw {
            false => bpf::load(skel::BlockSkelBuilder::default(), config, shared, &has),
            true => bpf::load(raw::BlockSkelBuilder::default(), config, shared, &has),
        }
    }

    /// Names of the disks by device number, for readers that cannot look into this host's /sys.
    fn items(&self, _context: &Context<'_>) -> Vec<(String, String)> {
        let mut items = Vec::new();
        for entry in std::fs::read_dir("/sys/block").into_iter().flatten().flatten() {
            if let Ok(dev) = std::fs::read_to_string(entry.path().join("dev")) {
                items.push((format!("disk.{}", dev.trim()), entry.file_name().to_string_lossy().into_owned()));
            }
        }
        items.sort();
        items
    }
}
