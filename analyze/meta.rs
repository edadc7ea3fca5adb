//! Everything of a trace but its events: who and what the events are about. Pass 1 of an analysis.

use std::collections::BTreeMap;
use std::sync::Arc;

use bpfrec_format::{BlockRef, BlockType, Kind, Registry, Source, Table, Trace, events, meta};
use rayon::prelude::*;

use crate::binaries::Binaries;
use crate::cgroups::Cgroups;
use crate::clock::Clock;
use crate::damage::Damage;
use crate::error::Result;
use crate::jit::JitSymbols;
use crate::kernel::KernelSymbols;
use crate::losses::Losses;
use crate::mappings::Mappings;
use crate::recorded::Recorded;
use crate::sheds::Sheds;
use crate::stacks::Stacks;
use crate::tasks::Tasks;
use crate::versions::Versions;
use crate::view::View;

/// Totals of a source at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceStats {
    /// Events kept.
    pub kept: u64,
    /// Events lost.
    pub lost: u64,
    /// Time in BPF programs.
    pub bpf_ns: u64,
}

/// Totals of the recorder at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecorderStats {
    /// CPU time of the recorder.
    pub cpu_ns: u64,
    /// Its memory at the most.
    pub max_rss_bytes: u64,
    /// Time in BPF programs, all sources.
    pub bpf_ns: u64,
}

/// Facts about a recording, without its events. Memory grows with tasks, mappings and distinct stacks, not with events.
#[derive(Default)]
pub struct Meta {
    /// HEADER items of the first segment, then those of later ones that are new.
    pub items: BTreeMap<String, String>,
    /// Who ran.
    pub tasks: Tasks,
    /// Cgroups.
    pub cgroups: Cgroups,
    /// Stacks as addresses.
    pub stacks: Stacks,
    /// Executable mappings.
    pub mappings: Mappings,
    /// Functions that were compiled while they ran.
    pub jit: JitSymbols,
    /// Stacks that mean different functions at different times.
    pub versions: Versions,
    /// Binaries that are mapped.
    pub binaries: Binaries,
    /// Kernel symbols.
    pub kernel: KernelSymbols,
    /// Clocks.
    pub clock: Clock,
    /// What was lost.
    pub losses: Losses,
    /// What was not recorded, to stay within the budget.
    pub sheds: Sheds,
    /// Totals by source.
    pub sources: BTreeMap<u16, SourceStats>,
    /// Totals of the recorder.
    pub recorder: RecorderStats,
    /// Events that stand beside the descriptions of tasks and cgroups: forks, exits, new cgroups.
    pub side_events: BTreeMap<u16, (Arc<Kind>, Vec<Table>)>,
    /// Start of the recording, CLOCK_MONOTONIC: 0 of `--from` and `--to`.
    pub start_ns: u64,
    /// First moment that is there: later than the start when the oldest segments were dropped.
    pub first_ns: u64,
    /// Last moment.
    pub end_ns: u64,
    /// Number of the trace.
    pub trace_id: u64,
    /// Events in whole blocks, as headers tell.
    pub events: u64,
    /// Where names are looked for. The caller may set it; else the trace and this machine's own files.
    pub names: crate::symbols::Options,
    /// What the recorder was asked for.
    pub recorded: Recorded,
    /// What of pass 1 could not be read.
    pub damage: Damage,
}

/// Blocks that are decoded at once.
const BATCH: usize = 128;

impl Meta {
    /// Reads all blocks but EVENTS.
    pub fn load(trace: &Trace) -> Result<Meta> {
        let mut meta = Meta { damage: Damage::of_trace(trace), ..Meta::default() };
        for (_, segment) in &trace.segments {
            for (key, value) in &segment.items {
                meta.items.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        let mut wanted: Vec<(usize, BlockRef)> = Vec::new();
        let mut ends = (u64::MAX, 0);
        for (segment, block) in trace.blocks() {
            let h = &block.header;
            meta.trace_id = h.trace_id;
            ends.1 = ends.1.max(h.ts_max_ns);
            if h.block_type == BlockType::Events as u8 {
                ends.0 = ends.0.min(h.ts_min_ns);
            }
            match BlockType::from_number(h.block_type) {
                Some(BlockType::Events) => meta.events += u64::from(h.rows),
                // HEADER and SCHEMA were read when the segment was opened: here it is told when they are damaged.
                Some(_) => wanted.push((segment, *block)),
                None => meta.damage.unknown_blocks += 1,
            }
        }
        for batch in wanted.chunks(BATCH) {
            let read = |(segment, block): &(usize, BlockRef)| {
                trace.segments[*segment].1.read(block, &|kind| kind != meta::INDEX_ENTRY)
            };
            let read: Vec<_> = batch.par_iter().map(read).collect();
            for ((segment, block), rows) in batch.iter().zip(read) {
                let rows = match rows {
                    Ok(rows) => rows,
                    Err(error) => {
                        meta.damage.block(&trace.segments[*segment].0, block, &error);
                        continue;
                    }
                };
                meta.damage.unknown_rows += rows.unknown_rows;
                for table in rows.tables {
                    meta.add(&trace.segments[*segment].1.registry, table);
                }
            }
        }
        meta.recorded.pids =
            meta.items.get("filter_pids").map(|v| v.split(',').filter_map(|p| p.parse().ok()).collect());
        let below = meta.items.get("filter_cgroup").map(|path| meta.cgroups.matching(path).unwrap_or_default());
        meta.recorded.cgroups = below;
        let first = if ends.0 == u64::MAX { ends.1 } else { ends.0 };
        meta.start_ns = meta.number("start_mono_ns").unwrap_or(first);
        let gone = trace.segments.first().is_some_and(|(_, s)| s.blocks[0].header.segment > 0);
        meta.first_ns = if gone { first.max(meta.start_ns) } else { meta.start_ns };
        meta.end_ns = ends.1.max(meta.first_ns);
        let real = meta.items.get("start_realtime_ns").and_then(|v| v.parse().ok());
        let fallback = meta.number("start_mono_ns").zip(real);
        meta.clock.finish(fallback);
        meta.tasks.finish();
        meta.cgroups.finish();
        meta.mappings.finish();
        meta.jit.finish();
        meta.versions = Versions::new(&mut meta.stacks, &meta.jit, &meta.mappings);
        meta.binaries.finish();
        meta.kernel.finish();
        meta.losses.finish();
        meta.sheds.finish();
        meta.losses.unseen = meta.sheds.unseen();
        Ok(meta)
    }

    fn add(&mut self, registry: &Registry, table: Table) {
        let Some(kind) = registry.get(table.kind) else { return };
        let view = View::new(kind, &table);
        match table.kind {
            meta::STACK => self.stacks.add(view),
            meta::TASK | meta::TASK_NAMESPACES | events::SCHED_FORK..=events::TASK_RENAME => {
                self.tasks.add(&kind.name, view)
            }
            meta::CGROUP | events::CGROUP_MKDIR..=events::CGROUP_RMDIR => self.cgroups.add(&kind.name, view),
            meta::MAPPING => self.mappings.add(view),
            meta::JIT_SYMBOL => self.jit.add(view),
            meta::BINARY => self.binaries.add(view),
            meta::BINARY_SEGMENT => self.binaries.add_segments(view),
            meta::BINARY_SYMBOL => self.binaries.add_functions(view),
            meta::KERNEL_SYMBOL => self.kernel.add(view),
            meta::KERNEL_SYMBOL_CHANGE => self.kernel.add_changes(view),
            meta::KERNEL_MODULE => self.kernel.add_modules(view),
            meta::CLOCK => self.clock.add(view),
            meta::LOSS => self.losses.add(view),
            meta::SHED => self.sheds.add(view),
            meta::SOURCE_STATS => self.source_stats(view),
            meta::RECORDER_STATS => self.recorder_stats(view),
            _ => {}
        }
        if kind.is_event() && kind.block_type() != BlockType::Events {
            self.side_events.entry(kind.id).or_insert_with(|| (kind.clone(), Vec::new())).1.push(table);
        }
    }

    /// Totals only ever rise: the largest is the last.
    fn source_stats(&mut self, view: View<'_>) {
        let (source, kept, lost, bpf) =
            (view.ints("source"), view.ints("kept"), view.ints("lost"), view.ints("bpf_ns"));
        for row in 0..view.rows() {
            let stats = self.sources.entry(source.get(row) as u16).or_default();
            stats.kept = stats.kept.max(kept.get(row));
            stats.lost = stats.lost.max(lost.get(row));
            stats.bpf_ns = stats.bpf_ns.max(bpf.get(row));
            self.losses.totals.insert(source.get(row) as u16, stats.lost);
        }
    }

    fn recorder_stats(&mut self, view: View<'_>) {
        let (cpu, rss, bpf) = (view.ints("cpu_ns"), view.ints("max_rss_bytes"), view.ints("bpf_ns"));
        for row in 0..view.rows() {
            let r = &mut self.recorder;
            r.cpu_ns = r.cpu_ns.max(cpu.get(row));
            r.max_rss_bytes = r.max_rss_bytes.max(rss.get(row));
            r.bpf_ns = r.bpf_ns.max(bpf.get(row));
        }
    }

    /// Value of a HEADER item, empty when missing.
    pub fn item(&self, key: &str) -> &str {
        self.items.get(key).map_or("", String::as_str)
    }

    /// A HEADER item that is a number.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.items.get(key)?.parse().ok()
    }

    /// The recorder's own process, whose events are not the host's.
    pub fn recorder_pid(&self) -> Option<u32> {
        self.number("recorder_pid").map(|pid| pid as u32)
    }

    /// A number that is the same for all traces of the host: recorded, or made of its name.
    pub fn host_id(&self) -> u64 {
        let recorded = u64::from_str_radix(self.item("host_id"), 16).ok();
        recorded.unwrap_or_else(|| xxhash_rust::xxh3::xxh3_64(self.item("host").as_bytes()))
    }

    /// Length of what is there.
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.first_ns)
    }

    /// Whether a source was recorded.
    pub fn has_source(&self, source: Source) -> bool {
        let listed = self.item("sources").split(',').any(|s| s.trim() == source.name());
        listed || self.sources.get(&(source as u16)).is_some_and(|s| s.kept > 0)
    }

    /// Name of a block device.
    pub fn disk(&self, dev: u32) -> String {
        let (major, minor) = (dev >> 20, dev & 0xf_ffff);
        match self.items.get(&format!("disk.{major}:{minor}")) {
            Some(name) => name.clone(),
            None => format!("{major}:{minor}"),
        }
    }
}
