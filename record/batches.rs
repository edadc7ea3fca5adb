//! Rows that still lie with their CPUs (bpf/batch.bpf.h): sent to the rings before these are drained.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle, libbpf_sys};

use crate::bpf::{Loaded, SharedMaps};

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
        match run_on(&self.flush, cpu) {
            Ok(()) => Ok(Vec::new()),
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

/// Runs a raw tracepoint program once on `cpu` (BPF_PROG_TEST_RUN, 1b4d60ec162f "bpf: Enable BPF_PROG_TEST_RUN for
/// raw_tracepoint").
fn run_on(program: &OwnedFd, cpu: u32) -> io::Result<()> {
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        flags: libbpf_sys::BPF_F_TEST_RUN_ON_CPU,
        cpu,
        ..Default::default()
    };
    // SAFETY: `options` is whole, says its size, and lends no other memory.
    match unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) } {
        0.. => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}
