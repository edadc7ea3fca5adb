//! `offcpu`: all rows of the source in one table, with their kind beside them: whoever sums time off the CPU needs all three.

use std::sync::Arc;

use bpfrec_format::{Column, Kind};

use super::{EventsTable, events};
use crate::error::Result;
use crate::meta::Meta;
use crate::offcpu::KINDS;
use crate::parquet_file::{self as parquet, Output, TableFile, Type};
use crate::pipeline::{Need, Visitor};
use crate::slab::{EventTable, Slab};
use crate::symbols::Symbols;

/// The table. Its columns are those of `offcpu_wait`, and `kind`.
pub struct OffcpuTable<'a> {
    kind: Arc<Kind>,
    symbols: &'a Symbols,
    file: TableFile,
}

impl<'a> OffcpuTable<'a> {
    /// Begins its file. `kind`: the one whose fields are the columns.
    pub fn new(kind: Arc<Kind>, symbols: &'a Symbols, output: &dyn Output) -> Result<Self> {
        let mut columns = events::columns(&kind);
        columns.push(("kind".into(), Type::Text));
        let file = TableFile::new(output, "offcpu", &columns, true)?;
        Ok(OffcpuTable { kind, symbols, file })
    }

    /// The rows of several kinds as one table in the order of their ends, and what kind each is.
    fn joined(&self, tables: &[(&EventTable, &'static str)]) -> (EventTable, Vec<&'static str>) {
        let of = |(i, (table, _)): (usize, &(&EventTable, &str))| {
            (0..table.rows()).map(|row| (table.ts[row], table.cpu[row], i, row)).collect::<Vec<_>>()
        };
        let mut rows: Vec<_> = tables.iter().enumerate().flat_map(of).collect();
        rows.sort_unstable();
        let column = |field: &bpfrec_format::Field| {
            let ints: Vec<_> = tables.iter().map(|(table, _)| table.ints(&field.name)).collect();
            Column::Int(rows.iter().map(|(_, _, i, row)| ints[*i].get(*row)).collect())
        };
        let table = EventTable {
            kind: self.kind.clone(),
            ts: rows.iter().map(|r| r.0).collect(),
            cpu: rows.iter().map(|r| r.1).collect(),
            columns: self.kind.fields.iter().map(column).collect(),
        };
        (table, rows.iter().map(|(_, _, i, _)| tables[*i].1).collect())
    }
}

impl Visitor for OffcpuTable<'_> {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Field(kind, _) if crate::offcpu::has(&kind.name))
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        let tables: Vec<_> = KINDS.iter().filter_map(|(name, what)| Some((slab.table(name)?, what.name()))).collect();
        if tables.is_empty() {
            return Ok(());
        }
        let (table, kinds) = self.joined(&tables);
        let mut columns = events::rows(meta, self.symbols, &table)?;
        columns.push(parquet::texts(kinds.iter()));
        self.file.write(columns)
    }
}

impl EventsTable for OffcpuTable<'_> {
    fn name(&self) -> &str {
        "offcpu"
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.file.finish()
    }
}
