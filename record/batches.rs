//! Rows that still lie with their CPUs (bpf/batch.bpf.h): sent to the rings before these are drained.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::bpf::{self, Loaded, SharedMaps};

/// Where `struct batch` has the lengths of its halves, and where its rows begin.
const LENGTHS: [usize; 2] = [8, 12];
const ROWS: usize = 48;

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
        let batch = self.map.lookup(&cpu.to_ne_bytes(), MapFlags::ANY)?.context("a CPU has no batch")?;
        let len = |half: usize| u32::from_ne_bytes(batch[LENGTHS[half]..][..4].try_into().unwrap_or_default()) as usize;
        if len(0) + len(1) == 0 {
            return Ok(Vec::new());
        }
        match bpf::run(&self.flush, Some(cpu)) {
            Ok(_) => Ok(Vec::new()),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                self.map.update(&cpu.to_ne_bytes(), &vec![0; batch.len()], MapFlags::ANY)?;
                let half = (batch.len() - ROWS) / 2;
                let rows = |i: usize| batch.get(ROWS + i * half..).and_then(|rows| rows.get(..len(i))).unwrap_or(&[]);
                Ok([rows(0), rows(1)].concat())
            }
            Err(error) => Err(error).with_context(|| format!("cannot flush CPU {cpu}")),
        }
    }
}
