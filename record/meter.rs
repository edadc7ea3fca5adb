//! What the recording costs now: CPU time of this process and of the BPF programs, over the last seconds.

use std::collections::VecDeque;

use bpfrec_format::Source as Id;

use crate::bpf_time::BpfTime;

/// Shortest and longest stretch of time that a value is the average of, ns.
const SPAN_NS: [u64; 2] = [1_500_000_000, 3_500_000_000];
/// A window of measuring that begins so late after a reading counts as begun with it, ns.
const WINDOW_LATE_NS: u64 = 50_000_000;
/// Cost of an event as long as nothing was measured, ns.
const UNKNOWN_NS: f64 = 400.0;
/// Events from which on a measured cost an event is trusted. Programs that filter most of what they see cost by time.
const ENOUGH: u64 = 64;

/// What the programs of a source cost, as measured last.
#[derive(Clone, Copy, Debug)]
enum Rate {
    EachEvent(f64),
    EachSecond(f64),
}

impl Default for Rate {
    fn default() -> Self {
        Rate::EachEvent(UNKNOWN_NS)
    }
}

/// CPU time of the BPF programs: measured in windows, in between estimated by the events and what one cost in the last
/// window.
#[derive(Debug, Default)]
pub struct Estimate {
    rates: [Rate; 16],
    events: [u64; 16],
    run_ns: [u64; 16],
    at_ns: u64,
    total: f64,
}

impl Estimate {
    /// CPU time so far, ns. `events` are those of each source so far, kept and lost; `run_ns` what the kernel counted;
    /// `measured` whether it has counted ever since the last call.
    pub fn add(&mut self, now_ns: u64, events: [u64; 16], run_ns: [u64; 16], measured: bool) -> u64 {
        let seconds = now_ns.saturating_sub(self.at_ns) as f64 / 1e9;
        for (slot, rate) in self.rates.iter_mut().enumerate() {
            let new = events[slot].saturating_sub(self.events[slot]);
            let ran = run_ns[slot].saturating_sub(self.run_ns[slot]) as f64;
            if measured && seconds > 0.0 {
                *rate = if new >= ENOUGH { Rate::EachEvent(ran / new as f64) } else { Rate::EachSecond(ran / seconds) };
                self.total += ran;
            } else {
                self.total += match *rate {
                    Rate::EachEvent(ns) => ns * new as f64,
                    Rate::EachSecond(ns) => ns * seconds,
                };
            }
        }
        (self.events, self.run_ns, self.at_ns) = (events, run_ns, now_ns);
        self.total as u64
    }
}

/// An average over the last seconds.
#[derive(Debug)]
pub struct Meter {
    cpus: u64,
    samples: VecDeque<(u64, u64)>,
    estimate: Estimate,
}

impl Meter {
    /// For a machine with so many CPUs.
    pub fn new(cpus: usize) -> Meter {
        Meter { cpus: cpus.max(1) as u64, samples: VecDeque::new(), estimate: Estimate::default() }
    }

    /// Millionths of the CPU time that all CPUs have; `None` until enough time has passed. `own_ns` is the CPU time of this
    /// process. To be called before [`BpfTime::tick`].
    pub fn read(&mut self, now_ns: u64, own_ns: u64, events: [u64; 16], bpf_time: &BpfTime) -> Option<u64> {
        let mut run_ns = [0; 16];
        Id::ALL.iter().for_each(|id| run_ns[*id as usize] = bpf_time.runs(*id).run_ns);
        // A window begins right after a reading.
        let since_ns = self.estimate.at_ns;
        let measured = since_ns > 0 && bpf_time.measures_since().is_some_and(|at| at <= since_ns + WINDOW_LATE_NS);
        let bpf_ns = self.estimate.add(now_ns, events, run_ns, measured);
        self.average(now_ns, own_ns + bpf_ns)
    }

    fn average(&mut self, now_ns: u64, cost_ns: u64) -> Option<u64> {
        self.samples.push_back((now_ns, cost_ns));
        while self.samples.len() > 2 && now_ns - self.samples[0].0 > SPAN_NS[1] {
            self.samples.pop_front();
        }
        let (since, before) = *self.samples.front()?;
        let span = now_ns - since;
        let capacity = u128::from(span) * u128::from(self.cpus);
        let value = u128::from(cost_ns.saturating_sub(before)) * 1_000_000;
        (span >= SPAN_NS[0]).then(|| (value / capacity.max(1)) as u64)
    }

    /// Whether it has just begun: then the programs are best measured at once.
    pub fn is_fresh(&self) -> bool {
        self.samples.len() == 1
    }

    /// So many CPUs run now.
    pub fn of_cpus(&mut self, cpus: usize) {
        self.cpus = cpus.max(1) as u64;
    }

    /// What was before does not count any more.
    pub fn reset(&mut self) {
        self.samples.drain(..self.samples.len().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn of(slot: usize, n: u64) -> [u64; 16] {
        let mut all = [0; 16];
        all[slot] = n;
        all
    }

    #[test]
    fn between_windows_events_cost_what_they_cost_in_the_last() {
        let mut e = Estimate::default();
        e.add(S, of(2, 0), of(2, 0), false);
        assert_eq!(e.add(2 * S, of(2, 1000), of(2, 300_000), true), 300_000);
        assert_eq!(e.add(3 * S, of(2, 3000), of(2, 300_000), false), 900_000);
        // Before anything was measured: a guess for each event.
        assert_eq!(Estimate::default().add(S, of(3, 10), of(3, 0), false), 4000);
    }

    #[test]
    fn programs_that_filter_cost_by_time() {
        let mut e = Estimate::default();
        e.add(S, of(2, 0), of(2, 0), false);
        assert_eq!(e.add(2 * S, of(2, 1), of(2, 5_000_000), true), 5_000_000);
        assert_eq!(e.add(4 * S, of(2, 1), of(2, 5_000_000), false), 15_000_000);
    }

    #[test]
    fn the_average_is_of_the_last_seconds_and_of_all_cpus() {
        let mut m = Meter::new(2);
        assert_eq!(m.average(S, 0), None);
        assert_eq!(m.average(2 * S, S / 10), None);
        assert_eq!(m.average(3 * S, S / 5), Some(50_000));
        for second in 4..10 {
            m.average(second * S, S / 5);
        }
        assert_eq!(m.average(10 * S, S / 5), Some(0));
        m.reset();
        assert_eq!(m.average(11 * S, S), None);
    }
}
