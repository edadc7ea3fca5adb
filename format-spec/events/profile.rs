//! Samples of CPUs: events of source `profile`.

use super::layout::events;

events! {
    /// What a CPU was doing.
    SampleRow sample_row Profile [
        /// What a CPU was doing.
        cpu_sample CPU_SAMPLE = 0x50,
    ] {
        /// Thread.
        tid: u32,
        /// Its process.
        pid: u32,
        /// 1: the CPU was in user code.
        user_mode: u32,
        /// Kernel stack; 0: none.
        kernel_stack_id: u64,
        /// User stack; 0: none.
        user_stack_id: u64,
        /// Cgroup of the thread.
        cgroup_id: u64,
        /// Nanoseconds (cpu-clock) or cycles that the sample stands for.
        period: u64,
    }
}
