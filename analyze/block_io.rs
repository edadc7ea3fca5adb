//! Block I/O, one record a request, out of what happened to its address from insert to completion.
//!
//! As in libbpf-tools' `biolatency`: the last issue begins, the first completion ends. State: one record a request in flight.

use rustc_hash::FxHashMap;

use crate::losses::Spans;
use crate::sched::Why;
use crate::slab::{EventTable, Slab};
use crate::view::Ints;

/// A request that was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// When it was queued in the I/O scheduler; `None` when it went to the device at once.
    pub insert_ns: Option<u64>,
    /// When it was given to the device.
    pub issue_ns: u64,
    /// When it was done.
    pub complete_ns: u64,
    /// Device, kernel dev_t.
    pub dev: u32,
    /// First sector.
    pub sector: u64,
    /// Size.
    pub bytes: u32,
    /// Operation and flags.
    pub cmd_flags: u32,
    /// Issuing thread.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// Its cgroup.
    pub cgroup_id: u64,
    /// Negative errno or the kernel's block status; 0: well.
    pub error: i32,
    /// CPU that completed it.
    pub cpu: u32,
}

impl Io {
    /// Time at the device.
    pub fn device_ns(&self) -> u64 {
        self.complete_ns - self.issue_ns
    }

    /// Time in the I/O scheduler.
    pub fn queue_ns(&self) -> Option<u64> {
        self.insert_ns.map(|insert| self.issue_ns.saturating_sub(insert))
    }

    /// Time from the queueing on.
    pub fn total_ns(&self) -> u64 {
        self.complete_ns - self.insert_ns.unwrap_or(self.issue_ns)
    }
}

/// Half an I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HalfIo {
    /// The half that is there, CLOCK_MONOTONIC.
    pub ts_ns: u64,
    /// When it was given to the device.
    pub issue_ns: Option<u64>,
    /// Device, kernel dev_t.
    pub dev: u32,
    /// Operation and flags.
    pub cmd_flags: u32,
    /// Process that issued it; 0 where only the end is known.
    pub pid: u32,
    /// Its cgroup.
    pub cgroup_id: u64,
    /// Why the other half is not there.
    pub why: Why,
}

#[derive(Clone, Copy)]
struct Pending {
    insert_ns: Option<u64>,
    issue_ns: Option<u64>,
    /// Whether the device gave it back, so that another issue is still this request's.
    requeued: bool,
    row: Row,
    error: i32,
}

#[derive(Clone, Copy)]
struct Row {
    dev: u32,
    sector: u64,
    bytes: u32,
    cmd_flags: u32,
    tid: u32,
    pid: u32,
    cgroup_id: u64,
}

impl Row {
    fn half(&self, ts_ns: u64, issue_ns: Option<u64>, why: Why) -> HalfIo {
        let Row { dev, cmd_flags, pid, cgroup_id, .. } = *self;
        HalfIo { ts_ns, issue_ns, dev, cmd_flags, pid, cgroup_id, why }
    }
}

impl Pending {
    /// Its end never came.
    fn half(&self, lost: &Spans) -> HalfIo {
        let ts_ns = self.insert_ns.or(self.issue_ns).unwrap_or(0);
        self.row.half(ts_ns, self.issue_ns, Why::begin(ts_ns, lost))
    }
}

const KINDS: [&str; 6] =
    ["block_insert", "block_issue", "block_merge", "block_requeue", "block_complete", "block_error"];

/// Columns that pairing needs.
pub(crate) fn wants(kind: &str, _field: &str) -> bool {
    KINDS.contains(&kind)
}

/// Pairs slab after slab.
pub(crate) struct Pairing {
    pending: FxHashMap<u64, Pending>,
    /// Bytes that are still to be done of requests whose first completion was partial.
    partial: FxHashMap<u64, u64>,
    spans: Spans,
    halves: Vec<HalfIo>,
}

struct Events<'a> {
    kind: usize,
    table: &'a EventTable,
    at: usize,
    rq: Ints<'a>,
    dev: Ints<'a>,
    sector: Ints<'a>,
    bytes: Ints<'a>,
    cmd_flags: Ints<'a>,
    tid: Ints<'a>,
    pid: Ints<'a>,
    cgroup_id: Ints<'a>,
    error: Ints<'a>,
}

impl Events<'_> {
    fn row(&self, at: usize) -> Row {
        Row {
            dev: self.dev.get32(at),
            sector: self.sector.get(at),
            bytes: self.bytes.get32(at),
            cmd_flags: self.cmd_flags.get32(at),
            tid: self.tid.get32(at),
            pid: self.pid.get32(at),
            cgroup_id: self.cgroup_id.get(at),
        }
    }
}

impl Pairing {
    /// `spans`: where events of the source were lost.
    pub(crate) fn new(spans: Spans) -> Self {
        Pairing { pending: FxHashMap::default(), partial: FxHashMap::default(), spans, halves: Vec::new() }
    }

    /// The I/O that was completed in a slab, in the order of completion, and what could not be paired.
    pub(crate) fn slab(&mut self, slab: &Slab) -> (Vec<Io>, Vec<HalfIo>) {
        slab.damaged.iter().for_each(|(from, to)| self.spans.add(*from, *to));
        let mut ios = Vec::new();
        let events = |(kind, name): (usize, &&str)| {
            let table = slab.table(name)?;
            let int = |name| table.ints(name);
            let (rq, dev, sector, bytes) = (int("rq"), int("dev"), int("sector"), int("bytes"));
            let (cmd_flags, tid, pid) = (int("cmd_flags"), int("tid"), int("pid"));
            let (cgroup_id, error) = (int("cgroup_id"), int("error"));
            Some(Events { kind, table, at: 0, rq, dev, sector, bytes, cmd_flags, tid, pid, cgroup_id, error })
        };
        let mut tables: Vec<Events<'_>> = KINDS.iter().enumerate().filter_map(events).collect();
        // The first of the smallest time: at the same moment a request is inserted before it is issued.
        while let Some(first) = tables.iter_mut().filter(|t| t.at < t.table.rows()).min_by_key(|t| t.table.ts[t.at]) {
            self.event(first, &mut ios);
            first.at += 1;
        }
        (ios, std::mem::take(&mut self.halves))
    }

    fn event(&mut self, e: &Events<'_>, ios: &mut Vec<Io>) {
        let (ts, rq, row) = (e.table.ts[e.at], e.rq.get(e.at), e.row(e.at));
        match KINDS[e.kind] {
            "block_insert" => {
                self.partial.remove(&rq);
                let new = Pending { insert_ns: Some(ts), issue_ns: None, requeued: false, row, error: 0 };
                match self.pending.get_mut(&rq) {
                    // A requeued request goes through the scheduler again; it has waited since its first insert.
                    Some(old) if old.row.dev == row.dev && old.row.sector == row.sector => {
                        old.insert_ns = old.insert_ns.or(Some(ts).filter(|_| old.issue_ns.is_none()));
                    }
                    Some(old) => {
                        self.halves.push(old.half(&self.spans));
                        *old = new;
                    }
                    None => drop(self.pending.insert(rq, new)),
                }
            }
            "block_issue" => {
                self.partial.remove(&rq);
                let new = Pending { insert_ns: None, issue_ns: Some(ts), requeued: false, row, error: 0 };
                let pending = self.pending.entry(rq).or_insert(new);
                let is_same = pending.issue_ns == Some(ts) || pending.issue_ns.is_none() || pending.requeued;
                if !is_same {
                    self.halves.push(pending.half(&self.spans));
                    *pending = new;
                }
                (pending.issue_ns, pending.requeued) = (Some(ts), false);
                // Merges may have made it larger since.
                (pending.row.bytes, pending.row.sector) = (row.bytes, row.sector);
                if pending.row.pid == 0 {
                    (pending.row.tid, pending.row.pid) = (row.tid, row.pid);
                    pending.row.cgroup_id = row.cgroup_id;
                }
            }
            "block_merge" => drop(self.pending.remove(&rq)),
            "block_complete" => self.complete(e, ts, rq, &row, ios),
            "block_error" => {
                if let Some(pending) = self.pending.get_mut(&rq) {
                    pending.error = e.error.get(e.at) as i32;
                }
            }
            // Requeued: another issue follows, which counts.
            _ => {
                if let Some(pending) = self.pending.get_mut(&rq) {
                    pending.requeued = true;
                }
            }
        }
    }

    fn complete(&mut self, e: &Events<'_>, ts: u64, rq: u64, row: &Row, ios: &mut Vec<Io>) {
        let done = u64::from(row.bytes);
        let Some(p) = self.pending.remove(&rq) else {
            match self.partial.get_mut(&rq) {
                Some(left) if *left > done => *left -= done,
                Some(_) => drop(self.partial.remove(&rq)),
                None => self.halves.push(row.half(ts, None, Why::end(ts, &self.spans))),
            }
            return;
        };
        let all = u64::from(p.row.bytes);
        if done > 0 && done < all {
            self.partial.insert(rq, all - done);
        }
        let Some(issue_ns) = p.issue_ns else {
            self.halves.push(p.row.half(ts, None, Why::end(ts, &self.spans)));
            return;
        };
        if issue_ns > ts || self.spans.touch(p.insert_ns.unwrap_or(issue_ns), ts) {
            self.halves.push(p.row.half(ts, Some(issue_ns), Why::Lost));
            return;
        }
        let error = e.error.get(e.at) as i32;
        ios.push(Io {
            insert_ns: p.insert_ns.filter(|insert| *insert <= issue_ns),
            issue_ns,
            complete_ns: ts,
            dev: p.row.dev,
            sector: p.row.sector,
            bytes: p.row.bytes,
            cmd_flags: p.row.cmd_flags,
            tid: p.row.tid,
            pid: p.row.pid,
            cgroup_id: p.row.cgroup_id,
            error: if error != 0 { error } else { p.error },
            cpu: e.table.cpu[e.at],
        });
    }

    /// What is left unpaired.
    pub(crate) fn finish(&self) -> Vec<HalfIo> {
        let mut halves: Vec<HalfIo> = self.pending.values().map(|p| p.half(&self.spans)).collect();
        halves.sort_unstable();
        halves
    }
}

/// Numbers that mean the same on all kernels from 5.10 on; those of zones were moved in between.
const OPERATIONS: [(u32, &str); 10] = [
    (0, "Read"),
    (1, "Write"),
    (2, "Flush"),
    (3, "Discard"),
    (5, "SecureErase"),
    (9, "WriteZeroes"),
    (32, "SCSIIn"),
    (33, "SCSIOut"),
    (34, "DrvIn"),
    (35, "DrvOut"),
];

/// In the order of libbpf-tools: bits above the 8 of the operation.
const FLAGS: [(u32, &str); 11] = [
    (21, "NoWait"),
    (20, "Background"),
    (19, "ReadAhead"),
    (18, "PreFlush"),
    (17, "FUA"),
    (16, "Integrity"),
    (15, "Idle"),
    (14, "NoMerge"),
    (13, "Priority"),
    (12, "Metadata"),
    (11, "Sync"),
];

/// Name of the operation, as libbpf-tools' `biolatency -F` prints it.
pub fn operation(cmd_flags: u32) -> &'static str {
    OPERATIONS
        .iter()
        .find(|(op, _)| *op == cmd_flags & 0xff)
        .map_or(if cmd_flags & 0xff < 32 { "Zone" } else { "Unknown" }, |(_, name)| name)
}

/// Names of the flags without the operation, joined by `-`.
pub fn flags(cmd_flags: u32) -> String {
    let set = FLAGS.iter().filter(|(bit, _)| cmd_flags >> bit & 1 == 1);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join("-")
}

/// Flags and operation as libbpf-tools' `biolatency -F` prints them.
pub fn flags_and_operation(cmd_flags: u32) -> String {
    match flags(cmd_flags) {
        flags if flags.is_empty() => operation(cmd_flags).into(),
        flags => format!("{flags}-{}", operation(cmd_flags)),
    }
}
