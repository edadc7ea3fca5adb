//! Threads that went to other namespaces.

use crate::view::View;

/// A thread went to other namespaces: inode numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Move {
    /// From when on, CLOCK_MONOTONIC.
    pub ts_ns: u64,
    /// Thread.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// In the order of [`NAMESPACES`].
    pub inodes: [u32; NAMESPACES.len()],
}

/// Kinds of namespaces, by their fields.
pub const NAMESPACES: [&str; 7] = ["net_ns", "uts_ns", "ipc_ns", "pid_ns", "user_ns", "mnt_ns", "cgroup_ns"];

/// Those of `task_namespaces` rows.
pub(super) fn of_rows(view: View<'_>) -> impl Iterator<Item = Move> {
    let (ts, tid, pid) = (view.ints("ts_ns"), view.ints("tid"), view.ints("pid"));
    let inodes = NAMESPACES.map(|name| view.ints(name));
    (0..view.rows()).map(move |r| Move {
        ts_ns: ts.get(r),
        tid: tid.get32(r),
        pid: pid.get32(r),
        inodes: inodes.map(|of| of.get32(r)),
    })
}
