//! A seccomp filter: from when the probes are attached the recorder may drain, read, write, and nothing else. No program is
//! run, no connection opened, no identity changed, no process touched, whatever becomes of the recorder.

use anyhow::{Result, bail};

/// What an unexpected system call meets.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// It fails with EPERM, as if it were not permitted; the recording goes on.
    On,
    /// The kernel ends the recorder; what was recorded until then reads back.
    Kill,
    /// There is no filter.
    Off,
}

/// Installs the filter for all threads that there are and will be. `attaches`: a source puts probes in later, too.
///
/// # Errors
///
/// Where the kernel has no seccomp, or the filter is not known for this machine. Then there is none.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn enter(_sandbox: Sandbox, _attaches: bool) -> Result<()> {
    bail!("its filter of system calls is not known for this machine")
}

/// Installs the filter for all threads that there are and will be. `attaches`: a source puts probes in later, too.
///
/// # Errors
///
/// Where the kernel has no seccomp. Then there is no filter.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub fn enter(sandbox: Sandbox, attaches: bool) -> Result<()> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let refused = match sandbox {
        Sandbox::On => SeccompAction::Errno(libc::EPERM as u32),
        Sandbox::Kill => SeccompAction::KillProcess,
        Sandbox::Off => return Ok(()),
    };
    let machine = std::env::consts::ARCH.try_into()?;
    // The flags of clone3 lie in memory, where no filter sees them: without it the C library starts threads by clone.
    let no_clone3 = SeccompFilter::new(
        [(libc::SYS_clone3, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        machine,
    )?;
    let rest = SeccompFilter::new(rules(attaches)?, refused, SeccompAction::Allow, machine)?;
    // In this order: the second does not let another one be installed.
    for filter in [no_clone3, rest] {
        let program: BpfProgram = filter.try_into()?;
        if let Err(error) = seccompiler::apply_filter_all_threads(&program) {
            bail!("the kernel does not take its filter of system calls ({error})");
        }
    }
    Ok(())
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod allowed {
    use std::collections::BTreeMap;

    use anyhow::Result;
    use libc as c;
    use seccompiler::SeccompCmpArgLen::{Dword, Qword};
    use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
    use seccompiler::{SeccompCondition as Condition, SeccompRule};

    /// Whatever the arguments are.
    #[rustfmt::skip]
    const ALWAYS: &[i64] = &[
        // The clock, sleep, the end.
        c::SYS_clock_gettime, c::SYS_clock_getres, c::SYS_gettimeofday, c::SYS_clock_nanosleep, c::SYS_nanosleep,
        c::SYS_sched_yield, c::SYS_restart_syscall, c::SYS_exit, c::SYS_exit_group, c::SYS_wait4, c::SYS_waitid,
        // Memory and threads.
        c::SYS_brk, c::SYS_munmap, c::SYS_mremap, c::SYS_madvise, c::SYS_futex,
        c::SYS_membarrier, c::SYS_set_robust_list, c::SYS_rseq, c::SYS_gettid, c::SYS_getpid, c::SYS_sched_getaffinity,
        c::SYS_getcpu, c::SYS_sigaltstack, c::SYS_getrandom, c::SYS_clone3,
        // Signals are taken.
        c::SYS_rt_sigaction, c::SYS_rt_sigprocmask, c::SYS_rt_sigreturn,
        // Waiting for rings.
        c::SYS_epoll_pwait, c::SYS_epoll_pwait2, c::SYS_epoll_ctl, c::SYS_epoll_create1, c::SYS_ppoll, c::SYS_eventfd2,
        // Waiting for the command.
        c::SYS_pidfd_open,
        // How the start of the command went comes through a socket; no other is there, and none can be made.
        c::SYS_recvfrom,
        // Files: the trace, /proc, binaries.
        c::SYS_openat, c::SYS_openat2, c::SYS_close, c::SYS_read, c::SYS_pread64, c::SYS_readv, c::SYS_preadv,
        c::SYS_write, c::SYS_writev, c::SYS_pwrite64, c::SYS_lseek, c::SYS_fstat, c::SYS_newfstatat, c::SYS_statx,
        c::SYS_statfs, c::SYS_fstatfs, c::SYS_getdents64, c::SYS_readlinkat, c::SYS_faccessat, c::SYS_faccessat2,
        c::SYS_fcntl, c::SYS_dup, c::SYS_dup3, c::SYS_getcwd, c::SYS_fallocate, c::SYS_ftruncate, c::SYS_fsync,
        c::SYS_fdatasync, c::SYS_flock, c::SYS_fadvise64, c::SYS_unlinkat, c::SYS_renameat, c::SYS_renameat2,
        // What it costs, and not to be in the way.
        c::SYS_getrusage, c::SYS_getpriority, c::SYS_setpriority, c::SYS_uname, c::SYS_sysinfo,
    ];
    #[cfg(target_arch = "x86_64")]
    #[rustfmt::skip]
    const OF_THE_MACHINE: &[i64] = &[
        c::SYS_open, c::SYS_stat, c::SYS_lstat, c::SYS_readlink, c::SYS_access, c::SYS_unlink, c::SYS_rename, c::SYS_poll,
        c::SYS_epoll_wait, c::SYS_dup2, c::SYS_time, c::SYS_getrlimit, c::SYS_sync_file_range,
    ];
    #[cfg(target_arch = "aarch64")]
    const OF_THE_MACHINE: &[i64] = &[c::SYS_sync_file_range];

    // linux/bpf.h, enum bpf_cmd.
    const MAP_CREATE: u64 = 0;
    const MAP_LOOKUP: u64 = 1;
    const MAP_UPDATE: u64 = 2;
    const MAP_DELETE: u64 = 3;
    const MAP_NEXT: u64 = 4;
    const PROG_LOAD: u64 = 5;
    const PROG_TEST_RUN: u64 = 10;
    const INFO: u64 = 15;
    const BTF_LOAD: u64 = 18;
    const MAP_FREEZE: u64 = 22;
    const BATCHES: std::ops::RangeInclusive<u64> = 24..=27;
    const LINK_CREATE: u64 = 28;
    const ENABLE_STATS: u64 = 32;
    const ITER_CREATE: u64 = 33;
    const LINK_DETACH: u64 = 34;
    // asm-generic/ioctls.h.
    const TERMINAL_GET: u64 = 0x5401;
    const TERMINAL_SIZE: u64 = 0x5413;
    // linux/perf_event.h.
    const PERF_ENABLE: u64 = 0x2400;
    const PERF_DISABLE: u64 = 0x2401;
    const PERF_SET_BPF: u64 = 0x4004_2408;

    fn one_of(arg: u8, values: impl IntoIterator<Item = u64>) -> Result<Vec<SeccompRule>> {
        let rule = |value| Ok(SeccompRule::new(vec![Condition::new(arg, Dword, Eq, value)?])?);
        values.into_iter().map(rule).collect()
    }

    /// The calls that are allowed; a call without rules whatever its arguments are.
    pub fn rules(attaches: bool) -> Result<BTreeMap<i64, Vec<SeccompRule>>> {
        let mut rules: BTreeMap<i64, _> = ALWAYS.iter().chain(OF_THE_MACHINE).map(|call| (*call, Vec::new())).collect();
        let mut commands = vec![
            MAP_LOOKUP,
            MAP_UPDATE,
            MAP_DELETE,
            MAP_NEXT,
            PROG_TEST_RUN,
            INFO,
            ENABLE_STATS,
            ITER_CREATE,
            LINK_DETACH,
            // For a CPU that comes: its ring, and its perf events.
            MAP_CREATE,
            LINK_CREATE,
        ];
        commands.extend(BATCHES);
        let controls = [PERF_ENABLE, PERF_DISABLE, PERF_SET_BPF, TERMINAL_GET, TERMINAL_SIZE];
        rules.insert(c::SYS_perf_event_open, Vec::new());
        if attaches {
            // libbpf tries by small programs what the kernel has, when it attaches for the first time.
            commands.extend([PROG_LOAD, BTF_LOAD, MAP_FREEZE]);
        }
        rules.insert(c::SYS_bpf, one_of(0, commands)?);
        rules.insert(c::SYS_ioctl, one_of(1, controls)?);
        rules.insert(c::SYS_prctl, one_of(0, [c::PR_SET_NAME as u64, c::PR_GET_NAME as u64, c::PR_SET_VMA as u64])?);
        // To itself, when it aborts.
        rules.insert(c::SYS_tgkill, one_of(0, [std::process::id().into()])?);
        // No new code.
        let no_code = SeccompRule::new(vec![Condition::new(2, Dword, MaskedEq(c::PROT_EXEC as u64), 0)?])?;
        rules.insert(c::SYS_mmap, vec![no_code.clone()]);
        rules.insert(c::SYS_mprotect, vec![no_code]);
        // Threads, and no processes.
        let thread = c::CLONE_THREAD as u64;
        rules.insert(c::SYS_clone, vec![SeccompRule::new(vec![Condition::new(0, Qword, MaskedEq(thread), thread)?])?]);
        // What the limits are, and not to change them.
        rules.insert(c::SYS_prlimit64, vec![SeccompRule::new(vec![Condition::new(2, Qword, Eq, 0)?])?]);
        Ok(rules)
    }
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use allowed::rules;

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;

    /// What becomes of a process that enters and then runs a program: `Ok` with its end, or the error of exec.
    fn run(sandbox: Sandbox) -> std::io::Result<std::process::ExitStatus> {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new("true");
        // SAFETY: the child of a fork does here what any process does; it has one thread, and the C library keeps malloc usable.
        unsafe { command.pre_exec(move || enter(sandbox, false).map_err(std::io::Error::other)) };
        command.status()
    }

    #[test]
    fn it_holds() {
        use std::os::unix::process::ExitStatusExt;
        assert!(run(Sandbox::Off).unwrap().success());
        assert_eq!(run(Sandbox::On).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
        assert_eq!(run(Sandbox::Kill).unwrap().signal(), Some(libc::SIGSYS));
    }

    #[test]
    fn what_is_no_part_of_the_loop_is_refused() {
        for attaches in [false, true] {
            let rules = rules(attaches).unwrap();
            for never in [
                libc::SYS_execve,
                libc::SYS_execveat,
                libc::SYS_ptrace,
                libc::SYS_socket,
                libc::SYS_connect,
                libc::SYS_mount,
                libc::SYS_setuid,
                libc::SYS_setns,
                libc::SYS_unshare,
                libc::SYS_kill,
                libc::SYS_process_vm_readv,
                libc::SYS_process_vm_writev,
                libc::SYS_init_module,
                libc::SYS_fchmod,
                libc::SYS_fchown,
                libc::SYS_capset,
            ] {
                assert!(!rules.contains_key(&never), "{never}");
            }
        }
    }
}
