//! Targets of the analyzer: whatever tables a file has, every report, table, export and comparison of it ends.

use std::io::{self, Write};

use arbitrary::Unstructured;
use bpfrec_analyze::diff::{By, Diff, Side, Stacks, length_ns};
use bpfrec_analyze::export::{self, Asked, FORMATS};
use bpfrec_analyze::reports::{self, Flags, REPORTS};
use bpfrec_analyze::symbols::Options;
use bpfrec_analyze::{Filter, Meta, Output, analyze, symbolize};
use bpfrec_format::{Registry, Segment, Trace};

use crate::mend::mended;
use crate::rows;

/// Facts alone: stacks, mappings, symbols, tasks, cgroups, clocks, losses. Every name is looked up.
pub fn meta(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let kinds: Vec<_> = Registry::default().kinds().into_iter().filter(|kind| !kind.is_event()).collect();
    let bytes = rows::file(&mut u, &kinds);
    everything(Segment::open(Box::new(bytes)).expect("what was written opens"));
}

/// Tables of all kinds, written as a recorder would; then one way to read them.
pub fn tables(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let choice = u.arbitrary().unwrap_or_default();
    let bytes = rows::file(&mut u, &Registry::default().kinds());
    one_of(Segment::open(Box::new(bytes)).expect("what was written opens"), choice);
}

/// A file of any bytes with right checksums; its first bytes say how it is read.
pub fn reports(data: &[u8]) {
    let choice = data
        .iter()
        .take(8)
        .chain(data.iter().rev().take(8))
        .fold(7u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
    read_as(mended(data), choice);
}

/// A file of any bytes as it is, in the way that `choice` says.
pub fn read_as(bytes: Vec<u8>, choice: u64) {
    if let Ok(segment) = Segment::open(Box::new(bytes)) {
        one_of(segment, choice);
    }
}

fn loaded(segment: Segment) -> Option<(Trace, Meta)> {
    let trace = Trace { segments: vec![("file".into(), segment)], refused: Vec::new() };
    let mut meta = Meta::load(&trace).ok()?;
    meta.names = Options { trace_only: true, ..Options::default() };
    Some((trace, meta))
}

/// `analyze`, and `symbolize`.
pub fn everything(segment: Segment) {
    let Some((trace, meta)) = loaded(segment) else { return };
    let _ = analyze(&trace, &meta, &Nowhere, &|_, _| {});
    let _ = symbolize::symbolize(&meta);
}

/// One report, export or comparison, or everything.
fn one_of(segment: Segment, choice: u64) {
    let ways = REPORTS.len() + FORMATS.len() + 2;
    let way = (choice % ways as u64) as usize;
    if way == ways - 1 {
        return everything(segment);
    }
    let Some((trace, meta)) = loaded(segment) else { return };
    let choice = choice / ways as u64;
    let windows = [(None, None), (Some("1us"), Some("500ms")), (Some("0s"), Some("0s"))];
    let (from, to) = windows[(choice % 3) as usize];
    let (pid, cgroup) = [(None, None), (Some(1), None), (None, Some("/"))][(choice / 3 % 3) as usize];
    let Ok(filter) = Filter::new(&meta, from, to, pid, cgroup) else { return };
    let choice = choice / 9;
    match way {
        _ if way < REPORTS.len() => report(&trace, &meta, REPORTS[way], &filter, choice),
        _ if way < REPORTS.len() + FORMATS.len() => {
            let _ = export::run(
                &trace,
                &meta,
                FORMATS[way - REPORTS.len()],
                &Asked::default(),
                &filter,
                &mut io::sink(),
                &|_, _| {},
            );
        }
        _ => compare(&trace, &meta, &filter, if choice & 1 == 0 { By::Time } else { By::Samples }),
    }
}

/// A report as text and as JSON, with some of its flags. Text has nothing that a terminal obeys, JSON is JSON.
fn report(trace: &Trace, meta: &Meta, kind: &reports::ReportKind, filter: &Filter, choice: u64) {
    let mut flags = Flags::default();
    for (_, flag) in kind.flags.iter().enumerate().filter(|(i, _)| choice >> (2 * i).min(60) & 3 == 1) {
        let value = ["3", "0", "18446744073709551615"][choice as usize % 3];
        let value = if flag.long == "svg" || flag.long == "output" { "x.svg" } else { value };
        flags.0.insert(flag.long, if flag.value.is_some() { value } else { "" }.into());
    }
    for as_json in [false, true] {
        let Ok(outcome) = reports::run(trace, meta, kind, &flags, filter, as_json, &|_, _| {}) else { continue };
        if as_json {
            serde_json::from_str::<serde_json::Value>(&outcome.output).expect("JSON is JSON");
        } else if let Some(c) = outcome.output.chars().find(|c| c.is_control() && !"\n\t".contains(*c)) {
            panic!("{} prints the control character {c:?}", kind.name);
        }
    }
}

/// The trace beside itself in a part: as text, JSON, page and drawings.
fn compare(trace: &Trace, meta: &Meta, filter: &Filter, by: By) {
    let all = Filter::everything(meta);
    let length = length_ns(meta.duration_ns(), filter.part_ns(meta.first_ns, meta.end_ns));
    let side = |filter: &Filter| Side::read(trace, meta, filter, "x.bpr", length.as_ref().ok().copied(), &|_, _| {});
    let (Ok(before), Ok(after)) = (side(&all), side(filter)) else { return };
    let Ok(diff) = Diff::new(before, after, by, length.err()) else { return };
    let _ = (diff.text(10, Some(80)), diff.json().to_string(), diff.html());
    for stacks in [Stacks::Cpu, Stacks::OffCpu] {
        let _ = diff.svg(stacks);
    }
}

/// Takes everything.
struct Nowhere;

impl Output for Nowhere {
    fn create(&self, _name: &str) -> io::Result<Box<dyn Write + Send>> {
        Ok(Box::new(io::sink()))
    }
}
