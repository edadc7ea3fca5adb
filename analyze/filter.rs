//! Which part of a trace a report is about: a stretch of time, a process, a cgroup.

use rustc_hash::FxHashSet;

use crate::error::{Error, Result};
use crate::meta::Meta;

/// A part of a trace. Waits and I/O belong to the moment in which they end.
#[derive(Clone, Debug)]
pub struct Filter {
    /// First moment, CLOCK_MONOTONIC.
    pub from_ns: u64,
    /// Last moment.
    pub to_ns: u64,
    /// Only this process.
    pub pid: Option<u32>,
    /// Only these cgroups.
    pub cgroups: Option<FxHashSet<u64>>,
    /// The recorder's own process, which is left out unless it is asked for.
    recorder: Option<u32>,
    /// Whether a time was given.
    windowed: bool,
    /// Length of the window.
    pub duration_ns: u64,
    /// First moment that is there.
    first_ns: u64,
}

impl Filter {
    /// Everything but the recorder itself.
    pub fn everything(meta: &Meta) -> Filter {
        Filter {
            from_ns: 0,
            to_ns: u64::MAX,
            pid: None,
            cgroups: None,
            recorder: meta.recorder_pid(),
            windowed: false,
            duration_ns: meta.duration_ns(),
            first_ns: meta.first_ns,
        }
    }

    /// As asked: times as `2s`, `500ms`, `1.5s` from the start of the trace.
    pub fn new(
        meta: &Meta,
        from: Option<&str>,
        to: Option<&str>,
        pid: Option<u32>,
        cgroup: Option<&str>,
    ) -> Result<Filter> {
        let mut filter = Filter::everything(meta);
        let at = |text: &str| Ok::<u64, Error>(meta.start_ns.saturating_add(parse_duration(text)?));
        if let Some(from) = from {
            filter.from_ns = at(from)?;
        }
        if let Some(to) = to {
            filter.to_ns = at(to)?;
        }
        filter.windowed = from.is_some() || to.is_some();
        if filter.from_ns > filter.to_ns {
            return Err(Error::asked("--from lies after --to"));
        }
        if filter.from_ns > meta.end_ns {
            let seconds = meta.end_ns.saturating_sub(meta.start_ns) as f64 / 1e9;
            return Err(Error::asked(format!("--from lies after the end of the trace, which is {seconds:.3}s long")));
        }
        filter.duration_ns = filter.to_ns.min(meta.end_ns).saturating_sub(filter.from_ns.max(meta.first_ns));
        filter.pid = pid;
        filter.cgroups = cgroup.map(|path| meta.cgroups.matching(path)).transpose()?;
        Ok(filter)
    }

    /// Whether an event is in.
    #[inline]
    pub fn takes(&self, ts_ns: u64, pid: u32, cgroup_id: u64) -> bool {
        ts_ns >= self.from_ns && ts_ns <= self.to_ns && self.takes_task(pid, cgroup_id)
    }

    /// Whether a process and a cgroup are in, whenever.
    #[inline]
    pub fn takes_task(&self, pid: u32, cgroup_id: u64) -> bool {
        let pid = match self.pid {
            Some(only) => only == pid,
            None => self.recorder != Some(pid),
        };
        pid && self.takes_cgroup(cgroup_id)
    }

    /// How much of a stretch of time lies in the window and in what is there of the trace. Parts in windows that follow
    /// upon each other add up to the whole.
    #[inline]
    pub fn part_ns(&self, start_ns: u64, end_ns: u64) -> u64 {
        end_ns.min(self.to_ns).saturating_sub(start_ns.max(self.from_ns).max(self.first_ns))
    }

    /// The part of a stretch of time that [`Filter::part_ns`] measures; `None` when there is none. What takes no time is a part
    /// of the window in which it ends.
    #[inline]
    pub fn part(&self, start_ns: u64, end_ns: u64) -> Option<(u64, u64)> {
        let part = (start_ns.max(self.from_ns).max(self.first_ns), end_ns.min(self.to_ns));
        (part.0 < part.1 || part.0 == part.1 && start_ns == end_ns).then_some(part)
    }

    /// Whether a stretch of time ends in the window. It ends in one of windows that follow upon each other.
    #[inline]
    pub fn takes_end(&self, end_ns: u64) -> bool {
        end_ns > self.from_ns && end_ns <= self.to_ns
    }

    /// Whether something that begins in this part ends after it.
    #[inline]
    pub fn cuts(&self, begin_ns: u64, end_ns: u64, pid: u32, cgroup_id: u64) -> bool {
        end_ns > self.to_ns && self.takes(begin_ns, pid, cgroup_id)
    }

    fn takes_cgroup(&self, id: u64) -> bool {
        self.cgroups.as_ref().is_none_or(|ids| ids.contains(&id))
    }

    /// The window, if one was asked for.
    pub fn window(&self) -> Option<(u64, u64)> {
        self.windowed.then_some((self.from_ns, self.to_ns))
    }
}

/// `2s`, `500ms`, `1.5s`, `10us`, `1m`, `0`; a number alone is seconds.
pub fn parse_duration(text: &str) -> Result<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" | "" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        _ => f64::NAN,
    };
    let ns = number.parse::<f64>().map_or(f64::NAN, |n| n * scale);
    if ns.is_finite() {
        Ok(ns.round() as u64)
    } else {
        Err(Error::asked(format!("`{text}` is no duration: expected as 2s, 500ms or 1.5s")))
    }
}

#[cfg(test)]
mod tests {
    use super::parse_duration;

    #[test]
    fn durations() {
        for (text, ns) in
            [("2s", 2_000_000_000), ("1.5", 1_500_000_000), ("500ms", 500_000_000), ("0", 0), ("7us", 7000)]
        {
            assert_eq!(parse_duration(text).unwrap(), ns, "{text}");
        }
        for text in ["", "s", "-1s", "2 parsecs", "1..2s", "1e3s", "∞"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
