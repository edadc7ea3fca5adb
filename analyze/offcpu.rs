//! Time of threads off the CPU, as source `offcpu` recorded it: whole waits, each with its stacks and its waker.

use bpfrec_format::events::offcpu_flag;

use crate::slab::{EventTable, Slab};

/// Kinds of the source, and what their rows are.
pub const KINDS: [(&str, What); 3] =
    [("offcpu_wait", What::Wait), ("offcpu_open", What::Open), ("offcpu_short", What::Short)];

/// What a row tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// A wait.
    Wait,
    /// A wait that lasts at the end of the recording.
    Open,
    /// Several waits, each too short to be told apart.
    Short,
}

impl What {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            What::Wait => "wait",
            What::Open => "open",
            What::Short => "short",
        }
    }
}

/// Time off the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Off {
    /// What it is.
    pub what: What,
    /// End, CLOCK_MONOTONIC; of short waits the moment in which they were told.
    pub end_ns: u64,
    /// Length.
    pub wait_ns: u64,
    /// Of that, time from the wakeup, or preemption, on.
    pub queued_ns: u64,
    /// Waits in it.
    pub count: u32,
    /// Thread.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// Kernel task state in which it left; 0: preempted.
    pub state: u32,
    /// Bits of `offcpu_flag`.
    pub flags: u32,
    /// Who was running where it was woken; 0 for the idle thread.
    pub waker_tid: u32,
    /// Its process.
    pub waker_pid: u32,
    /// Kernel stack; 0: none.
    pub kernel: u64,
    /// User stack; 0: none.
    pub user: u64,
    /// Kernel stack of the waker; 0: none.
    pub waker_kernel: u64,
    /// User stack of the waker; 0: none.
    pub waker_user: u64,
    /// Cgroup of the thread.
    pub cgroup_id: u64,
}

impl Off {
    /// When it left the CPU.
    pub fn start_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.wait_ns)
    }

    /// When it was woken, or the end if that was not seen.
    pub fn woken_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.queued_ns)
    }

    /// Whether its wakeup was seen.
    pub fn is_woken(&self) -> bool {
        self.state != 0 && (self.queued_ns > 0 || self.waker_tid != 0)
    }

    /// Whether an interrupt woke it: then the waker is only whom that hit.
    pub fn is_woken_by_interrupt(&self) -> bool {
        self.flags & offcpu_flag::WAKER_INTERRUPT != 0
    }

    /// Whether a stack of its own was remembered, not walked: the kernel's, the user's.
    pub fn remembered(&self) -> [bool; 2] {
        [offcpu_flag::KERNEL_REMEMBERED, offcpu_flag::USER_REMEMBERED].map(|bit| self.flags & bit != 0)
    }
}

/// Whether a kind is of the source.
pub fn has(kind: &str) -> bool {
    KINDS.iter().any(|(name, _)| *name == kind)
}

/// What the source told in a stretch of time, kind by kind, each in the order of ends.
pub fn of_slab(slab: &Slab) -> impl Iterator<Item = Off> {
    KINDS.iter().filter_map(|(name, what)| Some((slab.table(name)?, *what))).flat_map(|(table, what)| rows(table, what))
}

fn rows(table: &EventTable, what: What) -> impl Iterator<Item = Off> {
    let (tid, pid, state, flags) =
        (table.ints("tid"), table.ints("pid"), table.ints("prev_state"), table.ints("flags"));
    let (count, waker_tid, waker_pid) = (table.ints("count"), table.ints("waker_tid"), table.ints("waker_pid"));
    let (wait, queued, cgroup) = (table.ints("wait_ns"), table.ints("queued_ns"), table.ints("cgroup_id"));
    let (kernel, user) = (table.ints("kernel_stack_id"), table.ints("user_stack_id"));
    let (waker_kernel, waker_user) = (table.ints("waker_kernel_stack_id"), table.ints("waker_user_stack_id"));
    (0..table.rows()).map(move |row| Off {
        what,
        end_ns: table.ts[row],
        wait_ns: wait.get(row),
        // A recorder that reads two clocks could tell more; a part is never more than the whole.
        queued_ns: queued.get(row).min(wait.get(row)),
        count: count.get32(row),
        tid: tid.get32(row),
        pid: pid.get32(row),
        state: state.get32(row),
        flags: flags.get32(row),
        waker_tid: waker_tid.get32(row),
        waker_pid: waker_pid.get32(row),
        kernel: kernel.get(row),
        user: user.get(row),
        waker_kernel: waker_kernel.get(row),
        waker_user: waker_user.get(row),
        cgroup_id: cgroup.get(row),
    })
}

/// A kernel task state in words.
pub fn state_name(state: u32) -> &'static str {
    // TASK_* of include/linux/sched.h, unchanged since 4.14; other bits qualify these.
    const INTERRUPTIBLE: u32 = 1;
    const UNINTERRUPTIBLE: u32 = 2;
    const STOPPED: u32 = 4;
    const TRACED: u32 = 8;
    const NO_LOAD: u32 = 0x400;
    match state {
        0 => "preempted",
        s if s & UNINTERRUPTIBLE != 0 && s & NO_LOAD != 0 => "idle",
        s if s & UNINTERRUPTIBLE != 0 => "uninterruptible",
        s if s & INTERRUPTIBLE != 0 => "sleeping",
        s if s & STOPPED != 0 => "stopped",
        s if s & TRACED != 0 => "traced",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::state_name;

    #[test]
    fn states() {
        let names = [0, 1, 2, 0x102, 0x402, 0x2001, 4, 8, 0x1000].map(state_name);
        let expected = ["preempted", "sleeping", "uninterruptible", "uninterruptible", "idle", "sleeping"];
        assert_eq!(names[..6], expected);
        assert_eq!(names[6..], ["stopped", "traced", "other"]);
    }
}
