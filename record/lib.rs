//! The recorder: BPF programs write events to rings, the rings are drained into chunks, a thread appends them to a file.
//!
//! ARCHITECTURE.md shows the way of an event. Empty unless the feature `record` is on and the target is Linux.
#![cfg(recorder)]

mod abilities;
mod accounts;
pub mod args;
mod batches;
mod behind;
mod binaries;
mod bpf;
mod bpf_time;
mod budget;
mod cgroups;
mod chosen;
mod clock;
mod command;
mod confine;
mod drained;
mod elf;
mod filter;
mod finish;
mod held;
mod hits;
mod hotplug;
mod images;
mod jit;
mod kernel;
mod layout;
mod limits;
pub mod memory;
pub mod memory_args;
mod messages;
mod meter;
mod modules;
mod open;
mod output;
mod perf_ring;
mod pids;
mod processes;
mod queue;
mod rights;
mod rings;
mod rotation;
mod sandbox;
mod seen;
mod segments;
mod session;
mod shedding;
mod sideband;
mod signals;
mod snapshot;
mod sources;
mod stacks;
mod start;
mod stats;
mod status;
mod steps;
mod storage;
mod symbols;
mod types;
mod unwind;
mod vdso;
mod watch;
mod writer;

pub use session::run;
