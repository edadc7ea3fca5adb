//! What bpfrec costs, beside its peers, on this machine: `scripts/bench` runs it.

mod analyze;
mod bpf;
mod empty;
mod grow;
mod idle;
mod machine;
mod parquet;
mod pipe;
mod process;
mod rate;
mod recorder;
mod rounds;
mod scratch;
mod size;
mod table;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use serde_json::json;

use crate::table::Part;
use crate::tools::Bench;

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, print tables of ratios, write JSON
    Run(RunArgs),
    /// Write a large trace: the events of a recorded one over and over, each time later
    Grow {
        /// Recorded trace
        from: PathBuf,
        /// Trace to write
        to: PathBuf,
        /// At least so many events
        events: u64,
    },
    /// Write the Parquet tables of a trace, and nothing else
    Parquet {
        /// Trace
        trace: PathBuf,
        /// Directory to write
        dir: PathBuf,
        /// Threads
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
}

/// What to measure, and how long.
#[derive(clap::Args, Clone, Debug)]
pub struct RunArgs {
    /// Parts [default: all]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(PARTS.map(|(name, _)| name)))]
    parts: Vec<String>,
    /// Once, with tiny loads: shows that everything runs, and nothing else
    #[arg(long)]
    short: bool,
    /// Interleaved rounds of which a figure is the median
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Events of the trace that is analysed
    #[arg(long, default_value_t = 20_000_000)]
    events: u64,
    /// Where to write all figures
    #[arg(long, default_value = "bench-results.json", value_name = "FILE")]
    json: PathBuf,
    /// Folder for traces, on a real disk
    #[arg(long, default_value = "target", value_name = "DIR")]
    dir: PathBuf,
    /// The bpfrec that is measured
    #[arg(long, default_value = "target/release/bpfrec", value_name = "FILE")]
    bpfrec: PathBuf,
}

type Measure = fn(&Bench) -> Result<Vec<Part>>;

/// All parts.
const PARTS: [(&str, Measure); 6] = [
    ("pipe", pipe::measure),
    ("bpf", bpf::measure),
    ("idle", idle::measure),
    ("size", size::measure),
    ("rate", rate::measure),
    ("analyze", analyze::measure),
];

fn run(args: RunArgs) -> Result<()> {
    let asked = |name: &str| args.parts.is_empty() || args.parts.iter().any(|part| part == name);
    let bench = Bench::new(&args)?;
    println!("{}", machine::text());
    bench.missing().iter().for_each(|line| println!("{line}"));
    let mut parts = Vec::new();
    for (name, measure) in PARTS.iter().filter(|(name, _)| asked(name)) {
        eprintln!("{name}");
        for part in measure(&bench).with_context(|| format!("part {name}"))? {
            print!("{}", part.text());
            parts.push(part);
        }
        // What is measured so far is not lost when a later part fails.
        let all: Vec<_> = parts.iter().map(Part::json).collect();
        let all = json!({
            "machine": machine::json(),
            "rounds": bench.rounds,
            "short": args.short,
            "missing": bench.missing(),
            "parts": all,
        });
        let text = serde_json::to_string_pretty(&all)?;
        std::fs::write(&args.json, text + "\n").with_context(|| format!("cannot write {}", args.json.display()))?;
    }
    println!("\nall rounds of all figures: {}", args.json.display());
    let failed: Vec<_> = parts.iter().flat_map(|p| &p.rows).filter(|row| row.failed.is_some()).collect();
    if !failed.is_empty() {
        bail!("{} rows could not be measured, see FAILED above", failed.len());
    }
    Ok(())
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run(args),
        Command::Grow { from, to, events } => grow::grow(&from, &to, events).map(|events| println!("{events} events")),
        Command::Parquet { trace, dir, threads } => parquet::write(&trace, &dir, threads),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
