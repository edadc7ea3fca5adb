//! Every figure of a damaged file is that of the undamaged one minus what was lost, and says what was lost.
//!
//! Each block of each trace in testdata is broken (a bit of its payload) or cut out, in turn. Beside it stands the file that a writer
//! would have made had the block never been: all other blocks as they are, numbered without a gap, one row of LOSS where events are
//! gone. "Minus what was lost" is, precisely:
//!
//! - every table (Parquet) but `loss` and `trace` has the same bytes, every report the same JSON, `folded` and `csv` the same lines,
//!   but for what tells of losses: `lost`, `damage` and `damaged_blocks` of JSON, the rows of kind `lost` of csv;
//! - a wait, request or allocation across the time of a lost block of events is not believed, as across any other loss. That time
//!   is what the block's header says; of a block that is gone, from the begin of the block of events before it to the end of the one
//!   after it, for of what type it was nobody knows; without an end of the file, that of [`Damage::tail`](bpfrec_analyze::damage);
//! - a lost block of facts takes names, not figures: the sums of all reports are those of the undamaged file. (Forks, execs and exits
//!   stand among the tasks: without them memory lives longer, and a thread of the kernel is not known for one.)
//! - what `recover` makes of it gives the same tables and reports again.
//!
//! And every report, export and `analyze` says so: exit status, a note with what is lost, `damage` in JSON, a row of `loss`.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bpfrec_analyze::export::{self, Asked};
use bpfrec_analyze::reports::{self, Flags, REPORTS};
use bpfrec_analyze::symbols::Options;
use bpfrec_analyze::{Filter, Meta};
use bpfrec_format::meta::reason;
use bpfrec_format::recover::recover;
use bpfrec_format::{
    Block, BlockHeader, BlockRef, BlockType, Column, EndReason, Registry, Segment, SegmentIds, SegmentWriter, Table,
    Trace, meta,
};
use common::Files;
use rayon::prelude::*;
use serde_json::Value;

/// Blocks of a type of a trace that are tried, all over it: broken, and cut out. `BPFREC_EVERY_BLOCK=1` tries all.
const OF_A_TYPE: [(How, usize); 2] = [(How::Broken, 1), (How::Cut, 1)];
/// The recorder writes what it has at least this often.
const FLUSHED_NS: u64 = 1_000_000_000;

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/v1");
    let mut found = Vec::new();
    for dir in [root.clone(), root.join("segments-6.1.bpr")] {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        found.extend(entries.filter(|path| path.is_file() && path.extension().is_some_and(|e| e == "bpr")));
    }
    found.sort();
    assert!(found.len() >= 6);
    found
}

/// How a block is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// A bit of its payload is another.
    Broken,
    /// Its bytes are gone.
    Cut,
}

fn segment(bytes: &[u8]) -> Segment {
    Segment::walk(Box::new(bytes.to_vec())).unwrap()
}

fn kind_of(block: &BlockRef) -> Option<BlockType> {
    BlockType::from_number(block.header.block_type)
}

fn without(bytes: &[u8], block: &BlockRef, how: How) -> Vec<u8> {
    let (at, len) = (block.offset as usize, block.header.total_len() as usize);
    let mut bytes = bytes.to_vec();
    match how {
        How::Broken => bytes[at + 96] ^= 1,
        How::Cut => drop(bytes.drain(at..at + len)),
    }
    bytes
}

/// The file had the block never been, with what of its time may be missing. `header_stands`: as an empty block.
fn reference(whole: &Segment, lost: usize, how: How, header_stands: bool) -> Vec<u8> {
    let first = whole.blocks[0].header;
    let kept: Vec<&BlockRef> = whole.blocks.iter().enumerate().filter(|(i, _)| *i != lost).map(|(_, b)| b).collect();
    let read = |block: &BlockRef, kind: u16| whole.read(block, &|k| k == kind).unwrap().tables;
    let (mut items, mut registry) = (Vec::new(), Registry::default());
    for block in &kept {
        for table in read(block, meta::HEADER_ITEM).iter().filter(|t| t.kind == meta::HEADER_ITEM) {
            let [Column::Text(keys), Column::Text(values)] = &table.columns[..] else { unreachable!() };
            let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
            items.extend((0..table.rows()).map(|row| (text(keys.get(row)), text(values.get(row)))));
        }
        read(block, meta::SCHEMA_FIELD)
            .iter()
            .filter(|t| t.kind == meta::SCHEMA_FIELD)
            .for_each(|table| registry.learn(table).unwrap());
    }
    let ids = SegmentIds { trace_id: first.trace_id, segment: first.segment, first_seq: first.seq };
    let mut writer = SegmentWriter::new(Vec::new(), ids, &registry, &items).unwrap();
    let made = [BlockType::Header, BlockType::Schema, BlockType::Index, BlockType::End];
    for (i, block) in
        whole.blocks.iter().enumerate().filter(|(_, b)| kind_of(b).is_none_or(|kind| !made.contains(&kind)))
    {
        let payload = whole.read_stored(block).unwrap();
        if i != lost {
            writer.write(Block { header: block.header, payload }).unwrap();
        } else if header_stands {
            let header = BlockHeader { rows: 0, codec: 0, ..block.header };
            writer.write(Block::new(header, Vec::new(), None).unwrap()).unwrap();
        }
    }
    let mut losses = Table::new(&meta::kind(meta::LOSS));
    // A row of LOSS must not make the trace longer than it is.
    let end = kept.iter().map(|block| block.header.ts_max_ns).max().unwrap_or(0);
    for (from, to) in missing(whole, lost, how) {
        let to = to.min(end);
        let (cpu, rows) = (whole.blocks[lost].header.stream, whole.blocks[lost].header.rows.max(1));
        losses.push(&[0u64.into(), cpu.into(), from.into(), to.into(), reason::DAMAGED.into(), rows.into()]);
    }
    if losses.rows() > 0 {
        writer.write_tables(BlockType::Loss, &[&losses]).unwrap();
    }
    let has_end = kept.iter().any(|block| kind_of(block) == Some(BlockType::End));
    if has_end || whole.end.is_some() { writer.finish(EndReason::Exit).unwrap().0 } else { writer.get_ref().clone() }
}

/// Times in which events may be missing once a block is lost: of the head of this file.
fn missing(whole: &Segment, lost: usize, how: How) -> Vec<(u64, u64)> {
    let block = &whole.blocks[lost];
    let is_events = |block: &&BlockRef| kind_of(block) == Some(BlockType::Events);
    let before = whole.blocks[..lost].iter().rfind(is_events);
    let after = whole.blocks[lost + 1..].iter().find(is_events);
    if kind_of(block) == Some(BlockType::End) {
        // Of each CPU up to its last block is known what happened.
        let mut last = BTreeMap::<u32, u64>::new();
        for h in whole.blocks.iter().filter(is_events).map(|block| block.header) {
            last.entry(h.stream).and_modify(|ts| *ts = h.ts_max_ns.max(*ts)).or_insert(h.ts_max_ns);
        }
        let (Some(first), Some(end)) = (last.values().min(), last.values().max()) else { return Vec::new() };
        return if first < end { vec![((*first).max(end.saturating_sub(FLUSHED_NS)), u64::MAX)] } else { Vec::new() };
    }
    match how {
        How::Broken if is_events(&block) => vec![(block.header.ts_min_ns, block.header.ts_max_ns)],
        How::Broken => Vec::new(),
        How::Cut => vec![(before.map_or(0, |b| b.header.ts_min_ns), after.map_or(u64::MAX, |b| b.header.ts_max_ns))],
    }
}

/// All that is made of a trace.
#[derive(Default)]
struct Made {
    /// Tables, JSON and exports by name, without what tells of losses.
    results: BTreeMap<String, Vec<u8>>,
    /// What tells of losses: of each report, export and table, as text.
    said: BTreeMap<String, String>,
    /// Those that say that something is lost.
    lossy: BTreeSet<String>,
}

/// Flags that are asked of reports beside none.
const MORE: [(&str, &str); 5] = [
    ("runqlat", "pids"),
    ("biolatency", "per-process"),
    ("cpudist", "pids"),
    ("memleak", "all"),
    ("profile", "user-stacks-only"),
];

fn made(bytes: Vec<u8>) -> Made {
    let trace: Trace = common::open(bytes);
    let mut meta = Meta::load(&trace).unwrap();
    meta.names = Options { trace_only: true, ..Options::default() };
    let (files, mut made) = (Files::default(), Made::default());
    let summary = bpfrec_analyze::analyze(&trace, &meta, &files, &|_, _| {}).unwrap();
    if summary.lossy {
        made.lossy.insert("analyze".into());
    }
    made.said.insert("analyze".into(), summary.text);
    for (name, bytes) in std::mem::take(&mut *files.0.lock().unwrap()) {
        if name.ends_with("/loss.parquet") || name.ends_with("/trace.parquet") {
            made.said.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        } else if name.ends_with(".parquet") || name.ends_with(".sql") {
            made.results.insert(name, bytes);
        }
    }
    let filter = Filter::everything(&meta);
    for kind in REPORTS.iter().filter(|kind| kind.is_possible(&meta) && kind.name != "html") {
        let more = MORE.iter().filter(|(name, _)| *name == kind.name).map(|(_, flag)| *flag);
        let flags = more
            .filter(|flag| kind.flags.iter().any(|f| f.long == *flag))
            .map(|flag| Flags([(flag, String::new())].into()));
        for (i, flags) in std::iter::once(Flags::default()).chain(flags).enumerate() {
            let run = |json| reports::run(&trace, &meta, kind, &flags, &filter, json, &|_, _| {}).unwrap();
            let (json, text) = (run(true), run(false));
            let name = format!("{} {i}", kind.name);
            if json.lossy && text.lossy {
                made.lossy.insert(name.clone());
            }
            let mut value: Value = serde_json::from_str(&json.output).unwrap();
            let fields = value.as_object_mut().unwrap();
            let told: Vec<_> = ["lost", "damage", "damaged_blocks"].map(|key| fields.remove(key)).into();
            made.results.insert(format!("{name}.json"), serde_json::to_vec_pretty(&value).unwrap());
            let notes = text.output.lines().filter(|line| line.starts_with("# ")).map(Into::into).chain(text.notes);
            made.said.insert(name, format!("{told:?} {}", notes.collect::<Vec<String>>().join("\n")));
        }
    }
    for name in ["folded", "csv"] {
        let (format, mut out) = (export::find(name).unwrap(), Vec::new());
        if format.is_possible(&meta) {
            let outcome = export::run(&trace, &meta, format, &Asked::default(), &filter, &mut out, &|_, _| {}).unwrap();
            let lines = String::from_utf8(out).unwrap();
            let lines: Vec<&str> = lines.lines().filter(|line| !line.contains("lost")).collect();
            made.results.insert(name.into(), lines.join("\n").into_bytes());
            made.said.insert(name.into(), outcome.notes.join("\n"));
            if outcome.lossy {
                made.lossy.insert(name.into());
            }
        }
    }
    made
}

/// The first line in which two texts differ, for whoever reads the failure.
fn difference(one: &[u8], other: &[u8]) -> String {
    let (one, other) = (String::from_utf8_lossy(one), String::from_utf8_lossy(other));
    let lines = one.lines().zip(other.lines()).enumerate();
    let first = lines.into_iter().find(|(_, (a, b))| a != b);
    first.map_or_else(
        || format!("{} and {} bytes", one.len(), other.len()),
        |(i, (a, b))| {
            let cut = |line: &str| line.chars().take(200).collect::<String>();
            format!("line {i}: {:?} where {:?} is expected", cut(a), cut(b))
        },
    )
}

/// Blocks that are tried, by their places in the file, and how they are lost.
fn chosen(whole: &Segment) -> Vec<(usize, How)> {
    let mut by_type = BTreeMap::<u8, Vec<usize>>::new();
    whole.blocks.iter().enumerate().for_each(|(i, b)| by_type.entry(b.header.block_type).or_default().push(i));
    let every = std::env::var_os("BPFREC_EVERY_BLOCK").is_some();
    let spread = |places: &Vec<usize>, how, most: usize| {
        let n = if every { places.len() } else { most.min(places.len()) };
        // In the middle of equal parts of all of them.
        (0..n).map(|i| (places[(2 * i + 1) * places.len() / (2 * n)], how)).collect::<Vec<_>>()
    };
    let of_type = |places: &Vec<usize>| OF_A_TYPE.map(|(how, most)| spread(places, how, most)).concat();
    by_type.values().flat_map(of_type).collect()
}

/// Blocks that hold facts and no figures, and reports whose sums they leave alone.
const FACTS: [BlockType; 8] = [
    BlockType::Stacks,
    BlockType::Cgroups,
    BlockType::Maps,
    BlockType::Clock,
    BlockType::KernelSymbols,
    BlockType::Binaries,
    BlockType::BinarySymbols,
    BlockType::JitSymbols,
];
const SUMMED: [&str; 7] = ["runqlat", "biolatency", "cpudist", "profile", "offcputime", "wakeups", "memleak"];

/// Sums of the figures of a report over all its rows.
fn sums(json: &[u8]) -> BTreeMap<String, u64> {
    fn add(value: &Value, sums: &mut BTreeMap<String, u64>) {
        match value {
            Value::Array(all) => all.iter().for_each(|one| add(one, sums)),
            Value::Object(all) => {
                for (key, value) in all {
                    match value.as_u64().filter(|_| ["count", "sum_ns", "waits", "ns"].contains(&key.as_str())) {
                        Some(n) => *sums.entry(key.clone()).or_default() += n,
                        None => add(value, sums),
                    }
                }
            }
            _ => {}
        }
    }
    let mut all = BTreeMap::new();
    add(&serde_json::from_slice(json).unwrap(), &mut all);
    all
}

/// Where two files give other results.
fn differences(one: &Made, other: &Made) -> Vec<String> {
    let names: BTreeSet<&String> = one.results.keys().chain(other.results.keys()).collect();
    let compare = |name: &String| match (one.results.get(name), other.results.get(name)) {
        (Some(one), Some(other)) if one == other => None,
        (Some(one), Some(other)) => Some(format!("{name}: {}", difference(one, other))),
        (one, _) => Some(format!("{name} is {}", if one.is_some() { "there" } else { "missing" })),
    };
    names.into_iter().filter_map(compare).collect()
}

/// What is wrong with a trace that lost one block.
fn problems(bytes: &[u8], whole: &Segment, undamaged: &Made, lost: usize, how: How) -> Vec<String> {
    let block = &whole.blocks[lost];
    let damaged = made(without(bytes, block, how));
    let expected = made(reference(whole, lost, how, how == How::Broken));
    let mut problems = differences(&damaged, &expected);
    // What a file without its end did not record, `recover` ends; nothing of that is a row of LOSS.
    if how == How::Broken && kind_of(block) == Some(BlockType::Events) && whole.end.is_some() {
        let mut recovered = Vec::new();
        recover(&segment(&without(bytes, block, how)), &mut recovered).unwrap();
        let (recovered, expected) = (made(recovered), made(reference(whole, lost, how, false)));
        problems.extend(differences(&recovered, &expected).into_iter().map(|p| format!("recovered: {p}")));
        let quiet =
            recovered.said.keys().filter(|name| !name.ends_with(".parquet") && !recovered.lossy.contains(*name));
        problems.extend(quiet.map(|name| format!("recovered: {name} does not say that events are lost")));
    }
    if how == How::Broken && kind_of(block).is_some_and(|kind| FACTS.contains(&kind)) {
        for name in SUMMED {
            let sums =
                [&damaged, undamaged].map(|made| made.results.get(&format!("{name} 0.json")).map(|json| sums(json)));
            if sums[0] != sums[1] {
                problems.push(format!("{name}: {:?} where the undamaged file has {:?}", sums[0], sums[1]));
            }
        }
    }
    for (name, said) in damaged.said.iter().filter(|(name, _)| !name.ends_with(".parquet")) {
        let word =
            if how == How::Broken && kind_of(block) != Some(BlockType::End) { "1 damaged blocks" } else { "damaged: " };
        if !damaged.lossy.contains(name) || !said.contains(word) && name != "analyze" {
            problems.push(format!("{name} does not say that a block is lost: {said}"));
        }
    }
    problems
}

#[test]
fn what_is_made_of_a_damaged_file_is_what_is_left() {
    let one = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        let (whole, undamaged) = (segment(&bytes), made(bytes.clone()));
        let cases = chosen(&whole);
        let failed = cases.par_iter().flat_map_iter(|(lost, how)| {
            let block = &whole.blocks[*lost];
            let (name, kind) = (path.file_name().unwrap().display(), kind_of(block));
            let what = format!("{name} block {lost} {kind:?} at {} {how:?}", block.offset);
            problems(&bytes, &whole, &undamaged, *lost, *how).into_iter().map(move |p| format!("{what}: {p}"))
        });
        (cases.len(), failed.collect::<Vec<String>>())
    };
    let mut files = files();
    if let Some(only) = std::env::var_os("BPFREC_ONLY") {
        files.retain(|path| path.file_name() == Some(&only));
    }
    let all: Vec<(usize, Vec<String>)> = files.par_iter().map(one).collect();
    println!("{} blocks of {} traces, broken or cut out", all.iter().map(|(n, _)| n).sum::<usize>(), files.len());
    let failed: Vec<String> = all.into_iter().flat_map(|(_, failed)| failed).collect();
    let shown: String = failed.iter().take(60).map(|f| format!("{f}\n")).collect();
    assert!(failed.is_empty(), "{} differences:\n{shown}", failed.len());
}
