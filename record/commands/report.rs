//! `bpfrec report`: one report. The library's list of reports is the command's list of subcommands.

mod examples;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use bpfrec_analyze::reports::{self, Flags, REPORTS, ReportKind};
use bpfrec_analyze::{Filter, Meta};
use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, value_parser};

use super::analyze::{open, with_threads};
use super::beside;
use super::names::FrameArgs;
use super::progress::{Of, Progress};
use super::terminal::Screen;

/// Arguments of `bpfrec report`.
#[derive(Debug)]
pub struct ReportArgs {
    kind: &'static str,
    flags: Flags,
    trace: PathBuf,
    from: Option<String>,
    to: Option<String>,
    pid: Option<u32>,
    cgroup: Option<String>,
    json: bool,
    names: FrameArgs,
    threads: Option<usize>,
    force: bool,
}

fn subcommand(kind: &ReportKind) -> Command {
    let mut command = Command::new(kind.name).about(kind.about).arg(
        Arg::new("trace")
            .value_name("TRACE")
            .required(true)
            .value_parser(value_parser!(PathBuf))
            .help("Trace file or directory"),
    );
    for flag in kind.flags {
        let mut arg = Arg::new(flag.long).long(flag.long).help(flag.help);
        if let Some(short) = flag.short {
            arg = arg.short(short);
        }
        command = command.arg(match flag.value {
            Some(name) => arg.value_name(name),
            None => arg.action(ArgAction::SetTrue),
        });
    }
    let option = |long: &'static str, name: &'static str, help: &'static str| {
        Arg::new(long).long(long).value_name(name).help(help)
    };
    let command = command
        .arg(option("from", "TIME", "From this time after the start of the trace on, as 2s or 500ms"))
        .arg(option("to", "TIME", "Up to this time after the start of the trace"))
        .arg(option("pid", "PID", "Only this process").short('p').value_parser(value_parser!(u32)))
        .arg(option("cgroup", "PATH", "Only this cgroup and those below, or a container by its id").short('c'))
        .arg(option("threads", "N", "Threads (all CPUs)").value_parser(value_parser!(usize)))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("As JSON"));
    let command = match kind.flags.iter().any(|flag| flag.value == Some("FILE")) {
        true => {
            command.arg(Arg::new("force").long("force").action(ArgAction::SetTrue).help("Replace a file that exists"))
        }
        false => command,
    };
    // Flags that come with a struct bring its description along.
    let command = FrameArgs::augment_args(command).about(kind.about);
    match examples::of(kind.name) {
        Some(examples) => command.after_help(examples),
        None => command,
    }
}

impl clap::FromArgMatches for ReportArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (name, matches) = matches.subcommand().ok_or_else(missing)?;
        let kind = reports::find(name).ok_or_else(missing)?;
        let mut flags = Flags::default();
        for flag in kind.flags {
            let value = match flag.value {
                Some(_) => matches.get_one::<String>(flag.long).cloned(),
                None => matches.get_flag(flag.long).then(String::new),
            };
            if let Some(value) = value {
                flags.0.insert(flag.long, value);
            }
        }
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        Ok(ReportArgs {
            kind: kind.name,
            flags,
            trace: matches.get_one::<PathBuf>("trace").cloned().ok_or_else(missing)?,
            from: text("from"),
            to: text("to"),
            pid: matches.get_one("pid").copied(),
            cgroup: text("cgroup"),
            json: matches.get_flag("json"),
            names: FrameArgs::from_arg_matches(matches)?,
            threads: matches.get_one("threads").copied(),
            force: matches.try_get_one::<bool>("force").ok().flatten().is_some_and(|force| *force),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for ReportArgs {
    fn augment_args(command: Command) -> Command {
        let command = command.subcommand_required(true).arg_required_else_help(true).subcommand_value_name("NAME");
        let command = command.after_help(EXAMPLES);
        command.subcommands(REPORTS.iter().map(|kind| subcommand(kind)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

const EXAMPLES: &str = "Examples:
  bpfrec report runqlat trace.bpr                                 of a whole recording
  bpfrec report biolatency trace.bpr --from 2s --to 5s -c nginx   of three seconds of a container or cgroup
  bpfrec report profile trace.bpr --top 5 --json                  as JSON

On a terminal lines are as long as it is wide (COLUMNS), and longer ones are cut; in a pipe they are whole.";

/// Runs the command.
pub fn run(mut args: ReportArgs, screen: Screen) -> Result<u8> {
    if let Some(width) = screen.width() {
        args.flags.0.insert(reports::WIDTH, width.to_string());
    }
    let kind = reports::find(args.kind).context("unknown report")?;
    let trace = open(&args.trace)?;
    let names = args.names.options()?;
    let outcome = with_threads(args.threads, || -> Result<_> {
        let mut meta = Meta::load(&trace)?;
        meta.names = names;
        let (from, to) = (args.from.as_deref(), args.to.as_deref());
        let filter = Filter::new(&meta, from, to, args.pid, args.cgroup.as_deref())?;
        let progress = Progress::new(Of::Events);
        let show = |done, total| progress.show(done, total);
        let outcome = reports::run(&trace, &meta, kind, &args.flags, &filter, args.json, &show)?;
        progress.end();
        Ok(outcome)
    })??;
    for (path, bytes) in &outcome.files {
        beside::put(path.as_ref(), bytes, args.force)?;
    }
    let mut out = std::io::stdout().lock();
    let shown = if args.json || outcome.is_for_programs {
        outcome.output.as_str().into()
    } else {
        screen.show(&outcome.output)
    };
    match out.write_all(shown.as_bytes()).and_then(|()| out.flush()) {
        // `| head` has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
        done => done.context("cannot write to stdout")?,
    }
    if std::io::stderr().is_terminal() || outcome.lossy {
        outcome.notes.iter().for_each(|note| eprintln!("# {note}"));
    }
    Ok(if outcome.lossy { super::DAMAGED } else { super::DONE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_says_what_each_report_is() {
        for kind in REPORTS {
            let help = subcommand(kind).render_help().to_string();
            assert!(help.starts_with(kind.about), "{}: {help}", kind.name);
        }
    }
}
