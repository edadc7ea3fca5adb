//! Files that have been looked at, and the probes of those that are allocators.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use libbpf_rs::{UprobeMultiOpts, UprobeOpts};
use rustc_hash::FxHashMap;

use super::functions::{self, AT_END, Found, PROGRAMS, Point, needs_return};
use crate::bpf::Loaded;

/// A file's identity and, with it, a version of its contents.
type Key = (u64, u64, i64, i64);

/// What is known of files; a host has some thousand executable ones.
#[derive(Default)]
pub struct Probes {
    /// What names of functions may begin with.
    prefix: Option<String>,
    /// One link for all places of a program.
    multi: bool,
    found: FxHashMap<Key, Found>,
    /// By file and the process that the probes are bound to.
    attached: FxHashMap<(Key, i32), ()>,
    /// What was left out of the files that were attached to, and not yet said.
    notes: Vec<String>,
}

fn key(file: &File) -> Result<Key> {
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec()))
}

impl Probes {
    /// For functions of these names; `multi`: the kernel has links of many uprobes.
    pub fn new(prefix: Option<String>, multi: bool) -> Probes {
        Probes { prefix, multi, ..Probes::default() }
    }

    /// Whether one link has all places of a program.
    pub fn is_multi(&self) -> bool {
        self.multi
    }

    /// What was left out since the last call, a sentence each.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Attaches to the allocator in `file`, for process `pid` or, with -1, for all. Returns whether there is one and it
    /// has no probes yet. `asked`: the file was named by the user. `name` is for messages.
    pub fn attach(&mut self, file: &File, name: &str, pid: i32, asked: bool, loaded: &mut Loaded) -> Result<bool> {
        let key = key(file)?;
        if self.attached.contains_key(&(key, pid)) {
            return Ok(false);
        }
        if !self.found.contains_key(&key) {
            // What is mapped and no ELF file, as a program of a 32-bit machine, has no allocator for us.
            let found = functions::points(file, self.prefix.as_deref(), asked);
            let mut found = if asked { found? } else { found.unwrap_or_default() };
            self.notes.extend(found.left_out.take().map(|why| {
                format!(
                    "{name}: operator new and delete are not watched, only malloc and the like ({why}); to watch for their \
                     return otherwise would break C++'s exceptions"
                )
            }));
            self.found.insert(key, found);
        }
        let points = &self.found[&key].points;
        if points.is_empty() {
            return Ok(false);
        }
        // The descriptor, not a path, names the file: another one may lie at its path by now, or in another root.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let offsets = |wanted: &dyn Fn(&Point) -> bool| {
            points.iter().filter(|p| wanted(p)).map(|p| p.offset as usize).collect::<Vec<_>>()
        };
        let returns = offsets(&|p| needs_return(p.program));
        self.attach_at(&path, pid, AT_END, &offsets(&|p| p.program == AT_END), loaded).context("a uprobe")?;
        self.attach_at(&path, pid, "returned", &returns, loaded).context("a uprobe of a function's return")?;
        for program in PROGRAMS {
            self.attach_at(&path, pid, program, &offsets(&|p| p.program == program), loaded).context("a uprobe")?;
        }
        self.attached.insert((key, pid), ());
        Ok(true)
    }

    fn attach_at(&self, path: &str, pid: i32, name: &str, at: &[usize], loaded: &mut Loaded) -> Result<()> {
        let retprobe = name == "returned";
        if self.multi && !at.is_empty() {
            return loaded.attach_to(name, &|program| {
                let options = UprobeMultiOpts { retprobe, offsets: at.to_vec(), ..UprobeMultiOpts::default() };
                Ok(program.attach_uprobe_multi_with_opts(pid, path, "", options)?)
            });
        }
        for offset in at {
            loaded.attach_to(name, &|program| {
                let options = UprobeOpts { retprobe, ..UprobeOpts::default() };
                Ok(program.attach_uprobe_with_opts(pid, path, *offset, options)?)
            })?;
        }
        Ok(())
    }

    /// Whether `file` has probes, for any process.
    pub fn has(&self, file: &File) -> bool {
        key(file).is_ok_and(|key| self.attached.keys().any(|(k, _)| *k == key))
    }
}
