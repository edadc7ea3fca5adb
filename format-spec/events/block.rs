//! Requests of block devices: events of source `block`.

use super::layout::events;

events! {
    /// A block request.
    BlockRow block_row Block [
        /// A request was queued in the I/O scheduler.
        block_insert BLOCK_INSERT = 0x40,
        /// A request was given to the device.
        block_issue BLOCK_ISSUE = 0x41,
        /// A request, or part of it, is done. `bytes` is what is done now.
        block_complete BLOCK_COMPLETE = 0x42,
        /// Two requests became one; this one is gone.
        block_merge BLOCK_MERGE = 0x43,
        /// The device gave a request back; it will be issued again.
        block_requeue BLOCK_REQUEUE = 0x44,
        /// A request, or part of it, failed.
        block_error BLOCK_ERROR = 0x45,
    ] {
        /// Thread that issues the request: the one that was running when it was first seen.
        tid: u32,
        /// Its process.
        pid: u32,
        /// Device, kernel dev_t: major << 20 | minor.
        dev: u32,
        /// Size.
        bytes: u32,
        /// `cmd_flags`: operation in the low 8 bits, flags above.
        cmd_flags: u32,
        /// The kernel's block status or negative errno; 0 but for completions and errors.
        error: i32,
        /// Padding.
        _pad: u32,
        /// Cgroup of the issuer.
        cgroup_id: u64,
        /// Address of the request: the same from insert to completion.
        rq: u64,
        /// First sector, 512 bytes each.
        sector: u64,
    }
}
