//! Names are another's data: a process may be called `<script>`, a cgroup `../../etc`, a thread after a terminal's escapes. None
//! of it moves a cursor, forges a line, names a file or becomes markup, in any command, as text and as JSON.
// What it shares with tests that record needs what they need.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;
#[path = "common/hostile.rs"]
mod hostile;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Scratch, bpfrec, texts};

const TRACES: [&str; 4] = ["mixed-6.18.bpr", "memory-6.18.bpr", "null-blk-6.1.bpr", "burn-5.10.bpr"];

fn real(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1").join(name)
}

fn traces(scratch: &Scratch) -> Vec<PathBuf> {
    let copy = |name: &str| {
        let path = scratch.path(name);
        hostile::copy(&real(name), &path);
        path
    };
    TRACES.map(copy).to_vec()
}

/// What turns the direction of text, as it would not show what is there.
fn turns(c: char) -> bool {
    matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Nothing that a terminal takes for more than a letter, and no line that a name began.
fn assert_still(what: &str, text: &str) {
    for line in text.lines() {
        assert!(!line.trim_start().starts_with("FORGED"), "{what}: a name began a line: {line:?}");
        // One report has a tab between two words of its own; no name has one.
        assert!(!line.contains("\t|"), "{what}: a tab of a name in {line:?}");
        let bad = line.chars().find(|c| c.is_control() && *c != '\t' || turns(*c));
        assert!(bad.is_none(), "{what}: {:?} in {line:?}", bad.unwrap());
    }
    assert!(!text.contains('\r'), "{what}: a carriage return");
}

const COMMANDS: [&str; 16] = [
    "info",
    "verify",
    "replay",
    "report summary",
    "report runqlat -P",
    "report runqlat --per-cgroup",
    "report biolatency -D",
    "report biolatency --per-process",
    "report biolatency --per-cgroup",
    "report profile --top 200",
    "report profile -f",
    "report offcputime --top 200",
    "report offcputime -f",
    "report wakeups --top 200",
    "report memleak -T 200 -o 0",
    "report cpudist -P",
];

#[test]
fn no_name_reaches_a_terminal_as_it_is() {
    let scratch = Scratch::new();
    let mut seen = String::new();
    for trace in traces(&scratch) {
        for command in COMMANDS {
            for json in [false, true] {
                let mut args: Vec<&str> = command.split(' ').collect();
                let at = 1 + usize::from(args[0] == "report");
                args.insert(at, trace.to_str().unwrap());
                if json && args[0] != "verify" {
                    args.push("--json");
                }
                if args[0] == "report" {
                    args.push("--trace-only");
                }
                let output = bpfrec(&args);
                let (out, err) = texts(&output);
                // A report whose source was not recorded is an error, and says so in one line.
                assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{args:?}: {}: {err}", output.status);
                assert_still(&format!("{args:?}"), &err);
                if json && output.status.code() != Some(1) && args[0] != "verify" {
                    // JSON has its own escapes; only what a terminal obeys must not be in it.
                    let values = serde_json::Deserializer::from_str(&out).into_iter::<serde_json::Value>();
                    values.for_each(|value| drop(value.unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"))));
                    let bad = out.chars().find(|c| c.is_control() && *c != '\n');
                    assert!(bad.is_none(), "{args:?}: {:?} in JSON", bad.unwrap());
                } else {
                    assert_still(&format!("{args:?}"), &out);
                    seen += &out;
                }
            }
        }
    }
    // The names are there, as they can be shown.
    for name in ["<script>alert(1)</script>", "../../../../etc/passwd", "\\nFORGED", "\\u{1b}[2J"] {
        assert!(seen.contains(name), "{name} is nowhere");
    }
}

/// All files below a folder.
fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(path);
            }
        }
    }
    found
}

#[test]
fn no_name_becomes_a_file_markup_or_sql() {
    let scratch = Scratch::new();
    for (name, trace) in TRACES.iter().zip(traces(&scratch)) {
        let (usual, strange) = (scratch.path(&format!("usual-{name}")), scratch.path(&format!("strange-{name}")));
        for (trace, dir) in [(real(name), &usual), (trace, &strange)] {
            let output = bpfrec([Path::new("analyze"), &trace, Path::new("-o"), dir, Path::new("--trace-only")]);
            let (out, err) = texts(&output);
            assert!(matches!(output.status.code(), Some(0 | 3)), "{err}");
            assert_still("analyze", &out);
            assert_still("analyze", &err);
        }
        let names = |dir: &Path| files(dir).iter().map(|p| p.strip_prefix(dir).unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&usual), names(&strange), "{name}: files are not called after what is in a trace");
        let read = |dir: &Path, file: &str| fs::read_to_string(dir.join(file)).unwrap();
        assert_eq!(read(&usual, "views.sql"), read(&strange, "views.sql"), "{name}: SQL has no names in it");
        for path in files(&strange).iter().filter(|path| path.extension().is_some_and(|e| e != "parquet")) {
            let text = fs::read_to_string(path).unwrap();
            let markup = path.extension().is_some_and(|e| e == "svg" || e == "html");
            for bad in ["<script>alert", "<img src=x", "</script><img"] {
                assert!(!markup || !text.contains(bad), "{}: {bad}", path.display());
            }
            if path.extension().is_some_and(|e| e == "txt") {
                assert_still(&path.display().to_string(), &text);
            } else if markup {
                let bad = text.chars().find(|c| c.is_control() && !"\n\t\r".contains(*c));
                assert!(bad.is_none(), "{}: {bad:?}", path.display());
            }
        }
    }
}

/// Names of 10 MB, cgroups that are each other's parents, mappings over mappings, tasks and times that run backwards: what can be
/// told is told, in 2 GiB of address space and few seconds of CPU time, which the kernel enforces.
#[test]
fn absurd_facts_end_in_a_report_or_an_error() {
    const LIMIT_KIB: u64 = 2 << 20;
    // Of two threads together, in a build without optimisation too.
    const CPU_S: u64 = 20;
    let scratch = Scratch::new();
    let path = scratch.path("absurd.bpr");
    hostile::absurd(&path, 10 << 20);
    let commands = COMMANDS.iter().map(|command| (*command).to_owned());
    let writes = ["recover", "redact", "analyze"].map(|name| format!("{name} -o {}", scratch.path(name).display()));
    let mut told = 0;
    for command in commands.chain(writes) {
        let mut words: Vec<&str> = command.split(' ').collect();
        let name: Vec<&str> = words.drain(..1 + usize::from(words[0] == "report")).collect();
        let script = format!("ulimit -v {LIMIT_KIB}; ulimit -t {CPU_S}; exec \"$@\"");
        let begun = std::time::Instant::now();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script, "sh", common::BPFREC]).args(name).arg(&path).args(words);
        let output = shell.env("RAYON_NUM_THREADS", "2").output().unwrap();
        let (out, err) = texts(&output);
        println!("{:>6} ms: {command}", begun.elapsed().as_millis());
        let shown: String = err.chars().take(300).collect();
        assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{command}: {}: {shown}", output.status);
        assert!(!err.contains("panicked"), "{command}: {shown}");
        assert!(!out.is_empty() || !err.is_empty(), "{command} says nothing");
        told += u32::from(output.status.code() != Some(1));
    }
    assert!(told >= 10, "only {told} commands had anything to tell");
}
