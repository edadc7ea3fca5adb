//! docs/tables.md says what the tables are: names, types and order of their columns, and the order of their rows.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, Schema};
use bpfrec_format::Trace;
use common::{Builder, S, T0, V, analyze};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const SPEC: &str = include_str!("../../format-spec/SPEC.md");
const MADE: &str = "<!-- From here on made from SPEC.md";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tables.md")
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_start_matches("| ").trim_end_matches(" |").split(" | ").map(str::trim).collect()
}

/// Rows of the first table in a part, without its head.
fn rows(part: &str) -> Vec<Vec<&str>> {
    part.lines().filter(|l| l.starts_with("| ")).skip(1).map(cells).collect()
}

/// The page's part on kinds, out of section 12 of SPEC.md.
fn kinds() -> String {
    let mut out = String::new();
    let parts = SPEC.split_once("\n## 12.").unwrap().1.split("\n### ").skip(1);
    // These have tables of their own, in which their kinds are joined.
    let own = ["kmem", "malloc", "offcpu"].map(|source| format!("\nSource `{source}`"));
    for part in parts.filter(|p| p.contains("\nSource `") && !own.iter().any(|own| p.contains(own))) {
        let (titles, rest) = part.split_once('\n').unwrap();
        let names: Vec<_> = titles.split(", ").map(|t| t.split_once(' ').unwrap().1).collect();
        let (about, _) = rest.trim_start().split_once('\n').unwrap();
        let (source, about) = about.split_once("; raw rows of ").unwrap();
        let (_, about) = about.split_once(" bytes. ").unwrap();
        let _ = writeln!(out, "\n### {}\n\n{source}. {about}\n", names.join(", "));
        out += "| column | type | unit | meaning |\n|---|---|---|---|\n";
        for field in rows(rest) {
            let [name, ty, _, _, unit, meaning] = field[..] else { panic!("{titles}: {field:?}") };
            if matches!(name, "ts_ns" | "cpu") {
                continue;
            }
            let sql = match ty {
                "u8" | "u16" | "i32" => "INT",
                "u32" | "u64" | "i64" => "BIGINT",
                "text" => "VARCHAR",
                _ => "BIGINT[]",
            };
            let mut meaning = meaning.trim_end_matches('.').to_owned();
            if name.ends_with("stack_id") {
                meaning = format!("{}: `stack.stack_id`, NULL without one", meaning.replace("; 0: none", ""));
            }
            let mut line = |name: &str, unit: &str, meaning: &str| {
                let _ =
                    writeln!(out, "| {name} | {sql} |{}{unit} | {meaning} |", if unit.is_empty() { "" } else { " " });
            };
            line(name, unit, &meaning);
            if let Some(prefix) = name.strip_suffix("tid").filter(|p| ty == "u32" && (p.is_empty() || p.ends_with('_')))
            {
                line(&format!("{prefix}task_id"), "", "Its task: `task.task_id`, NULL where it is not known");
            }
        }
    }
    out
}

#[test]
fn kinds_of_the_page_are_those_of_the_format() {
    let old = std::fs::read_to_string(page()).unwrap();
    let (own, _) = old.split_once(MADE).expect("the mark of the part that is made");
    let mark = old[own.len()..].lines().next().unwrap();
    let new = format!("{own}{mark}\n{}", kinds());
    if std::env::var_os("BPFREC_UPDATE").is_some() {
        std::fs::write(page(), &new).unwrap();
    } else {
        assert!(old == new, "docs/tables.md is not what SPEC.md says: BPFREC_UPDATE=1 writes that part anew");
    }
}

/// What the page says of a table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    columns: Vec<(String, String)>,
    order: Vec<String>,
}

fn documented() -> BTreeMap<String, Table> {
    let page = std::fs::read_to_string(page()).unwrap();
    let columns = |part: &str| -> Vec<_> {
        rows(part).iter().map(|r| (r[0].to_owned(), r[1].trim_end_matches('|').trim().to_owned())).collect()
    };
    let section = |name: &str| page.split_once(&format!("\n## {name}\n")).unwrap_or_else(|| panic!("no {name}")).1;
    let head = |name| section(name).split("\n##").next().unwrap();
    let order = |part: &str| -> Vec<_> {
        let (_, order) = part.split_once("rdered by `").unwrap_or_else(|| panic!("no order: {part}"));
        let order = order.split(".").next().unwrap();
        order.trim_end_matches('`').split("`, `").map(str::to_owned).collect()
    };
    let every = columns(head("Columns of every table"));
    let (events, time) = (columns(head("Kinds of events")), order(head("Kinds of events")));
    let mut tables = BTreeMap::new();
    let kinds_at = page.len() - section("Kinds of events").len();
    for (at, _) in page.match_indices("\n### ") {
        let part = &page[at + 5..];
        let part = part.split("\n##").next().unwrap();
        let (title, part) = part.split_once('\n').unwrap();
        let is_kind = at > kinds_at;
        for name in title.split(", ") {
            let mut all = if is_kind { events.clone() } else { Vec::new() };
            all.extend(columns(part));
            all.extend(every.clone());
            let order = if is_kind {
                time.clone()
            } else if part.contains("rdered by") {
                order(part)
            } else {
                Vec::new()
            };
            tables.insert(name.to_owned(), Table { columns: all, order });
        }
    }
    tables
}

fn sql(ty: &DataType) -> String {
    match ty {
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 => "VARCHAR".into(),
        DataType::List(item) => format!("{}[]", sql(item.data_type())),
        other => panic!("{other}: not every engine reads it"),
    }
}

/// Values of the columns that declare the order; NULL stands last.
fn keys(batch: &RecordBatch, order: &[usize]) -> Vec<Vec<i64>> {
    let value = |column: usize, row: usize| {
        let array = batch.column(column);
        match array.data_type() {
            _ if array.is_null(row) => i64::MAX,
            DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
            _ => array.as_primitive::<Int64Type>().value(row),
        }
    };
    (0..batch.num_rows()).map(|row| order.iter().map(|c| value(*c, row)).collect()).collect()
}

/// What a file holds; panics when its rows are not in the order that it declares, or the constant columns are not.
fn read(name: &str, bytes: &[u8]) -> Table {
    let path =
        std::env::temp_dir().join(format!("bpfrec-tables-{}-{:?}", std::process::id(), std::thread::current().id()));
    File::create(&path).unwrap().write_all(bytes).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let schema: Schema = reader.schema().as_ref().clone();
    let columns = schema.fields().iter().map(|f| (f.name().clone(), sql(f.data_type()))).collect();
    let groups: Vec<_> = reader.metadata().row_groups().iter().map(|g| g.sorting_columns().cloned()).collect();
    let order: Vec<usize> = groups.first().into_iter().flatten().flatten().map(|c| c.column_idx as usize).collect();
    let (mut before, mut ids) = (Vec::new(), BTreeSet::new());
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        for key in keys(&batch, &order) {
            assert!(before <= key, "{name}: {before:?} stands before {key:?}");
            before = key;
        }
        let host = batch.column_by_name("host_id").unwrap().as_primitive::<Int64Type>();
        let trace = batch.column_by_name("trace_id").unwrap().as_string::<i32>();
        ids.extend((0..batch.num_rows()).map(|row| (host.value(row), trace.value(row).to_owned())));
    }
    assert!(ids.len() <= 1, "{name}: {ids:?}");
    assert!(ids.iter().all(|(host, trace)| *host != 0 && trace.len() == 16), "{name}: {ids:?}");
    Table { columns, order: order.iter().map(|i| schema.field(*i).name().clone()).collect() }
}

/// A trace with everything in it that makes a table.
fn everything() -> Trace {
    let kinds = bpfrec_format::Registry::default().kinds();
    let sources: Vec<_> = bpfrec_format::Source::ALL.iter().map(|s| s.name()).collect();
    let mut b = Builder::with(bpfrec_format::Registry::default(), &[("sources", &sources.join(","))]);
    b.task(1, 1, "one").task(2, 2, "two");
    for i in 0..50u64 {
        b.wakeup(1, T0 + 100 * i + 10, 2).switch(0, T0 + 100 * i + 50, 1, 0, 2).switch(0, T0 + 100 * i + 80, 2, 1, 1);
        let request = [("rq", i), ("dev", 8 << 20), ("bytes", 4096)];
        b.event(1, "block_issue", T0 + 100 * i, &request).event(0, "block_complete", T0 + 9000 - 100 * i, &request);
    }
    for kind in kinds.iter().filter(|k| k.is_event()) {
        if kind.block_type() == bpfrec_format::BlockType::Events {
            b.event(0, &kind.name, T0 + 7, &[]).event(1, &kind.name, T0 + 5, &[]);
        } else {
            b.row(&kind.name, &[("ts_ns", V::N(T0 + 7))]).row(&kind.name, &[("ts_ns", V::N(T0 + 5))]);
        }
    }
    for id in [3, 1, u64::MAX] {
        b.row(
            "stack",
            &[("ts_ns", V::N(T0)), ("stack_id", V::N(id)), ("frames", V::L(&[id.wrapping_mul(4096) / 2, 8192]))],
        );
        b.row("cgroup", &[("ts_ns", V::N(T0)), ("cgroup_id", V::N(id)), ("path", V::T("/a"))]);
        b.row("mapping", &[("ts_ns", V::N(T0 + id % 7)), ("pid", V::N(id % 3)), ("path", V::T("/bin/a"))]);
        b.row("clock", &[("mono_ns", V::N(T0 + id % 5)), ("realtime_ns", V::N(2 * S))]);
    }
    for from in [T0 + 5, T0 + 3] {
        common::loss(&mut b, bpfrec_format::Source::Sched, from, from + 1, 1);
    }
    b.trace()
}

#[test]
fn tables_are_as_the_page_says() {
    let pages = documented();
    let mut seen = BTreeSet::new();
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/v1");
    let real = std::fs::read_dir(testdata).unwrap().map(|e| Trace::open(&e.unwrap().path()).unwrap());
    for trace in std::iter::once(everything()).chain(real) {
        let (_, files) = analyze(&trace, 2);
        for (file, bytes) in files {
            let Some(name) = file.strip_prefix("parquet/").and_then(|f| f.strip_suffix(".parquet")) else { continue };
            let page = pages.get(name).unwrap_or_else(|| panic!("docs/tables.md has no table {name}"));
            let mut found = read(name, &bytes);
            if found.order.is_empty() {
                // A file without rows declares nothing.
                found.order.clone_from(&page.order);
            }
            assert_eq!(found, *page, "{name}, left as it is, right as docs/tables.md says");
            seen.insert(name.to_owned());
        }
    }
    let missing: Vec<_> = pages.keys().filter(|name| !seen.contains(*name)).collect();
    assert!(missing.is_empty(), "docs/tables.md has tables that nothing writes: {missing:?}");
}
