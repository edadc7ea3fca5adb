//! Tables of what is no event: tasks, cgroups, mappings, clocks, losses, the trace itself; and the events that stand beside
//! them in the trace.

use std::borrow::Cow;
use std::sync::Arc;

use bpfrec_format::meta::{reason, shed};
use bpfrec_format::{Column, Kind, Source, Table};

use super::{columns, events};
use crate::error::Result;
use crate::meta::Meta;
use crate::parquet_file::{self as parquet, Output, TableFile, Type};
use crate::pipeline::Reading;
use crate::slab::EventTable;
use crate::symbols::Symbols;
use crate::tasks::NAMESPACES;

/// Version of all tables. Columns are only ever added; what changes their meaning raises it.
const SCHEMA_VERSION: i32 = 1;

/// Names of these tables.
pub const NAMES: [&str; 7] = ["task", "task_namespaces", "cgroup", "mapping", "clock", "loss", "trace"];

/// Writes them all.
pub fn write(meta: &Meta, reading: &Reading, symbols: &Symbols, output: &dyn Output) -> Result<()> {
    tasks(meta, output)?;
    moves(meta, output)?;
    cgroups(meta, output)?;
    mappings(meta, output)?;
    clocks(meta, output)?;
    losses(meta, reading, output)?;
    trace(meta, reading, output)?;
    for (kind, tables) in side_kinds(meta) {
        side_events(meta, symbols, kind, tables, output)?;
    }
    Ok(())
}

/// Kinds of events that stand beside tasks and cgroups, each with its rows.
pub fn side_kinds(meta: &Meta) -> impl Iterator<Item = &(Arc<Kind>, Vec<Table>)> {
    let mut names = std::collections::BTreeSet::new();
    meta.side_events.values().filter(move |(kind, _)| events::is_name(&kind.name) && names.insert(&kind.name))
}

fn tasks(meta: &Meta, output: &dyn Output) -> Result<()> {
    let columns = columns(&[
        ("task_id", Type::BigInt),
        ("tid", Type::BigInt),
        ("pid", Type::BigInt),
        ("ppid", Type::BigInt),
        ("uid", Type::BigInt),
        ("comm", Type::Text),
        ("exe", Type::Text),
        ("ns_pid", Type::BigInt),
        ("pid_ns", Type::BigInt),
        ("start_ts", Type::BigInt),
        ("end_ts", Type::BigInt),
        ("cgroup_id", Type::BigInt),
        ("mnt_ns", Type::BigInt),
    ]);
    let mut file = TableFile::ordered(output, "task", &columns, &["task_id"])?;
    let t = meta.tasks.all();
    file.write(vec![
        parquet::big_ints(0..t.len() as i64),
        parquet::big_ints(t.iter().map(|t| t.tid.into())),
        parquet::big_ints(t.iter().map(|t| t.pid.into())),
        parquet::big_ints(t.iter().map(|t| t.ppid.into())),
        parquet::big_ints(t.iter().map(|t| t.uid.into())),
        parquet::texts(t.iter().map(|t| t.last_comm())),
        parquet::some_texts(t.iter().map(|t| &t.exe)),
        parquet::big_ints(t.iter().map(|t| t.ns_pid.into())),
        parquet::big_ints(t.iter().map(|t| t.pid_ns.into())),
        parquet::big_ints(t.iter().map(|t| meta.clock.unix_ns(t.start_ns))),
        parquet::some_big_ints(t.iter().map(|t| t.end_ns.map(|ns| meta.clock.unix_ns(ns)))),
        parquet::big_ints(t.iter().map(|t| t.cgroup_id as i64)),
        parquet::big_ints(t.iter().map(|t| t.mount_ns(u64::MAX).into())),
    ])?;
    file.finish()
}

fn moves(meta: &Meta, output: &dyn Output) -> Result<()> {
    let mut list = vec![("ts", Type::BigInt), ("ts_mono", Type::BigInt), ("tid", Type::BigInt), ("pid", Type::BigInt)];
    list.extend(NAMESPACES.map(|name| (name, Type::BigInt)));
    let mut file = TableFile::ordered(output, "task_namespaces", &columns(&list), &["ts_mono", "tid"])?;
    let moves = meta.tasks.moves();
    let mut arrays = vec![
        parquet::big_ints(moves.iter().map(|m| meta.clock.unix_ns(m.ts_ns))),
        parquet::big_ints(moves.iter().map(|m| m.ts_ns as i64)),
        parquet::big_ints(moves.iter().map(|m| m.tid.into())),
        parquet::big_ints(moves.iter().map(|m| m.pid.into())),
    ];
    arrays.extend((0..NAMESPACES.len()).map(|of| parquet::big_ints(moves.iter().map(|m| m.inodes[of].into()))));
    file.write(arrays)?;
    file.finish()
}

fn cgroups(meta: &Meta, output: &dyn Output) -> Result<()> {
    let columns = columns(&[
        ("cgroup_id", Type::BigInt),
        ("path", Type::Text),
        ("runtime", Type::Text),
        ("container_id", Type::Text),
        ("pod_uid", Type::Text),
        ("unit", Type::Text),
        ("first_ts", Type::BigInt),
        ("last_ts", Type::BigInt),
    ]);
    let mut file = TableFile::ordered(output, "cgroup", &columns, &["cgroup_id"])?;
    let c = meta.cgroups.sorted();
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    file.write(vec![
        parquet::big_ints(c.iter().map(|(id, _)| *id as i64)),
        parquet::some_texts(c.iter().map(|(_, c)| &c.path)),
        parquet::some_texts(c.iter().map(|(_, c)| text(&c.names.runtime))),
        parquet::some_texts(c.iter().map(|(_, c)| text(&c.names.container_id))),
        parquet::some_texts(c.iter().map(|(_, c)| text(&c.names.pod_uid))),
        parquet::some_texts(c.iter().map(|(_, c)| text(&c.names.unit))),
        parquet::big_ints(c.iter().map(|(_, c)| meta.clock.unix_ns(c.first_ns))),
        parquet::some_big_ints(c.iter().map(|(_, c)| c.removed_ns.map(|ns| meta.clock.unix_ns(ns)))),
    ])?;
    file.finish()
}

fn mappings(meta: &Meta, output: &dyn Output) -> Result<()> {
    let columns = columns(&[
        ("ts", Type::BigInt),
        ("ts_mono", Type::BigInt),
        ("pid", Type::BigInt),
        ("start_addr", Type::BigInt),
        ("len_bytes", Type::BigInt),
        ("offset_bytes", Type::BigInt),
        ("build_id", Type::Text),
        ("path", Type::Text),
        ("inode", Type::BigInt),
        ("dev", Type::Text),
    ]);
    let mut file = TableFile::ordered(output, "mapping", &columns, &["pid", "ts_mono"])?;
    for m in meta.mappings.rows.chunks(1 << 16) {
        let of = |m: &crate::mappings::Mapping| &meta.mappings.files[m.file as usize];
        file.write(vec![
            parquet::big_ints(m.iter().map(|m| meta.clock.unix_ns(m.ts_ns))),
            parquet::big_ints(m.iter().map(|m| m.ts_ns as i64)),
            parquet::big_ints(m.iter().map(|m| m.pid.into())),
            parquet::big_ints(m.iter().map(|m| m.start as i64)),
            parquet::big_ints(m.iter().map(|m| m.len as i64)),
            parquet::big_ints(m.iter().map(|m| m.offset as i64)),
            parquet::some_texts(m.iter().map(|m| &of(m).build_id)),
            parquet::some_texts(m.iter().map(|m| &of(m).path)),
            parquet::big_ints(m.iter().map(|m| m.inode.0 as i64)),
            parquet::texts(m.iter().map(|m| format!("{}:{}", m.inode.1, m.inode.2))),
        ])?;
    }
    file.finish()
}

fn clocks(meta: &Meta, output: &dyn Output) -> Result<()> {
    let columns = columns(&[("mono_ns", Type::BigInt), ("boot_ns", Type::BigInt), ("realtime_ns", Type::BigInt)]);
    let mut file = TableFile::ordered(output, "clock", &columns, &["mono_ns"])?;
    let c = &meta.clock.rows;
    file.write(vec![
        parquet::big_ints(c.iter().map(|c| c.0 as i64)),
        parquet::big_ints(c.iter().map(|c| c.1 as i64)),
        parquet::big_ints(c.iter().map(|c| c.2)),
    ])?;
    file.finish()
}

/// A row of `loss`.
struct LossRow {
    source: Option<String>,
    cpu: Option<i32>,
    from_ns: u64,
    to_ns: u64,
    events: u64,
    blocks: u64,
    incomplete: u64,
    reason: Cow<'static, str>,
}

fn losses(meta: &Meta, reading: &Reading, output: &dyn Output) -> Result<()> {
    let columns = columns(&[
        ("source", Type::Text),
        ("cpu", Type::Int),
        ("ts_from", Type::BigInt),
        ("ts_to", Type::BigInt),
        ("from_mono", Type::BigInt),
        ("to_mono", Type::BigInt),
        ("events_lost", Type::BigInt),
        ("blocks_lost", Type::BigInt),
        ("incomplete", Type::BigInt),
        ("reason", Type::Text),
    ]);
    let told = meta.losses.rows.iter().map(|l| {
        let (events, incomplete) = if l.is_of_events() { (l.lost, 0) } else { (0, l.lost) };
        LossRow {
            source: Some(source_name(l.source)),
            cpu: (l.cpu != u32::MAX).then_some(l.cpu as i32),
            from_ns: l.from_ns,
            to_ns: l.to_ns,
            events,
            blocks: 0,
            incomplete,
            reason: reason::text(l.reason).into(),
        }
    });
    let found = reading.damage.lost.iter().map(|l| LossRow {
        source: None,
        cpu: l.cpu.map(|cpu| cpu as i32),
        from_ns: l.from_ns.max(meta.first_ns),
        to_ns: l.to_ns.min(meta.end_ns),
        events: l.events,
        blocks: l.blocks,
        incomplete: 0,
        reason: if l.events > 0 { reason::text(reason::DAMAGED) } else { "block missing" }.into(),
    });
    let shed = meta.sheds.all.iter().map(|s| LossRow {
        source: (s.step == shed::SOURCE).then(|| source_name(s.source)),
        cpu: None,
        from_ns: s.from_ns,
        to_ns: s.to_ns.min(meta.end_ns),
        events: 0,
        blocks: 0,
        incomplete: 0,
        reason: s.reason().into(),
    });
    let mut rows: Vec<LossRow> = told.chain(found).chain(shed).collect();
    rows.sort_by_key(|l| l.from_ns);
    let mut file = TableFile::ordered(output, "loss", &columns, &["from_mono"])?;
    let l = &rows;
    file.write(vec![
        parquet::some_texts(l.iter().map(|l| l.source.as_deref().unwrap_or_default())),
        parquet::some_ints(l.iter().map(|l| l.cpu)),
        parquet::big_ints(l.iter().map(|l| meta.clock.unix_ns(l.from_ns))),
        parquet::big_ints(l.iter().map(|l| meta.clock.unix_ns(l.to_ns))),
        parquet::big_ints(l.iter().map(|l| l.from_ns as i64)),
        parquet::big_ints(l.iter().map(|l| l.to_ns as i64)),
        parquet::big_ints(l.iter().map(|l| l.events as i64)),
        parquet::big_ints(l.iter().map(|l| l.blocks as i64)),
        parquet::big_ints(l.iter().map(|l| l.incomplete as i64)),
        parquet::texts(l.iter().map(|l| &l.reason)),
    ])?;
    file.finish()
}

/// Name of a source, or its number where this version has no name.
pub(crate) fn source_name(source: u16) -> String {
    let known = u8::try_from(source).ok().and_then(Source::from_number);
    known.map_or_else(|| format!("source {source}"), |s| s.name().into())
}

fn trace(meta: &Meta, reading: &Reading, output: &dyn Output) -> Result<()> {
    let columns = columns(&[
        ("schema_version", Type::Int),
        ("host", Type::Text),
        ("kernel", Type::Text),
        ("arch", Type::Text),
        ("bpfrec_version", Type::Text),
        ("sources", Type::Text),
        ("start_ts", Type::BigInt),
        ("start_mono_ns", Type::BigInt),
        ("duration_ns", Type::BigInt),
        ("sample_hz", Type::BigInt),
        ("recorder_pid", Type::BigInt),
        ("completeness", Type::Double),
        ("events", Type::BigInt),
        ("lost", Type::BigInt),
    ]);
    let mut file = TableFile::new(output, "trace", &columns, false)?;
    let one = std::iter::once::<&str>;
    let big = |v: u64| parquet::big_ints(std::iter::once(v as i64));
    let lost = meta.losses.all().saturating_add(reading.damage.events);
    let events = meta.events.saturating_sub(reading.damage.events);
    let all = events.saturating_add(lost);
    let completeness = if all == 0 { 1.0 } else { events as f64 / all as f64 };
    file.write(vec![
        parquet::ints(std::iter::once(SCHEMA_VERSION)),
        parquet::some_texts(one(meta.item("host"))),
        parquet::some_texts(one(meta.item("kernel"))),
        parquet::some_texts(one(meta.item("arch"))),
        parquet::some_texts(one(meta.item("bpfrec_version"))),
        parquet::some_texts(one(meta.item("sources"))),
        parquet::big_ints(std::iter::once(meta.clock.unix_ns(meta.start_ns))),
        big(meta.start_ns),
        big(meta.duration_ns()),
        parquet::some_big_ints(std::iter::once(meta.number("sample_hz").map(|hz| hz as i64))),
        parquet::some_big_ints(std::iter::once(meta.recorder_pid().map(i64::from))),
        parquet::doubles(std::iter::once(completeness)),
        big(events),
        big(lost),
    ])?;
    file.finish()
}

/// Forks, exits, new cgroups: few, and all in memory already.
fn side_events(meta: &Meta, symbols: &Symbols, kind: &Arc<Kind>, tables: &[Table], output: &dyn Output) -> Result<()> {
    let mut file = TableFile::new(output, &kind.name, &events::columns(kind), true)?;
    let mut columns: Vec<Column> = kind.fields.iter().map(|f| Column::empty(f.ty)).collect();
    let mut keys: Vec<(u64, u64, usize, usize)> = Vec::new();
    for (t, table) in tables.iter().enumerate() {
        let view = crate::view::View::new(kind, table);
        let (ts, cpu) = (view.ints("ts_ns"), kind.index_of("cpu").map(|_| view.ints("cpu")));
        let cpu = |row| cpu.map_or(u64::from(u32::MAX), |cpu| cpu.get(row));
        keys.extend((0..table.rows()).map(|row| (ts.get(row), cpu(row), t, row)));
    }
    keys.sort_unstable();
    for (i, column) in columns.iter_mut().enumerate() {
        for (_, _, t, row) in &keys {
            match (&mut *column, tables[*t].columns.get(i)) {
                (Column::Int(out), Some(Column::Int(v))) => out.push(v.get(*row).copied().unwrap_or(0)),
                (Column::Text(out), Some(Column::Text(v))) => out.push(v.get(*row)),
                (Column::List(out), Some(Column::List(v))) => out.push(v.get(*row)),
                (Column::Int(out), _) => out.push(0),
                (Column::Text(out), _) => out.push(&[]),
                (Column::List(out), _) => out.push(&[]),
            }
        }
    }
    let table = EventTable {
        kind: kind.clone(),
        ts: keys.iter().map(|k| k.0).collect(),
        cpu: keys.iter().map(|k| k.1 as u32).collect(),
        columns,
    };
    file.write(events::rows(meta, symbols, &table)?)?;
    file.finish()
}
