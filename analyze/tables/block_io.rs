//! `block_io`: one row a request. Rows are in the order of completion, as a request may take as long as it likes; `ts` is
//! the issue.

use super::{EventsTable, columns};
use crate::block_io::{flags, operation};
use crate::error::Result;
use crate::meta::Meta;
use crate::parquet_file::{self as parquet, Output, TableFile, Type};
use crate::pipeline::{Need, Visitor};
use crate::slab::Slab;

/// The table.
pub struct IoTable(TableFile);

impl IoTable {
    /// Begins its file.
    pub fn new(output: &dyn Output) -> Result<Self> {
        let columns = columns(&[
            ("ts", Type::BigInt),
            ("ts_mono", Type::BigInt),
            ("end_mono", Type::BigInt),
            ("cpu", Type::Int),
            ("dev", Type::BigInt),
            ("disk", Type::Text),
            ("sector", Type::BigInt),
            ("bytes", Type::BigInt),
            ("op", Type::Text),
            ("flags", Type::Text),
            ("tid", Type::BigInt),
            ("pid", Type::BigInt),
            ("task_id", Type::BigInt),
            ("cgroup_id", Type::BigInt),
            ("queue_ns", Type::BigInt),
            ("device_ns", Type::BigInt),
            ("error", Type::Int),
        ]);
        Ok(IoTable(TableFile::ordered(output, "block_io", &columns, &["end_mono", "cpu"])?))
    }
}

impl Visitor for IoTable {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Ios)
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        let io = &slab.ios;
        if io.is_empty() {
            return Ok(());
        }
        self.0.write(vec![
            parquet::big_ints(io.iter().map(|io| meta.clock.unix_ns(io.issue_ns))),
            parquet::big_ints(io.iter().map(|io| io.issue_ns as i64)),
            parquet::big_ints(io.iter().map(|io| io.complete_ns as i64)),
            parquet::ints(io.iter().map(|io| io.cpu as i32)),
            parquet::big_ints(io.iter().map(|io| io.dev.into())),
            parquet::texts(io.iter().map(|io| meta.disk(io.dev))),
            parquet::big_ints(io.iter().map(|io| io.sector as i64)),
            parquet::big_ints(io.iter().map(|io| io.bytes.into())),
            parquet::texts(io.iter().map(|io| operation(io.cmd_flags))),
            parquet::texts(io.iter().map(|io| flags(io.cmd_flags))),
            parquet::big_ints(io.iter().map(|io| io.tid.into())),
            parquet::big_ints(io.iter().map(|io| io.pid.into())),
            parquet::some_big_ints(io.iter().map(|io| meta.tasks.lookup(io.tid, io.issue_ns).map(i64::from))),
            parquet::big_ints(io.iter().map(|io| io.cgroup_id as i64)),
            parquet::some_big_ints(io.iter().map(|io| io.queue_ns().map(|ns| ns as i64))),
            parquet::big_ints(io.iter().map(|io| io.device_ns() as i64)),
            parquet::ints(io.iter().map(|io| io.error)),
        ])
    }
}

impl EventsTable for IoTable {
    fn name(&self) -> &str {
        "block_io"
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.0.finish()
    }
}
