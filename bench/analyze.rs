//! The analyzer: events a second and peak memory, beside what perf does with a recording of the same load.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use bpfrec_analyze::Meta;
use bpfrec_analyze::reports::REPORTS;
use bpfrec_format::Trace;

use crate::bpf::mixed;
use crate::process;
use crate::recorder::{self, Recorder};
use crate::rounds::{Sample, Variant, interleave, sample};
use crate::table::{Column, Part, Ratio};
use crate::tools::{Bench, PERF_EVENTS};

/// One run of `command` over `events` events.
fn time(command: &mut Command, events: u64) -> Result<Sample> {
    let ended = process::run_silent(command)?;
    // 3: done, but events were lost while recording.
    let ended = if ended.status.code() == Some(3) { ended } else { ended.ok()? };
    Ok(sample([
        ("events_s", events as f64 / ended.wall_s),
        ("cpu_ns", ended.cpu_s * 1e9 / events as f64),
        ("rss", ended.max_rss_bytes as f64 / 1048576.0),
        ("seconds", ended.wall_s),
    ]))
}

/// Records the mixed load with `program`.
fn record(bench: &Bench, program: &Path, args: &[&str], file: &Path) -> Result<()> {
    let recorder = Recorder::start(&bench.scratch, program, &[args, &["-o", &file.to_string_lossy()]].concat())?;
    mixed(bench, bench.of(10, 1))?;
    recorder.stop().map(drop)
}

/// Measures.
pub fn measure(bench: &Bench) -> Result<Vec<Part>> {
    let (small, large) = (bench.scratch.fresh("mixed.bpr"), bench.scratch.fresh("large.bpr"));
    let (out, own) = (bench.scratch.path("out"), std::env::current_exe()?);
    record(bench, &bench.bpfrec, &["record", "-q"], &small)?;
    // In a process of its own: what this one holds would count as its children's.
    let mut grow = Command::new(&own);
    let said = process::run(grow.arg("grow").args([&small, &large]).arg(bench.events.to_string()))?.ok()?.stdout;
    let events: u64 = said.split(' ').next().and_then(|n| n.parse().ok()).with_context(|| said.clone())?;
    let meta = Meta::load(&Trace::open(&small)?)?;

    let mut variants = Vec::new();
    for threads in ["1", "2"] {
        let plural = if threads == "1" { "thread" } else { "threads" };
        let (bpfrec, large, out, own) = (&bench.bpfrec, &large, &out, &own);
        let options = ["--trace-only", "--threads", threads];
        variants.push(Variant::new(format!("bpfrec analyze, {threads} {plural}"), move || {
            time(Command::new(bpfrec).args(["analyze", "--force", "-o"]).args([out, large]).args(options), events)
        }));
        variants.push(Variant::new(format!("Parquet alone, {threads} {plural}"), move || {
            time(Command::new(own).arg("parquet").args([large, out]).args(["--threads", threads]), events)
        }));
        for kind in REPORTS.iter().filter(|kind| kind.is_possible(&meta)) {
            variants.push(Variant::new(format!("bpfrec report {}, {threads} {plural}", kind.name), move || {
                // The page goes to where it is asked for, which is to be nobody's folder, and over no other.
                bench.scratch.fresh("report.html");
                let mut report = Command::new(bpfrec);
                report.current_dir(bench.scratch.dir()).args(["report", kind.name]).arg(large);
                time(report.args(options), events)
            }));
        }
    }
    let mut notes = Vec::new();
    if let Some(perf) = &bench.perf {
        let (stacks, plain) = (bench.scratch.fresh("stacks.data"), bench.scratch.fresh("plain.data"));
        let args = ["record", "-q", "-a", "-m", "4M", "-e", PERF_EVENTS];
        record(bench, perf, &[&args[..], &["-g"]].concat(), &stacks)?;
        record(bench, perf, &args, &plain)?;
        let commands: [(&str, &[&str], _); 4] = [
            ("perf script, with stacks", &["script"], &stacks),
            ("perf script, without", &["script"], &plain),
            ("perf report --stdio, with stacks", &["report", "--stdio"], &stacks),
            ("perf sched latency", &["sched", "latency"], &plain),
        ];
        for (name, args, data) in commands {
            let (n, data) = (recorder::perf_events(perf, data)?.0, data.clone());
            notes.push(format!("{name}: {n} events of the same load"));
            variants.push(Variant::new(name, move || time(Command::new(perf).args(args).arg("-i").arg(&data), n)));
        }
    }
    Ok(vec![Part {
        name: "analyze",
        title: format!("{events} events of bench/load/mixed.sh, default sources; {}", bench.rounds_text()),
        columns: vec![
            Column("events_s", "events/s", 0, Ratio::Times),
            Column("cpu_ns", "CPU ns/event", 0, Ratio::None),
            Column("rss", "MiB at most", 0, Ratio::None),
            Column("seconds", "seconds", 2, Ratio::None),
        ],
        base: "perf script, with stacks".into(),
        rows: interleave(bench.rounds, variants),
        notes,
    }])
}
