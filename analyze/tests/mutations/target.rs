//! What is done with each file: all that reads one.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once};

use bpfrec_analyze::reports::{self, Flags, REPORTS};
use bpfrec_analyze::symbols::Options;
use bpfrec_analyze::{Filter, Meta, Output, analyze};
use bpfrec_format::append::append;
use bpfrec_format::recover::recover;
use bpfrec_format::{BlockType, Segment, Trace};

use crate::builder::Random;

/// Where the last panic was, and what it said.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Reads the file in every way there is; says what broke.
pub fn run(bytes: &[u8], random: &mut Random) -> Result<(), String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            if let Ok(mut said) = PANIC.lock() {
                *said = info.to_string();
            }
        }));
    });
    let choice = random.next(u64::MAX);
    let result = catch_unwind(AssertUnwindSafe(|| {
        format(bytes)?;
        report(bytes, choice)
    }));
    result.unwrap_or_else(|_| Err(PANIC.lock().map(|said| said.clone()).unwrap_or_default()))
}

/// The format: walk, index, every block, recovery.
fn format(bytes: &[u8]) -> Result<(), String> {
    let Ok(walked) = Segment::walk(Box::new(bytes.to_vec())) else { return Ok(()) };
    for block in &walked.blocks {
        let _ = walked.counts(block);
        if let Ok(rows) = walked.read(block, &|_| true) {
            for table in &rows.tables {
                let lengths: Vec<usize> = table.columns.iter().map(|column| column.len()).collect();
                if lengths.iter().any(|len| *len != lengths[0]) {
                    return Err(format!("columns of kind {} have different lengths", table.kind));
                }
            }
        }
    }
    let mut whole = Vec::new();
    recover(&walked, &mut whole).map_err(|e| format!("recover: {e}"))?;
    let again = Segment::open(Box::new(whole)).map_err(|e| format!("what was recovered does not open: {e}"))?;
    if !again.is_complete() {
        return Err("what was recovered is not complete".into());
    }
    // What an unknown type holds is nobody's business.
    for block in again.blocks.iter().filter(|b| BlockType::from_number(b.header.block_type).is_some()) {
        if let Err(error @ bpfrec_format::Error::Damaged { .. }) = again.read(block, &|_| true) {
            return Err(format!("what was recovered is damaged: {error}"));
        }
    }
    append(&again, &[], io::sink()).map_err(|e| format!("append: {e}"))?;
    Ok(())
}

/// The reports: one that is chosen, as text and as JSON, with what may be asked of it; now and then all at once.
fn report(bytes: &[u8], choice: u64) -> Result<(), String> {
    let Ok(segment) = Segment::open(Box::new(bytes.to_vec())) else { return Ok(()) };
    let trace = Trace { segments: vec![("file".into(), segment)], refused: Vec::new() };
    let Ok(mut meta) = Meta::load(&trace) else { return Ok(()) };
    meta.names = Options { trace_only: true, ..Options::default() };
    if choice.is_multiple_of(5) {
        let _ = analyze(&trace, &meta, &Nowhere, &|_, _| {});
        return Ok(());
    }
    let kind = REPORTS[choice as usize / 5 % REPORTS.len()];
    let mut flags = Flags::default();
    for (_, flag) in kind.flags.iter().enumerate().filter(|(i, _)| choice >> (20 + i) & 3 == 0) {
        let value = ["", "3", "0", "18446744073709551615"][choice as usize / 7 % 4 * usize::from(flag.value.is_some())];
        let value = if flag.long == "svg" || flag.long == "output" { "x.svg" } else { value };
        flags.0.insert(flag.long, value.into());
    }
    let windows = [(None, None), (Some("1ms"), Some("500ms")), (Some("0s"), Some("0s"))];
    let (from, to) = windows[choice as usize / 11 % windows.len()];
    let (pid, cgroup) = [(None, None), (Some(1), None), (None, Some("/"))][choice as usize / 13 % 3];
    let Ok(filter) = Filter::new(&meta, from, to, pid, cgroup) else { return Ok(()) };
    for as_json in [false, true] {
        let Ok(outcome) = reports::run(&trace, &meta, kind, &flags, &filter, as_json, &|_, _| {}) else { continue };
        if as_json && serde_json::from_str::<serde_json::Value>(&outcome.output).is_err() {
            return Err(format!("{} --json is no JSON", kind.name));
        }
        if !as_json && let Some(c) = outcome.output.chars().find(|c| c.is_control() && !"\n\t".contains(*c)) {
            return Err(format!("{} prints the control character {c:?}", kind.name));
        }
    }
    Ok(())
}

/// Takes everything.
struct Nowhere;

impl Output for Nowhere {
    fn create(&self, _name: &str) -> io::Result<Box<dyn Write + Send>> {
        Ok(Box::new(io::sink()))
    }
}
