//! Pids. The BPF programs tell the kernel's own numbers, and so does the file; /proc, system calls and perf events use those of the
//! pid namespace that the recorder lives in. In the host's both are the same. In a container's each is translated here,
//! on its way from or to the kernel, so that what is known of a process is never given to another one.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use libbpf_rs::{Iter, MapCore, MapFlags, MapHandle};

use crate::bpf::{self, Loaded, SharedMaps};
use crate::layout::Config;

mod skel {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/pids.skel.rs"));
}

/// Inode of the host's pid namespace: PROC_PID_INIT_INO of linux/proc_ns.h.
const HOSTS: u64 = 0xEFFF_FFFC;

/// Said at the start of a recording in a container's namespace.
pub const NOTE: &str = "this is a pid namespace of its own: of processes outside of it events are recorded, but no names of those \
                        that run already, and no functions; to have them, run the recorder in the host's (docker: --pid=host, \
                        Kubernetes: hostPID: true)";

struct Translation {
    kernels: MapHandle,
    own: MapHandle,
    recorder: u32,
}

/// A process stays in its pid namespace for all its life.
static TRANSLATION: OnceLock<Translation> = OnceLock::new();

/// Looks where this process lives. In a container's pid namespace programs are loaded, and returned, which tell who is who; they
/// must live as long as the recording.
///
/// # Errors
/// When the programs cannot be loaded, or /proc shows another namespace than this one.
pub fn enter() -> Result<Option<Loaded>> {
    let inode = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/pid")).map(|ns| ns.ino());
    let own = inode("self").context("/proc is not there, or does not show this process: mount it")?;
    // Another namespace's has another number for this process. They may agree by chance; then process 1, the first of the
    // namespace, tells, unless it may not be looked at.
    let shown = fs::read_link("/proc/self").context("/proc/self")?;
    if shown.to_str() != Some(&std::process::id().to_string()) || inode("1").is_ok_and(|first| first != own) {
        bail!(
            "/proc shows the processes of another pid namespace than this one, so names would be mixed up: mount /proc anew in \
             this one (unshare --mount-proc), or run in the host's (docker: --pid=host)"
        );
    }
    if own == HOSTS {
        return Ok(None);
    }
    let mut maps = SharedMaps::none();
    let mut loaded = bpf::load(skel::PidsSkelBuilder::default(), Config::default(), &mut maps, &|_| true)
        .context("the programs that translate pids")?;
    let recorder = bpf::run(&loaded.program("recorder")?, None).context("cannot find out which process this is")?;
    let attach = |name: &'static str| {
        move |program: &str, p: &libbpf_rs::ProgramMut<'_>| {
            if program == name { bpf::attach_one(program, p) } else { Ok(vec![]) }
        }
    };
    // What begins is seen from here on, then what is there already.
    loaded.attach(&attach("note_fork"))?;
    loaded.attach(&attach("note_all"))?;
    let iterator = loaded.links.pop().context("the iterator over pids is not attached")?;
    Iter::new(&iterator)?.read_to_end(&mut Vec::new()).context("cannot look at all pids")?;
    let map = |name: &str| maps.get(name).and_then(|map| Ok(MapHandle::try_from(map)?));
    let translation = Translation { kernels: map("kernels_pids")?, own: map("own_pids")?, recorder };
    if TRANSLATION.set(translation).is_err() {
        bail!("the recorder's pid namespace was looked for twice");
    }
    Ok(Some(loaded))
}

/// Whether pids are those of the host.
pub fn are_hosts() -> bool {
    TRANSLATION.get().is_none()
}

/// The kernel's number of this process.
pub fn recorder() -> u32 {
    TRANSLATION.get().map_or_else(std::process::id, |t| t.recorder)
}

/// The kernel's number of the thread that is `own` here; `None` when nothing is known of it.
pub fn kernels(own: u32) -> Option<u32> {
    TRANSLATION.get().map_or(Some(own), |t| look_up(&t.kernels, own))
}

/// The number here of the thread that is `kernels` to the kernel; `None` when it lives elsewhere.
pub fn own(kernels: u32) -> Option<u32> {
    TRANSLATION.get().map_or(Some(kernels), |t| look_up(&t.own, kernels))
}

/// Folder of a process in /proc, by the kernel's number; one that is never there when it lives elsewhere.
pub fn proc(kernels: u32) -> String {
    format!("/proc/{}", own(kernels).unwrap_or(0))
}

/// The kernel's numbers of all processes that /proc shows, in order.
pub fn all() -> Vec<u32> {
    let names = fs::read_dir("/proc").into_iter().flatten();
    let mut pids: Vec<u32> = names.filter_map(|e| kernels(e.ok()?.file_name().to_str()?.parse().ok()?)).collect();
    pids.sort_unstable();
    pids
}

fn look_up(map: &MapHandle, pid: u32) -> Option<u32> {
    let found = map.lookup(&pid.to_ne_bytes(), MapFlags::ANY).ok()??;
    Some(u32::from_ne_bytes(*found.first_chunk()?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn on_the_host_nothing_is_translated() {
        let own = std::process::id();
        assert!(super::are_hosts());
        assert_eq!((super::recorder(), super::kernels(own), super::own(own)), (own, Some(own), Some(own)));
        assert_eq!(super::proc(7), "/proc/7");
        assert!(super::all().contains(&own));
    }
}
