//! How many at a time: threads that wait for a CPU, requests in flight, live memory.
//!
//! Items come in the order of their ends, so that what is under way at a moment is known only later. Each series is a
//! difference at [`MOMENTS`] moments of the window; its values there are exact. Memory: 16 KiB a series.

use std::collections::BTreeMap;

use super::items::{Item, What};
use super::scene::Scene;
use crate::memory::{Life, op};

/// Moments at which values are told, the first and the last of the window among them.
const MOMENTS: u64 = 2048;

/// What a series is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Of {
    /// Threads that wait for a CPU.
    Runnable,
    /// Requests of a disk, kernel dev_t, that are queued or at the device.
    InFlight(u32),
    /// Bytes that a process has.
    Memory(u32),
    /// Bytes that the kernel has, by how they were asked for.
    Kernel(u8),
}

impl Of {
    /// In words.
    pub(super) fn name(self, scene: &Scene<'_>) -> String {
        match self {
            Of::Runnable => "threads waiting for a CPU".into(),
            Of::InFlight(dev) => format!("requests in flight: {}", scene.meta.disk(dev)),
            Of::Memory(pid) => format!("memory: {} ({pid})", scene.comm(pid, scene.ends().1)),
            Of::Kernel(number) => format!("kernel memory: {}", op::name(number)),
        }
    }

    /// Whether it is bytes, not a number.
    pub(super) fn is_bytes(self) -> bool {
        matches!(self, Of::Memory(_) | Of::Kernel(_))
    }
}

/// All series of an export.
pub(super) struct Counters {
    first_ns: u64,
    last_ns: u64,
    changes: BTreeMap<Of, Vec<i64>>,
}

impl Counters {
    pub(super) fn new(scene: &Scene<'_>) -> Self {
        let (first_ns, last_ns) = scene.ends();
        Counters { first_ns, last_ns, changes: BTreeMap::new() }
    }

    /// The moment with this number.
    fn moment(&self, number: u64) -> u64 {
        let span = u128::from(self.last_ns - self.first_ns);
        self.first_ns + (span * u128::from(number) / u128::from(MOMENTS - 1)) as u64
    }

    /// From the first moment on that is not before `ts_ns`, there is so much more.
    fn change(&mut self, of: Of, ts_ns: u64, by: i64) {
        let span = u128::from(self.last_ns - self.first_ns).max(1);
        let since = u128::from(ts_ns.saturating_sub(self.first_ns));
        let mut number = (since * u128::from(MOMENTS - 1) / span).min(u128::from(MOMENTS)) as u64;
        while number < MOMENTS && self.moment(number) < ts_ns {
            number += 1;
        }
        let changes = self.changes.entry(of).or_insert_with(|| vec![0; MOMENTS as usize]);
        if let Some(change) = changes.get_mut(number as usize) {
            *change = change.saturating_add(by);
        }
    }

    /// Counts an item.
    pub(super) fn item(&mut self, item: &Item) {
        let (of, by) = match item.what {
            What::Runnable { .. } => (Of::Runnable, 1),
            What::Io(io) => (Of::InFlight(io.dev), 1),
            What::Memory(Life { op, bytes, weight_milli, .. }) => {
                let bytes = u128::from(bytes) * u128::from(weight_milli) / 1000;
                let of = if op::is_kernel(op) { Of::Kernel(op) } else { Of::Memory(item.pid) };
                (of, i64::try_from(bytes).unwrap_or(i64::MAX))
            }
            _ => return,
        };
        self.change(of, item.start_ns, by);
        let lives = matches!(item.what, What::Memory(Life { end: None, .. }));
        if !lives {
            self.change(of, item.end_ns, by.saturating_neg());
        }
    }

    /// Each series: what it is of, and its values where they change, with the first and the last.
    pub(super) fn series(&self) -> impl Iterator<Item = (Of, Vec<(u64, i64)>)> {
        self.changes.iter().map(|(of, changes)| {
            let (mut value, mut all) = (0i64, Vec::new());
            for (number, change) in changes.iter().enumerate() {
                value = value.saturating_add(*change);
                if *change != 0 || number == 0 || number + 1 == changes.len() {
                    all.push((self.moment(number as u64), value));
                }
            }
            (*of, all)
        })
    }
}
