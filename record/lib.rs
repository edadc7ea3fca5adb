//! The recorder: BPF programs write events to rings, the rings are drained into chunks, a thread appends them to a file.
//!
//! ARCHITECTURE.md shows the way of an event. Empty unless the feature `record` is on and the target is Linux.
#![cfg(recorder)]

pub mod args;
mod bpf;
mod build_id;
mod cgroups;
mod clock;
mod command;
mod filter;
mod jit;
mod kernel;
mod layout;
mod limits;
mod messages;
mod output;
mod perf_ring;
mod processes;
mod rings;
mod rotation;
mod segments;
mod session;
mod sideband;
mod snapshot;
mod sources;
mod stacks;
mod start;
mod stats;
mod status;
mod unwind;
mod writer;

pub use session::run;
