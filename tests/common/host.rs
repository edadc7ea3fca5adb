//! What a recorder has of the host, and whether it is given back.

use std::fs;
use std::time::Duration;

use libbpf_rs::libbpf_sys;

use super::wait_until;

/// Programs, maps and links that a process holds, by kind and id.
pub fn held_by(pid: u32) -> Vec<(&'static str, u32)> {
    let mut held = Vec::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten() {
        let text = fs::read_to_string(fd.path()).unwrap_or_default();
        for kind in ["prog_id", "map_id", "link_id"] {
            let id = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':')?.trim().parse().ok());
            held.extend(id.map(|id| (kind, id)));
        }
    }
    held.sort_unstable();
    held.dedup();
    held
}

/// Whether the kernel still has it.
fn is_there((kind, id): (&str, u32)) -> bool {
    // SAFETY: calls that take a number and return a descriptor or an error; the descriptor is closed at once.
    unsafe {
        let fd = match kind {
            "prog_id" => libbpf_sys::bpf_prog_get_fd_by_id(id),
            "map_id" => libbpf_sys::bpf_map_get_fd_by_id(id),
            _ => libbpf_sys::bpf_link_get_fd_by_id(id),
        };
        fd >= 0 && libc::close(fd) == 0
    }
}

/// Waits until the kernel has none of these, and panics when it keeps one.
pub fn assert_gone(held: &[(&'static str, u32)]) {
    let mut left = held.to_vec();
    wait_until(&format!("{left:?} are gone"), Duration::from_secs(20), || {
        left.retain(|what| is_there(*what));
        left.is_empty()
    });
}

/// What is pinned anywhere.
pub fn pins() -> Vec<std::path::PathBuf> {
    let mut folders = vec![std::path::PathBuf::from("/sys/fs/bpf")];
    let mut pins = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                folders.push(entry.path())
            } else {
                pins.push(entry.path())
            }
        }
    }
    pins
}

/// Nanoseconds that all threads of a process waited for a CPU while they could have run.
pub fn waited_ns(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let waited = |text: String| text.split(' ').nth(1).and_then(|ns| ns.parse::<u64>().ok());
    tasks.filter_map(|task| waited(fs::read_to_string(task.path().join("schedstat")).ok()?)).sum()
}

/// A line of /proc/PID/status in bytes, such as `VmHWM`, the most that was resident.
pub fn memory(pid: u32, line: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
    1024 * value.unwrap_or_else(|| panic!("no {line}")).trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}
