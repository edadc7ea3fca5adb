//! Cgroups (v2) that are there: their ids and paths.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bpfrec_format::{Column, Kind, Table, container, events, meta};

/// Where the cgroup v2 hierarchy is mounted; `None` when it is not.
pub fn mount_point() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    // 25 24 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw: fields before " - " vary in number.
    let line = mounts.lines().find(|l| l.split(" - ").nth(1).is_some_and(|r| r.starts_with("cgroup2 ")))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// How cgroups are mounted here, in words; an error where there are none of version 2.
pub fn hierarchy() -> Result<String, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let has = |kind: &str| mounts.lines().any(|l| l.split(" - ").nth(1).is_some_and(|rest| rest.starts_with(kind)));
    match (has("cgroup2 "), has("cgroup ")) {
        (true, false) => Ok("version 2".into()),
        (true, true) => Ok("version 2 beside version 1".into()),
        (false, true) => Err("only version 1 is mounted".into()),
        (false, false) => Err("none are mounted".into()),
    }
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
    let Some(mount) = mount else { bail!("--cgroup needs the cgroup v2 hierarchy, which is not mounted here") };
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
