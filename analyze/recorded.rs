//! What the recorder was asked to leave out. A switch is recorded when one of its two sides was asked for; of the other
//! side the trace knows only pieces, which must not pass for waits and slices of its own.

use rustc_hash::FxHashSet;

/// Processes and cgroups that were recorded; `None` for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// As `record -p` had it.
    pub pids: Option<FxHashSet<u32>>,
    /// As `record --cgroup` had it, with those below.
    pub cgroups: Option<FxHashSet<u64>>,
}

impl Recorded {
    /// Whether all that a thread of this process and cgroup did was recorded.
    #[inline]
    pub fn has(&self, pid: u32, cgroup_id: u64) -> bool {
        self.pids.as_ref().is_none_or(|pids| pids.contains(&pid))
            && self.cgroups.as_ref().is_none_or(|ids| ids.contains(&cgroup_id))
    }
}
