//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[cfg(feature = "analyze")]
use crate::commands::terminal::Color;

/// What every command returns.
pub const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  failed
  2  wrong usage
  3  done, but the trace is damaged or lost events
  4  the disk is full; the trace is whole up to there";

/// Records what a Linux host does into one file, and answers questions from that file elsewhere.
///
/// `bpfrec record` runs on the host, as root, and moves raw scheduler, block I/O, memory and CPU events, with stacks and cgroups,
/// into one crash-safe file. The other commands need that file alone, on any machine: `bpfrec analyze` answers everything at
/// once, `bpfrec report` one question, for any process, container or window of time.
#[derive(Parser, Debug)]
#[command(name = "bpfrec", version, propagate_version = true, after_help = EXIT_STATUS)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Colours in text for people [default: auto]
    #[cfg(feature = "analyze")]
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "auto|always|never",
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub color: Color,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Record this host into a file (needs root)
    #[cfg(recorder)]
    Record(Box<bpfrec::args::RecordArgs>),
    /// Everything at once: a summary, flamegraph, report and Parquet tables
    #[cfg(feature = "analyze")]
    Analyze(crate::commands::analyze::AnalyzeArgs),
    /// One report
    #[cfg(feature = "analyze")]
    Report(crate::commands::report::ReportArgs),
    /// A trace in the formats of other programs: perfetto, pprof, speedscope, firefox, folded, chrome, csv
    #[cfg(feature = "analyze")]
    Export(crate::commands::export::ExportArgs),
    /// What changed from one trace to another, and what of it is more than noise
    #[cfg(feature = "analyze")]
    Diff(crate::commands::diff::DiffArgs),
    /// What a trace holds, what was lost and what the recording cost
    Info(InfoArgs),
    /// Check every checksum; exit code 3 when the trace is damaged or unfinished
    Verify(VerifyArgs),
    /// Copy what is whole out of a damaged or unfinished trace
    Recover(RecoverArgs),
    /// Copy a trace with tokens in the place of all names, to show it to others
    Redact(crate::commands::redact::RedactArgs),
    /// Add names of functions to a trace, on the host or where debug files are
    #[cfg(feature = "analyze")]
    Symbolize(crate::commands::symbolize::SymbolizeArgs),
    /// Pack the binaries of a trace themselves, as `perf archive` does
    #[cfg(feature = "analyze")]
    Bundle(crate::commands::bundle::BundleArgs),
    /// Events in time order, one a line
    Replay(ReplayArgs),
    /// Completions of this command line for a shell, on stdout
    Completions(crate::commands::completions::CompletionsArgs),
    /// Manual pages of all commands
    Man(crate::commands::man::ManArgs),
}

/// An error about a command that there is none of: who writes `bpfrec runqlat` is told of `bpfrec report runqlat`.
pub fn with_report(mut error: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
        && let Some(report) = crate::commands::report_named(word)
        && error.get(ContextKind::SuggestedSubcommand).is_none()
    {
        let suggested = ContextValue::Strings(vec![format!("report {report}")]);
        error.insert(ContextKind::SuggestedSubcommand, suggested);
    }
    error
}

/// Arguments of `bpfrec info`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bpfrec info trace.bpr                    what was recorded, on what, what was lost
  bpfrec info trace.bpr --json | jq .lost  one figure of it")]
pub struct InfoArgs {
    /// Trace file or directory
    pub trace: PathBuf,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `bpfrec verify`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bpfrec verify trace.bpr   of a file
  bpfrec verify traces/     of a directory of segments")]
pub struct VerifyArgs {
    /// Trace file or directory
    pub trace: PathBuf,
}

/// Arguments of `bpfrec recover`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bpfrec recover trace.bpr -o whole.bpr   of a file that was cut or damaged
  bpfrec recover traces/ -o whole/        of a directory of segments")]
pub struct RecoverArgs {
    /// Trace file or directory
    pub trace: PathBuf,
    /// File (or directory, for a directory) to write
    #[arg(short, long)]
    pub output: PathBuf,
    /// Replace the output if it exists
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `bpfrec replay`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bpfrec replay trace.bpr --from 2s --to 2100ms            all events of a tenth of a second
  bpfrec replay trace.bpr --kind sched_switch --json | jq  one kind of them, as JSON")]
pub struct ReplayArgs {
    /// Trace file or directory
    pub trace: PathBuf,
    /// As JSON, one object a line
    #[arg(long)]
    pub json: bool,
    /// Only events of this kind; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub kind: Vec<String>,
    /// Only from this time after the start on, as 2s or 150ms
    #[arg(long, value_name = "TIME", value_parser = duration_ns)]
    pub from: Option<u64>,
    /// Only until this time after the start
    #[arg(long, value_name = "TIME", value_parser = duration_ns)]
    pub to: Option<u64>,
}

/// Nanoseconds of a time as people write it: `2s`, `1.5m`, `150ms`; without a unit seconds.
pub fn duration_ns(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let ns = match unit {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "" | "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return Err(format!("unknown unit {unit}: ns, us, ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| "expected a time such as 2s or 150ms".to_owned())?;
    Ok((number * ns).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration_ns("2s"), Ok(2_000_000_000));
        assert_eq!(duration_ns("1.5m"), Ok(90_000_000_000));
        assert_eq!(duration_ns("3"), Ok(3_000_000_000));
        assert!(duration_ns("2 parsecs").is_err());
        assert!(duration_ns("s").is_err());
    }

    /// Command lines among the examples of a command: each from `bpfrec` to what follows it in a shell, or its comment.
    fn examples(command: &clap::Command) -> Vec<Vec<String>> {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let (_, list) = help.split_once("Examples:\n").unwrap_or_default();
        let lines = list.lines().take_while(|line| line.starts_with("  "));
        let example = |line: &str| {
            let line = line.trim().replace("<(", " ").replace(')', " ");
            let begin = line.find("bpfrec ")?;
            let words = line[begin..].split("  ").next()?.split_whitespace();
            Some(words.take_while(|word| !["|", ">"].contains(word)).map(str::to_owned).collect())
        };
        lines.filter_map(example).collect()
    }

    #[test]
    fn every_command_has_examples_and_all_of_them_are_true() {
        use clap::CommandFactory;
        let mut all = Cli::command().disable_help_subcommand(true);
        all.build();
        let mut rest: Vec<&clap::Command> = all.get_subcommands().collect();
        let mut parsed = 0;
        while let Some(command) = rest.pop() {
            let called = command.get_bin_name().unwrap_or_default();
            let examples = examples(command);
            assert!(!examples.is_empty(), "{called} has no examples");
            for words in examples {
                let line = words.join(" ");
                assert!(line.starts_with(called), "an example of {called} is of something else: {line}");
                if let Err(error) = Cli::try_parse_from(&words) {
                    panic!("{line}: {error}");
                }
                parsed += 1;
            }
            rest.extend(command.get_subcommands());
        }
        assert!(parsed > 20, "{parsed}");
    }
}
