//! `bpfrec`: parse, dispatch, one error line.

mod cli;
mod commands;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use cli::Command;

fn main() -> ExitCode {
    let cli = cli::Cli::try_parse().unwrap_or_else(|error| cli::with_report(error).exit());
    #[cfg(feature = "analyze")]
    let screen = commands::terminal::Screen::new(cli.color);
    let result = match cli.command {
        #[cfg(recorder)]
        Command::Record(args) => bpfrec::run(*args),
        #[cfg(feature = "analyze")]
        Command::Analyze(args) => commands::analyze::run(args, screen),
        #[cfg(feature = "analyze")]
        Command::Report(args) => commands::report::run(args, screen),
        #[cfg(feature = "analyze")]
        Command::Export(args) => commands::export::run(args),
        #[cfg(feature = "analyze")]
        Command::Diff(args) => commands::diff::run(args, screen),
        Command::Info(args) => commands::info::run(args),
        Command::Verify(args) => commands::verify::run(args),
        Command::Recover(args) => commands::recover::run(args),
        Command::Redact(args) => commands::redact::run(args),
        #[cfg(feature = "analyze")]
        Command::Symbolize(args) => commands::symbolize::run(args),
        #[cfg(feature = "analyze")]
        Command::Bundle(args) => commands::bundle::run(args),
        Command::Replay(args) => commands::replay::run(args),
        Command::Completions(args) => commands::completions::run(args),
        Command::Man(args) => commands::man::run(args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Where stderr is gone the exit code still tells.
            let _ = writeln!(std::io::stderr(), "bpfrec: {error:#}");
            ExitCode::from(code_of(&error))
        }
    }
}

/// Exit code of an error: lack of memory has its own.
fn code_of(error: &anyhow::Error) -> u8 {
    #[cfg(recorder)]
    if error.is::<bpfrec::memory::NoMemory>() {
        return bpfrec::memory::EXIT_CODE;
    }
    let _ = error;
    1
}
