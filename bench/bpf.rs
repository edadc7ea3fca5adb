//! Nanoseconds an event: of each BPF program by the kernel's own count, and of the recorder in user space.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use libbpf_rs::query::ProgInfoIter;

use crate::process;
use crate::recorder::{self, Recorder, field};
use crate::rounds::{Sample, Variant, interleave, sample};
use crate::scratch::root;
use crate::table::{Column, Part, Ratio};
use crate::tools::Bench;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel counts run time while this lives.
struct Counted(String);

impl Counted {
    fn new() -> Result<Counted> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("{SWITCH}: this kernel counts no run time"))?;
        fs::write(SWITCH, "1").with_context(|| SWITCH.to_owned())?;
        Ok(Counted(before))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, self.0.trim());
    }
}

/// Runs and nanoseconds so far of the programs of a process, by their names.
fn programs(pid: u32, names: &BTreeMap<u64, String>) -> BTreeMap<String, (u64, u64)> {
    let mut all = BTreeMap::new();
    for info in recorder::descriptors(pid) {
        let Some(name) = field(&info, "prog_id").and_then(|id| names.get(&id)) else { continue };
        let runs = field(&info, "run_cnt").zip(field(&info, "run_time_ns"));
        // Several descriptors may be of the same program.
        all.insert(name.clone(), runs.unwrap_or_default());
    }
    all
}

/// One recording of the mixed load with these sources.
fn record(bench: &Bench, sources: &str, by_program: &mut BTreeMap<String, Vec<[f64; 2]>>) -> Result<Sample> {
    let _counted = Counted::new()?;
    let (seconds, trace) = (bench.of(5, 1), bench.scratch.fresh("bpf.bpr"));
    let args = ["record", "-q", "--symbols", "none", "-e", sources, "-o", &trace.to_string_lossy()];
    let recorder = Recorder::start(&bench.scratch, &bench.bpfrec, &args)?;
    let names = ProgInfoIter::default().map(|p| (u64::from(p.id), p.name.to_string_lossy().into_owned())).collect();
    let (before, cpu_ns, user_ns) = (programs(recorder.pid(), &names), recorder.cpu_ns(), recorder.user_ns());
    mixed(bench, seconds)?;
    let after = programs(recorder.pid(), &names);
    let (cpu_ns, user_ns) = (recorder.cpu_ns() - cpu_ns, recorder.user_ns() - user_ns);
    recorder.stop()?;
    let info = recorder::info(&bench.bpfrec, &trace)?;
    let events = info["events"].as_u64().unwrap_or(0).max(1) as f64;
    let mut bpf_ns = 0;
    for (name, (runs, ns)) in after {
        let (runs_before, ns_before) = before.get(&name).copied().unwrap_or_default();
        let (runs, ns) = (runs - runs_before, ns - ns_before);
        bpf_ns += ns;
        if runs > 0 {
            let a_second = runs as f64 / seconds as f64;
            by_program.entry(name).or_default().push([ns as f64 / runs as f64, a_second]);
        }
    }
    let mut all = sample([
        ("events", events / seconds as f64),
        ("recorder_ns", cpu_ns as f64 / events),
        ("user_ns", user_ns as f64 / events),
        ("bpf_ns", bpf_ns as f64 / events),
        ("lost", info["lost"].as_f64().unwrap_or(0.0)),
    ]);
    // What the recorder itself says of its steps, where it does.
    let steps = info["recorder"]["steps"].as_object().into_iter().flatten();
    all.extend(steps.filter_map(|(step, ns)| Some((format!("step {step}"), ns.as_f64()? / events))));
    Ok(all)
}

/// The mixed load of this repository.
pub fn mixed(bench: &Bench, seconds: u64) -> Result<()> {
    let script = root().join("bench/load/mixed.sh");
    process::run(Command::new(script).arg(seconds.to_string()).arg(bench.scratch.dir()))?.ok().map(drop)
}

/// Measures.
pub fn measure(bench: &Bench) -> Result<Vec<Part>> {
    let everything = "sched,block,profile,offcpu,kmem";
    let mut by_program = BTreeMap::new();
    let mut rest = BTreeMap::new();
    let variants = vec![
        Variant::new("default sources", || record(bench, "sched,block,profile", &mut rest)),
        Variant::new(everything, || record(bench, everything, &mut by_program)),
    ];
    let rows = interleave(bench.rounds, variants);
    let steps: Vec<String> =
        rows.iter().flat_map(|row| row.figures.keys()).filter(|k| k.starts_with("step ")).cloned().collect();
    let notes = match steps.is_empty() {
        true => vec!["steps of the recorder are not told by this bpfrec".into()],
        false => {
            steps.iter().filter_map(|step| Some(format!("{step}: {:.1} ns an event", rows[0].median(step)?))).collect()
        }
    };
    let row = |(name, values): (String, Vec<[f64; 2]>)| crate::rounds::Measured {
        name,
        figures: ["ns", "runs"]
            .iter()
            .enumerate()
            .map(|(i, f)| ((*f).into(), values.iter().map(|v| v[i]).collect()))
            .collect(),
        failed: None,
    };
    let rounds = bench.rounds_text();
    Ok(vec![
        Part {
            name: "bpf",
            title: format!("ns an event, all in, under bench/load/mixed.sh; {rounds}"),
            columns: vec![
                Column("events", "events/s", 0, Ratio::None),
                Column("bpf_ns", "BPF ns", 0, Ratio::None),
                Column("recorder_ns", "recorder ns", 0, Ratio::None),
                Column("user_ns", "in user space", 0, Ratio::None),
                Column("lost", "lost", 0, Ratio::None),
            ],
            base: String::new(),
            rows,
            notes,
        },
        Part {
            name: "bpf programs",
            title: format!("the kernel's run statistics, sources {everything}; {rounds}"),
            columns: vec![Column("ns", "ns/run", 0, Ratio::None), Column("runs", "runs/s", 0, Ratio::None)],
            base: String::new(),
            rows: by_program.into_iter().map(row).collect(),
            notes: Vec::new(),
        },
    ])
}
