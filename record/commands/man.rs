//! `bpfrec man`: a manual page for each command, made from the command line itself.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use clap::{Arg, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::{Cli, EXIT_STATUS};

/// Arguments of `bpfrec man`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  bpfrec man report runqlat | man -l -     one page
  bpfrec man -o /usr/local/share/man/man1  all of them, for `man bpfrec-report-runqlat`

SOURCE_DATE_EPOCH sets the date in them.")]
pub struct ManArgs {
    /// Command whose page is printed, as `report runqlat`; without one, that of bpfrec itself
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    pub command: Vec<String>,
    /// Write the pages of all commands into this folder; it is made if need be
    #[arg(short, long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: ManArgs) -> Result<u8> {
    // A page about `help` would say nothing.
    let mut all = Cli::command().disable_help_subcommand(true);
    all.build();
    let date = date()?;
    if let Some(dir) = args.output {
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut commands = vec![&all];
        while let Some(command) = commands.pop() {
            let path = dir.join(format!("{}.1", name(command)));
            fs::write(&path, page(command, &date)).with_context(|| format!("cannot write {}", path.display()))?;
            commands.extend(command.get_subcommands().filter(|c| !c.is_hide_set()));
        }
        return Ok(super::DONE);
    }
    let mut command = &all;
    for word in &args.command {
        let below = || command.get_subcommands().map(Command::get_name).collect::<Vec<_>>().join(", ");
        let unknown = || match below() {
            names if names.is_empty() => anyhow!("{} has no commands below it: no `{word}`", called(command)),
            names => {
                let nearest = super::suggest::question(word, names.split(", "));
                anyhow!("{} has no command `{word}`: there are {names}{nearest}", called(command))
            }
        };
        command = command.find_subcommand(word).ok_or_else(unknown)?;
    }
    let page = page(command, &date);
    super::to_stdout(|out| {
        out.write_all(page.as_bytes())?;
        Ok(super::DONE)
    })
}

/// As `2026-11-25`: of SOURCE_DATE_EPOCH, so that a package can be made again byte by byte, else today.
fn date() -> Result<String> {
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().with_context(|| format!("SOURCE_DATE_EPOCH is no number of seconds: {text}"))?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs() as i64),
    };
    let utc = super::info::utc(seconds.saturating_mul(1_000_000_000));
    Ok(utc.split(' ').next().unwrap_or_default().to_owned())
}

/// `bpfrec-report-runqlat`.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// `bpfrec report runqlat`.
fn called(command: &Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}

/// One page. The library's sections serve but for three: it lists all options in the synopsis without their values, sets
/// examples as running text, and knows nothing of exit codes and of other pages.
fn page(command: &Command, date: &str) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    let shown = command.clone().override_usage(usage).subcommand_help_heading("COMMANDS").mut_args(values_in_help);
    let man = Man::new(shown)
        .title(name(command).to_uppercase())
        .date(date)
        .source(concat!("bpfrec ", env!("CARGO_PKG_VERSION")))
        .manual("bpfrec manual");
    let mut sections = Vec::new();
    let mut add = |render: &dyn Fn(&mut Vec<u8>) -> std::io::Result<()>| {
        let mut bytes = Vec::new();
        render(&mut bytes).expect("memory takes all that is written");
        sections.push(String::from_utf8(bytes).expect("made from strings"));
    };
    add(&|out| man.render_title(out));
    add(&|out| man.render_name_section(out));
    add(&|out| man.render_synopsis_section(out));
    add(&|out| man.render_description_section(out));
    add(&|out| man.render_options_section(out));
    if command.get_subcommands().any(|c| !c.is_hide_set()) {
        add(&|out| man.render_subcommands_section(out));
    }
    let own = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    let mut texts: Vec<&str> = own.as_deref().into_iter().collect();
    if !texts.contains(&EXIT_STATUS) {
        texts.push(EXIT_STATUS);
    }
    texts.iter().for_each(|text| add(&|out| sections_of(text).to_writer(out)));
    add(&|out| see_also(command).to_writer(out));

    // Each section comes with the same definitions before it; once is enough. Two breaks in a row are one.
    let definitions = Roff::new().render();
    let rest: String = sections.iter().map(|s| s.strip_prefix(&definitions).unwrap_or(s)).collect();
    definitions + &rest.replace(".br\n\n.br\n", ".sp\n")
}

/// Names that need no word about them stand in one line, as in `--help`, not one below the other.
fn values_in_help(arg: Arg) -> Arg {
    let values = arg.get_possible_values();
    if values.is_empty() || arg.is_hide_possible_values_set() || values.iter().any(|v| v.get_help().is_some()) {
        return arg;
    }
    let names: Vec<&str> = values.iter().filter(|v| !v.is_hide_set()).map(|v| v.get_name()).collect();
    let help = arg.get_long_help().or(arg.get_help()).map(|h| format!("{h} ")).unwrap_or_default();
    let help = format!("{help}[possible values: {}]", names.join(", "));
    arg.hide_possible_values(true).long_help(help)
}

/// What stands below the options in `--help`: `Heading:` begins a section, indented lines stay as they are.
fn sections_of(text: &str) -> Roff {
    let mut roff = Roff::new();
    let (mut headed, mut verbatim) = (false, false);
    for line in text.lines() {
        let indented = line.starts_with(' ');
        if indented != verbatim && !line.is_empty() {
            roff.control(if indented { "nf" } else { "fi" }, []);
            verbatim = indented;
        }
        if let Some(heading) = line.strip_suffix(':').filter(|_| !indented) {
            roff.control("SH", [&*heading.to_uppercase()]);
        } else if line.is_empty() {
            roff.control("PP", []);
        } else {
            if !headed {
                roff.control("SH", ["NOTES"]);
            }
            roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
        headed = true;
    }
    if verbatim {
        roff.control("fi", []);
    }
    roff
}

/// The pages above this one; from the top one those below are listed already.
fn see_also(command: &Command) -> Roff {
    let mut roff = Roff::new();
    let words: Vec<&str> = called(command).split(' ').collect();
    if words.len() > 1 {
        roff.control("SH", ["SEE ALSO"]);
        for above in 1..words.len() {
            let comma = if above + 1 < words.len() { "," } else { "" };
            roff.text([bold(words[..above].join("-")), roman(format!("(1){comma}"))]);
        }
    }
    roff
}
