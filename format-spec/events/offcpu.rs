//! Waits of threads: events of source `offcpu`.

use super::layout::events;

events! {
    /// A wait of a thread, written when it is over: `ts_ns` is when the thread has a CPU again.
    OffcpuRow offcpu_row Offcpu [
        /// A thread was off the CPU.
        offcpu_wait OFFCPU_WAIT = 0x80,
        /// A thread is still off the CPU at the end of the recording; `wait_ns` is how long so far.
        offcpu_open OFFCPU_OPEN = 0x81,
        /// `count` waits of a thread, each too short to be told apart; `wait_ns` is their sum.
        offcpu_short OFFCPU_SHORT = 0x82,
    ] {
        /// Thread that waited.
        tid: u32,
        /// Its process.
        pid: u32,
        /// Kernel task state when it left; 0: preempted.
        prev_state: u32,
        /// Bits of [`offcpu_flag`].
        flags: u32,
        /// Waits in this row; 1 but for `offcpu_short`.
        count: u32,
        /// Thread that was running where it was woken: the waker, or whom an interrupt hit (a flag tells); 0: not seen.
        waker_tid: u32,
        /// Its process.
        waker_pid: u32,
        /// Time off the CPU.
        wait_ns: u64,
        /// Of that, time from the wakeup (or preemption) on: waiting for a CPU only.
        queued_ns: u64,
        /// Kernel stack of the wait; 0: none.
        kernel_stack_id: u64,
        /// User stack of the wait; 0: none.
        user_stack_id: u64,
        /// Kernel stack of the waker; 0: none.
        waker_kernel_stack_id: u64,
        /// User stack of the waker; 0: none.
        waker_user_stack_id: u64,
        /// Cgroup of the thread that waited.
        cgroup_id: u64,
    }
}

/// Bits of `flags` of the kinds of source `offcpu`.
pub mod offcpu_flag {
    /// The kernel stack was remembered from an earlier wait of the thread, not walked.
    pub const KERNEL_REMEMBERED: u32 = 1;
    /// The user stack was remembered from an earlier wait of the thread, not walked.
    pub const USER_REMEMBERED: u32 = 2;
    /// The wait began before the recording; `wait_ns` counts from the recording's start.
    pub const BEGAN_BEFORE: u32 = 4;
    /// The waker's stacks were remembered.
    pub const WAKER_REMEMBERED: u32 = 8;
    /// The thread was not seen to come back: the end of the wait follows from its CPU time. It has no kernel stack.
    pub const END_UNSEEN: u32 = 16;
    /// It was woken by an interrupt; the waker is the thread that the interrupt hit. Never set where the kernel does not
    /// tell: header item `offcpu_interrupts`.
    pub const WAKER_INTERRUPT: u32 = 32;
}
