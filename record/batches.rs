//! Rows that still lie with their CPUs (bpf/batch.bpf.h): sent to the rings before these are drained.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::bpf::{self, Loaded, SharedMaps};

/// Batches of a CPU.
pub const SLOTS: u32 = 4;
/// Where `struct batch` has the lengths of its halves, and where its rows begin.
const LENGTHS: [usize; 2] = [8, 12];
const ROWS: usize = 24;

/// The batches of all CPUs.
pub struct Batches {
    map: MapHandle,
    flush: OwnedFd,
    /// Room for a batch.
    room: Vec<u8>,
}

impl Batches {
    /// Those of a source whose object has a program `flush`.
    pub fn of(loaded: &Loaded, shared: &SharedMaps) -> Option<Batches> {
        let map = MapHandle::try_from(shared.get("batches").ok()?).ok()?;
        let room = vec![0; map.value_size() as usize];
        Some(Batches { map, flush: loaded.program("flush").ok()?, room })
    }

    /// Sends what `cpu` has to its ring. Of a CPU that went offline, where no program can run any more, the rows are
    /// returned: all halves in one.
    pub fn flush(&mut self, cpu: u32) -> Result<Vec<u8>> {
        let mut slots = cpu * SLOTS..(cpu + 1) * SLOTS;
        let mut has_rows = false;
        for slot in slots.clone() {
            has_rows = has_rows || self.rows(slot)?.iter().any(|rows| !rows.is_empty());
        }
        if !has_rows {
            return Ok(Vec::new());
        }
        match bpf::run(&self.flush, Some(cpu)) {
            Ok(_) => Ok(Vec::new()),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => slots.try_fold(Vec::new(), |mut all, slot| {
                all.extend(self.rows(slot)?.concat());
                self.map.update(&slot.to_ne_bytes(), &vec![0; self.room.len()], MapFlags::ANY)?;
                Ok(all)
            }),
            Err(error) => Err(error).with_context(|| format!("cannot flush CPU {cpu}")),
        }
    }

    /// Rows in the halves of a batch.
    fn rows(&mut self, slot: u32) -> Result<[&[u8]; 2]> {
        if !self.map.lookup_into(&slot.to_ne_bytes(), &mut self.room, MapFlags::ANY)? {
            bail!("a CPU has no batch");
        }
        Ok(rows(&self.room))
    }
}

/// Rows in the halves of a batch.
fn rows(batch: &[u8]) -> [&[u8]; 2] {
    let half = (batch.len() - ROWS) / 2;
    [0, 1].map(|i| {
        let len = u32::from_ne_bytes(batch[LENGTHS[i]..][..4].try_into().unwrap_or_default()) as usize;
        batch.get(ROWS + i * half..).and_then(|rows| rows.get(..len)).unwrap_or(&[])
    })
}
