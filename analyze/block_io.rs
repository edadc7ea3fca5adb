//! Block I/O, one record a request, out of what happened to its address from insert to completion.
//!
//! As in libbpf-tools' `biolatency`: the last issue begins, the first completion ends. State: one record a request in flight.

use rustc_hash::FxHashMap;

use crate::losses::Spans;
use crate::sched::Unpaired;
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

#[derive(Clone, Copy)]
struct Pending {
    insert_ns: Option<u64>,
    issue_ns: Option<u64>,
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
    pub(crate) unpaired: Unpaired,
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
        let unpaired = Unpaired::default();
        Pairing { pending: FxHashMap::default(), partial: FxHashMap::default(), spans, unpaired }
    }

    /// The I/O that was completed in a slab, in the order of completion.
    pub(crate) fn slab(&mut self, slab: &Slab) -> Vec<Io> {
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
        ios
    }

    fn event(&mut self, e: &Events<'_>, ios: &mut Vec<Io>) {
        let (ts, rq, row) = (e.table.ts[e.at], e.rq.get(e.at), e.row(e.at));
        match KINDS[e.kind] {
            "block_insert" => {
                self.partial.remove(&rq);
                let new = Pending { insert_ns: Some(ts), issue_ns: None, row, error: 0 };
                match self.pending.get_mut(&rq) {
                    // A requeued request goes through the scheduler again; it has waited since its first insert.
                    Some(old) if old.row.dev == row.dev && old.row.sector == row.sector => {
                        old.insert_ns = old.insert_ns.or(Some(ts).filter(|_| old.issue_ns.is_none()));
                    }
                    Some(old) => {
                        self.unpaired.begin(old.issue_ns.or(old.insert_ns).unwrap_or(ts), &self.spans);
                        *old = new;
                    }
                    None => drop(self.pending.insert(rq, new)),
                }
            }
            "block_issue" => {
                self.partial.remove(&rq);
                let new = Pending { insert_ns: None, issue_ns: Some(ts), row, error: 0 };
                let pending = self.pending.entry(rq).or_insert(new);
                pending.issue_ns = Some(ts);
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
            _ => {}
        }
    }

    fn complete(&mut self, e: &Events<'_>, ts: u64, rq: u64, row: &Row, ios: &mut Vec<Io>) {
        let done = u64::from(row.bytes);
        let Some(p) = self.pending.remove(&rq) else {
            match self.partial.get_mut(&rq) {
                Some(left) if *left > done => *left -= done,
                Some(_) => drop(self.partial.remove(&rq)),
                None => self.unpaired.end(ts, &self.spans),
            }
            return;
        };
        let all = u64::from(p.row.bytes);
        if done > 0 && done < all {
            self.partial.insert(rq, all - done);
        }
        let Some(issue_ns) = p.issue_ns else {
            self.unpaired.end(ts, &self.spans);
            return;
        };
        if issue_ns > ts || self.spans.touch(p.insert_ns.unwrap_or(issue_ns), ts) {
            self.unpaired.lost += 1;
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
    pub(crate) fn finish(&mut self) {
        for p in self.pending.values() {
            self.unpaired.begin(p.insert_ns.or(p.issue_ns).unwrap_or(0), &self.spans);
        }
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
