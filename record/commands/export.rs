//! `bpfrec export`: a trace in the formats of other programs. The library's list of formats is the command's list of subcommands.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bpfrec_analyze::export::{self, Asked, FORMATS, Format, Outcome, Weight};
use bpfrec_analyze::{Filter, Meta};
use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches};

use super::analyze::{open, with_threads};
use super::names::FrameArgs;
use super::progress::{Of, Progress};
use super::{DAMAGED, DONE, beside};

const EXAMPLES: &str = "Examples:
  bpfrec export perfetto trace.bpr -o trace.pftrace          for ui.perfetto.dev
  bpfrec export pprof trace.bpr --cgroup /shop -o shop.pb.gz
  bpfrec export folded trace.bpr --from 2s --to 3s -o -";

/// Arguments of `bpfrec export`.
#[derive(Debug)]
pub struct ExportArgs {
    format: &'static str,
    weight: Option<Weight>,
    common: Common,
}

/// Arguments of each format.
#[derive(clap::Args, Debug)]
struct Common {
    /// Trace file or directory
    trace: PathBuf,
    /// File to write; `-` for stdout
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the output if it exists
    #[arg(long)]
    force: bool,
    /// From this time after the start of the trace on, as 2s or 500ms
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Up to this time after the start of the trace
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only this process
    #[arg(short, long)]
    pid: Option<u32>,
    /// Only this cgroup and those below, or a container by its id
    #[arg(short, long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Threads (all CPUs)
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    names: FrameArgs,
}

fn subcommand(format: &Format) -> Command {
    let command = Common::augment_args(Command::new(format.name));
    let weights: Vec<&str> = Weight::ALL.iter().map(|w| w.name()).collect();
    let command = match format.of_one_weight {
        true => command.arg(
            Arg::new("of")
                .long("of")
                .value_name("WEIGHT")
                .value_parser(clap::builder::PossibleValuesParser::new(weights))
                .help("What is summed; without it the first of these that was recorded"),
        ),
        false => command,
    };
    let example = format!("Examples:\n  bpfrec export {} trace.bpr -o {}", format.name, format.file);
    // Flags that come with a struct bring its description along.
    command.about(format.about).after_help(example)
}

impl FromArgMatches for ExportArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (name, matches) = matches.subcommand().ok_or_else(missing)?;
        let format = export::find(name).ok_or_else(missing)?;
        let of = if format.of_one_weight { matches.get_one::<String>("of") } else { None };
        let weight = of.and_then(|of| Weight::ALL.into_iter().find(|w| w.name() == of.as_str()));
        Ok(ExportArgs { format: format.name, weight, common: Common::from_arg_matches(matches)? })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for ExportArgs {
    fn augment_args(command: Command) -> Command {
        let command = command.subcommand_required(true).arg_required_else_help(true).subcommand_value_name("FORMAT");
        let command = command.after_help(EXAMPLES);
        command.subcommands(FORMATS.iter().map(|format| subcommand(format)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Runs the command.
pub fn run(args: ExportArgs) -> Result<u8> {
    let format = export::find(args.format).context("unknown format")?;
    let common = &args.common;
    let to_stdout = common.output == Path::new("-");
    if to_stdout && !format.is_text && io::stdout().is_terminal() {
        bail!("`{}` is binary, and stdout is a terminal: give a file to --output, or a pipe", format.name);
    }
    let trace = open(&common.trace)?;
    if !to_stdout {
        beside::may_write(&common.trace, &common.output, common.force)?;
    }
    let names = common.names.options()?;
    let outcome = with_threads(common.threads, || -> Result<Option<Outcome>> {
        let mut meta = Meta::load(&trace)?;
        meta.names = names;
        let (from, to) = (common.from.as_deref(), common.to.as_deref());
        let filter = Filter::new(&meta, from, to, common.pid, common.cgroup.as_deref())?;
        let asked = Asked { weight: args.weight };
        export::check(&meta, format, &asked)?;
        let progress = Progress::beside_output(Of::Events);
        let show = |done, total| progress.show(done, total);
        let fill = |out: &mut export::Out<'_>| export::run(&trace, &meta, format, &asked, &filter, out, &show);
        if !to_stdout {
            return beside::write(&common.output, |out| Ok(Some(fill(out)?)));
        }
        let mut out = BufWriter::with_capacity(1 << 16, io::stdout());
        match fill(&mut out) {
            // `| head` has seen enough. What is still buffered must not be written again when the buffer goes.
            Err(bpfrec_analyze::Error::Io(e)) if e.kind() == io::ErrorKind::BrokenPipe => {
                let _ = out.into_parts();
                Ok(None)
            }
            done => {
                out.flush()?;
                Ok(Some(done?))
            }
        }
    })??;
    let Some(outcome) = outcome else { return Ok(DONE) };
    // A file of another format cannot always tell: losses are said here in every case.
    if io::stderr().is_terminal() || outcome.lossy {
        outcome.notes.iter().for_each(|note| eprintln!("# {note}"));
    }
    Ok(if outcome.lossy { DAMAGED } else { DONE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_says_what_each_format_is() {
        for format in FORMATS {
            let help = subcommand(format).render_long_help().to_string();
            assert!(help.starts_with(format.about), "{}: {help}", format.name);
        }
    }
}
