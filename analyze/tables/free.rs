//! `free`: one row a free, also of memory whose allocation is not in the trace: `alloc` says what is known of it (`known`,
//! `partly known`, `before start`, `inherited` from the parent of a fork, `unknown`, `lost`, `other mapping`, or `not done`,
//! as the call failed). Rows are in no order of time: a call that may fail is written when it is known not to have.

use super::{EventsTable, columns};
use crate::error::Result;
use crate::memory::op;
use crate::meta::Meta;
use crate::parquet_file::{self as parquet, Output, TableFile, Type};
use crate::pipeline::{Need, Visitor};
use crate::slab::Slab;

/// The table.
pub struct FreeTable(TableFile);

impl FreeTable {
    /// Begins its file.
    pub fn new(output: &dyn Output) -> Result<Self> {
        let columns = columns(&[
            ("ts", Type::BigInt),
            ("ts_mono", Type::BigInt),
            ("tid", Type::BigInt),
            ("pid", Type::BigInt),
            ("task_id", Type::BigInt),
            ("cgroup_id", Type::BigInt),
            ("op", Type::Text),
            ("addr", Type::BigInt),
            ("bytes", Type::BigInt),
            ("alloc", Type::Text),
            ("alloc_ts", Type::BigInt),
        ]);
        Ok(FreeTable(TableFile::new(output, "free", &columns, false)?))
    }
}

impl Visitor for FreeTable {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Lives)
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        let frees = &slab.frees;
        if frees.is_empty() {
            return Ok(());
        }
        self.0.write(vec![
            parquet::big_ints(frees.iter().map(|f| meta.clock.unix_ns(f.ts_ns))),
            parquet::big_ints(frees.iter().map(|f| f.ts_ns as i64)),
            parquet::big_ints(frees.iter().map(|f| f.tid.into())),
            parquet::big_ints(frees.iter().map(|f| f.pid.into())),
            parquet::some_big_ints(frees.iter().map(|f| meta.tasks.lookup(f.tid, f.ts_ns).map(i64::from))),
            parquet::big_ints(frees.iter().map(|f| f.cgroup_id as i64)),
            parquet::texts(frees.iter().map(|f| op::name(f.op))),
            parquet::big_ints(frees.iter().map(|f| f.addr as i64)),
            parquet::big_ints(frees.iter().map(|f| f.bytes as i64)),
            parquet::texts(frees.iter().map(|f| f.of.name())),
            parquet::some_big_ints(frees.iter().map(|f| f.alloc_ns.map(|ts| meta.clock.unix_ns(ts)))),
        ])
    }
}

impl EventsTable for FreeTable {
    fn name(&self) -> &str {
        "free"
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.0.finish()
    }
}
