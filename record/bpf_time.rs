//! Run time of the BPF programs, by source.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Result;
use bpfrec_format::Source;
use libbpf_rs::{Object, libbpf_sys};

/// Run time of the BPF programs. The kernel counts it only when asked and then pays some 20 ns a run, so it is asked
/// for one second in thirty, the first one included, and the rest is taken to cost the same. A budget asks more often.
pub struct BpfTime {
    programs: Vec<(Source, OwnedFd)>,
    enabled: Option<OwnedFd>,
    window: Instant,
    /// Begin of the window, CLOCK_MONOTONIC.
    window_ns: u64,
    pause: Duration,
    measured: Duration,
    possible: bool,
    /// The longest that a window takes; without: until the end.
    measure: Option<Duration>,
}

const MEASURE: Duration = Duration::from_secs(1);
/// The only window, where the kernel cannot be asked again.
const MEASURE_ONCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_secs(29);
/// Between windows when there is a budget to keep.
const BUDGET_PAUSE: Duration = Duration::from_secs(9);
/// ... and when something is given up: then there are fewer events to tell by that a load is gone.
const SHED_PAUSE: Duration = Duration::from_secs(2);

/// Run time and runs of a source's programs in the measured windows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    /// Nanoseconds.
    pub run_ns: u64,
    /// Runs.
    pub runs: u64,
    /// Times that the kernel left a program out because it was running on that CPU already. Always counted.
    pub left_out: u64,
}

impl BpfTime {
    /// Begins to measure the programs of `objects`; more often where a `budget` is to be kept. Asking takes CAP_SYS_ADMIN: where
    /// that goes, so that it cannot be asked `again`, there is one window, and with a budget it does not end.
    pub fn start<'a>(
        objects: impl Iterator<Item = (Source, &'a Object)>,
        budget: bool,
        again: bool,
    ) -> Result<BpfTime> {
        let mut programs = Vec::new();
        for (source, object) in objects {
            for program in object.progs().filter(|p| p.autoload()) {
                programs.push((source, program.as_fd().try_clone_to_owned()?));
            }
        }
        let mut time = BpfTime {
            programs,
            enabled: None,
            window: Instant::now(),
            window_ns: 0,
            pause: if budget { BUDGET_PAUSE } else { PAUSE },
            measured: Duration::ZERO,
            possible: true,
            measure: match (again, budget) {
                (true, _) => Some(MEASURE),
                (false, false) => Some(MEASURE_ONCE),
                (false, true) => None,
            },
        };
        time.enable();
        time.possible &= again;
        Ok(time)
    }

    /// Whether it measures now.
    pub fn is_on(&self) -> bool {
        self.enabled.is_some()
    }

    fn enable(&mut self) {
        // SAFETY: a system call without pointers; the descriptor that it returns is owned from here on.
        let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
        self.possible = fd >= 0;
        // SAFETY: `fd` is a descriptor that was returned just now.
        self.enabled = (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) });
        self.window = Instant::now();
        self.window_ns = crate::clock::mono_ns();
    }

    /// How often to measure, where there is a budget: more often while something is given up.
    pub fn is_shed(&mut self, shed: bool) {
        self.pause = if shed { SHED_PAUSE } else { BUDGET_PAUSE };
    }

    /// Begins a window now: what the programs do has changed.
    pub fn again(&mut self) {
        if self.possible && self.enabled.is_none() {
            self.enable();
        }
    }

    /// Since when it has been measuring without a break, CLOCK_MONOTONIC.
    pub fn measures_since(&self) -> Option<u64> {
        self.enabled.as_ref().map(|_| self.window_ns)
    }

    /// Ends or begins a window when it is time.
    pub fn tick(&mut self) {
        match &self.enabled {
            Some(_) if self.measure.is_some_and(|longest| self.window.elapsed() >= longest) => self.stop(),
            None if self.possible && self.window.elapsed() >= self.pause => self.enable(),
            _ => {}
        }
    }

    /// Ends the window.
    pub fn stop(&mut self) {
        if self.enabled.take().is_some() {
            self.measured += self.window.elapsed();
            self.window = Instant::now();
        }
    }

    /// How long has been measured.
    pub fn measured(&self) -> Duration {
        self.measured + self.enabled.as_ref().map_or(Duration::ZERO, |_| self.window.elapsed())
    }

    /// What the programs of `source` ran in the measured windows.
    pub fn runs(&self, source: Source) -> Runs {
        let mut sum = Runs::default();
        for (_, fd) in self.programs.iter().filter(|(s, _)| *s == source) {
            let mut info = libbpf_sys::bpf_prog_info::default();
            let mut len = size_of_val(&info) as u32;
            // SAFETY: `info` is a whole, zeroed bpf_prog_info and `len` its size; the kernel writes at most that much.
            let result = unsafe { libbpf_sys::bpf_prog_get_info_by_fd(fd.as_raw_fd(), &mut info, &mut len) };
            if result == 0 {
                sum.run_ns += info.run_time_ns;
                sum.runs += info.run_cnt;
                sum.left_out += info.recursion_misses;
            }
        }
        sum
    }
}
