//! What the kernel tells through a dummy perf event on each CPU: executable mappings as they are made, with the file's
//! build id and before the process can run a single instruction of it, so that a process that lives a millisecond has
//! its mappings in the file; forks, execs, exits and changes of namespace; symbols of BPF programs that come and go.

use anyhow::{Context, Result, bail};
use linux_perf_event_reader::{
    EventRecord, Mmap2FileId, PerfEventAttr, RawData, RawEventRecord, RecordParseInfo, RecordType,
};
use perf_event_open_sys::bindings as sys;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::open::strip_deleted;
use crate::perf_ring::PerfRing;
use crate::pids;
use crate::processes::Mapping;

/// Kinds of namespaces in the order of the kernel's record.
pub const NAMESPACES: [&str; 7] = ["net", "uts", "ipc", "pid", "user", "mnt", "cgroup"];
/// Position of the mount namespace there.
pub const MOUNT: usize = 5;

/// The dummy events.
pub struct Sideband {
    /// One for each CPU that runs, by its number.
    pub rings: FxHashMap<u32, PerfRing>,
    build_ids: bool,
    parse: RecordParseInfo,
    /// Records that the kernel could not write, since the last [`Sideband::take_lost`].
    lost: u64,
    /// Threads that began: their first record of namespaces tells what they inherit.
    began: FxHashSet<u32>,
    /// Room for a record.
    room: Vec<u8>,
}

/// A record.
#[derive(Debug, PartialEq, Eq)]
pub enum Record {
    /// An executable mapping.
    Map(Mapping),
    /// A new process; not a new thread.
    Fork { pid: u32, parent: u32 },
    /// A process runs another program; its mappings come after this.
    Exec { pid: u32 },
    /// A process ended.
    Exit { pid: u32 },
    /// The namespaces of a thread, as inodes in the order of [`NAMESPACES`]. `moved`: it went there, it does not begin
    /// there.
    Namespaces { pid: u32, tid: u32, inodes: [u32; NAMESPACES.len()], moved: bool },
    /// A function of a BPF program (or of other code that the kernel generates) came or went.
    Symbol { addr: u64, len: u64, gone: bool, bpf: bool, name: Vec<u8> },
}

fn attr(build_id: bool) -> sys::perf_event_attr {
    let mut attr = sys::perf_event_attr::default();
    attr.size = size_of::<sys::perf_event_attr>() as u32;
    attr.type_ = sys::PERF_TYPE_SOFTWARE;
    attr.config = u64::from(sys::PERF_COUNT_SW_DUMMY);
    attr.sample_type = u64::from(sys::PERF_SAMPLE_TID | sys::PERF_SAMPLE_TIME);
    attr.clockid = libc::CLOCK_MONOTONIC;
    attr.set_disabled(1);
    attr.set_mmap(1);
    attr.set_mmap2(1);
    attr.set_build_id(u64::from(build_id));
    attr.set_comm(1);
    attr.set_comm_exec(1);
    attr.set_task(1);
    attr.set_namespaces(1);
    attr.set_ksymbol(1);
    attr.set_sample_id_all(1);
    attr.set_use_clockid(1);
    // Each record wakes us: a binary must be opened while its process lives.
    attr.set_watermark(1);
    attr.__bindgen_anon_2.wakeup_watermark = 1;
    attr
}

impl Sideband {
    /// Whether records have build ids: Linux 5.12 and later. Older kernels refuse the bit.
    pub fn tells_build_ids(cpus: &[u32]) -> bool {
        cpus.iter().any(|cpu| PerfRing::open(&mut attr(true), *cpu).is_ok())
    }

    /// Whether this thread may open such events.
    pub fn is_permitted(cpus: &[u32]) -> bool {
        cpus.iter().any(|cpu| PerfRing::open(&mut attr(false), *cpu).is_ok())
    }

    /// Opens and enables an event on each of `cpus` that runs.
    ///
    /// # Errors
    /// When there is a CPU that cannot be watched, or none that runs.
    pub fn open(cpus: &[u32]) -> Result<Sideband> {
        let build_ids = Self::tells_build_ids(cpus);
        let attr = attr(build_ids);
        // SAFETY: any bytes of a perf_event_attr may be read; it has no padding that is not part of a bit field.
        let bytes =
            unsafe { std::slice::from_raw_parts((&raw const attr).cast::<u8>(), size_of::<sys::perf_event_attr>()) };
        let parsed = PerfEventAttr::parse::<_, byteorder::NativeEndian>(bytes).context("perf_event_attr")?;
        let endian = linux_perf_event_reader::Endianness::NATIVE;
        let parse = RecordParseInfo::new(&parsed.0, endian);
        let (rings, began, room) = (FxHashMap::default(), FxHashSet::default(), Vec::new());
        let mut sideband = Sideband { rings, build_ids, parse, lost: 0, began, room };
        for &cpu in cpus {
            sideband.open_on(cpu)?;
        }
        if sideband.rings.is_empty() { bail!("no CPU can be watched (perf_event_open)") } else { Ok(sideband) }
    }

    /// Opens and enables an event on `cpu`, in the place of the one that it had before it went away. Read that first.
    /// Returns it, or `None` when the CPU does not run.
    ///
    /// # Errors
    /// When the kernel refuses for another reason.
    pub fn open_on(&mut self, cpu: u32) -> Result<Option<&PerfRing>> {
        let ring = match PerfRing::open(&mut attr(self.build_ids), cpu) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            ring => ring.with_context(|| format!("cannot watch mappings on CPU {cpu} (perf_event_open)"))?,
        };
        ring.enable().context("cannot enable the dummy perf event")?;
        self.rings.insert(cpu, ring);
        Ok(self.rings.get(&cpu))
    }

    /// Puts the records since the last call into `records`, which are none, with their times, CLOCK_MONOTONIC, in order.
    pub fn read(&mut self, records: &mut Vec<(u64, Record)>) {
        let (parse, lost, began) = (self.parse, &mut self.lost, &mut self.began);
        for ring in self.rings.values() {
            ring.read(&mut self.room, |kind, misc, body| {
                let raw = RawEventRecord::new(RecordType(kind), misc, RawData::Single(body), parse);
                let ts_ns = raw.timestamp().unwrap_or_default();
                match kind {
                    sys::PERF_RECORD_NAMESPACES => records.extend(namespaces(body, began).map(|r| (ts_ns, r))),
                    sys::PERF_RECORD_KSYMBOL => records.extend(symbol(body).map(|r| (ts_ns, r))),
                    _ => match raw.parse() {
                        Ok(EventRecord::Lost(l)) => *lost += l.count,
                        Ok(record) => {
                            if let EventRecord::Fork(fork) = &record {
                                began.insert(fork.tid as u32);
                            }
                            records.extend(task(record, ts_ns).map(|r| (ts_ns, r)));
                        }
                        Err(_) => *lost += 1,
                    },
                }
            });
        }
        records.sort_by_key(|(ts_ns, _)| *ts_ns);
    }

    /// Records lost since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

/// Who lives in no pid namespace below the recorder's has the number 0 here, or -1, and is left out.
fn task(record: EventRecord<'_>, ts_ns: u64) -> Option<Record> {
    let kernels = |pid: i32| u32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(pids::kernels);
    match record {
        EventRecord::Mmap2(m) => {
            let path = m.path.as_slice();
            let mut mapping = Mapping {
                ts_ns,
                pid: kernels(m.pid)?,
                start: m.address,
                len: m.length,
                offset: m.page_offset,
                path: strip_deleted(&path).to_vec(),
                ..Mapping::default()
            };
            match m.file_id {
                Mmap2FileId::BuildId(id) => mapping.build_id = id,
                Mmap2FileId::InodeAndVersion(file) => {
                    (mapping.major, mapping.minor, mapping.inode) = (file.major, file.minor, file.inode);
                }
            }
            Some(Record::Map(mapping))
        }
        EventRecord::Fork(f) if f.pid != f.ppid => {
            Some(Record::Fork { pid: kernels(f.pid)?, parent: kernels(f.ppid).unwrap_or(0) })
        }
        EventRecord::Comm(c) if c.is_execve => Some(Record::Exec { pid: kernels(c.pid)? }),
        EventRecord::Exit(e) if e.pid == e.tid => Some(Record::Exit { pid: kernels(e.pid)? }),
        _ => None,
    }
}

fn int<const N: usize>(body: &[u8], at: usize) -> Option<[u8; N]> {
    body.get(at..)?.first_chunk().copied()
}

/// `u32 pid, tid; u64 nr; { u64 dev, inode; } [nr]`. The record of a fork comes before that of the new thread's namespaces.
fn namespaces(body: &[u8], began: &mut FxHashSet<u32>) -> Option<Record> {
    let known = u64::from_ne_bytes(int(body, 8)?) as usize;
    let mut inodes = [0; NAMESPACES.len()];
    for (i, inode) in inodes.iter_mut().enumerate().take(known) {
        *inode = u64::from_ne_bytes(int(body, 16 + 16 * i + 8)?) as u32;
    }
    let (pid, tid) = (u32::from_ne_bytes(int(body, 0)?), u32::from_ne_bytes(int(body, 4)?));
    let moved = !began.remove(&tid);
    Some(Record::Namespaces { pid: pids::kernels(pid)?, tid: pids::kernels(tid)?, inodes, moved })
}

/// `u64 addr; u32 len; u16 type, flags; char name[]`.
fn symbol(body: &[u8]) -> Option<Record> {
    Some(Record::Symbol {
        addr: u64::from_ne_bytes(int(body, 0)?),
        len: u32::from_ne_bytes(int(body, 8)?).into(),
        bpf: u16::from_ne_bytes(int(body, 12)?) == 1,
        gone: u16::from_ne_bytes(int(body, 14)?) & 1 != 0,
        name: body.get(16..)?.split(|b| *b == 0).next()?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_the_reader_does_not_know() {
        let mut body = [7u32.to_ne_bytes(), 8u32.to_ne_bytes()].concat();
        body.extend(7u64.to_ne_bytes());
        (0..14u64).for_each(|i| body.extend((100 + i).to_ne_bytes()));
        let inodes = [101, 103, 105, 107, 109, 111, 113];
        let mut began = FxHashSet::from_iter([8]);
        let told = |moved| Some(Record::Namespaces { pid: 7, tid: 8, inodes, moved });
        assert_eq!(namespaces(&body, &mut began), told(false));
        assert_eq!(namespaces(&body, &mut began), told(true));
        assert_eq!(namespaces(&body[..80], &mut began), None);
        let mut body = 0xffff_0000u64.to_ne_bytes().to_vec();
        body.extend(64u32.to_ne_bytes());
        body.extend([1u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat());
        body.extend(b"bpf_prog_x\0\0\0rest");
        let name = b"bpf_prog_x".to_vec();
        assert_eq!(symbol(&body), Some(Record::Symbol { addr: 0xffff_0000, len: 64, gone: true, bpf: true, name }));
    }
}
