//! Cgroups (v2) that are there: their ids and paths.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bpfrec_format::{Table, meta};

/// Where the cgroup v2 hierarchy is mounted; `None` when it is not.
pub fn mount_point() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    // 25 24 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw: fields before " - " vary in number.
    let line = mounts.lines().find(|l| l.split(" - ").nth(1).is_some_and(|r| r.starts_with("cgroup2 ")))?;
    line.split(' ').nth(4).map(PathBuf::from)
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
        table.push(&[ts_ns.into(), meta.ino().into(), parent.into(), path[..].into()]);
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                left.push((entry.path(), meta.ino()));
            }
        }
    }
    table
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
