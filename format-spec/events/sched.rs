//! The scheduler: events of source `sched`.

use super::layout::events;

events! {
    /// A CPU goes from one thread to another.
    SwitchRow switch_row Sched [
        /// A CPU goes from one thread to another.
        sched_switch SCHED_SWITCH = 0x30,
    ] {
        /// Thread that leaves.
        prev_tid: u32,
        /// Its process.
        prev_pid: u32,
        /// Thread that comes.
        next_tid: u32,
        /// Its process.
        next_pid: u32,
        /// Kernel task state of the one that leaves; 0: still runnable.
        prev_state: u32,
        /// Kernel priority, 0 to 139.
        prev_prio: u16,
        /// Kernel priority, 0 to 139.
        next_prio: u16,
        /// 1: preempted, so runnable whatever its state.
        preempt: u32,
        /// Cgroup of the one that leaves.
        prev_cgroup_id: u64,
        /// Cgroup of the one that comes.
        next_cgroup_id: u64,
    }

    /// A thread that is runnable from now on.
    WakeupRow wakeup_row Sched [
        /// A thread is runnable again.
        sched_wakeup SCHED_WAKEUP = 0x31,
        /// A new thread is runnable for the first time.
        sched_wakeup_new SCHED_WAKEUP_NEW = 0x32,
    ] {
        /// Thread that wakes.
        tid: u32,
        /// Its process.
        pid: u32,
        /// CPU that it will run on.
        target_cpu: u32,
        /// Its kernel priority.
        prio: u16,
        /// Padding.
        _pad: u16,
        /// Thread that was running on the CPU of the event: the waker, or whom an interrupt hit.
        waker_tid: u32,
        /// Cgroup of the thread that wakes.
        cgroup_id: u64,
    }

    /// A thread that is moved to another CPU's queue.
    MigrateRow migrate_row Sched [
        /// A thread is moved to another CPU's queue.
        sched_migrate SCHED_MIGRATE = 0x33,
    ] {
        /// The thread.
        tid: u32,
        /// Its process.
        pid: u32,
        /// From this CPU.
        orig_cpu: u32,
        /// To this CPU.
        dest_cpu: u32,
        /// Its kernel priority.
        prio: u32,
        /// Its cgroup.
        cgroup_id: u64,
    }
}
