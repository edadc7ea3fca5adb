//! The table of one kind of events, made from the kind's description alone: kinds that this version has never heard of
//! have one, too.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::ArrayRef;
use bpfrec_format::{Column, Kind, Source, Trace, Type as FieldType};

use super::EventsTable;
use crate::error::Result;
use crate::meta::Meta;
use crate::parquet_file::{self as parquet, Output, TableFile, Type};
use crate::pipeline::{Need, Visitor};
use crate::slab::{EventTable, Slab};
use crate::symbols::Symbols;
use crate::view::Ints;

/// Columns that every kind has, whatever its fields are called.
const COMMON: [&str; 5] = ["ts", "ts_mono", "cpu", "host_id", "trace_id"];

/// Kinds of events that the trace may hold, but for those that describe tasks and cgroups.
pub fn kinds_of(trace: &Trace, meta: &Meta) -> Vec<Arc<Kind>> {
    let mut kinds: Vec<Arc<Kind>> = Vec::new();
    for (_, segment) in &trace.segments {
        for kind in segment.registry.kinds() {
            let of_events = kind.is_event() && kind.block_type() == bpfrec_format::BlockType::Events;
            let recorded = u8::try_from(kind.source).ok().and_then(Source::from_number);
            let recorded = recorded.is_none_or(|source| meta.has_source(source));
            if of_events && recorded && !kinds.iter().any(|k| k.id == kind.id) {
                kinds.push(kind);
            }
        }
    }
    kinds.sort_by_key(|k| k.id);
    let mut names: BTreeSet<String> = super::meta::side_kinds(meta).map(|(kind, _)| kind.name.clone()).collect();
    kinds.retain(|k| is_name(&k.name) && names.insert(k.name.clone()));
    kinds
}

/// Whether a kind may give a table its name. The trace itself names kinds: no name may lead out of the folder, or replace a
/// table of another.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !super::OWN.contains(&name)
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// The table of one kind.
pub struct KindTable<'a> {
    kind: Arc<Kind>,
    symbols: &'a Symbols,
    file: TableFile,
}

impl<'a> KindTable<'a> {
    /// Begins its file.
    pub fn new(kind: Arc<Kind>, symbols: &'a Symbols, output: &dyn Output) -> Result<Self> {
        let file = TableFile::new(output, &kind.name, &columns(&kind), true)?;
        Ok(KindTable { kind, symbols, file })
    }
}

/// What becomes of a field.
enum Role {
    Plain(Type),
    /// A thread: its task's id stands beside it under this name.
    Thread(String),
    /// A stack: its id is replaced by the one that is the same on all hosts.
    Stack,
}

fn role(name: &str, ty: FieldType) -> Role {
    match (ty, name) {
        (FieldType::U32, "tid") => Role::Thread("task_id".into()),
        (FieldType::U32, name) if name.ends_with("_tid") => {
            Role::Thread(format!("{}task_id", name.trim_end_matches("tid")))
        }
        (FieldType::U64, name) if name == "stack_id" || name.ends_with("_stack_id") => Role::Stack,
        (FieldType::U8 | FieldType::U16 | FieldType::I32, _) => Role::Plain(Type::Int),
        (FieldType::U32 | FieldType::U64 | FieldType::I64, _) => Role::Plain(Type::BigInt),
        (FieldType::Text, _) => Role::Plain(Type::Text),
        (FieldType::List, _) => Role::Plain(Type::List),
    }
}

/// Fields that have a column, with their positions; of fields of the same name the first.
fn fields(kind: &Kind) -> impl Iterator<Item = (usize, &bpfrec_format::Field)> {
    let own = |(i, f): &(usize, &bpfrec_format::Field)| {
        let made = f.name.strip_suffix("task_id").is_some_and(|p| kind.index_of(&format!("{p}tid")).is_some());
        f.name != "ts_ns" && !made && !COMMON.contains(&f.name.as_str()) && kind.index_of(&f.name) == Some(*i)
    };
    kind.fields.iter().enumerate().filter(own)
}

/// Columns of the table of a kind.
pub(super) fn columns(kind: &Kind) -> Vec<(String, Type)> {
    let mut columns = super::columns(&[("ts", Type::BigInt), ("ts_mono", Type::BigInt), ("cpu", Type::Int)]);
    for (_, field) in fields(kind) {
        match role(&field.name, field.ty) {
            Role::Plain(ty) => columns.push((field.name.clone(), ty)),
            Role::Stack => columns.push((field.name.clone(), Type::BigInt)),
            Role::Thread(task) => {
                columns.push((field.name.clone(), Type::BigInt));
                columns.push((task, Type::BigInt));
            }
        }
    }
    columns
}

/// Rows of the table of a kind.
pub(super) fn rows(meta: &Meta, symbols: &Symbols, table: &EventTable) -> Result<Vec<ArrayRef>> {
    let n = table.rows();
    let mut arrays = vec![
        parquet::big_ints(table.ts.iter().map(|ts| meta.clock.unix_ns(*ts))),
        parquet::big_ints(table.ts.iter().map(|ts| *ts as i64)),
        parquet::some_ints(table.cpu.iter().map(|cpu| (*cpu != u32::MAX).then_some(*cpu as i32))),
    ];
    for (i, field) in fields(&table.kind) {
        let column = table.columns.get(i);
        let ints = Ints::of(column.map_or(&[], Column::ints));
        let big_ints = || parquet::big_ints((0..n).map(|row| ints.get(row) as i64));
        match role(&field.name, field.ty) {
            Role::Plain(Type::Int) => arrays.push(parquet::ints((0..n).map(|row| ints.get(row) as i32))),
            Role::Plain(Type::Text) => arrays.push(match column {
                Some(Column::Text(text)) => parquet::texts((0..n).map(|row| String::from_utf8_lossy(text.get(row)))),
                _ => parquet::texts((0..n).map(|_| "")),
            }),
            Role::Plain(Type::List) => arrays.push(match column {
                Some(Column::List(list)) => parquet::lists((0..n).map(|row| list.get(row)))?,
                _ => parquet::lists((0..n).map(|_| &[][..]))?,
            }),
            Role::Plain(_) => arrays.push(big_ints()),
            Role::Stack => {
                let id = |row| symbols.stack(ints.get(row)).map(|stack| stack.id as i64);
                arrays.push(parquet::some_big_ints((0..n).map(id)));
            }
            Role::Thread(_) => {
                arrays.push(big_ints());
                let mut tasks = meta.tasks.lookups();
                let task = |row| tasks.id(ints.get32(row), table.ts[row]).map(i64::from);
                arrays.push(parquet::some_big_ints((0..n).map(task)));
            }
        }
    }
    Ok(arrays)
}

impl Visitor for KindTable<'_> {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Field(kind, _) if kind.id == self.kind.id)
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        match slab.tables.iter().find(|t| t.kind.id == self.kind.id) {
            Some(table) => self.file.write(rows(meta, self.symbols, table)?),
            None => Ok(()),
        }
    }
}

impl EventsTable for KindTable<'_> {
    fn name(&self) -> &str {
        &self.kind.name
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.file.finish()
    }
}
