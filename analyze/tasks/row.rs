//! What rows say about tasks, and how a life of one is made of it.

use super::{SAME_START_NS, Task};
use crate::view::View;

/// What a row says about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    /// It was there already.
    Here,
    /// It begins.
    Forked,
    /// It runs another program now.
    Executed,
    /// It has another name.
    Renamed,
    /// It went to other namespaces.
    Moved,
    /// It ends.
    Exited,
}

impl Said {
    /// By rows of this kind.
    pub(super) fn by(kind: &str) -> Option<Said> {
        Some(match kind {
            "task" => Said::Here,
            "sched_fork" => Said::Forked,
            "sched_exec" => Said::Executed,
            "task_rename" => Said::Renamed,
            "sched_exit" => Said::Exited,
            "task_namespaces" => Said::Moved,
            _ => return None,
        })
    }
}

/// What one row tells.
pub(super) struct Row {
    /// When.
    pub(super) ts_ns: u64,
    /// What.
    pub(super) said: Said,
    /// The task as this row has it, without an end and names.
    pub(super) task: Task,
    /// Name of the thread.
    pub(super) comm: String,
    /// Thread that forked.
    pub(super) parent_tid: u32,
    /// Mount namespace, an inode number; 0: not told.
    pub(super) mount_ns: u32,
}

/// The rows of a table.
pub(super) fn of_view(said: Said, view: View<'_>) -> impl Iterator<Item = Row> {
    let int = |name| view.ints(name);
    let (ts, tid, pid, ppid, parent_tid) = (int("ts_ns"), int("tid"), int("pid"), int("ppid"), int("parent_tid"));
    let (uid, ns_pid, pid_ns, mnt_ns) = (int("uid"), int("ns_pid"), int("pid_ns"), int("mnt_ns"));
    let (start, cgroup, comm, exe) = (int("start_ns"), int("cgroup_id"), view.texts("comm"), view.texts("exe"));
    (0..view.rows()).map(move |r| Row {
        ts_ns: ts.get(r),
        said,
        comm: comm.string(r),
        parent_tid: parent_tid.get32(r),
        mount_ns: mnt_ns.get32(r),
        task: Task {
            tid: tid.get32(r),
            pid: pid.get32(r),
            ppid: ppid.get32(r),
            uid: uid.get32(r),
            ns_pid: ns_pid.get32(r),
            pid_ns: pid_ns.get32(r),
            start_ns: start.get(r),
            end_ns: None,
            cgroup_id: cgroup.get(r),
            exe: exe.string(r),
            mount_ns: Vec::new(),
            names: Vec::new(),
        },
    })
}

/// Whether a row is about this life of its tid.
pub(super) fn continues(life: &Task, row: &Row) -> bool {
    let start = row.task.start_ns;
    if start != 0 && start == life.start_ns {
        return true;
    }
    if row.said == Said::Forked || life.end_ns.is_some() {
        return false;
    }
    start == 0 || start.abs_diff(life.start_ns) < SAME_START_NS
}

/// The life goes on with what the row says.
pub(super) fn take_over(life: &mut Task, row: Row) {
    if row.task.cgroup_id != 0 {
        life.cgroup_id = row.task.cgroup_id;
    }
    if !row.task.exe.is_empty() {
        life.exe = row.task.exe;
    }
    if row.said == Said::Executed {
        (life.pid, life.uid) = (row.task.pid, row.task.uid);
    }
    if row.said == Said::Exited {
        life.end_ns = Some(row.ts_ns);
    }
    if row.mount_ns != 0 && row.said != Said::Exited && life.mount_ns.last().is_none_or(|(_, ns)| *ns != row.mount_ns) {
        let from = if life.mount_ns.is_empty() { life.start_ns } else { row.ts_ns };
        life.mount_ns.push((from, row.mount_ns));
    }
    if !row.comm.is_empty() && life.names.last().is_none_or(|(_, name)| *name != row.comm) {
        // What is said first holds from the start: the trace may begin later.
        let from = if life.names.is_empty() { life.start_ns } else { row.ts_ns };
        life.names.push((from, row.comm));
    }
}
