//! Parquet tables: one for each kind of events, whatever it is, and those that are made of several kinds.

pub mod alloc;
pub mod block_io;
pub mod events;
pub mod free;
pub mod meta;
pub mod offcpu;
pub mod runq_wait;
pub mod sched_slice;
pub mod stacks;

use bpfrec_format::{Source, Trace};

use crate::error::Result;
use crate::memory;
use crate::meta::Meta;
use crate::parquet_file::{Output, Type};
use crate::pipeline::Visitor;
use crate::symbols::Symbols;

/// Tables that are no kind's.
const OWN: &[&str] = &[
    "alloc",
    "free",
    "sched_slice",
    "runq_wait",
    "block_io",
    "offcpu",
    "stack",
    "frame",
    "task",
    "task_namespaces",
    "cgroup",
    "mapping",
    "clock",
    "loss",
    "trace",
];

/// A table that is written while events go by.
pub trait EventsTable: Visitor {
    /// Its name.
    fn name(&self) -> &str;
    /// Writes its end.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// The tables that are made of what the trace's sources recorded.
pub fn of_trace<'a>(
    trace: &Trace,
    meta: &Meta,
    symbols: &'a Symbols,
    output: &'a dyn Output,
) -> Result<Vec<Box<dyn EventsTable + 'a>>> {
    let mut tables: Vec<Box<dyn EventsTable + 'a>> = Vec::new();
    // Allocations and frees have tables of their own, in which all that their kinds tell stands once.
    for kind in events::kinds_of(trace, meta).into_iter().filter(|kind| !memory::is_kind(&kind.name)) {
        if crate::offcpu::has(&kind.name) {
            if kind.name == crate::offcpu::KINDS[0].0 {
                tables.push(Box::new(offcpu::OffcpuTable::new(kind, symbols, output)?));
            }
            continue;
        }
        tables.push(Box::new(events::KindTable::new(kind, symbols, output)?));
    }
    if meta.has_source(Source::Sched) {
        tables.push(Box::new(sched_slice::SliceTable::new(output)?));
        tables.push(Box::new(runq_wait::WaitTable::new(output)?));
    }
    if meta.has_source(Source::Block) {
        tables.push(Box::new(block_io::IoTable::new(output)?));
    }
    if meta.has_source(Source::Malloc) || meta.has_source(Source::Kmem) {
        tables.push(Box::new(alloc::AllocTable::new(symbols, output)?));
        tables.push(Box::new(free::FreeTable::new(output)?));
    }
    Ok(tables)
}

/// Names and types for [`crate::parquet_file::TableFile::new`].
fn columns(columns: &[(&str, Type)]) -> Vec<(String, Type)> {
    columns.iter().map(|(name, ty)| ((*name).to_owned(), *ty)).collect()
}
