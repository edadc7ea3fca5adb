//! CPU samples: cycles where the machine counts them, else the CPU clock.

use std::io;

use anyhow::{Context as _, Result, bail};
use perf_event_open_sys::bindings as sys;

use super::{Context, Source};
use crate::bpf::{self, Loaded, SharedMaps};

mod skel {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/profile.skel.rs"));
}

mod raw {
    #![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]
    include!(concat!(env!("OUT_DIR"), "/profile_raw.skel.rs"));
}

/// Source `profile`.
pub struct Profile;

#[derive(Clone, Copy, PartialEq)]
enum Clock {
    Cycles,
    CpuClock,
}

/// Opens a sampling event on `cpu`; the caller owns the descriptor.
fn open_event(clock: Clock, cpu: u32, frequency: u32) -> io::Result<i32> {
    let mut attr = sys::perf_event_attr::default();
    attr.size = size_of::<sys::perf_event_attr>() as u32;
    (attr.type_, attr.config) = match clock {
        Clock::Cycles => (sys::PERF_TYPE_HARDWARE, u64::from(sys::PERF_COUNT_HW_CPU_CYCLES)),
        Clock::CpuClock => (sys::PERF_TYPE_SOFTWARE, u64::from(sys::PERF_COUNT_SW_CPU_CLOCK)),
    };
    attr.set_freq(1);
    attr.__bindgen_anon_1.sample_freq = u64::from(frequency);
    attr.set_exclude_idle(1);
    // SAFETY: `attr` is a whole perf_event_attr of the size that it says and lives over the call.
    let fd = unsafe {
        perf_event_open_sys::perf_event_open(&mut attr, -1, cpu as i32, -1, sys::PERF_FLAG_FD_CLOEXEC.into())
    };
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

fn clock(context: &Context<'_>) -> Clock {
    let probe = context.cpus.first().map(|cpu| open_event(Clock::Cycles, *cpu, context.args.frequency));
    match probe {
        Some(Ok(fd)) => {
            // SAFETY: the descriptor was opened just now and is known to nobody else.
            drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) });
            Clock::Cycles
        }
        _ => Clock::CpuClock,
    }
}

impl Source for Profile {
    fn name(&self) -> &'static str {
        "profile"
    }

    fn load(&self, context: &Context<'_>, shared: &mut SharedMaps) -> Result<Loaded> {
        match context.raw {
            false => bpf::load(skel::ProfileSkelBuilder::default(), context.config, shared, &|_| true),
            true => bpf::load(raw::ProfileSkelBuilder::default(), context.config, shared, &|_| true),
        }
    }

    fn attach(&self, context: &Context<'_>, loaded: &mut Loaded) -> Result<()> {
        let clock = clock(context);
        loaded.attach(&|_, program| {
            let mut links = Vec::new();
            for &cpu in context.cpus {
                match open_event(clock, cpu, context.args.frequency) {
                    // The link closes the descriptor.
                    Ok(fd) => links.push(program.attach_perf_event(fd)?),
                    // The CPU went away between the list and now.
                    Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                    Err(error) => return Err(error).with_context(|| format!("cannot sample CPU {cpu}")),
                }
            }
            if links.is_empty() {
                bail!("no CPU can be sampled");
            }
            Ok(links)
        })
    }

    fn items(&self, context: &Context<'_>) -> Vec<(String, String)> {
        let clock = if clock(context) == Clock::Cycles { "cycles" } else { "cpu-clock" };
        vec![("sample_hz".into(), context.args.frequency.to_string()), ("sample_clock".into(), clock.into())]
    }
}
