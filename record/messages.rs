//! What libbpf says. It is kept, not printed: the last lines stand in the error when a program does not load.

use std::sync::Mutex;

use libbpf_rs::PrintLevel;

static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Lines of the verifier that say why, from the end.
const LINES: usize = 4;

/// Collects warnings from now on.
pub fn collect() {
    libbpf_rs::set_print(Some((PrintLevel::Warn, |_, message| {
        if let Ok(mut messages) = MESSAGES.lock() {
            messages.truncate(64);
            messages.push(message);
        }
    })));
}

/// All that libbpf has said since [`last`].
pub fn all() -> String {
    MESSAGES.lock().map(|messages| messages.concat()).unwrap_or_default()
}

/// The last lines of the verifier's log, or of whatever libbpf said, to append to an error; empty when it said nothing.
pub fn last() -> String {
    let messages = MESSAGES.lock().map(|mut m| std::mem::take(&mut *m)).unwrap_or_default();
    let log = messages.iter().find(|m| m.contains("BEGIN PROG LOAD LOG"));
    let text = log.cloned().unwrap_or_else(|| messages.concat());
    let says = |line: &&str| !line.trim().is_empty() && !line.contains("LOAD LOG") && !line.starts_with("processed ");
    let mut lines: Vec<_> = text.lines().filter(says).collect();
    let lines = lines.split_off(lines.len().saturating_sub(LINES));
    if lines.is_empty() { String::new() } else { format!(" ({})", lines.join("; ")) }
}
