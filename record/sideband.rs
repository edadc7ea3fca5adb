//! Executable mappings as they are made, from a dummy perf event on each CPU: the kernel writes the record, with the
//! file's build id, before the process can run a single instruction of it. So a process that lives a millisecond has
//! its mappings in the file.

use anyhow::{Context, Result};
use bpfrec_format::{Table, meta};
use linux_perf_event_reader::{
    EventRecord, Mmap2FileId, PerfEventAttr, RawData, RawEventRecord, RecordParseInfo, RecordType,
};
use perf_event_open_sys::bindings as sys;

use crate::build_id::BuildIds;
use crate::perf_ring::PerfRing;
use crate::processes::Mapping;

/// The dummy events.
pub struct Sideband {
    rings: Vec<PerfRing>,
    parse: RecordParseInfo,
    /// Records that the kernel could not write, since the last [`Sideband::take_lost`].
    lost: u64,
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
    attr.set_sample_id_all(1);
    attr.set_use_clockid(1);
    attr
}

impl Sideband {
    /// Opens and enables an event on each CPU.
    pub fn open(cpus: &[u32]) -> Result<Sideband> {
        // Build ids in the records: Linux 5.12 and later. Older kernels refuse the bit.
        let with_ids = cpus.first().is_some_and(|cpu| PerfRing::open(&mut attr(true), *cpu).is_ok());
        let mut attr = attr(with_ids);
        let mut rings = Vec::new();
        for &cpu in cpus {
            let ring = PerfRing::open(&mut attr, cpu);
            let ring = ring.with_context(|| format!("cannot watch mappings on CPU {cpu} (perf_event_open)"))?;
            ring.enable().context("cannot enable the dummy perf event")?;
            rings.push(ring);
        }
        // SAFETY: any bytes of a perf_event_attr may be read; it has no padding that is not part of a bit field.
        let bytes =
            unsafe { std::slice::from_raw_parts((&raw const attr).cast::<u8>(), size_of::<sys::perf_event_attr>()) };
        let parsed = PerfEventAttr::parse::<_, byteorder::NativeEndian>(bytes).context("perf_event_attr")?;
        let endian = linux_perf_event_reader::Endianness::NATIVE;
        Ok(Sideband { rings, parse: RecordParseInfo::new(&parsed.0, endian), lost: 0 })
    }

    /// Mappings since the last call, in time order.
    pub fn read(&mut self, build_ids: &mut BuildIds) -> Option<Table> {
        let mut mappings = Vec::new();
        let (parse, lost) = (self.parse, &mut self.lost);
        for ring in &self.rings {
            ring.read(|kind, misc, body| {
                let raw = RawEventRecord::new(RecordType(kind), misc, RawData::Single(body), parse);
                let ts_ns = raw.timestamp().unwrap_or_default();
                match raw.parse() {
                    Ok(EventRecord::Mmap2(m)) if m.pid > 0 => {
                        let mut mapping = Mapping {
                            ts_ns,
                            pid: m.pid as u32,
                            start: m.address,
                            len: m.length,
                            offset: m.page_offset,
                            path: m.path.as_slice().into_owned(),
                            ..Mapping::default()
                        };
                        match m.file_id {
                            Mmap2FileId::BuildId(id) => mapping.build_id = id,
                            Mmap2FileId::InodeAndVersion(file) => {
                                (mapping.major, mapping.minor, mapping.inode) = (file.major, file.minor, file.inode);
                                mapping.build_id = build_ids.of(&mapping);
                            }
                        }
                        mappings.push(mapping);
                    }
                    Ok(EventRecord::Lost(l)) => *lost += l.count,
                    _ => {}
                }
            });
        }
        mappings.sort_by_key(|m| m.ts_ns);
        let mut table = Table::new(&meta::kind(meta::MAPPING));
        mappings.iter().for_each(|m| m.push_to(&mut table));
        (table.rows() > 0).then_some(table)
    }

    /// Records lost since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}
