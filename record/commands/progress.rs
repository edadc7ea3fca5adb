//! A bar on a terminal, for what takes over a second.

use std::cell::OnceCell;
use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// What goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Events.
    Events,
    /// Bytes of the trace.
    Bytes,
}

/// A bar that comes after a second, where stderr is a terminal, and goes with its owner.
pub struct Progress {
    of: Of,
    on_terminal: bool,
    after: Duration,
    begun: Instant,
    bar: Mutex<OnceCell<ProgressBar>>,
}

impl Progress {
    /// Nothing is shown yet.
    pub fn new(of: Of) -> Self {
        Self::with(of, io::stderr().is_terminal(), Duration::from_secs(1))
    }

    /// As [`Progress::new`], but never when the results themselves go by on the terminal.
    pub fn beside_output(of: Of) -> Self {
        Self::with(of, io::stderr().is_terminal() && !io::stdout().is_terminal(), Duration::from_secs(1))
    }

    fn with(of: Of, on_terminal: bool, after: Duration) -> Self {
        Progress { of, on_terminal, after, begun: Instant::now(), bar: Mutex::new(OnceCell::new()) }
    }

    /// `done` of `total`.
    pub fn show(&self, done: u64, total: u64) {
        if !self.on_terminal || self.begun.elapsed() < self.after {
            return;
        }
        let Ok(bar) = self.bar.lock() else { return };
        let style = match self.of {
            Of::Events => "{bar:40} {percent}% of {human_len} events, {eta} left",
            Of::Bytes => "{bar:40} {percent}% of {binary_total_bytes}, {eta} left",
        };
        let new = || match ProgressStyle::with_template(style) {
            Ok(style) => ProgressBar::new(total).with_style(style),
            Err(_) => ProgressBar::new(total),
        };
        bar.get_or_init(new).set_position(done);
    }

    /// Takes the bar away, so that results can be written.
    pub fn end(&self) {
        if let Ok(bar) = self.bar.lock()
            && let Some(bar) = bar.get()
        {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_on_a_terminal_and_after_its_time() {
        let shown = |on_terminal, after| {
            let progress = Progress::with(Of::Bytes, on_terminal, after);
            progress.show(1, 2);
            progress.bar.lock().unwrap().get().map(|bar| (bar.position(), bar.length()))
        };
        let (at_once, later) = (Duration::ZERO, Duration::from_secs(3600));
        assert_eq!((shown(false, at_once), shown(true, later)), (None, None));
        assert_eq!(shown(true, at_once), Some((1, Some(2))));
    }
}
