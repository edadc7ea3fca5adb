//! Lookups of tasks that are remembered.

use super::Tasks;

/// Lookups that are remembered.
const KNOWN: usize = 256;

#[derive(Clone, Copy)]
struct Known {
    tid: u32,
    id: u32,
    from_ns: u64,
    to_ns: u64,
}

impl Default for Known {
    fn default() -> Self {
        Known { tid: 0, id: 0, from_ns: 1, to_ns: 0 }
    }
}

/// Remembers who was looked up: the same few threads switch to and fro.
pub struct Lookups<'a> {
    tasks: &'a Tasks,
    known: [Known; KNOWN],
}

impl<'a> Lookups<'a> {
    /// None is known yet.
    pub(super) fn new(tasks: &'a Tasks) -> Self {
        Lookups { tasks, known: [Known::default(); KNOWN] }
    }

    /// As [`Tasks::lookup`].
    pub fn id(&mut self, tid: u32, ts_ns: u64) -> Option<u32> {
        let known = &mut self.known[tid as usize % KNOWN];
        if known.tid == tid && ts_ns >= known.from_ns && ts_ns <= known.to_ns {
            return Some(known.id);
        }
        let id = self.tasks.lookup(tid, ts_ns)?;
        let (from_ns, to_ns) = self.tasks.span(tid, id);
        *known = Known { tid, id, from_ns, to_ns };
        Some(id)
    }
}
