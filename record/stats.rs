//! What was lost and what the recording costs.

use anyhow::Result;
use bpfrec_format::{Source, Table, meta};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

/// Reasons that the BPF programs count, `REASONS` of config.bpf.h.
const REASONS: u32 = 14;
/// Sources that they count for.
const SOURCES: u32 = 16;

/// A table with one row of kind `loss`.
pub fn loss_row(source: u16, cpu: Option<u32>, (from, to): (u64, u64), reason: u64, lost: u64) -> Table {
    let mut table = Table::new(&meta::kind(meta::LOSS));
    let cpu = cpu.unwrap_or(u32::MAX);
    table.push(&[u64::from(source).into(), cpu.into(), from.into(), to.into(), reason.into(), lost.into()]);
    table
}

/// Counters of lost events, read each second.
pub struct Losses {
    map: MapHandle,
    /// What stands under key 0, a CPU each.
    sign: Vec<Vec<u8>>,
    last: Vec<Vec<u64>>,
    since_ns: u64,
    /// Lost so far, by source.
    pub total: [u64; SOURCES as usize],
    /// Lost so far, by CPU.
    pub by_cpu: Vec<u64>,
}

impl Losses {
    /// Begins to count.
    pub fn new(map: MapHandle) -> Losses {
        Losses {
            map,
            sign: Vec::new(),
            last: Vec::new(),
            since_ns: crate::clock::mono_ns(),
            total: [0; 16],
            by_cpu: Vec::new(),
        }
    }

    /// What was lost since the last call, one row for each source, CPU and reason.
    pub fn read(&mut self) -> Result<Option<Table>> {
        let now = crate::clock::mono_ns();
        let sign = self.map.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
        // Nearly always nothing was lost, and then this is all that it costs. The sign is raised after the counter: what it tells
        // of is there, and what is counted meanwhile raises it again.
        if sign == self.sign {
            self.since_ns = now;
            return Ok(None);
        }
        self.sign = sign;
        let mut table = Table::new(&meta::kind(meta::LOSS));
        self.last.resize((SOURCES * REASONS) as usize, Vec::new());
        for source in 0..SOURCES {
            for reason in 1..REASONS {
                let key = source * REASONS + reason;
                let Some(cpus) = self.map.lookup_percpu(&key.to_ne_bytes(), MapFlags::ANY)? else { continue };
                let last = &mut self.last[key as usize];
                last.resize(cpus.len(), 0);
                self.by_cpu.resize(cpus.len().max(self.by_cpu.len()), 0);
                for (cpu, bytes) in cpus.iter().enumerate() {
                    let count = bytes.first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
                    let new = count - last[cpu].min(count);
                    last[cpu] = count;
                    if new > 0 {
                        if meta::reason::loses_events(reason.into()) {
                            self.total[source as usize] += new;
                            self.by_cpu[cpu] += new;
                        }
                        table.push(&[
                            source.into(),
                            (cpu as u32).into(),
                            self.since_ns.into(),
                            now.into(),
                            reason.into(),
                            new.into(),
                        ]);
                    }
                }
            }
        }
        self.since_ns = now;
        Ok((table.rows() > 0).then_some(table))
    }
}

/// Stacks that `source` took, by space, from the counters of `bpf/recall.bpf.h`.
pub fn stacks(map: &MapHandle, source: Source) -> Result<Table> {
    let mut table = Table::new(&meta::kind(meta::STACK_STATS));
    let cpus = map.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
    for space in [meta::space::KERNEL, meta::space::USER] {
        let mut sums = [0u64; 5];
        for counts in &cpus {
            let counts = counts.as_chunks().0.iter().skip(5 * space as usize);
            for (sum, bytes) in sums.iter_mut().zip(counts) {
                *sum += u64::from_ne_bytes(*bytes);
            }
        }
        let [walked, remembered, checked, wrong, failed] = sums;
        table.push(&[
            crate::clock::mono_ns().into(),
            (source as u64).into(),
            space.into(),
            walked.into(),
            remembered.into(),
            checked.into(),
            wrong.into(),
            failed.into(),
        ]);
    }
    Ok(table)
}

/// CPU time of this process, ns.
pub fn own_cpu_ns() -> u64 {
    // SAFETY: `usage` is zeroed and whole; getrusage writes into it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let ns = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1000;
    ns(usage.ru_utime) + ns(usage.ru_stime)
}

/// Resident memory of this process at its highest, bytes; 0 where /proc does not tell. `getrusage` would tell what the process had that
/// started this one, too, if that was more.
pub fn high_water_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

/// Resident memory of this process now, bytes; 0 where /proc does not tell.
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
