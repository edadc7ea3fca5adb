//! Completions and man pages follow the command line: nothing is listed by hand, and what reads them has no complaint.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BPFREC: &str = env!("CARGO_BIN_EXE_bpfrec");

/// A directory that goes when the test is over.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("bpfrec-hand-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bpfrec(args: &[&str]) -> Output {
    Command::new(BPFREC).args(args).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = bpfrec(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program that may not be there; without it says that `test` is left out.
fn run(test: &str, mut command: Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            let program = command.get_program().to_string_lossy();
            let mut terminal = std::io::stderr();
            writeln!(terminal, "SKIPPED: {test}: no {program} here ({error})").unwrap();
            None
        }
    }
}

/// Commands in the help of `words`, in order.
fn below(words: &[&str]) -> Vec<String> {
    let help = stdout(&[words, &["--help"]].concat());
    let list = help.split_once("\nCommands:\n").map_or("", |(_, after)| after.split("\n\n").next().unwrap());
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|n| *n != "help").map(str::to_owned).collect()
}

/// All commands, as words.
fn commands() -> Vec<Vec<String>> {
    let mut all = vec![vec![]];
    let mut next = 0;
    while next < all.len() {
        let words: Vec<&str> = all[next].iter().map(String::as_str).collect();
        let more: Vec<_> = below(&words).into_iter().map(|n| [&all[next][..], &[n]].concat()).collect();
        all.extend(more);
        next += 1;
    }
    all
}

fn pages(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_command_has_a_page_with_all_its_options() {
    let dir = Dir::new("man");
    stdout(&["man", "-o", dir.0.to_str().unwrap()]);
    let commands = commands();
    let names = |words: &[String]| [&["bpfrec".to_owned()], words].concat().join("-") + ".1";
    assert_eq!(pages(&dir.0), commands.iter().map(|c| names(c)).collect());
    assert!(commands.len() > 6, "{commands:?}");
    for words in &commands {
        let page = fs::read_to_string(dir.0.join(names(words))).unwrap();
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"EXIT STATUS\""] {
            assert_eq!(page.matches(&format!("\n.SH {section}\n")).count(), 1, "{words:?}: {section}\n{page}");
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let help = stdout(&[&words, &["--help"][..]].concat());
        let options =
            help.split(|c: char| c.is_whitespace() || c == ',').filter(|w| w.starts_with("--") && w.len() > 2);
        for option in options {
            let name = option.split(|c: char| !c.is_alphanumeric() && c != '-').next().unwrap();
            assert!(page.contains(&name.replace('-', r"\-")), "{words:?} {name}\n{page}");
        }
        assert_eq!(stdout(&[&["man"], &words[..]].concat()).lines().count(), page.lines().count());
    }
}

#[test]
fn pages_are_the_same_bytes_at_the_same_date() {
    let page = |epoch: &str| {
        let output = Command::new(BPFREC).args(["man", "verify"]).env("SOURCE_DATE_EPOCH", epoch).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(page("1700000000"), page("1700000000"));
    assert!(page("1700000000").contains(".TH BPFREC-VERIFY 1 2023-11-14 "), "{}", page("1700000000"));
}

#[test]
fn mandoc_has_no_complaint() {
    let dir = Dir::new("lint");
    stdout(&["man", "-o", dir.0.to_str().unwrap()]);
    for page in pages(&dir.0) {
        let mut mandoc = Command::new("mandoc");
        mandoc.args(["-Tlint", "-W", "warning"]).arg(dir.0.join(&page));
        let Some(output) = run("mandoc -Tlint", mandoc) else { return };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn an_unknown_command_has_no_page() {
    let output = bpfrec(&["man", "nonsense"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("bpfrec has no command `nonsense`: there are ") && error.contains("verify"), "{error}");
    let error = String::from_utf8(bpfrec(&["man", "verify", "x"]).stderr).unwrap();
    assert!(error.contains("bpfrec verify has no commands below it: no `x`"), "{error}");
}

#[test]
fn bash_completes_commands_and_options() {
    let complete = |words: &str| {
        let script = format!(
            "source <({BPFREC} completions bash); COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
             _bpfrec bpfrec \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &script]);
        let output = run("completions of bash", bash)?;
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let Some(verify) = complete("bpfrec veri") else { return };
    assert_eq!(verify, "verify\n");
    assert_eq!(complete("bpfrec replay --ki").unwrap(), "--kind\n");
    if cfg!(feature = "analyze") {
        assert_eq!(complete("bpfrec report runq").unwrap(), "runqlat\n");
        assert_eq!(complete("bpfrec report runqlat --pidn").unwrap(), "--pidnss\n");
    }
}

#[test]
fn fish_completes_commands_and_options() {
    let complete = |line: &str| {
        let mut fish = Command::new("fish");
        let script = format!("{BPFREC} completions fish | source; complete -C '{line}'");
        fish.args(["--no-config", "-c", &script]);
        let output = run("completions of fish", fish)?;
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let Some(verify) = complete("bpfrec veri") else { return };
    assert!(verify.starts_with("verify\tCheck every checksum"), "{verify}");
    assert!(complete("bpfrec replay --ki").unwrap().starts_with("--kind\tOnly events of this kind"));
    if cfg!(feature = "analyze") {
        assert!(complete("bpfrec report runq").unwrap().starts_with("runqlat\t"));
    }
}

#[test]
fn zsh_completes_commands() {
    // Stands in for zsh's own functions that would show what is given to them.
    let script = format!(
        "source <({BPFREC} completions zsh | sed 's/^if \\[ \"$funcstack.*/if false; then/')
         _describe() {{ shift 2; print -l -- ${{(P)@[-1]}} ${{(P)1}}; }}; autoload -Uz is-at-least; _bpfrec_commands"
    );
    let mut zsh = Command::new("zsh");
    zsh.args(["-f", "-c", &script]);
    let Some(output) = run("completions of zsh", zsh) else { return };
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("verify:Check every checksum"), "{text}{error}");
}

#[test]
fn other_shells_have_completions_too() {
    for shell in ["elvish", "powershell"] {
        let script = stdout(&["completions", shell]);
        assert!(script.contains("verify") && script.contains("--kind"), "{shell}: {script}");
    }
    assert_eq!(bpfrec(&["completions", "csh"]).status.code(), Some(2));
}
