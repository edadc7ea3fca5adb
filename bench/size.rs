//! Bytes an event under the mixed load, what the recorder holds, and what it leaves behind.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::bpf::mixed;
use crate::process;
use crate::recorder::{self, Recorder};
use crate::rounds::{Measured, Sample, Variant, interleave, sample};
use crate::table::{Column, Part, Ratio};
use crate::tools::{Bench, PERF_EVENTS};

/// Bytes of a file that are in the page cache.
fn cached(bench: &Bench, file: &Path) -> Option<f64> {
    let mut command = Command::new(bench.fincore.as_ref()?);
    let ended = process::run(command.args(["-b", "-n", "-o", "RES"]).arg(file)).ok()?.ok().ok()?;
    ended.stdout.trim().parse().ok()
}

fn record(bench: &Bench, program: &Path, args: &[&str], file: &Path) -> Result<Sample> {
    let recorder = Recorder::start(&bench.scratch, program, args)?;
    mixed(bench, bench.of(10, 1))?;
    let peak = recorder.peak_bytes() as f64;
    let stop_s = recorder.stop()?.1;
    let bytes = std::fs::metadata(file)?.len() as f64;
    let mut all = sample([("bytes", bytes), ("rss", peak / 1048576.0), ("stop_s", stop_s)]);
    all.extend(cached(bench, file).map(|bytes| ("cached".into(), bytes / 1048576.0)));
    Ok(all)
}

fn bpfrec(bench: &Bench, options: &[&str]) -> Result<Sample> {
    let trace = bench.scratch.fresh("size.bpr");
    let file = trace.to_string_lossy();
    let args = [&["record", "-q", "--symbols", "none", "-o", &file][..], options].concat();
    let mut all = record(bench, &bench.bpfrec, &args, &trace)?;
    let info = recorder::info(&bench.bpfrec, &trace)?;
    let events = info["events"].as_f64().unwrap_or(0.0).max(1.0);
    let mut other = 0.0;
    for block in info["blocks"].as_array().into_iter().flatten() {
        let (name, bytes) = (block["type"].as_str().unwrap_or("?"), block["bytes"].as_f64().unwrap_or(0.0));
        all.insert(format!("block {name}"), bytes / events);
        if !matches!(name, "EVENTS" | "STACKS") {
            other += bytes;
        }
    }
    let events_and_stacks = (all["bytes"] - other) / events;
    all.extend(sample([
        ("events", events),
        ("an_event", all["bytes"] / events),
        ("events_and_stacks", events_and_stacks),
        ("other_kb", other / 1e3),
        ("lost", info["lost"].as_f64().unwrap_or(0.0)),
    ]));
    Ok(all)
}

fn perf(bench: &Bench, perf: &Path, options: &[&str]) -> Result<Sample> {
    let data = bench.scratch.fresh("size.data");
    let file = data.to_string_lossy();
    let args = [&["record", "-q", "-a", "-m", "4M", "-e", PERF_EVENTS, "-o", &file][..], options].concat();
    let mut all = record(bench, perf, &args, &data)?;
    let (events, lost) = recorder::perf_events(perf, &data)?;
    let an_event = all["bytes"] / events.max(1) as f64;
    all.extend(sample([("events", events as f64), ("an_event", an_event), ("lost", lost as f64)]));
    Ok(all)
}

/// Measures.
pub fn measure(bench: &Bench) -> Result<Vec<Part>> {
    let mut variants = vec![
        Variant::new("bpfrec", || bpfrec(bench, &[])),
        Variant::new("bpfrec with offcpu", || bpfrec(bench, &["-e", "sched,block,profile,offcpu"])),
    ];
    if let Some(path) = &bench.perf {
        variants.push(Variant::new("perf record -g -z", || perf(bench, path, &["-g", "-z"])));
        variants.push(Variant::new("perf record -z", || perf(bench, path, &["-z"])));
    }
    let rows = interleave(bench.rounds, variants);
    let kinds: Vec<String> = rows[0].figures.keys().filter(|k| k.starts_with("block ")).cloned().collect();
    let of_kind = |kind: &String| {
        let of = |row: &Measured| row.figures.get(kind).cloned();
        let figures = [("default", of(&rows[0])), ("offcpu", of(&rows[1]))];
        Measured {
            name: kind.trim_start_matches("block ").into(),
            figures: figures.into_iter().filter_map(|(name, values)| Some((name.to_owned(), values?))).collect(),
            failed: None,
        }
    };
    let blocks = Part {
        name: "size by block",
        title: "bytes an event".into(),
        columns: vec![
            Column("default", "default sources", 3, Ratio::None),
            Column("offcpu", "with offcpu", 3, Ratio::None),
        ],
        base: String::new(),
        rows: kinds.iter().map(of_kind).collect(),
        notes: Vec::new(),
    };
    let mut part = Part {
        name: "size",
        title: format!("bench/load/mixed.sh, {} s, symbols not counted; {}", bench.of(10, 1), bench.rounds_text()),
        columns: vec![
            Column("events", "events", 0, Ratio::None),
            Column("an_event", "bytes/event", 2, Ratio::Times),
            Column("events_and_stacks", "events, stacks", 2, Ratio::None),
            Column("other_kb", "rest, KB", 0, Ratio::None),
            Column("rss", "MiB resident", 1, Ratio::None),
            Column("cached", "MiB cached", 1, Ratio::None),
            Column("stop_s", "stop, s", 2, Ratio::None),
            Column("lost", "lost", 0, Ratio::None),
        ],
        base: "perf record -g -z".into(),
        rows,
        notes: Vec::new(),
    };
    if bench.fincore.is_none() {
        part.notes.push("fincore is not installed: what is left in the page cache was not measured".into());
    }
    Ok(vec![part, blocks])
}
