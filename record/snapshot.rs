//! What each segment begins with, so that it can be read alone: tasks, cgroups, mappings, kernel symbols, the clocks.

use std::sync::Arc;

use anyhow::Result;
use bpfrec_format::{BlockType, Registry, Table};
use libbpf_rs::Link;

use crate::cgroups::Hierarchy;
use crate::seen::Shared;
use crate::{cgroups, clock, kernel, processes};

/// The blocks that a segment begins with.
pub type Tables = Vec<(BlockType, Table)>;

/// Takes snapshots.
pub struct Snapshot {
    registry: Arc<Registry>,
    seen: Shared,
    hierarchy: Hierarchy,
    tasks: Option<Link>,
    /// The kernel's functions.
    functions: Result<kernel::List>,
}

impl Snapshot {
    /// Nothing is read yet. `tasks` is the link of the task iterator; `None`: only /proc knows them.
    pub fn new(registry: Arc<Registry>, seen: Shared, hierarchy: Hierarchy, tasks: Option<Link>) -> Self {
        Snapshot { registry, seen, hierarchy, tasks, functions: kernel::List::of_functions() }
    }

    /// Reads everything. Warnings are returned, not printed.
    pub fn take(&mut self) -> Result<(Tables, Vec<String>)> {
        let mut warnings: Vec<_> = self.hierarchy.warning().into_iter().collect();
        let mut tables = vec![
            (BlockType::Clock, clock::pair()),
            (BlockType::Tasks, processes::tasks(self.tasks.as_ref(), &self.registry, &self.hierarchy)?),
            (BlockType::Cgroups, cgroups::snapshot(self.hierarchy.mount.as_deref())),
            (BlockType::Maps, processes::mappings(&self.seen)),
        ];
        let modules = self.seen.lock().modules.as_mut().and_then(|modules| modules.table(&|_| true));
        tables.extend(modules.map(|modules| (BlockType::KernelSymbols, modules)));
        let functions = match &mut self.functions {
            Ok(list) => kernel::symbols(list),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        match functions {
            Ok(kernel::Symbols { table, warning, core_bytes }) => {
                tables.push((BlockType::KernelSymbols, table));
                warnings.extend(warning);
                if let Some(modules) = &mut self.seen.lock().modules {
                    modules.prepare(core_bytes);
                }
            }
            Err(error) => warnings.push(format!("kernel frames will have no names: {error:#}")),
        }
        Ok((tables, warnings))
    }
}
