//! `bpfrec replay`: events in time order.
//!
//! Blocks are opened when their first event is due and dropped after their last one, so that memory holds about a block or two
//! for each CPU, whatever the trace's length. Order: time, stream, block number, kind, row.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use bpfrec_format::{BlockRef, BlockType, Column, Error, Kind, NO_STREAM, Table, Trace, Type};

use super::progress::{Of, Progress};
use super::{DAMAGED, DONE, Out, json_string, shown};
use crate::cli::ReplayArgs;

/// Runs the command.
pub fn run(args: ReplayArgs) -> anyhow::Result<u8> {
    let trace = super::open(&args.trace)?;
    super::warn(&trace);
    for name in &args.kind {
        if !trace.segments.iter().any(|(_, s)| s.registry.by_name(name).is_some_and(|k| k.is_event())) {
            let kinds = trace.segments[0].1.registry.kinds();
            let names: Vec<_> = kinds.iter().filter(|k| k.is_event()).map(|k| shown(&k.name)).collect();
            let nearest = super::suggest::question(name, names.iter().map(String::as_str));
            bail!("no kind is called {}: there are {}{nearest}", shown(name), names.join(", "));
        }
    }
    super::to_stdout(|out| {
        let mut replay = Replay::new(&trace, &args);
        replay.run(out)?;
        if replay.unknown_rows > 0 {
            eprintln!("bpfrec: {} rows that this bpfrec does not understand are left out", replay.unknown_rows);
        }
        Ok(if replay.damaged || super::is_damaged(&trace) { DAMAGED } else { DONE })
    })
}

/// Rows of a kind, with the words around their values made ready once.
struct Section {
    table: Table,
    kind: Arc<Kind>,
    name: String,
    /// Place of the field that tells the CPU: it says more than the ring that the event went through.
    cpu: Option<usize>,
    /// Place, type and name of each other field.
    fields: Vec<(usize, Type, String)>,
}

impl Section {
    fn new(kind: &Arc<Kind>, table: Table, json: bool) -> Self {
        let fields = kind.fields.iter().enumerate().filter(|(_, f)| f.name != "ts_ns" && f.name != "cpu");
        let label = |name: &str| if json { format!(",{}:", json_string(name)) } else { format!(" {}=", shown(name)) };
        Section {
            table,
            kind: Arc::clone(kind),
            name: if json { json_string(&kind.name) } else { shown(&kind.name) },
            cpu: kind.index_of("cpu"),
            fields: fields.map(|(i, f)| (i, f.ty, label(&f.name))).collect(),
        }
    }

    fn cpu(&self, block: &BlockRef, row: usize) -> Option<u64> {
        let own = self.cpu.and_then(|i| self.table.columns[i].ints().get(row).copied());
        own.or((block.header.stream != NO_STREAM).then_some(u64::from(block.header.stream)))
    }
}

/// A decoded block and where we are in it.
struct Open {
    block: BlockRef,
    sections: Vec<Section>,
    /// Time, kind, section and row of each event.
    order: Vec<(u64, u16, u32, u32)>,
    next: usize,
}

struct Replay<'a> {
    trace: &'a Trace,
    args: &'a ReplayArgs,
    start_ns: u64,
    from_ns: u64,
    to_ns: u64,
    open: Vec<Option<Open>>,
    /// Next event of each open block: time, stream, block number, and its place in `open`.
    due: BinaryHeap<Reverse<(u64, u32, u64, usize)>>,
    damaged: bool,
    unknown_rows: u64,
}

impl<'a> Replay<'a> {
    fn new(trace: &'a Trace, args: &'a ReplayArgs) -> Self {
        let start_ns = start_ns(trace);
        let at = |time: Option<u64>, other| time.map_or(other, |t| start_ns.saturating_add(t));
        let (from_ns, to_ns) = (at(args.from, 0), at(args.to, u64::MAX));
        let (open, due) = (Vec::new(), BinaryHeap::new());
        Replay { trace, args, start_ns, from_ns, to_ns, open, due, damaged: false, unknown_rows: 0 }
    }

    fn run(&mut self, out: &mut Out) -> anyhow::Result<()> {
        let types = [BlockType::Events, BlockType::Tasks, BlockType::Cgroups].map(|t| t as u8);
        let mut blocks: Vec<(usize, BlockRef)> = self.trace.blocks().map(|(i, b)| (i, *b)).collect();
        blocks.retain(|(_, b)| {
            let h = &b.header;
            types.contains(&h.block_type) && h.ts_max_ns >= self.from_ns && h.ts_min_ns <= self.to_ns
        });
        blocks.sort_by_key(|(_, b)| (b.header.ts_min_ns, b.header.seq));
        let total = blocks.iter().map(|(_, b)| u64::from(b.header.rows)).sum();
        let (progress, mut done) = (Progress::beside_output(Of::Events), 0);
        for (segment, block) in blocks {
            progress.show(done, total);
            done += u64::from(block.header.rows);
            self.events_before(block.header.ts_min_ns, out)?;
            self.open(segment, block)?;
        }
        self.events_before(u64::MAX, out)?;
        Ok(())
    }

    /// Writes all events of open blocks that come before any of a block that starts at `ts_ns`.
    fn events_before(&mut self, ts_ns: u64, out: &mut Out) -> io::Result<()> {
        while let Some(Reverse((at, stream, seq, place))) = self.due.peek().copied() {
            if at >= ts_ns && ts_ns != u64::MAX {
                break;
            }
            self.due.pop();
            let Some(mut open) = self.open[place].take() else { continue };
            let (ts_ns, _, section, row) = open.order[open.next];
            let (section, row) = (&open.sections[section as usize], row as usize);
            let cpu = section.cpu(&open.block, row);
            if self.args.json {
                json_line(out, section, row, cpu, ts_ns)?;
            } else {
                text_line(out, section, row, cpu, ts_ns.wrapping_sub(self.start_ns) as i64)?;
            }
            open.next += 1;
            if let Some((next_ns, ..)) = open.order.get(open.next) {
                self.due.push(Reverse((*next_ns, stream, seq, place)));
                self.open[place] = Some(open);
            }
        }
        Ok(())
    }

    fn open(&mut self, segment: usize, block: BlockRef) -> anyhow::Result<()> {
        let (path, segment): &(PathBuf, _) = &self.trace.segments[segment];
        let rows = match segment.read(&block, &|id| segment.registry.get(id).is_some_and(|kind| self.wants(kind))) {
            Ok(rows) => rows,
            Err(Error::NotUnderstood { .. }) => {
                self.unknown_rows += u64::from(block.header.rows);
                return Ok(());
            }
            Err(error) => {
                self.damaged = true;
                eprintln!("bpfrec: {}: {error}", path.display());
                return Ok(());
            }
        };
        self.unknown_rows += rows.unknown_rows;
        let sections = rows.tables.into_iter();
        let sections = sections.filter_map(|t| Some(Section::new(segment.registry.get(t.kind)?, t, self.args.json)));
        let sections: Vec<_> = sections.collect();
        let mut order = Vec::new();
        for (section, Section { kind, table, .. }) in sections.iter().enumerate() {
            let times = table.column(kind, "ts_ns").map_or(&[][..], Column::ints);
            for (row, ts_ns) in times.iter().enumerate() {
                if (self.from_ns..=self.to_ns).contains(ts_ns) {
                    order.push((*ts_ns, kind.id, section as u32, row as u32));
                }
            }
        }
        order.sort_unstable();
        if let Some((ts_ns, ..)) = order.first() {
            let place = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
            self.due.push(Reverse((*ts_ns, block.header.stream, block.header.seq, place)));
            let open = Some(Open { block, sections, order, next: 0 });
            match self.open.get_mut(place) {
                Some(free) => *free = open,
                None => self.open.push(open),
            }
        }
        Ok(())
    }

    fn wants(&self, kind: &Kind) -> bool {
        kind.is_event() && (self.args.kind.is_empty() || self.args.kind.contains(&kind.name))
    }
}

/// Start of the recording, else its first event.
pub fn start_ns(trace: &Trace) -> u64 {
    let said = trace.segments.iter().find_map(|(_, s)| s.item("start_mono_ns")?.parse().ok());
    let first = || trace.blocks().map(|(_, b)| b.header.ts_min_ns).filter(|ts| *ts > 0).min();
    said.or_else(first).unwrap_or(0)
}

fn json_line(out: &mut Out, section: &Section, row: usize, cpu: Option<u64>, ts_ns: u64) -> io::Result<()> {
    write!(out, "{{\"ts_ns\":{ts_ns},\"cpu\":")?;
    match cpu {
        Some(cpu) => write!(out, "{cpu}")?,
        None => write!(out, "null")?,
    }
    write!(out, ",\"kind\":{}", section.name)?;
    for (i, ty, label) in &section.fields {
        out.write_all(label.as_bytes())?;
        match &section.table.columns[*i] {
            Column::Int(c) if matches!(ty, Type::I32 | Type::I64) => write!(out, "{}", c[row] as i64)?,
            Column::Int(c) => write!(out, "{}", c[row])?,
            Column::Text(c) => out.write_all(json_string(&String::from_utf8_lossy(c.get(row))).as_bytes())?,
            Column::List(c) => {
                let items: Vec<_> = c.get(row).iter().map(u64::to_string).collect();
                write!(out, "[{}]", items.join(","))?;
            }
        }
    }
    out.write_all(b"}\n")
}

fn text_line(out: &mut Out, section: &Section, row: usize, cpu: Option<u64>, ns: i64) -> io::Result<()> {
    let (sign, abs) = (if ns < 0 { "-" } else { "" }, ns.unsigned_abs());
    write!(out, "{sign}{}.{:09}", abs / 1_000_000_000, abs % 1_000_000_000)?;
    match cpu {
        Some(cpu) => write!(out, " cpu={cpu}")?,
        None => write!(out, " cpu=-")?,
    }
    write!(out, " {}", section.name)?;
    for (i, ty, label) in &section.fields {
        out.write_all(label.as_bytes())?;
        match &section.table.columns[*i] {
            Column::Int(c) if matches!(ty, Type::I32 | Type::I64) => write!(out, "{}", c[row] as i64)?,
            Column::Int(c) if is_hex(&section.kind.fields[*i].name) => write!(out, "{:#x}", c[row])?,
            Column::Int(c) => write!(out, "{}", c[row])?,
            Column::Text(c) => out.write_all(word(&String::from_utf8_lossy(c.get(row))).as_bytes())?,
            Column::List(c) => {
                let items: Vec<_> = c.get(row).iter().map(|v| format!("{v:#x}")).collect();
                write!(out, "[{}]", items.join(","))?;
            }
        }
    }
    out.write_all(b"\n")
}

/// Addresses and hashes.
fn is_hex(name: &str) -> bool {
    name == "rq" || name == "ip" || name.ends_with("stack_id") || name.ends_with("addr") || name == "cmd_flags"
}

/// Text without blanks and quotes as it is, all else in quotes and escaped.
fn word(text: &str) -> String {
    let plain = |c: char| super::is_harmless(c) && !c.is_whitespace() && c != '"' && c != '\\';
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("{text:?}") }
}
