//! Which waits `offcputime` is about, beside its window: threads, states, lengths.

use crate::error::{Error, Result};
use crate::meta::Meta;
use crate::offcpu::{Off, What};
use crate::reports::Flags;
use crate::tasks::Task;

/// As asked.
pub(super) struct Wanted {
    tid: Option<u32>,
    /// Only threads of the kernel, or only others.
    kernel_threads: Option<bool>,
    ended: bool,
    state: Option<u32>,
    min_ns: Option<u64>,
    max_ns: Option<u64>,
}

impl Wanted {
    /// From `-t -u -k --ended --state -m -M`.
    pub(super) fn of(flags: &Flags) -> Result<Wanted> {
        flags.one_of(&["tid", "user-threads-only", "kernel-threads-only"])?;
        let number = |flag: &str| {
            let parse = |text: &str| match text.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16).ok(),
                None => text.parse::<u64>().ok(),
            };
            let error = || Error::asked(format!("--{flag} takes a number"));
            flags.value(flag).map(|text| parse(text).ok_or_else(error)).transpose()
        };
        let ns = |flag: &str| Ok::<_, Error>(number(flag)?.map(|us| us.saturating_mul(1000)));
        let number32 = |flag: &str| {
            let narrow = |n: u64| u32::try_from(n).map_err(|_| Error::asked(format!("--{flag} is too large: {n}")));
            number(flag)?.map(narrow).transpose()
        };
        let (min_ns, max_ns) = (ns("min-block-time")?, ns("max-block-time")?);
        if min_ns.zip(max_ns).is_some_and(|(min, max)| min > max) {
            return Err(Error::asked("--min-block-time is more than --max-block-time"));
        }
        Ok(Wanted {
            tid: number32("tid")?,
            kernel_threads: match (flags.has("kernel-threads-only"), flags.has("user-threads-only")) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            },
            ended: flags.has("ended"),
            state: number32("state")?,
            min_ns,
            // BCC compares whole us: 10.9 us are not more than 10.
            max_ns: max_ns.map(|ns| ns.saturating_add(999)),
        })
    }

    /// Whether a thread's waits are wanted.
    pub(super) fn takes_thread(&self, meta: &Meta, off: &Off) -> bool {
        let is_kernel = || meta.tasks.at(off.pid, off.end_ns).is_some_and(Task::is_kernel);
        self.tid.is_none_or(|tid| tid == off.tid) && self.kernel_threads.is_none_or(|kernel| kernel == is_kernel())
    }

    /// Whose waits these are, where not all threads' are asked for.
    pub(super) fn threads(&self) -> Option<&'static str> {
        self.kernel_threads.map(|kernel| if kernel { "threads of the kernel" } else { "threads of programs" })
    }

    /// Whether a wait is of the length and the state that were asked for; `None` when that is not known. Of a wait that
    /// lasts at the end the length so far counts.
    pub(super) fn takes(&self, off: &Off, short_ns: Option<u64>) -> Option<bool> {
        let (min, max) = (self.min_ns.unwrap_or(0), self.max_ns.unwrap_or(u64::MAX));
        if off.what != What::Short {
            let state = match self.state {
                None => true,
                Some(0) => off.state == 0,
                Some(mask) => off.state & mask != 0,
            };
            let ended = off.what != What::Open || !self.ended;
            return Some(state && ended && off.wait_ns >= min && off.wait_ns <= max);
        }
        // All that is known of short waits is what they are shorter than, and their sum.
        match short_ns {
            Some(below) if min >= below => Some(false),
            _ if self.state.is_some() || min > 0 => None,
            Some(below) if max.saturating_add(1) >= below => Some(true),
            _ if self.max_ns.is_none() => Some(true),
            _ => None,
        }
    }
}
