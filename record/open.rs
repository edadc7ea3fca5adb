//! Opens the very file that a process maps: never one that only happens to have the same name.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::pids;
use crate::processes::Mapping;

/// How a file was found.
pub struct Found {
    /// Open for reading.
    pub file: File,
    /// Whether device and inode are those of the mapping, or the kernel led us to it by the mapping itself. Else the
    /// build id must agree.
    pub sure: bool,
}

/// The files that `m` may map, best first: those of its process, then in the roots of `others`, which live in the same mount
/// namespace.
pub fn candidates(m: &Mapping, others: impl Iterator<Item = u32>) -> impl Iterator<Item = Found> {
    of_process(m).chain(of_others(m, others))
}

/// By the mapping itself, by its path in the root of its process, and the program that this runs.
pub fn of_process(m: &Mapping) -> impl Iterator<Item = Found> {
    let in_root = std::iter::once_with(|| in_root(m.pid, m)).flatten();
    let others = in_root.chain(std::iter::once_with(|| by_program(m)).flatten());
    by_mapping(m).into_iter().chain(others).filter_map(opened)
}

/// By its path in the roots of others.
pub fn of_others(m: &Mapping, others: impl Iterator<Item = u32>) -> impl Iterator<Item = Found> {
    let found = others.filter_map(|pid| in_root(pid, m));
    // Without a build id nothing else could tell that it is the same file: then it need not be opened.
    found.filter(|(_, sure)| *sure || !m.build_id.is_empty()).filter_map(opened)
}

fn opened((path, sure): (OwnedFd, bool)) -> Option<Found> {
    regular(path).map(|file| Found { file, sure })
}

/// The program that the process runs: it can be had where its folder must not be entered, and when it is deleted.
fn by_program(m: &Mapping) -> Option<(OwnedFd, bool)> {
    let link = format!("/proc/{}/exe", m.pid);
    let path = openat(CWD, &*link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let sure = is_it(&path, m);
    Some((path, sure))
}

/// Whether `m` cannot be opened for want of rights: its folder or the file is closed to us, or it is deleted and only
/// CAP_CHECKPOINT_RESTORE would lead to it.
pub fn is_refused(m: &Mapping) -> bool {
    let is_refusal = |error| matches!(error, Errno::ACCESS | Errno::PERM);
    let link = format!("/proc/{}/map_files/{:x}-{:x}", m.pid, m.start, m.start + m.len);
    openat(CWD, &*link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).is_err_and(is_refusal)
}

fn by_mapping(m: &Mapping) -> Option<(OwnedFd, bool)> {
    let link = format!("{}/map_files/{:x}-{:x}", pids::proc(m.pid), m.start, m.start + m.len);
    let path = openat(CWD, &*link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    // Another program may lie there by now: the process has run an exec since. On overlay file systems the device of a
    // mapping is another than the file's, so there the name has to do.
    let name = || std::fs::read_link(&link).is_ok_and(|l| strip_deleted(l.as_os_str().as_bytes()) == m.path);
    let sure = is_it(&path, m) || (m.inode != 0 && name());
    Some((path, sure))
}

fn in_root(pid: u32, m: &Mapping) -> Option<(OwnedFd, bool)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = openat(CWD, pids::proc(pid) + "/root", flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
    // Links in there must not lead out of that root into this one.
    let path = Path::new(OsStr::from_bytes(&m.path));
    let path = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    let sure = is_it(&path, m);
    Some((path, sure))
}

/// Opens what an O_PATH descriptor stands for, if that is an ordinary file: opening a pipe or a device may block, or do
/// something.
fn regular(path: OwnedFd) -> Option<File> {
    let stat = rustix::fs::fstat(path.as_fd()).ok()?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    let again = format!("/proc/self/fd/{}", path.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOATIME;
    let open = |flags| openat(CWD, &*again, flags, Mode::empty());
    open(flags).or_else(|_| open(flags - OFlags::NOATIME)).ok().map(File::from)
}

fn is_it(path: &OwnedFd, m: &Mapping) -> bool {
    let Ok(stat) = rustix::fs::fstat(path) else { return false };
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    m.inode != 0 && (stat.st_ino, major, minor) == (m.inode, m.major, m.minor)
}

/// A path without the mark that the kernel puts behind a deleted one.
pub fn strip_deleted(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}
