//! Tasks and cgroups: events of source `task`.

use super::layout::events;

events! {
    /// A task, at the moment of the event.
    TaskRow task_row Task [
        /// A thread was forked.
        sched_fork SCHED_FORK = 0x20,
        /// A thread ended.
        sched_exit SCHED_EXIT = 0x22,
        /// A thread has a new name.
        task_rename TASK_RENAME = 0x23,
    ] {
        /// The thread (the new one of a fork).
        tid: u32,
        /// Its process.
        pid: u32,
        /// Parent process.
        ppid: u32,
        /// Thread that forked; 0 but for forks.
        parent_tid: u32,
        /// Real user id.
        uid: u32,
        /// The process's pid in its own pid namespace.
        ns_pid: u32,
        /// Inode number of that namespace.
        pid_ns: u32,
        /// CPU of the event.
        cpu: u32,
        /// Wait status; 0 but for exits.
        exit_code: u32,
        /// Start of the thread, CLOCK_MONOTONIC.
        start_ns: u64,
        /// Cgroup (v2) of the thread.
        cgroup_id: u64,
        /// Name of the thread.
        comm: [u8; 16],
        /// Inode number of the mount namespace; 0 when it has none any more.
        mnt_ns: u32,
        /// 0.
        _pad: u32,
    }

    /// A process that runs another program now. The fields of [`TaskRow`], with `exe` before those that came later.
    ExecRow exec_row Task [
        /// A process runs another program now.
        sched_exec SCHED_EXEC = 0x21,
    ] {
        /// As in [`TaskRow`].
        tid: u32,
        /// As in [`TaskRow`].
        pid: u32,
        /// As in [`TaskRow`].
        ppid: u32,
        /// The thread's tid before the exec.
        parent_tid: u32,
        /// As in [`TaskRow`].
        uid: u32,
        /// As in [`TaskRow`].
        ns_pid: u32,
        /// As in [`TaskRow`].
        pid_ns: u32,
        /// As in [`TaskRow`].
        cpu: u32,
        /// 0.
        exit_code: u32,
        /// As in [`TaskRow`].
        start_ns: u64,
        /// As in [`TaskRow`].
        cgroup_id: u64,
        /// The new name.
        comm: [u8; 16],
        /// Path of the program as given to exec (of the interpreter for a script), cut at 255 bytes.
        exe: [u8; 256],
        /// As in [`TaskRow`].
        mnt_ns: u32,
        /// 0.
        _pad: u32,
    }

    /// A cgroup (v2).
    CgroupRow cgroup_row Task [
        /// A cgroup was made.
        cgroup_mkdir CGROUP_MKDIR = 0x28,
        /// A cgroup has a new path.
        cgroup_rename CGROUP_RENAME = 0x29,
        /// A cgroup was removed.
        cgroup_rmdir CGROUP_RMDIR = 0x2a,
    ] {
        /// Depth; the root has 0.
        level: u32,
        /// The cgroup.
        cgroup_id: u64,
        /// The one above.
        parent_id: u64,
        /// Path from the hierarchy's root, cut at 511 bytes.
        path: [u8; 512],
    }
}
