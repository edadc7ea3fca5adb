//! `alloc`: one row an allocation of memory, by a process or by the kernel; a range that was freed in parts has one row a
//! part. Rows are in no order of time: each is written when its end is certain, and what was never freed comes last.
//! `fate` says what became of it: `freed` (then `free_ts` says when), `live` at the end of the trace, `exit` (its process
//! ended and still had it), `exec`, or `replaced` (its address was given out again; the free was not seen).

use super::{EventsTable, columns};
use crate::error::Result;
use crate::memory::{Fate, op};
use crate::meta::Meta;
use crate::parquet_file::{self as parquet, Output, TableFile, Type};
use crate::pipeline::{Need, Visitor};
use crate::slab::Slab;
use crate::symbols::Symbols;

/// The table.
pub struct AllocTable<'a> {
    symbols: &'a Symbols,
    file: TableFile,
}

impl<'a> AllocTable<'a> {
    /// Begins its file.
    pub fn new(symbols: &'a Symbols, output: &dyn Output) -> Result<Self> {
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
            ("weight", Type::Double),
            // 1: a part whose allocation counts with another row.
            ("part", Type::Int),
            ("stack_id", Type::BigInt),
            ("free_ts", Type::BigInt),
            ("free_tid", Type::BigInt),
            ("fate", Type::Text),
        ]);
        Ok(AllocTable { symbols, file: TableFile::new(output, "alloc", &columns, false)? })
    }
}

impl Visitor for AllocTable<'_> {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Lives)
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        let lives = &slab.lives;
        if lives.is_empty() {
            return Ok(());
        }
        let freed = || lives.iter().map(|l| l.end.filter(|end| end.fate == Fate::Freed));
        self.file.write(vec![
            parquet::big_ints(lives.iter().map(|l| meta.clock.unix_ns(l.ts_ns))),
            parquet::big_ints(lives.iter().map(|l| l.ts_ns as i64)),
            parquet::big_ints(lives.iter().map(|l| l.tid.into())),
            parquet::big_ints(lives.iter().map(|l| l.pid.into())),
            parquet::some_big_ints(lives.iter().map(|l| meta.tasks.lookup(l.tid, l.ts_ns).map(i64::from))),
            parquet::big_ints(lives.iter().map(|l| l.cgroup_id as i64)),
            parquet::texts(lives.iter().map(|l| op::name(l.op))),
            parquet::big_ints(lives.iter().map(|l| l.addr as i64)),
            parquet::big_ints(lives.iter().map(|l| l.bytes as i64)),
            parquet::doubles(lives.iter().map(|l| f64::from(l.weight_milli) / 1000.0)),
            parquet::ints(lives.iter().map(|l| l.part.into())),
            parquet::some_big_ints(lives.iter().map(|l| self.symbols.stack(l.stack_id).map(|s| s.id as i64))),
            parquet::some_big_ints(freed().map(|end| end.map(|end| meta.clock.unix_ns(end.ts_ns)))),
            parquet::some_big_ints(freed().map(|end| end.map(|end| end.tid.into()))),
            parquet::texts(lives.iter().map(|l| l.end.map_or("live", |end| end.fate.name()))),
        ])
    }
}

impl EventsTable for AllocTable<'_> {
    fn name(&self) -> &str {
        "alloc"
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.file.finish()
    }
}
