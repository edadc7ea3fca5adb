//! Capabilities: those that a recording needs while it runs are kept, all others are given up once the probes are attached.
//!
//! Capabilities are a thread's. The main thread gives them up before it starts the threads that stay (`start.rs`), and
//! [`Kept::threads_with_more`] looks that no thread was forgotten.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// What of the rights that the recorder was started with it keeps.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE.
    Least,
    /// These, and those to read what belongs to others: CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE, CAP_SYSLOG.
    Read,
    /// All.
    All,
}

/// Without these nothing is recorded.
const NEEDED: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON).union(CapabilitySet::SYS_PTRACE);
/// For binaries in folders of others, deleted ones, and the kernel's addresses.
const READ: CapabilitySet =
    CapabilitySet::DAC_READ_SEARCH.union(CapabilitySet::CHECKPOINT_RESTORE).union(CapabilitySet::SYSLOG);

/// Looks, a millisecond each, at threads that are about to end.
const TRIES: u32 = 50;

/// What stays.
#[derive(Clone, Copy, Debug)]
pub struct Kept(CapabilitySet);

/// This thread's.
fn own() -> Result<CapabilitySets> {
    rustix::thread::capabilities(None).context("cannot read this process's capabilities")
}

/// Fails with a sentence unless BPF programs can be loaded.
pub fn check() -> Result<()> {
    let effective = own()?.effective;
    if effective.contains(CapabilitySet::SYS_ADMIN) || effective.contains(NEEDED) {
        return Ok(());
    }
    bail!(
        "recording needs root, or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE: try sudo, \
         `setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep` on this program, or in a systemd unit \
         AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_SYS_PTRACE"
    )
}

impl Kept {
    /// Chooses what stays. Where CAP_SYS_ADMIN stands for what is missing it stays, too.
    pub fn new(rights: Rights) -> Result<Kept> {
        let has = own()?.permitted;
        let wanted = match rights {
            Rights::Least => NEEDED,
            Rights::Read => NEEDED | READ,
            Rights::All => has,
        };
        Ok(Kept(if has.contains(NEEDED) { wanted & has } else { (wanted | CapabilitySet::SYS_ADMIN) & has }))
    }

    /// Keeps CAP_SYS_ADMIN, too, if it is there.
    pub fn with_admin(self) -> Result<Kept> {
        Ok(Kept(self.0 | (own()?.permitted & CapabilitySet::SYS_ADMIN)))
    }

    /// Whether CAP_SYS_ADMIN is among what stays.
    pub fn has_admin(self) -> bool {
        self.0.contains(CapabilitySet::SYS_ADMIN)
    }

    /// What `work` gives with no more than what stays: it runs on a thread of its own, which ends.
    pub fn only<T: Send>(self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let work = || self.set().map(|()| work());
        std::thread::scope(|scope| match scope.spawn(work).join() {
            Ok(result) => result,
            Err(_) => bail!("a thread with fewer capabilities panicked"),
        })
    }

    /// Names of what stays, as in the kernel's headers, lower case, or `all`; for the file's header.
    pub fn names(self) -> String {
        if self.0.difference(NEEDED | READ | CapabilitySet::SYS_ADMIN) != CapabilitySet::empty() {
            return "all".into();
        }
        let names: Vec<String> = self.0.iter_names().map(|(name, _)| name.to_lowercase()).collect();
        names.join(",")
    }

    /// Gives up everything else, for good: also what an exec might give back. Threads that start later begin with the same.
    pub fn give_up(self) -> Result<()> {
        if own()?.effective.contains(CapabilitySet::SETPCAP) {
            for one in (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit)).filter(|one| !self.0.contains(*one))
            {
                // This kernel may have fewer than there are bits.
                let _ = rustix::thread::remove_capability_from_bounding_set(one);
            }
        }
        self.set()?;
        rustix::thread::set_no_new_privs(true).context("cannot give up what an exec might give (no_new_privs)")
    }

    /// Of this thread.
    fn set(self) -> Result<()> {
        // A kernel without ambient capabilities has none to clear.
        let _ = rustix::thread::clear_ambient_capability_set();
        let sets = CapabilitySets { effective: self.0, permitted: self.0, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets).context("cannot give up capabilities")
    }

    /// Names of threads of this process that have more, after a moment for those that are about to end.
    pub fn threads_with_more(self) -> Vec<String> {
        let has_more = |status: &str| {
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let permitted = field("CapPrm:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(u64::MAX);
            (permitted & !self.0.bits() != 0).then(|| field("Name:").unwrap_or_default().to_owned())
        };
        let mut tries = 0;
        loop {
            let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
            let more = tasks.filter_map(|task| has_more(&fs::read_to_string(task.path().join("status")).ok()?));
            let more: Vec<String> = more.collect();
            tries += 1;
            if more.is_empty() || tries == TRIES {
                return more;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays() {
        assert_eq!(Kept(NEEDED).names(), "sys_ptrace,perfmon,bpf");
        assert_eq!(Kept(NEEDED | CapabilitySet::CHOWN).names(), "all");
        assert!(!Kept(NEEDED).has_admin() && Kept(NEEDED | CapabilitySet::SYS_ADMIN).has_admin());
    }

    #[test]
    fn a_thread_that_kept_more_is_told() {
        // Whoever runs this without any capability has no thread with more than none.
        let has = own().unwrap().permitted;
        let none = Kept(CapabilitySet::empty());
        assert_eq!(none.threads_with_more().is_empty(), has.is_empty());
        assert_eq!(none.only(|| own().unwrap().permitted).unwrap(), CapabilitySet::empty());
        assert_eq!(own().unwrap().permitted, has, "only the other thread gave them up");
    }
}
