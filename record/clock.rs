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

/// This moment on three clocks, as a row of kind `clock`. Of a few tries the quickest is taken: an interruption
/// between two readings would look like a step.
pub fn pair() -> Table {
    let read = || {
        let before = mono_ns();
        let (boot, real) = (now(ClockId::Boottime), realtime_ns());
        let after = mono_ns();
        (after - before, before + (after - before) / 2, boot, real)
    };
    let (_, mono, boot, real) = (0..5).map(|_| read()).min().unwrap_or_else(read);
    let mut table = Table::new(&meta::kind(meta::CLOCK));
    table.push(&[mono.into(), boot.into(), real.into()]);
    table
}
