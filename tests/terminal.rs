//! Text on a terminal: as wide as it is, with colours where these are wanted; in a pipe the same whatever terminal there is.
//! And what somebody is told who errs in a name.
#![cfg(all(feature = "analyze", target_os = "linux"))]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const BPFREC: &str = env!("CARGO_BIN_EXE_bpfrec");
const RUNQLAT: [&str; 4] = ["report", "runqlat", "mixed-6.18.bpr", "--per-cgroup"];
const PROFILE: [&str; 4] = ["report", "profile", "mixed-6.18.bpr", "--trace-only"];

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1")
}

/// What goes into a pipe.
fn piped(args: &[&str], vars: &[(&str, &str)]) -> String {
    let mut command = Command::new(BPFREC);
    let output = command.args(args).envs(vars.iter().copied()).current_dir(testdata()).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What goes to a terminal of so many columns. `None` after a line that says that `test` is left out.
fn on_terminal(test: &str, columns: u32, args: &[&str], vars: &[(&str, &str)]) -> Option<String> {
    // Not in the environment of the shell, which may set COLUMNS itself.
    let vars: String = vars.iter().map(|(name, value)| format!("{name}={value} ")).collect();
    let unset = "env -u COLUMNS -u NO_COLOR TERM=xterm";
    let line = format!("stty cols {columns} rows 40 && exec {unset} {vars}{BPFREC} {}", args.join(" "));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).current_dir(testdata()).stdin(Stdio::null());
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n");
            assert!(output.status.success(), "{args:?}: {text}");
            Some(text)
        }
        Err(error) => {
            let mut terminal = std::io::stderr();
            writeln!(terminal, "SKIPPED: {test}: no script here ({error}): it is in bsdutils").unwrap();
            None
        }
    }
}

/// Without what colours a text.
fn bare(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    first + &parts.map(|part| part.split_once('m').expect("a colour").1).collect::<String>()
}

fn longest(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with("# ")).map(|line| line.chars().count()).max().unwrap()
}

#[test]
fn bars_and_stacks_fit_the_terminal() {
    for (columns, vars, width) in [(60, &[][..], 60), (110, &[], 110), (60, &[("COLUMNS", "90")], 90)] {
        let Some(text) = on_terminal("bars_and_stacks_fit_the_terminal", columns, &RUNQLAT, vars) else { return };
        let text = bare(&text);
        assert_eq!(longest(&text), width, "{text}");
        // The longest bar of each histogram is full, and counts are those of a pipe.
        assert!(text.contains(&format!("|{}|\n", "*".repeat(width - 38))), "{text}");
        let counts =
            |text: &str| text.lines().filter_map(|l| Some(l.split_once(" |")?.0.to_owned())).collect::<Vec<_>>();
        assert_eq!(counts(&text), counts(&piped(&RUNQLAT, &[])));
        let stacks = bare(&on_terminal("bars_and_stacks_fit_the_terminal", 30, &PROFILE, &[]).unwrap());
        assert!(longest(&stacks) == 30 && stacks.lines().any(|line| line.ends_with('…')), "{stacks}");
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let test = "colours_are_for_terminals_that_want_them";
    let Some(text) = on_terminal(test, 100, &RUNQLAT, &[]) else { return };
    assert!(text.contains("\x1b[36m*") && bare(&text).contains("cgroup = /cpu"), "{text:?}");
    let never = [&RUNQLAT[..], &["--color", "never"]].concat();
    for (args, vars) in
        [(&RUNQLAT[..], &[("NO_COLOR", "1")][..]), (&RUNQLAT, &[("TERM", "dumb")]), (&never, &[("TERM", "xterm")])]
    {
        let plain = on_terminal(test, 100, args, vars).unwrap();
        assert!(!plain.contains('\x1b'), "{vars:?} {args:?} {plain:?}");
        assert_eq!(plain, bare(&text));
    }
    // What is for programs has none, whatever is asked for.
    let json = on_terminal(test, 100, &[&RUNQLAT[..], &["--json", "--color", "always"]].concat(), &[]).unwrap();
    serde_json::from_str::<serde_json::Value>(&json).unwrap();
    let folded = on_terminal(test, 40, &[&PROFILE[..], &["-f", "--color", "always"]].concat(), &[]).unwrap();
    let lines: Vec<&str> = folded.lines().filter(|line| !line.starts_with("# ")).collect();
    assert!(!folded.contains('\x1b') && lines.join("\n") == piped(&[&PROFILE[..], &["-f"]].concat(), &[]).trim_end());
}

#[test]
fn a_pipe_does_not_know_of_terminals() {
    let diff = ["diff", "mixed-6.18.bpr", "burn-5.10.bpr", "--trace-only"];
    for args in [&RUNQLAT[..], &PROFILE, &diff] {
        let plain = piped(args, &[]);
        assert_eq!(plain, piped(args, &[("COLUMNS", "50"), ("TERM", "xterm"), ("CLICOLOR_FORCE", "1")]));
        assert!(!plain.contains('\x1b') && !plain.contains('…'));
        let always = piped(&[args, &["--color", "always"]].concat(), &[("NO_COLOR", "1")]);
        assert!(always.contains("\x1b["), "{always}");
        assert_eq!(bare(&always), plain);
    }
}

#[test]
fn a_wrong_name_has_the_nearest_beside_it() {
    let error = |args: &[&str]| {
        let output = Command::new(BPFREC).args(args).current_dir(testdata()).output().unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let wrong = error(&["report", "runqlta", "mixed-6.18.bpr"]);
    assert!(wrong.contains("a similar subcommand exists: 'runqlat'"), "{wrong}");
    for word in ["runqlat", "biolatncy"] {
        let wrong = error(&[word, "mixed-6.18.bpr"]);
        let report = if word == "runqlat" { "runqlat" } else { "biolatency" };
        assert!(wrong.contains(&format!("a similar subcommand exists: 'report {report}'")), "{wrong}");
    }
    let wrong = error(&["analyse", "mixed-6.18.bpr"]);
    assert!(wrong.contains("a similar subcommand exists: 'analyze'"), "{wrong}");
    let wrong = error(&["replay", "mixed-6.18.bpr", "--kind", "sched_swich"]);
    assert!(
        wrong.contains("no kind is called sched_swich: there are ") && wrong.contains("; did you mean `sched_switch`?"),
        "{wrong}"
    );
    let wrong = error(&["man", "verfy"]);
    assert!(wrong.contains("did you mean `verify`?"), "{wrong}");
    if cfg!(feature = "record") {
        let wrong = error(&["record", "-e", "shced"]);
        assert!(wrong.contains("a similar value exists: 'sched'"), "{wrong}");
    }
}
