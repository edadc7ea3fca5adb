//! A machine that does nothing, and a recorder that should hardly be seen there.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use crate::machine;
use crate::recorder::Recorder;
use crate::rounds::{Sample, Variant, interleave, sample};
use crate::table::{Column, Part, Ratio};
use crate::tools::{Bench, PERF_EVENTS};

/// What the recorder does in some seconds in which nobody else does much.
fn watch(bench: &Bench, recorder: Recorder) -> Result<Sample> {
    let seconds = bench.of(10, 1);
    // What it does at the start is no part of it.
    sleep(Duration::from_secs(bench.of(2, 0)));
    let (sleeps, cpu_ns, (busy, all)) = (recorder.sleeps(), recorder.cpu_ns(), machine::ticks());
    sleep(Duration::from_secs(seconds));
    let (busy, all) = (machine::ticks().0 - busy, machine::ticks().1 - all);
    let each = |n: u64| n as f64 / seconds as f64;
    let sample = sample([
        ("wakeups", each(recorder.sleeps() - sleeps)),
        ("cpu", each(recorder.cpu_ns() - cpu_ns) / 1e7),
        ("rss", recorder.peak_bytes() as f64 / 1048576.0),
        ("busy", 100.0 * busy as f64 / all.max(1) as f64),
    ]);
    recorder.stop()?;
    Ok(sample)
}

/// Measures.
pub fn measure(bench: &Bench) -> Result<Vec<Part>> {
    let scratch = &bench.scratch;
    let mut variants = vec![Variant::new("bpfrec", || {
        let trace = scratch.fresh("idle.bpr");
        watch(bench, Recorder::start(scratch, &bench.bpfrec, &["record", "-q", "-o", &trace.to_string_lossy()])?)
    })];
    if let Some(perf) = &bench.perf {
        variants.push(Variant::new("perf record -g -z", move || {
            let data = scratch.fresh("idle.data");
            let file = data.to_string_lossy();
            let args = ["record", "-q", "-a", "-g", "-z", "-m", "4M", "-e", PERF_EVENTS, "-o", &file];
            watch(bench, Recorder::start(scratch, perf, &args)?)
        }));
    }
    Ok(vec![Part {
        name: "idle",
        title: format!("{} s without a load; {}", bench.of(10, 1), bench.rounds_text()),
        columns: vec![
            Column("wakeups", "wakeups/s", 1, Ratio::None),
            Column("cpu", "% of a CPU", 3, Ratio::None),
            Column("rss", "MiB resident", 1, Ratio::None),
            Column("busy", "% machine busy", 1, Ratio::None),
        ],
        base: String::new(),
        rows: interleave(bench.rounds, variants),
        notes: vec!["a machine that is not idle itself wakes its recorder: see the last column".into()],
    }])
}
