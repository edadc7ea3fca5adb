//! One life of a tid.

/// One life of a tid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Thread.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// Parent process when it was first seen.
    pub ppid: u32,
    /// Real user id.
    pub uid: u32,
    /// The process's pid in its own pid namespace.
    pub ns_pid: u32,
    /// Inode number of that namespace.
    pub pid_ns: u32,
    /// Start, CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// Exit; `None` while it lives.
    pub end_ns: Option<u64>,
    /// Cgroup when it was last told.
    pub cgroup_id: u64,
    /// Path of its last exec.
    pub exe: String,
    /// Inode numbers of its mount namespaces by the time from which it was in them.
    pub mount_ns: Vec<(u64, u32)>,
    /// Names by the time from which they hold.
    pub names: Vec<(u64, String)>,
}

impl Task {
    /// Name of the thread at `ts_ns`.
    pub fn comm(&self, ts_ns: u64) -> &str {
        let after = self.names.partition_point(|(from, _)| *from <= ts_ns);
        self.names.get(after.saturating_sub(1)).map_or("", |(_, name)| name)
    }

    /// Mount namespace, an inode number, at `ts_ns`: what a path means is known only with it. 0: not known.
    pub fn mount_ns(&self, ts_ns: u64) -> u32 {
        let after = self.mount_ns.partition_point(|(from, _)| *from <= ts_ns);
        self.mount_ns.get(after.saturating_sub(1)).map_or(0, |(_, ns)| *ns)
    }

    /// Whether it is the kernel's: `kthreadd`, which is process 2, or a child of it.
    pub fn is_kernel(&self) -> bool {
        self.pid == 2 || self.ppid == 2
    }

    /// Last name of the thread.
    pub fn last_comm(&self) -> &str {
        self.names.last().map_or("", |(_, name)| name)
    }
}
