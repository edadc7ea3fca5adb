//! What `bpfrec info` tells, gathered in one pass over the blocks.

use std::collections::{BTreeMap, HashMap, HashSet};

use bpfrec_format::meta::{self, reason};
use bpfrec_format::{BlockRef, BlockType, Column, EndReason, Error, Segment, Source, Table, Trace, events};

use super::cost::Cost;
use super::shed::Sheds;

/// Blocks and bytes of a type.
#[derive(Default)]
pub struct Size {
    /// Blocks.
    pub blocks: u64,
    /// Bytes in the file, headers included.
    pub bytes: u64,
}

/// Events of a kind.
pub struct KindEvents {
    /// Name of the source, or its number.
    pub source: String,
    /// Name of the kind.
    pub name: String,
    /// Events.
    pub events: u64,
}

/// How stacks were taken.
#[derive(Clone, Copy, Default)]
pub struct StackCounts {
    /// Walked.
    pub walked: u64,
    /// Remembered, not walked.
    pub remembered: u64,
    /// Remembered, but walked and compared all the same.
    pub checked: u64,
    /// Of those: the walk gave another stack.
    pub wrong: u64,
    /// Could not be walked.
    pub failed: u64,
}

/// Where events were lost: second of the recording, source, CPU, reason.
pub type LossKey = (u64, String, u64, u64);

/// All facts.
#[derive(Default)]
pub struct Facts {
    /// From the start to the last event.
    pub duration_ns: u64,
    /// How often the machine was suspended meanwhile, and for how long: time that is not in `duration_ns`.
    pub suspended: (u64, u64),
    /// Rows in EVENTS blocks.
    pub events: u64,
    /// Events that are gone.
    pub lost: u64,
    /// Names in HEADER, and `task`: name, events, lost.
    pub sources: Vec<(String, u64, u64)>,
    /// Events by kind number.
    pub kinds: BTreeMap<u16, KindEvents>,
    /// Losses of all reasons.
    pub losses: BTreeMap<LossKey, u64>,
    /// Sizes by block type number.
    pub sizes: BTreeMap<u8, Size>,
    /// Different stack ids.
    pub stacks: u64,
    /// Different threads.
    pub tasks: u64,
    /// Different cgroups.
    pub cgroups: u64,
    /// Kernel symbols of the segment that has most.
    pub kernel_symbols: u64,
    /// Mappings.
    pub mappings: u64,
    /// Different binaries.
    pub binaries: u64,
    /// Of these, with functions in the trace.
    pub with_symbols: u64,
    /// Functions in the trace.
    pub symbols: u64,
    /// Why binaries have no functions here, or not all: reason and binaries.
    pub missing: BTreeMap<String, u64>,
    /// The last that the recorder said.
    pub recorder: Cost,
    /// Stacks that each source took, as the recorder said last: name of the source, whether of user space.
    pub stack_counts: BTreeMap<(String, bool), StackCounts>,
    /// What was given up to stay within the budget.
    pub sheds: Sheds,
    /// Rows and blocks that this version does not understand.
    pub not_understood: u64,
    /// What could not be read.
    pub damaged: Vec<String>,
}

#[derive(Default)]
struct Ids {
    stacks: HashSet<u64>,
    tasks: HashSet<(u64, u64)>,
    cgroups: HashSet<u64>,
    /// CLOCK_MONOTONIC, and by how much CLOCK_BOOTTIME was ahead of it.
    clocks: Vec<(u64, u64)>,
    /// Functions and what is missing, as the last row says.
    binaries: HashMap<u64, (u64, String)>,
}

/// Name of a source number.
pub fn source_name(number: u64) -> String {
    let known = u8::try_from(number).ok().and_then(Source::from_number);
    known.map_or_else(|| format!("source {number}"), |s| s.name().to_owned())
}

/// How often CLOCK_BOOTTIME ran ahead, and by how many ns in all. Less than a millisecond is how the clocks were read.
fn suspended(mut clocks: Vec<(u64, u64)>) -> (u64, u64) {
    clocks.sort_unstable();
    let slept = clocks.windows(2).map(|pair| pair[1].1.saturating_sub(pair[0].1)).filter(|ns| *ns >= 1_000_000);
    slept.fold((0, 0), |(times, sum), ns| (times + 1, sum.saturating_add(ns)))
}

/// Whether it was recovered.
pub fn is_recovered(trace: &Trace) -> bool {
    trace.segments.iter().any(|(_, s)| s.end == Some(EndReason::Recovered))
}

impl Facts {
    /// Reads the trace.
    pub fn gather(trace: &Trace) -> Facts {
        let mut facts = Facts::default();
        let mut ids = Ids::default();
        let start_ns = super::super::replay::start_ns(trace);
        let mut last_ns = start_ns;
        for (path, segment) in &trace.segments {
            let mut symbols = 0;
            for block in &segment.blocks {
                let size = facts.sizes.entry(block.header.block_type).or_default();
                size.blocks += 1;
                size.bytes += block.header.total_len();
                last_ns = last_ns.max(block.header.ts_max_ns);
                match facts.block(segment, block, start_ns, &mut ids) {
                    Ok(rows) => symbols += rows,
                    Err(Error::NotUnderstood { .. }) => facts.not_understood += u64::from(block.header.rows),
                    Err(error) => facts.damaged.push(format!("{}: {error}", path.display())),
                }
            }
            facts.kernel_symbols = facts.kernel_symbols.max(symbols);
        }
        // When the oldest segments were dropped, what is there begins later.
        let gone = trace.segments.first().is_some_and(|(_, s)| s.blocks[0].header.segment > 0);
        let first = trace.blocks().filter(|(_, b)| b.header.block_type == BlockType::Events as u8);
        let first = first.map(|(_, b)| b.header.ts_min_ns).min().filter(|_| gone);
        facts.duration_ns = last_ns.saturating_sub(first.unwrap_or(start_ns));
        facts.suspended = suspended(ids.clocks);
        (facts.stacks, facts.tasks) = (ids.stacks.len() as u64, ids.tasks.len() as u64);
        facts.cgroups = ids.cgroups.len() as u64;
        facts.binaries = ids.binaries.len() as u64;
        for (symbols, missing) in ids.binaries.into_values() {
            facts.with_symbols += u64::from(symbols > 0);
            facts.symbols = facts.symbols.saturating_add(symbols);
            if !missing.is_empty() {
                *facts.missing.entry(missing).or_default() += 1;
            }
        }
        facts.sum_sources(trace);
        facts
    }

    /// Returns the kernel symbols in the block.
    fn block(&mut self, segment: &Segment, block: &BlockRef, start_ns: u64, ids: &mut Ids) -> Result<u64, Error> {
        let Some(block_type) = BlockType::from_number(block.header.block_type) else {
            self.not_understood += u64::from(block.header.rows);
            return segment.read_stored(block).map(|_| 0);
        };
        let mut symbols = 0;
        for (kind, rows) in segment.counts(block)? {
            let rows = u64::from(rows);
            let known = segment.registry.get(kind);
            if block_type == BlockType::Events {
                self.events += rows;
            }
            match (kind, known) {
                (meta::KERNEL_SYMBOL, _) => symbols += rows,
                (meta::MAPPING, _) => self.mappings += rows,
                (_, Some(known)) if known.is_event() => {
                    let new =
                        || KindEvents { source: source_name(known.source.into()), name: known.name.clone(), events: 0 };
                    self.kinds.entry(kind).or_insert_with(new).events += rows;
                }
                (_, None) => self.not_understood += rows,
                _ => {}
            }
        }
        use BlockType::{Binaries, Cgroups, Checkpoint, Clock, Loss, Stacks, Tasks};
        if [Stacks, Tasks, Cgroups, Clock, Loss, Checkpoint, Binaries].contains(&block_type) {
            for table in segment.read(block, &|id| id != meta::INDEX_ENTRY)?.tables {
                self.table(segment, &table, start_ns, ids);
            }
        }
        Ok(symbols)
    }

    fn table(&mut self, segment: &Segment, table: &Table, start_ns: u64, ids: &mut Ids) {
        let Some(kind) = segment.registry.get(table.kind) else { return };
        let field = |name: &str| table.column(kind, name).map_or(&[][..], Column::ints);
        match table.kind {
            meta::STACK => ids.stacks.extend(field("stack_id")),
            meta::TASK | events::SCHED_FORK | events::SCHED_EXEC | events::SCHED_EXIT | events::TASK_RENAME => {
                ids.tasks.extend(field("tid").iter().copied().zip(field("start_ns").iter().copied()));
            }
            meta::CLOCK => {
                let rows = field("mono_ns").iter().zip(field("boot_ns"));
                ids.clocks.extend(rows.map(|(mono, boot)| (*mono, boot.saturating_sub(*mono))));
            }
            meta::CGROUP | events::CGROUP_MKDIR => ids.cgroups.extend(field("cgroup_id")),
            meta::LOSS => {
                let rows = field("source").iter().zip(field("cpu")).zip(field("ts_from_ns")).zip(field("reason"));
                for ((((source, cpu), ts_ns), why), lost) in rows.zip(field("lost")) {
                    let second = ts_ns.saturating_sub(start_ns) / 1_000_000_000;
                    let sum = self.losses.entry((second, source_name(*source), *cpu, *why)).or_default();
                    *sum = sum.saturating_add(*lost);
                }
            }
            meta::BINARY => {
                let Some(Column::Text(missing)) = table.column(kind, "missing") else { return };
                for (i, (id, symbols)) in field("binary_id").iter().zip(field("symbols")).enumerate() {
                    let missing = String::from_utf8_lossy(missing.get(i)).into_owned();
                    ids.binaries.insert(*id, (*symbols, missing));
                }
            }
            meta::RECORDER_STATS => self.recorder.add(&field),
            meta::SHED => self.sheds.add(&field, start_ns),
            meta::SOURCE_STATS => self.recorder.add_sources(&field),
            meta::STACK_STATS => {
                let rows = field("source").iter().zip(field("space")).zip(field("walked")).zip(field("remembered"));
                let rows = rows.zip(field("checked")).zip(field("wrong")).zip(field("failed"));
                for ((((((source, space), walked), remembered), checked), wrong), failed) in rows {
                    let (walked, remembered, checked) = (*walked, *remembered, *checked);
                    let counts = StackCounts { walked, remembered, checked, wrong: *wrong, failed: *failed };
                    let key = (source_name(*source), *space == meta::space::USER);
                    // Totals, so the highest are the last.
                    let last = self.stack_counts.entry(key).or_default();
                    let sum = |a: u64, b: u64| a.saturating_add(b);
                    if sum(walked, remembered) >= sum(last.walked, last.remembered) {
                        *last = counts;
                    }
                }
            }
            _ => {}
        }
    }

    /// Bytes that functions of binaries take in the file.
    pub fn symbol_bytes(&self) -> u64 {
        self.sizes.get(&(BlockType::BinarySymbols as u8)).map_or(0, |size| size.bytes)
    }

    fn sum_sources(&mut self, trace: &Trace) {
        let said = trace.segments.iter().find_map(|(_, s)| s.item("sources")).unwrap_or_default();
        let mut names: Vec<String> =
            said.split(',').map(str::trim).filter(|s| !s.is_empty()).map(String::from).collect();
        if !names.iter().any(|n| n == "task") {
            names.push("task".into());
        }
        let lost = || self.losses.iter().filter(|((.., why), _)| reason::loses_events(*why));
        self.lost = lost().fold(0, |sum: u64, (_, n)| sum.saturating_add(*n));
        let seen = self.kinds.values().map(|k| &k.source).chain(lost().map(|((_, source, ..), _)| source));
        for source in seen {
            if !names.contains(source) {
                names.push(source.clone());
            }
        }
        let of = |name: &str| {
            let events = self.kinds.values().filter(|k| k.source == name).map(|k| k.events).sum();
            (events, lost().filter(|((_, source, ..), _)| source == name).map(|(_, n)| *n).fold(0, u64::saturating_add))
        };
        let sources = names.into_iter().map(|name| {
            let (events, lost) = of(&name);
            (name, events, lost)
        });
        self.sources = sources.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_slept() {
        let second = 1_000_000_000;
        assert_eq!(suspended(vec![]), (0, 0));
        assert_eq!(suspended(vec![(5, 7), (second, 100), (2 * second, 9)]), (0, 0));
        let twice = vec![(3 * second, 12 * second), (second, 40), (2 * second, 30), (4 * second, 13 * second)];
        assert_eq!(suspended(twice), (2, 13 * second - 30));
        assert_eq!(suspended(vec![(0, 0), (1, u64::MAX), (2, 0), (3, u64::MAX)]), (2, u64::MAX));
    }
}
