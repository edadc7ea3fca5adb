//! The kernel's types (BTF): its own, or those of a file, for a kernel that was built without.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Struct;
use libbpf_rs::libbpf_sys;

use crate::bpf::Loaded;
use crate::clock;
use crate::limits::tracepoint_args;

/// Where a kernel shows its own.
const OWN: &str = "/sys/kernel/btf/vmlinux";

/// What programs find fields by.
pub struct Types {
    /// The types.
    pub btf: Btf<'static>,
    /// The file that they are from; `None`: the kernel's own. Without these there are only raw tracepoints, and no iterators,
    /// task storage or stacks of other tasks: the kernel checks such programs against its own types alone.
    pub file: Option<PathBuf>,
}

/// What `check_types` of `bpf/task.bpf.c` compares, by bit.
const COMPARED: [&str; 7] = ["pid", "name", "start", "cgroup", "CPU and state", "pid and mount namespaces", "user"];

impl Types {
    /// Finds them.
    ///
    /// # Errors
    /// A sentence when the kernel has none and no file was named, when it has its own and one was, and when the file holds none.
    pub fn find(file: Option<&Path>) -> Result<Types> {
        let Some(file) = file else {
            if !Path::new(OWN).exists() {
                bail!(
                    "this kernel has no type information ({OWN}), for it was built without CONFIG_DEBUG_INFO_BTF: --btf FILE takes \
                     that of exactly this kernel, from btfhub-archive, or made of a vmlinux with debugging information by \
                     `pahole --btf_encode_detached FILE vmlinux`"
                );
            }
            return Ok(Types {
                btf: Btf::from_vmlinux().context("cannot read the kernel's type information")?,
                file: None,
            });
        };
        let name = file.display();
        if Path::new(OWN).exists() {
            bail!(
                "this kernel has type information of its own ({OWN}), and only that is sure to be right: leave out --btf {name}"
            );
        }
        fs::File::open(file).with_context(|| format!("--btf {name}"))?;
        let btf = Btf::from_path(file).map_err(|error| {
            anyhow!(
                "--btf {name}: not type information ({error}): a BTF file (unpacked), or an ELF file with a section .BTF is expected"
            )
        })?;
        if btf.type_by_name::<Struct<'_>>("task_struct").is_none() || tracepoint_args(&btf, "sched_switch").is_none() {
            bail!(
                "--btf {name}: not the types of a whole kernel: task_struct or the tracepoint sched_switch is not in it (those of a \
                 module, or what btfgen made for another program, will not do)"
            );
        }
        Ok(Types { btf, file: Some(file.to_owned()) })
    }

    /// Whether programs must do with raw tracepoints.
    pub fn are_foreign(&self) -> bool {
        self.file.is_some()
    }

    /// Where they are from, in words.
    pub fn said(&self) -> String {
        match &self.file {
            None => "the kernel's own; tp_btf".into(),
            Some(file) => format!("those of {}; raw_tp", file.display()),
        }
    }

    /// Facts for the file's header.
    pub fn items(&self) -> Vec<(String, String)> {
        match &self.file {
            None => vec![("types".into(), "own".into())],
            Some(file) => {
                vec![("types".into(), "file".into()), ("types_file".into(), file.display().to_string())]
            }
        }
    }

    /// Looks at this process with the types of a file, and compares with what is known of it otherwise. `tasks` are the programs of
    /// `bpf/task.bpf.c`.
    ///
    /// # Errors
    /// When they are those of another kernel: what they would find is not what is there.
    pub fn check(&self, tasks: &Loaded) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let namespace = |name: &str| fs::metadata(format!("/proc/thread-self/ns/{name}")).map_or(0, |ns| ns.ino());
        let start_ns =
            procfs::process::Process::myself().and_then(|own| own.stat()).context("/proc/self/stat")?.starttime
                * (1_000_000_000 / procfs::ticks_per_second());
        // `struct known_task` there.
        let known = [namespace("pid"), namespace("mnt"), clock::boot_to_mono(start_ns)];
        let program = tasks.program("check_types")?;
        let mut options = libbpf_sys::bpf_test_run_opts {
            sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
            ctx_in: known.as_ptr().cast(),
            ctx_size_in: size_of_val(&known) as u32,
            ..Default::default()
        };
        // SAFETY: `options` is whole, says its size, and lends `known`, which lives over the call and is only read.
        let status = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
        if status != 0 {
            return Err(std::io::Error::from_raw_os_error(-status)).context("cannot check the types");
        }
        let bit = |i: &usize| options.retval & 1 << i != 0;
        let wrong: Vec<_> = (0..COMPARED.len()).filter(bit).map(|i| COMPARED[i]).collect();
        if !wrong.is_empty() {
            bail!(
                "--btf {}: not the types of this kernel ({}): by them the recorder's own {} would be another; take those of exactly \
                 this kernel",
                file.display(),
                rustix::system::uname().release().to_string_lossy(),
                wrong.join(", ")
            );
        }
        Ok(())
    }
}
