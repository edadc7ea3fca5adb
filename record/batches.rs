//! Rows that still lie with their CPUs (bpf/batch.bpf.h): sent to the rings before these are drained.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
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
}

impl Batches {
    /// Those of a source whose object has a program `flush`.
    pub fn of(loaded: &Loaded, shared: &SharedMaps) -> Option<Batches> {
        let map = MapHandle::try_from(shared.get("batches").ok()?).ok()?;
        Some(Batches { map, flush: loaded.program("flush").ok()? })
    }

    /// Sends what `cpu` has to its ring. Of a CPU that went offline, where no program can run any more, the rows are
    /// returned: all halves in one.
    pub fn flush(&self, cpu: u32) -> Result<Vec<u8>> {
        let slots = cpu * SLOTS..(cpu + 1) * SLOTS;
        let held = slots.map(|slot| Ok((slot, self.batch(slot)?))).collect::<Result<Vec<_>>>()?;
        if held.iter().all(|(_, batch)| rows(batch).iter().all(|rows| rows.is_empty())) {
            return Ok(Vec::new());
        }
        match bpf::run(&self.flush, Some(cpu)) {
            Ok(_) => Ok(Vec::new()),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                for (slot, batch) in &held {
                    self.map.update(&slot.to_ne_bytes(), &vec![0; batch.len()], MapFlags::ANY)?;
                }
                Ok(held.iter().flat_map(|(_, batch)| rows(batch)).flatten().copied().collect())
            }
            Err(error) => Err(error).with_context(|| format!("cannot flush CPU {cpu}")),
        }
    }

    fn batch(&self, slot: u32) -> Result<Vec<u8>> {
        self.map.lookup(&slot.to_ne_bytes(), MapFlags::ANY)?.context("a CPU has no batch")
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
