//! What runs already: tasks from a BPF iterator, executables and mappings from /proc.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use bpfrec_format::{Column, Registry, Table, events, meta};
use libbpf_rs::{Iter, Link};
use procfs::ProcResult;
use procfs::process::{Process, Task};
use rustc_hash::FxHashSet;

use crate::cgroups::Hierarchy;
use crate::open::strip_deleted;
use crate::seen::Shared;
use crate::{clock, pids};

/// An executable mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Since when, CLOCK_MONOTONIC.
    pub ts_ns: u64,
    /// Process.
    pub pid: u32,
    /// First address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Offset of the first address in the file, bytes.
    pub offset: u64,
    /// Device of the file.
    pub major: u32,
    /// Device of the file.
    pub minor: u32,
    /// Inode of the file.
    pub inode: u64,
    /// Build id; empty when there is none.
    pub build_id: Vec<u8>,
    /// Path in the process's mount namespace.
    pub path: Vec<u8>,
}

impl Mapping {
    /// Adds a row of kind `mapping`.
    pub fn push_to(&self, table: &mut Table) {
        table.push(&[
            self.ts_ns.into(),
            self.pid.into(),
            self.start.into(),
            self.len.into(),
            self.offset.into(),
            self.major.into(),
            self.minor.into(),
            self.inode.into(),
            self.build_id[..].into(),
            self.path[..].into(),
        ]);
    }

    /// Reads back what [`Mapping::push_to`] wrote.
    pub fn of_table(table: &Table) -> Vec<Mapping> {
        let int = |column: usize, row: usize| table.columns[column].ints()[row];
        let text = |column: usize, row: usize| match &table.columns[column] {
            Column::Text(text) => text.get(row).to_vec(),
            _ => Vec::new(),
        };
        let mapping = |row| Mapping {
            ts_ns: int(0, row),
            pid: int(1, row) as u32,
            start: int(2, row),
            len: int(3, row),
            offset: int(4, row),
            major: int(5, row) as u32,
            minor: int(6, row) as u32,
            inode: int(7, row),
            build_id: text(8, row),
            path: text(9, row),
        };
        (0..table.rows()).map(mapping).collect()
    }

    /// Reads a line of /proc/PID/maps. `None` for what is not executable.
    pub fn parse(line: &[u8], pid: u32, ts_ns: u64) -> Option<Mapping> {
        let mut fields = line.splitn(6, |b| *b == b' ');
        let mut text = || std::str::from_utf8(fields.next()?).ok();
        let (start, end) = text()?.split_once('-')?;
        if text()?.as_bytes().get(2) != Some(&b'x') {
            return None;
        }
        let offset = text()?;
        let (major, minor) = text()?.split_once(':')?;
        let inode = text()?;
        let hex = |s: &str| u64::from_str_radix(s, 16).ok();
        let start = hex(start)?;
        let path = fields.next().unwrap_or_default().trim_ascii_start();
        Some(Mapping {
            ts_ns,
            pid,
            start,
            len: hex(end)?.checked_sub(start)?,
            offset: hex(offset)?,
            major: hex(major)? as u32,
            minor: hex(minor)? as u32,
            inode: inode.parse().ok()?,
            build_id: Vec::new(),
            path: strip_deleted(path).to_vec(),
        })
    }
}

/// All tasks, as rows of kind `task`: from the kernel by `iterator`, the link of the BPF program `dump_tasks`, and from
/// /proc those that it leaves out (some guests' own kernels do so for process 1), or all where there is no iterator.
pub fn tasks(iterator: Option<&Link>, registry: &Registry, hierarchy: &Hierarchy) -> Result<Table> {
    let mut rows = Vec::new();
    if let Some(iterator) = iterator {
        let read = Iter::new(iterator).and_then(|mut iter| Ok(iter.read_to_end(&mut rows)?));
        read.context("cannot read the kernel's tasks")?;
    }
    let kind = registry.get(events::SCHED_FORK).context("sched_fork is not registered")?;
    let dumped = Table::from_rows(kind, &rows)?;
    let ints = |name: &str| dumped.column(kind, name).map_or(&[][..], Column::ints);
    let (tid, pid, ppid, uid) = (ints("tid"), ints("pid"), ints("ppid"), ints("uid"));
    let (ns_pid, pid_ns, start, cgroup) = (ints("ns_pid"), ints("pid_ns"), ints("start_ns"), ints("cgroup_id"));
    let (ts, mnt_ns) = (ints("ts_ns"), ints("mnt_ns"));
    let Some(Column::Text(comm)) = dumped.column(kind, "comm") else { unreachable!("comm is text") };
    let mut table = Table::new(&meta::kind(meta::TASK));
    for i in 0..dumped.rows() {
        // One link a process; threads share it.
        let exe = if tid[i] == pid[i] { exe(pid[i] as u32) } else { Vec::new() };
        table.push(&[
            ts[i].into(),
            tid[i].into(),
            pid[i].into(),
            ppid[i].into(),
            uid[i].into(),
            ns_pid[i].into(),
            pid_ns[i].into(),
            start[i].into(),
            cgroup[i].into(),
            comm.get(i).into(),
            exe[..].into(),
            mnt_ns[i].into(),
        ]);
    }
    // Of another pid namespace /proc has other numbers, and no such guest has been seen.
    if !pids::are_hosts() {
        return Ok(table);
    }
    let known: FxHashSet<u64> = tid.iter().copied().collect();
    for process in procfs::process::all_processes().into_iter().flatten().flatten() {
        for task in process.tasks().into_iter().flatten().flatten() {
            if !known.contains(&(task.tid as u64)) {
                // A task that has ended meanwhile needs no row.
                let _ = push_from_proc(&mut table, &process, &task, hierarchy);
            }
        }
    }
    Ok(table)
}

/// Path of a process's program.
fn exe(pid: u32) -> Vec<u8> {
    let link = fs::read_link(pids::proc(pid) + "/exe").unwrap_or_default().into_os_string().into_vec();
    strip_deleted(&link).to_vec()
}

/// What /proc knows of a task. Start times there are in ticks of the boot clock.
fn push_from_proc(table: &mut Table, process: &Process, task: &Task, hierarchy: &Hierarchy) -> ProcResult<()> {
    let (status, stat) = (task.status()?, task.stat()?);
    let boot_ns = stat.starttime * (1_000_000_000 / procfs::ticks_per_second());
    let here = process.cgroups()?.0.into_iter().find(|c| c.hierarchy == hierarchy.number);
    let path = here.map(|c| c.pathname).unwrap_or_default();
    let group = hierarchy.mount.as_ref().and_then(|m| fs::metadata(m.join(path.trim_start_matches('/'))).ok());
    let namespaces = process.namespaces()?.0;
    let namespace = |name: &str| namespaces.get(std::ffi::OsStr::new(name)).map_or(0, |ns| ns.identifier);
    let exe = if task.tid == process.pid { exe(process.pid as u32) } else { Vec::new() };
    table.push(&[
        clock::mono_ns().into(),
        (task.tid as u64).into(),
        (process.pid as u64).into(),
        (status.ppid as u64).into(),
        status.ruid.into(),
        status.nspid.and_then(|pids| pids.last().copied()).map_or(0, |pid| pid as u64).into(),
        namespace("pid").into(),
        clock::boot_to_mono(boot_ns).into(),
        group.map_or(0, |g| g.ino()).into(),
        stat.comm.as_str().into(),
        exe[..].into(),
        namespace("mnt").into(),
    ]);
    Ok(())
}

/// Executable mappings of all processes, as rows of kind `mapping`; their binaries are seen with them. Processes that
/// end meanwhile are left out.
pub fn mappings(seen: &Shared) -> Table {
    let mut table = Table::new(&meta::kind(meta::MAPPING));
    let ts_ns = clock::mono_ns();
    for pid in pids::all() {
        let folder = pids::proc(pid);
        let maps = fs::read(format!("{folder}/maps")).unwrap_or_default();
        let mount_ns = fs::metadata(format!("{folder}/ns/mnt")).map_or(0, |ns| ns.ino());
        seen.lock().images.enter(pid, mount_ns);
        for mut mapping in maps.split(|b| *b == b'\n').filter_map(|line| Mapping::parse(line, pid, ts_ns)) {
            seen.lock().map(&mut mapping, false);
            mapping.push_to(&mut table);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps() {
        let line = b"7f00-7f80 r-xp 00001000 fe:01 1234                       /usr/lib/a b.so (deleted)";
        let mapping = Mapping::parse(line, 7, 9).unwrap();
        assert_eq!((mapping.start, mapping.len, mapping.offset), (0x7f00, 0x80, 0x1000));
        assert_eq!((mapping.major, mapping.minor, mapping.inode), (0xfe, 1, 1234));
        assert_eq!(mapping.path, b"/usr/lib/a b.so");
        let mut table = Table::new(&meta::kind(meta::MAPPING));
        mapping.push_to(&mut table);
        assert_eq!(Mapping::of_table(&table), [mapping]);
        assert_eq!(Mapping::parse(b"7f00-7f80 rw-p 0 fe:01 1 /a", 7, 9), None);
        assert_eq!(Mapping::parse(b"7f00-7f80 r-xp 00000000 00:00 0 ", 7, 9).unwrap().path, b"");
        assert_eq!(Mapping::parse(b"nonsense", 7, 9), None);
    }

    #[test]
    fn own_mappings_have_build_ids() {
        let table = mappings(&Shared::new());
        let kind = meta::kind(meta::MAPPING);
        let (Some(Column::Text(ids)), Some(pids)) = (table.column(&kind, "build_id"), table.column(&kind, "pid"))
        else {
            panic!("columns of mapping");
        };
        let own = u64::from(std::process::id());
        let own_ids = (0..table.rows()).filter(|i| pids.ints()[*i] == own).map(|i| ids.get(i));
        assert!(own_ids.filter(|id| id.len() == 20).count() >= 2, "this binary and libc");
    }
}
