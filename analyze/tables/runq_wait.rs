//! `runq_wait`: the waits that `runqlat` counts, by the moment in which they ended.

use super::{EventsTable, columns};
use crate::error::Result;
use crate::meta::Meta;
use crate::parquet_file::{self as parquet, Output, TableFile, Type};
use crate::pipeline::{Need, Visitor};
use crate::slab::Slab;

/// The table.
pub struct WaitTable(TableFile);

impl WaitTable {
    /// Begins its file.
    pub fn new(output: &dyn Output) -> Result<Self> {
        let columns = columns(&[
            ("ts", Type::BigInt),
            ("ts_mono", Type::BigInt),
            ("cpu", Type::Int),
            ("dur_ns", Type::BigInt),
            ("tid", Type::BigInt),
            ("pid", Type::BigInt),
            ("task_id", Type::BigInt),
            ("cgroup_id", Type::BigInt),
        ]);
        Ok(WaitTable(TableFile::new(output, "runq_wait", &columns, true)?))
    }
}

impl Visitor for WaitTable {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Waits)
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        let w = &slab.waits;
        if w.is_empty() {
            return Ok(());
        }
        let mut tasks = meta.tasks.lookups();
        self.0.write(vec![
            parquet::big_ints(w.iter().map(|w| meta.clock.unix_ns(w.ts_ns))),
            parquet::big_ints(w.iter().map(|w| w.ts_ns as i64)),
            parquet::ints(w.iter().map(|w| w.cpu as i32)),
            parquet::big_ints(w.iter().map(|w| w.dur_ns as i64)),
            parquet::big_ints(w.iter().map(|w| w.tid.into())),
            parquet::big_ints(w.iter().map(|w| w.pid.into())),
            parquet::some_big_ints(w.iter().map(|w| tasks.id(w.tid, w.ts_ns).map(i64::from))),
            parquet::big_ints(w.iter().map(|w| w.cgroup_id as i64)),
        ])
    }
}

impl EventsTable for WaitTable {
    fn name(&self) -> &str {
        "runq_wait"
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.0.finish()
    }
}
