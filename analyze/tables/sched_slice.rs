//! `sched_slice`: who was on which CPU from when to when. Rows are in the order of the ends: a thread may be on its CPU from
//! the begin of the trace to its end, and all that came after it would have to be held back.

use super::{EventsTable, columns};
use crate::error::Result;
use crate::meta::Meta;
use crate::parquet_file::{self as parquet, Output, TableFile, Type};
use crate::pipeline::{Need, Visitor};
use crate::slab::Slab;

/// The table.
pub struct SliceTable(TableFile);

impl SliceTable {
    /// Begins its file.
    pub fn new(output: &dyn Output) -> Result<Self> {
        let columns = columns(&[
            ("ts", Type::BigInt),
            ("ts_mono", Type::BigInt),
            ("end_mono", Type::BigInt),
            ("dur_ns", Type::BigInt),
            ("cpu", Type::Int),
            ("tid", Type::BigInt),
            ("pid", Type::BigInt),
            ("task_id", Type::BigInt),
            ("cgroup_id", Type::BigInt),
            ("end_state", Type::BigInt),
            ("preempted", Type::Int),
            ("runq_ns", Type::BigInt),
        ]);
        Ok(SliceTable(TableFile::ordered(output, "sched_slice", &columns, &["end_mono"])?))
    }
}

impl Visitor for SliceTable {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Slices)
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        let s = &slab.slices;
        if s.is_empty() {
            return Ok(());
        }
        let mut tasks = meta.tasks.lookups();
        self.0.write(vec![
            parquet::big_ints(s.iter().map(|s| meta.clock.unix_ns(s.ts_ns))),
            parquet::big_ints(s.iter().map(|s| s.ts_ns as i64)),
            parquet::big_ints(s.iter().map(|s| (s.ts_ns + s.dur_ns) as i64)),
            parquet::big_ints(s.iter().map(|s| s.dur_ns as i64)),
            parquet::ints(s.iter().map(|s| s.cpu as i32)),
            parquet::big_ints(s.iter().map(|s| s.tid.into())),
            parquet::big_ints(s.iter().map(|s| s.pid.into())),
            parquet::some_big_ints(s.iter().map(|s| tasks.id(s.tid, s.ts_ns).map(i64::from))),
            parquet::big_ints(s.iter().map(|s| s.cgroup_id as i64)),
            parquet::some_big_ints(s.iter().map(|s| s.end.map(|(state, _)| state.into()))),
            parquet::some_ints(s.iter().map(|s| s.end.map(|(_, preempted)| preempted.into()))),
            parquet::some_big_ints(s.iter().map(|s| s.runq_ns.map(|ns| ns as i64))),
        ])
    }
}

impl EventsTable for SliceTable {
    fn name(&self) -> &str {
        "sched_slice"
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.0.finish()
    }
}
