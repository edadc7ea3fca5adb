//! The worst case: two threads that do nothing but wake each other on one CPU, and what recording that costs them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::empty::Empty;
use crate::process;
use crate::recorder::{self, Recorder};
use crate::rounds::{Sample, Variant, interleave, sample};
use crate::table::{Column, Part, Ratio};
use crate::tools::{Bench, PERF_EVENTS};

/// Name in the table and sources and options of bpfrec.
const RECORDINGS: [(&str, &[&str]); 8] = [
    ("bpfrec", &[]),
    ("bpfrec -e sched,block,profile,offcpu", &["-e", "sched,block,profile,offcpu"]),
    ("bpfrec -e offcpu", &["-e", "offcpu"]),
    ("bpfrec -e offcpu --exact-stacks", &["-e", "offcpu", "--exact-stacks"]),
    ("bpfrec -e sched", &["-e", "sched"]),
    ("bpfrec -e block", &["-e", "block"]),
    ("bpfrec -e profile", &["-e", "profile"]),
    ("bpfrec -e kmem", &["-e", "kmem"]),
];

/// `perf record` of the same events, rings as large as bpfrec's.
const PERF: [(&str, &[&str]); 2] = [("perf record", &[]), ("perf record -g -z", &["-g", "-z"])];

/// One run of the load: time and CPU time of an operation, us.
fn load(perf: &Path, operations: u64) -> Result<Sample> {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(perf).args(["bench", "--format=simple", "sched", "pipe", "-l"]);
    let ended = process::run(command.arg(operations.to_string()))?.ok()?;
    let seconds: f64 = ended.stdout.trim().parse().with_context(|| format!("perf bench said {:?}", ended.stdout))?;
    let us = |seconds: f64| seconds * 1e6 / operations as f64;
    Ok(sample([("us", us(seconds)), ("cpu_us", us(ended.cpu_s))]))
}

/// Adds a figure.
fn with(mut sample: Sample, name: &str, value: u64) -> Sample {
    sample.insert(name.into(), value as f64);
    sample
}

/// Measures.
pub fn measure(bench: &Bench) -> Result<Vec<Part>> {
    let perf = bench.need_perf()?;
    let operations = bench.of(100_000, 2_000);
    let (bpfrec, scratch) = (&bench.bpfrec, &bench.scratch);
    let mut variants = vec![Variant::new("bare", || load(perf, operations))];
    variants.push(Variant::new("programs that do nothing", || {
        let _attached = Empty::attach()?;
        load(perf, operations)
    }));
    for (name, options) in RECORDINGS {
        variants.push(Variant::new(name, move || {
            let trace = scratch.fresh("pipe.bpr");
            let file = trace.to_string_lossy();
            let args = [&["record", "-q", "--symbols", "none", "-o", &file][..], options].concat();
            let recorder = Recorder::start(scratch, bpfrec, &args)?;
            let sample = load(perf, operations)?;
            recorder.stop()?;
            let info = recorder::info(bpfrec, &trace)?;
            Ok(with(
                with(sample, "lost", info["lost"].as_u64().unwrap_or(0)),
                "events",
                info["events"].as_u64().unwrap_or(0),
            ))
        }));
    }
    for (name, options) in PERF {
        variants.push(Variant::new(name, move || {
            let data = scratch.fresh("pipe.data");
            let file = data.to_string_lossy();
            let args = [&["record", "-q", "-a", "-m", "4M", "-e", PERF_EVENTS, "-o", &file][..], options].concat();
            let recorder = Recorder::start(scratch, perf, &args)?;
            let sample = load(perf, operations)?;
            recorder.stop()?;
            let (events, lost) = recorder::perf_events(perf, &data)?;
            Ok(with(with(sample, "lost", lost), "events", events))
        }));
    }
    if let Some(runqlat) = &bench.runqlat {
        variants.push(Variant::new("runqlat (a histogram only)", move || {
            let recorder = Recorder::histogram(runqlat, 3)?;
            let sample = load(perf, operations)?;
            recorder.interrupt()?;
            Ok(sample)
        }));
    }
    let rows = interleave(bench.rounds, variants);
    Ok(vec![Part {
        name: "pipe",
        title: format!("taskset -c 0 perf bench sched pipe -l {operations}; {}", bench.rounds_text()),
        columns: vec![
            Column("us", "us/op", 2, Ratio::Over),
            Column("cpu_us", "CPU us/op", 2, Ratio::Over),
            Column("events", "events kept", 0, Ratio::None),
            Column("lost", "lost", 0, Ratio::None),
        ],
        base: "bare".into(),
        rows,
        notes: vec!["of perf, lost counts its records of losses, not events".into()],
    }])
}
