//! Cgroups that are there, of one hierarchy: their ids and paths.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bpfrec_format::{Column, Kind, Table, container, events, meta};

use crate::layout::Config;

/// The hierarchy whose cgroups a recording tells of: version 2, where it is mounted. Where it is not, that of version 1 which has the
/// memory controller, for nearly every service and container has a group there, else the one that only has systemd's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its number, as in /proc/PID/cgroup; 0: version 2.
    pub number: u32,
    /// Whether it has the memory controller, and no version 2.
    pub memory: bool,
    /// What the file's header says: `v2`, `v2 beside v1`, `v1 memory`, `v1 systemd` or `none`.
    pub name: &'static str,
    /// Where it is mounted.
    pub mount: Option<PathBuf>,
}

impl Hierarchy {
    /// That of this host.
    pub fn find() -> Hierarchy {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Hierarchy::of(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    /// By what is mounted, and the hierarchies that a process is in.
    fn of(mounts: &str, own: &str) -> Hierarchy {
        // 25 24 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw: fields before " - " vary in number.
        let of_type = |kind: &str| {
            let kind = format!("{kind} ");
            mounts.lines().filter_map(|line| line.split_once(" - ")).filter(move |(_, rest)| rest.starts_with(&kind))
        };
        let place = |(before, _): (&str, &str)| before.split(' ').nth(4).map(PathBuf::from);
        if let Some(mount) = of_type("cgroup2").next().and_then(place) {
            let name = if of_type("cgroup").next().is_some() { "v2 beside v1" } else { "v2" };
            return Hierarchy { name, mount: Some(mount), ..Hierarchy::default() };
        }
        for (option, name) in [("memory", "v1 memory"), ("name=systemd", "v1 systemd")] {
            let has = |list: &str| list.split(',').any(|o| o == option);
            // ... - cgroup cgroup rw,memory
            let mount = of_type("cgroup").find(|(_, rest)| rest.split(' ').nth(2).is_some_and(has)).and_then(place);
            // 4:memory:/user.slice
            let number = own.lines().find_map(|line| {
                let (number, rest) = line.split_once(':')?;
                has(rest.split_once(':')?.0).then(|| number.parse().ok())?
            });
            if let (Some(mount), Some(number)) = (mount, number) {
                return Hierarchy { number, memory: option == "memory", name, mount: Some(mount) };
            }
        }
        Hierarchy { name: "none", ..Hierarchy::default() }
    }

    /// Tells the programs.
    pub fn configure(&self, config: &mut Config) {
        config.cgroup_hierarchy = self.number;
        config.cgroup_memory = self.memory.into();
    }

    /// In words, for --list-sources; an error where there is none.
    pub fn said(&self) -> Result<String, String> {
        let Some(mount) = &self.mount else { return Err("none are mounted".into()) };
        Ok(format!("{}, {}", self.name, mount.display()))
    }

    /// What to print when it is not version 2.
    pub fn warning(&self) -> Option<String> {
        match &self.mount {
            None => Some("no cgroup hierarchy is mounted, so cgroups will have ids but no paths".into()),
            Some(mount) if self.number != 0 => Some(format!(
                "cgroups of version 2 are not mounted, so ids and paths are those of version 1, {} ({})",
                self.name.trim_start_matches("v1 "),
                mount.display()
            )),
            Some(_) => None,
        }
    }
}

/// The path of a process in a hierarchy: `cgroup` is the text of /proc/PID/cgroup, with lines such as `0::/user.slice`.
pub fn path_in(cgroup: &str, hierarchy: u32) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (_, path) = rest.split_once(':')?;
        (number.parse() == Ok(hierarchy)).then_some(path)
    })
}

/// All cgroups as rows of kind `cgroup`. A cgroup's id is the inode number of its directory.
pub fn snapshot(mount: Option<&Path>) -> Table {
    let mut table = Table::new(&meta::kind(meta::CGROUP));
    let ts_ns = crate::clock::mono_ns();
    let mut left: Vec<(PathBuf, u64)> = mount.map(|m| (m.to_owned(), 0)).into_iter().collect();
    while let (Some(mount), Some((dir, parent))) = (mount, left.pop()) {
        let Ok(meta) = fs::symlink_metadata(&dir) else { continue };
        let below = dir.strip_prefix(mount).unwrap_or(&dir).as_os_str().as_bytes();
        let path = [b"/", below].concat();
        push(&mut table, ts_ns, meta.ino(), parent, &path);
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                left.push((entry.path(), meta.ino()));
            }
        }
    }
    table
}

/// Adds a row of kind `cgroup` with what the path says.
fn push(table: &mut Table, ts_ns: u64, id: u64, parent: u64, path: &[u8]) {
    let names = container::names(&String::from_utf8_lossy(path));
    let text = |t: Option<String>| t.unwrap_or_default();
    let [runtime, container] = [names.runtime, names.container_id].map(text);
    let [pod, unit] = [names.pod_uid, names.unit].map(text);
    let texts = [runtime.as_bytes(), container.as_bytes(), pod.as_bytes(), unit.as_bytes()];
    let [runtime, container, pod, unit] = texts.map(Into::into);
    table.push(&[ts_ns.into(), id.into(), parent.into(), path.into(), runtime, container, pod, unit]);
}

/// What stands in the file of cgroups that were made or renamed: `None` unless `changes` are about such.
pub fn described(kind: &Kind, changes: &Table) -> Option<Table> {
    let int = |name: &str| changes.column(kind, name).map_or(&[][..], Column::ints);
    let (ts, id, parent) = (int("ts_ns"), int("cgroup_id"), int("parent_id"));
    let Some(Column::Text(path)) = changes.column(kind, "path") else { return None };
    let mut table = Table::new(&meta::kind(meta::CGROUP));
    if matches!(kind.id, events::CGROUP_MKDIR | events::CGROUP_RENAME) {
        (0..changes.rows()).for_each(|row| push(&mut table, ts[row], id[row], parent[row], path.get(row)));
    }
    (table.rows() > 0).then_some(table)
}

/// A cgroup that the user means and all below it.
pub struct Family {
    /// Path from the hierarchy's root.
    pub path: String,
    /// Ids.
    pub ids: Vec<u64>,
}

/// The cgroup that the user means by `path`: from the hierarchy's root, or below its mount point.
pub fn family(path: &Path, mount: Option<&Path>) -> Result<Family> {
    let Some(mount) = mount else { bail!("--cgroup needs a cgroup hierarchy, and none is mounted here") };
    let below = path.strip_prefix(mount).or_else(|_| path.strip_prefix("/")).unwrap_or(path);
    let root = mount.join(below);
    if !root.is_dir() {
        bail!("there is no cgroup {} under {}", path.display(), mount.display());
    }
    let mut ids = Vec::new();
    let mut left = vec![root];
    while let Some(dir) = left.pop() {
        ids.push(fs::metadata(&dir).with_context(|| dir.display().to_string())?.ino());
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                left.push(entry.path());
            }
        }
    }
    Ok(Family { path: format!("/{}", below.display()), ids })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfrec_format::Registry;

    #[test]
    fn the_hierarchy_that_is_told_of() {
        let mount = |at: &str, rest: &str| format!("25 24 0:22 / {at} rw,nosuid shared:9 - {rest}\n");
        let two = mount("/sys/fs/cgroup/unified", "cgroup2 none rw");
        let cpu = mount("/sys/fs/cgroup/cpu", "cgroup cpu rw,cpu,cpuacct");
        let memory = mount("/sys/fs/cgroup/memory", "cgroup memory rw,memory");
        let systemd = mount("/sys/fs/cgroup/systemd", "cgroup none rw,xattr,name=systemd");
        let own = "12:memory:/a\n3:cpu,cpuacct:/\n1:name=systemd:/b:c\n0::/d\n";
        let of = |mounts: &[&String]| {
            let h = Hierarchy::of(&mounts.iter().map(|m| m.as_str()).collect::<String>(), own);
            (h.name, h.number, h.memory, h.mount.map(|m| m.display().to_string()).unwrap_or_default())
        };
        assert_eq!(of(&[&two]), ("v2", 0, false, "/sys/fs/cgroup/unified".into()));
        assert_eq!(of(&[&cpu, &memory, &two]), ("v2 beside v1", 0, false, "/sys/fs/cgroup/unified".into()));
        assert_eq!(of(&[&systemd, &cpu, &memory]), ("v1 memory", 12, true, "/sys/fs/cgroup/memory".into()));
        assert_eq!(of(&[&systemd, &cpu]), ("v1 systemd", 1, false, "/sys/fs/cgroup/systemd".into()));
        assert_eq!(of(&[&cpu]), ("none", 0, false, String::new()));
        assert_eq!((path_in(own, 0), path_in(own, 12), path_in(own, 1)), (Some("/d"), Some("/a"), Some("/b:c")));
        assert_eq!(path_in(own, 7), None);
    }

    #[test]
    fn a_new_cgroup_is_described_as_one_of_the_snapshot() {
        let registry = Registry::default();
        let id = "4f8a".repeat(16);
        let path = format!("/system.slice/docker-{id}.scope");
        let rows = |name: &str| {
            let kind = registry.by_name(name).unwrap();
            let mut table = Table::new(kind);
            let row: Vec<_> = kind
                .fields
                .iter()
                .map(|f| match f.name.as_str() {
                    "path" => path.as_bytes().into(),
                    "cgroup_id" => 7u64.into(),
                    _ => 1u64.into(),
                })
                .collect();
            table.push(&row);
            described(kind, &table)
        };
        let table = rows("cgroup_mkdir").unwrap();
        let text = |i: usize| match &table.columns[i] {
            Column::Text(text) => String::from_utf8_lossy(text.get(0)).into_owned(),
            _ => panic!("column {i} is no text"),
        };
        assert_eq!((table.kind, table.columns[1].ints()), (meta::CGROUP, &[7][..]));
        assert_eq!([3, 4, 5].map(text), [path.clone(), "docker".into(), id.clone()]);
        assert!(rows("cgroup_rename").is_some() && rows("cgroup_rmdir").is_none());
    }
}
