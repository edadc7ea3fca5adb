//! Kinds that are not events: facts about the recording, definitions of ids, totals, the index.

mod columns;
pub mod reason;
pub mod shed;
pub mod symbol_source;

pub use columns::{kind, kinds};

/// Keys and values about the recording.
pub const HEADER_ITEM: u16 = 1;
/// Fields of all kinds.
pub const SCHEMA_FIELD: u16 = 2;
/// What a stack id stands for.
pub const STACK: u16 = 3;
/// A task that was there when the segment began.
pub const TASK: u16 = 4;
/// A cgroup that was there when the segment began.
pub const CGROUP: u16 = 5;
/// An executable mapping.
pub const MAPPING: u16 = 6;
/// A function of the kernel, a module or a BPF program.
pub const KERNEL_SYMBOL: u16 = 7;
/// One moment on three clocks.
pub const CLOCK: u16 = 8;
/// Events lost in a span of time.
pub const LOSS: u16 = 9;
/// Totals of a source so far.
pub const SOURCE_STATS: u16 = 10;
/// Totals of the recorder so far.
pub const RECORDER_STATS: u16 = 11;
/// A block's header.
pub const INDEX_ENTRY: u16 = 12;
/// End of the segment.
pub const END: u16 = 13;
/// A binary that is mapped.
pub const BINARY: u16 = 14;
/// What is loaded of a binary, and where to.
pub const BINARY_SEGMENT: u16 = 15;
/// A function of a binary.
pub const BINARY_SYMBOL: u16 = 16;
/// A function that a runtime compiled while it ran.
pub const JIT_SYMBOL: u16 = 17;
/// A function of the kernel, a module or a BPF program that came or went.
pub const KERNEL_SYMBOL_CHANGE: u16 = 18;
/// Stacks that a source took so far.
pub const STACK_STATS: u16 = 19;
/// A task went to other namespaces.
pub const TASK_NAMESPACES: u16 = 20;
/// A module of the kernel.
pub const KERNEL_MODULE: u16 = 21;
/// The recorder gave something up to stay within its budget, or took it up again.
pub const SHED: u16 = 22;

/// Where the addresses of a stack lie: `space` of [`STACK`].
pub mod space {
    /// Kernel.
    pub const KERNEL: u64 = 0;
    /// User.
    pub const USER: u64 = 1;
}
