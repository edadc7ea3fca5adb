//! Moments on the kernel's clocks.

use bpfrec_format::{Table, meta};
use rustix::time::{ClockId, clock_gettime};

fn now(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// CLOCK_MONOTONIC, the clock of all events, in ns.
pub fn mono_ns() -> u64 {
    now(ClockId::Monotonic)
}

/// CLOCK_REALTIME, ns since 1970.
pub fn realtime_ns() -> u64 {
    now(ClockId::Realtime)
}

/// A moment of CLOCK_BOOTTIME, which goes on while the machine sleeps, on CLOCK_MONOTONIC, which does not.
pub fn boot_to_mono(boot_ns: u64) -> u64 {
    boot_ns.saturating_sub(now(ClockId::Boottime).saturating_sub(mono_ns()))
}

/// Steps smaller than this are left to the rows of checkpoints, between which a clock that is slewed is followed.
const STEP: u64 = 1_000_000;

/// Watches for a clock of the day that is set, and for a machine that slept.
pub struct Clocks {
    /// As it was at the last look.
    last: (u64, u64, u64),
}

impl Clocks {
    /// Watches from now on.
    pub fn new() -> Clocks {
        Clocks { last: quickest() }
    }

    /// Rows of kind `clock` when a clock went another way than CLOCK_MONOTONIC since the last look: of before, and of
    /// now. A straight line between two rows is the rule, so the step is no longer than the time between two looks.
    pub fn look(&mut self) -> Option<Table> {
        self.compare(quickest())
    }

    fn compare(&mut self, now: (u64, u64, u64)) -> Option<Table> {
        let before = std::mem::replace(&mut self.last, now);
        let offsets = |(mono, boot, real): (u64, u64, u64)| [boot.wrapping_sub(mono), real.wrapping_sub(mono)];
        let stepped =
            offsets(before).iter().zip(offsets(now)).any(|(a, b)| (b.wrapping_sub(*a) as i64).unsigned_abs() >= STEP);
        stepped.then(|| {
            let mut table = Table::new(&meta::kind(meta::CLOCK));
            for (mono, boot, real) in [before, now] {
                table.push(&[mono.into(), boot.into(), real.into()]);
            }
            table
        })
    }
}

/// This moment on three clocks: CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME. Of a few tries the quickest is taken: an
/// interruption between two readings would look like a step.
fn quickest() -> (u64, u64, u64) {
    let read = || {
        let before = mono_ns();
        let (boot, real) = (now(ClockId::Boottime), realtime_ns());
        let after = mono_ns();
        (after - before, before + (after - before) / 2, boot, real)
    };
    let (_, mono, boot, real) = (0..5).map(|_| read()).min().unwrap_or_else(read);
    (mono, boot, real)
}

/// This moment on three clocks, as a row of kind `clock`.
pub fn pair() -> Table {
    let (mono, boot, real) = quickest();
    let mut table = Table::new(&meta::kind(meta::CLOCK));
    table.push(&[mono.into(), boot.into(), real.into()]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_with_the_moments_around_it() {
        let mut clocks = Clocks { last: (1000, 1000, 5_000_000_000) };
        // Slewed, not stepped.
        assert!(clocks.compare((450_001_000, 450_001_000, 5_450_220_000)).is_none());
        // Set back by an hour.
        let back = 5_900_220_000u64.wrapping_sub(3_600_000_000_000);
        let table = clocks.compare((900_001_000, 900_001_000, back)).unwrap();
        assert_eq!(table.columns[0].ints(), [450_001_000, 900_001_000]);
        assert_eq!(table.columns[2].ints(), [5_450_220_000, back]);
        assert!(clocks.compare((1_300_001_000, 1_300_001_000, back + 400_000_000)).is_none());
        // A sleep of 10 s: both others go on.
        let table = clocks.compare((1_400_001_000, 11_400_001_000, back + 10_500_000_000)).unwrap();
        assert_eq!(table.columns[1].ints(), [1_300_001_000, 11_400_001_000]);
    }
}
