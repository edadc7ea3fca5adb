//! The commands that read a trace. Each takes its arguments and returns the exit code.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::Path;

use anyhow::Context;
use bpfrec_format::Trace;

#[cfg(feature = "analyze")]
pub mod analyze;
mod beside;
#[cfg(feature = "analyze")]
pub mod bundle;
pub mod completions;
#[cfg(feature = "analyze")]
pub mod diff;
#[cfg(feature = "analyze")]
pub mod export;
pub mod info;
pub mod man;
#[cfg(feature = "analyze")]
mod names;
mod progress;
pub mod recover;
pub mod redact;
pub mod replay;
#[cfg(feature = "analyze")]
pub mod report;
mod suggest;
#[cfg(feature = "analyze")]
pub mod symbolize;
#[cfg(feature = "analyze")]
pub mod terminal;
#[cfg(feature = "analyze")]
mod traces;
pub mod verify;

/// Done.
pub const DONE: u8 = 0;
/// Done, but data was damaged or lost in the file.
pub const DAMAGED: u8 = 3;

/// Where results go.
pub type Out = BufWriter<StdoutLock<'static>>;

/// Opens a trace, by its index where it has one.
pub fn open(path: &Path) -> anyhow::Result<Trace> {
    Trace::open(path).with_context(|| path.display().to_string())
}

/// Opens a trace by walking all of it.
pub fn walk(path: &Path) -> anyhow::Result<Trace> {
    Trace::walk(path).with_context(|| path.display().to_string())
}

/// Lets `write` fill stdout and returns its exit code. A reader that closes the pipe early has what it wanted.
pub fn to_stdout(write: impl FnOnce(&mut Out) -> anyhow::Result<u8>) -> anyhow::Result<u8> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let result = write(&mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    let closed =
        |e: &anyhow::Error| e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
    match result {
        Err(error) if closed(&error) => {
            // What is still buffered must not be written again when the buffer goes.
            let _ = out.into_parts();
            Ok(DONE)
        }
        other => other,
    }
}

/// Whether blocks or bytes of the trace are damaged or missing, as far as headers tell; not whether it was finished.
pub fn is_damaged(trace: &Trace) -> bool {
    let damaged = trace.segments.iter().any(|(_, s)| !s.damage.is_empty());
    damaged || !trace.refused.is_empty() || trace.missing_blocks() > 0
}

/// Prints what of a trace could not be read, a line each and not too many.
pub fn warn(trace: &Trace) {
    const MOST: usize = 5;
    let damage = trace.segments.iter().flat_map(|(path, s)| {
        s.damage.iter().map(move |d| format!("{}: offset {}: {} bytes: {}", path.display(), d.offset, d.len, d.what))
    });
    let refused = trace.refused.iter().map(|(path, error)| format!("{}: {error}", path.display()));
    let lines: Vec<_> = damage.chain(refused).collect();
    lines.iter().take(MOST).for_each(|line| eprintln!("bpfrec: {line}"));
    if lines.len() > MOST {
        eprintln!("bpfrec: and {} more: `bpfrec verify` shows all", lines.len() - MOST);
    }
}

/// The report with this name, or the nearest one.
pub fn report_named(word: &str) -> Option<&'static str> {
    #[cfg(feature = "analyze")]
    return suggest::nearest(word, bpfrec_analyze::reports::REPORTS.iter().map(|report| report.name));
    #[cfg(not(feature = "analyze"))]
    return None.filter(|_: &&str| !word.is_empty());
}

/// Text that a terminal may be given: control characters, and what turns the direction of text, are shown as escapes.
pub fn shown(text: &str) -> String {
    text.chars().flat_map(|c| if is_harmless(c) { vec![c] } else { c.escape_default().collect() }).collect()
}

/// Whether a character only stands there, and neither moves a cursor nor turns what comes after it.
pub fn is_harmless(c: char) -> bool {
    let turns = matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    !c.is_control() && !turns
}

/// A string in JSON, escaped as [`for_terminals`] does.
pub fn json_string(text: &str) -> String {
    for_terminals(serde_json::Value::from(text).to_string())
}

/// JSON in which, beyond what JSON asks for, the control characters from 0x7f to 0x9f are escaped, for terminals.
pub fn for_terminals(json: String) -> String {
    if !json.contains(|c| matches!(c, '\u{7f}'..='\u{9f}')) {
        return json;
    }
    json.chars()
        .map(|c| match c {
            '\u{7f}'..='\u{9f}' => format!("\\u{:04x}", c as u32),
            c => c.to_string(),
        })
        .collect()
}
