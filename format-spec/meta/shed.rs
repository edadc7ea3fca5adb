//! What a recorder gives up to stay within its budget: `step` and `cause` of [`SHED`](super::SHED).

/// User stacks.
pub const USER_STACKS: u64 = 1;
/// Kernel stacks.
pub const KERNEL_STACKS: u64 = 2;
/// Most samples of the profile, most allocations.
pub const SAMPLING: u64 = 3;
/// A source.
pub const SOURCE: u64 = 4;

/// A step in words.
pub fn step(step: u64) -> &'static str {
    match step {
        USER_STACKS => "user stacks",
        KERNEL_STACKS => "kernel stacks",
        SAMPLING => "sampling rate",
        SOURCE => "source",
        _ => "unknown step",
    }
}

/// CPU time of the recorder and its programs.
pub const CPU: u64 = 1;
/// Its memory.
pub const RSS: u64 = 2;
/// The file nears its largest size.
pub const SIZE: u64 = 3;
/// The file system fills.
pub const FREE: u64 = 4;

/// A cause in words.
pub fn cause(cause: u64) -> &'static str {
    match cause {
        CPU => "cpu",
        RSS => "rss",
        SIZE => "size",
        FREE => "free",
        _ => "unknown cause",
    }
}
