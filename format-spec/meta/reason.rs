//! Why events were lost: `reason` of [`LOSS`](super::LOSS).

/// A CPU's ring was full.
pub const RING_FULL: u64 = 1;
/// The ring of stack definitions was full; the definition is sent again with the next event.
pub const STACK_RING_FULL: u64 = 2;
/// The ring of tasks and cgroups was full.
pub const TASK_RING_FULL: u64 = 3;
/// The kernel's perf ring of mappings was full.
pub const MAPPINGS_LOST: u64 = 4;
/// The writer could not keep up and the recorder's queue was full.
pub const QUEUE_FULL: u64 = 5;
/// Events whose stack could not be walked or whose definition never came.
pub const STACK_UNDEFINED: u64 = 6;
/// Requests whose issuer could not be kept in the table of requests in flight.
pub const TABLE_FULL: u64 = 7;

/// `recover` left a damaged block out.
pub const DAMAGED: u64 = 8;

/// The kernel left a probe out, as it was already running on that CPU: an interrupt came in its middle.
pub const PROBE_BUSY: u64 = 9;

/// Allocations or threads for which the table that pairs need had no room.
pub const LIVE_FULL: u64 = 10;
/// Calls of an allocator whose return was not seen.
pub const CALL_UNFINISHED: u64 = 11;
/// There was no room for what a source must know of a thread.
pub const THREAD_TABLE_FULL: u64 = 12;
/// The ring of copied user stacks was full; the stack was walked by frame pointers.
pub const COPY_RING_FULL: u64 = 13;
/// `redact` left out what it did not understand.
pub const NOT_UNDERSTOOD: u64 = 14;

/// Whether an event itself is gone, not only what it refers to.
pub fn loses_events(reason: u64) -> bool {
    !matches!(reason, STACK_RING_FULL | MAPPINGS_LOST | STACK_UNDEFINED | TABLE_FULL | COPY_RING_FULL)
}

/// In words, for reports.
pub fn text(reason: u64) -> &'static str {
    match reason {
        RING_FULL => "ring full",
        STACK_RING_FULL => "stack ring full",
        TASK_RING_FULL => "task ring full",
        MAPPINGS_LOST => "mapping ring full",
        QUEUE_FULL => "writer too slow",
        STACK_UNDEFINED => "stack not defined",
        TABLE_FULL => "request table full",
        DAMAGED => "block damaged",
        PROBE_BUSY => "probe was running already",
        LIVE_FULL => "table of live memory full",
        CALL_UNFINISHED => "call without its return",
        THREAD_TABLE_FULL => "thread table full",
        COPY_RING_FULL => "stack copy ring full",
        NOT_UNDERSTOOD => "not understood",
        _ => "unknown reason",
    }
}
