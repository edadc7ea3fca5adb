//! The highest rate of events that is kept without a loss, and a million events a second for a minute.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::recorder::{self, Recorder};
use crate::rounds::{Sample, Variant, interleave, sample};
use crate::table::{Column, Part, Ratio};
use crate::tools::Bench;
use crate::{machine, process};

/// Steps of the search between nothing and what was too much.
const STEPS: usize = 5;

/// Switches made, and the seconds that it took.
fn switches(bench: &Bench, seconds: f64, rate: f64) -> Result<(f64, f64)> {
    let mut command = Command::new(bench.scratch.load("switches")?);
    command.args([seconds.to_string(), rate.to_string(), machine::cpus().to_string()]);
    let said = process::run(&mut command)?.ok()?.stdout;
    let made = said.split_once(' ').and_then(|(made, s)| Some((made.parse().ok()?, s.trim().parse().ok()?)));
    made.with_context(|| format!("switches.c said {said:?}"))
}

/// Bpfrec while `rate` switches a second are made on each CPU; 0: as many as can be.
fn bpfrec(bench: &Bench, seconds: f64, rate: f64) -> Result<Sample> {
    let trace = bench.scratch.fresh("rate.bpr");
    let args = ["record", "-q", "--symbols", "none", "-e", "sched", "-o", &trace.to_string_lossy()];
    let recorder = Recorder::start(&bench.scratch, &bench.bpfrec, &args)?;
    let (made, took) = switches(bench, seconds, rate)?;
    let (cpu_ns, peak) = (recorder.cpu_ns() as f64, recorder.peak_bytes() as f64);
    recorder.stop()?;
    let info = recorder::info(&bench.bpfrec, &trace)?;
    let number = |value: &serde_json::Value| value.as_f64().unwrap_or(0.0);
    let kinds = info["kinds"].as_array().into_iter().flatten();
    let kept: f64 = kinds.filter(|k| k["name"] == "sched_switch").map(|k| number(&k["events"])).sum();
    let (events, lost) = (number(&info["events"]), number(&info["lost"]));
    Ok(sample([
        ("made", made / took),
        ("events", events / took),
        ("lost", lost),
        // What is neither there nor counted as lost: nothing, or the loss counters lie.
        ("unaccounted", (made - kept - lost).max(0.0)),
        ("recorder_ns", cpu_ns / events.max(1.0)),
        ("rss", peak / 1048576.0),
        ("mb_s", number(&info["bytes"]) / 1e6 / took),
    ]))
}

/// `perf record` of the switches alone.
fn perf(bench: &Bench, perf: &Path, seconds: f64, rate: f64) -> Result<Sample> {
    let data = bench.scratch.fresh("rate.data");
    let args = ["record", "-q", "-a", "-m", "4M", "-e", "sched:sched_switch", "-o", &data.to_string_lossy()];
    let recorder = Recorder::start(&bench.scratch, perf, &args)?;
    let (made, took) = switches(bench, seconds, rate)?;
    let (cpu_ns, peak) = (recorder.cpu_ns() as f64, recorder.peak_bytes() as f64);
    recorder.stop()?;
    let (events, lost) = recorder::perf_events(perf, &data)?;
    let mb_s = std::fs::metadata(&data)?.len() as f64 / 1e6 / took;
    let (made, kept, ns) = (made / took, events as f64 / took, cpu_ns / events.max(1) as f64);
    let rss = peak / 1048576.0;
    Ok(sample([
        ("made", made),
        ("events", kept),
        ("lost", lost as f64),
        ("recorder_ns", ns),
        ("rss", rss),
        ("mb_s", mb_s),
    ]))
}

/// The run with the highest rate that lost nothing.
fn highest(bench: &Bench, run: &dyn Fn(f64) -> Result<Sample>) -> Result<Sample> {
    let all = run(0.0)?;
    if all["lost"] == 0.0 {
        return Ok(all);
    }
    let (mut low, mut high) = (0.0, all["made"] / machine::cpus() as f64);
    let mut best = sample([("made", 0.0), ("events", 0.0)]);
    for _ in 0..bench.of(STEPS as u64, 1) {
        let middle = (low + high) / 2.0;
        let found = run(middle)?;
        if found["lost"] == 0.0 {
            (low, best) = (middle, found);
        } else {
            high = middle;
        }
    }
    Ok(best)
}

/// Measures.
pub fn measure(bench: &Bench) -> Result<Vec<Part>> {
    let seconds = bench.of(3, 1) as f64;
    let mut variants = vec![
        Variant::new("bpfrec -e sched, no loss", || highest(bench, &|rate| bpfrec(bench, seconds, rate))),
        Variant::new("bpfrec -e sched, as fast as it goes", || bpfrec(bench, seconds, 0.0)),
    ];
    if let Some(path) = &bench.perf {
        let run = move |rate: f64| perf(bench, path, seconds, rate);
        variants.push(Variant::new("perf record, no loss", move || highest(bench, &run)));
    }
    let mut rows = interleave(bench.rounds, variants);
    let (minute, rate) = (bench.of(60, 1), bench.of(1_000_000, 100_000));
    let name = format!("bpfrec -e sched, {rate} a second for {minute} s, once");
    let each = rate as f64 / machine::cpus() as f64;
    rows.extend(interleave(1, vec![Variant::new(name, || bpfrec(bench, minute as f64, each))]));
    Ok(vec![Part {
        name: "rate",
        title: format!("bench/load/switches.c on all CPUs, {seconds} s, rings of 4 MiB; {}", bench.rounds_text()),
        columns: vec![
            Column("made", "switches made/s", 0, Ratio::None),
            Column("events", "events kept/s", 0, Ratio::Times),
            Column("lost", "lost", 0, Ratio::None),
            Column("unaccounted", "unaccounted", 0, Ratio::None),
            Column("recorder_ns", "recorder ns", 0, Ratio::None),
            Column("rss", "MiB resident", 1, Ratio::None),
            Column("mb_s", "MB/s", 1, Ratio::None),
        ],
        base: "perf record, no loss".into(),
        rows,
        notes: vec!["of perf, lost counts its records of losses, not events".into()],
    }])
}
