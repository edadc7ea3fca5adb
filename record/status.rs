//! What a person sees while recording: a line a second on a terminal, and one at the end.

use std::io::{IsTerminal, Write};
use std::time::Duration;

/// A line on stderr. Where that is gone, as a terminal after SIGHUP, the recording goes on without.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "bpfrec: {text}");
}

/// Figures so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Time since the start.
    pub elapsed: Duration,
    /// Events.
    pub events: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Events lost.
    pub lost: u64,
    /// CPU time of the recorder, ns.
    pub cpu_ns: u64,
    /// CPU time of the probes, ns, estimated.
    pub bpf_ns: u64,
    /// Largest resident memory, bytes.
    pub max_rss_bytes: u64,
}

/// Writes to stderr, or not at all.
pub struct Status {
    terminal: bool,
    quiet: bool,
    last: Figures,
}

/// `1234567` as `1.2 MB`.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") }
}

fn share(ns: u64, of: Duration) -> f64 {
    100.0 * ns as f64 / (of.as_nanos() as f64).max(1.0)
}

impl Status {
    /// A status line only where somebody watches.
    pub fn new(quiet: bool) -> Status {
        Status { terminal: std::io::stderr().is_terminal(), quiet, last: Figures::default() }
    }

    /// Says something in a line of its own.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            if self.terminal {
                let _ = write!(std::io::stderr(), "\r\x1b[K");
            }
            tell(text);
        }
    }

    /// The line of this second.
    pub fn tick(&mut self, now: Figures) {
        if self.quiet || !self.terminal {
            return;
        }
        let span = now.elapsed - self.last.elapsed.min(now.elapsed);
        let rate = (now.events - self.last.events) as f64 / span.as_secs_f64().max(1e-3);
        let cpu = share(now.cpu_ns - self.last.cpu_ns.min(now.cpu_ns), span);
        let mut err = std::io::stderr().lock();
        let _ = write!(
            err,
            "\r\x1b[K{:>6.0} s  {rate:>9.0} events/s  {:>9}  lost {}  recorder {cpu:.1} % CPU ",
            now.elapsed.as_secs_f64(),
            bytes(now.bytes),
            now.lost,
        );
        let _ = err.flush();
        self.last = now;
    }

    /// The line at the end.
    pub fn finish(&self, f: Figures, path: &str) {
        let per_event = f.bytes as f64 / f.events.max(1) as f64;
        self.say(&format!(
            "{path}: {} events in {:.1} s, {} ({per_event:.1} bytes/event), {} lost; cost: recorder {:.2} % of a CPU, \
             probes {:.2} % (estimated), {} resident",
            f.events,
            f.elapsed.as_secs_f64(),
            bytes(f.bytes),
            f.lost,
            share(f.cpu_ns, f.elapsed),
            share(f.bpf_ns, f.elapsed),
            bytes(f.max_rss_bytes),
        ));
    }
}
