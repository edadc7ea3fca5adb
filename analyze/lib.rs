//! Turns a `.bpr` trace into tables, reports and flamegraphs, on any machine.
//!
//! ```text
//! Trace --pass 1--> Meta: tasks, cgroups, stacks, mappings, kernel symbols, clocks, losses
//!   |                 \
//!   '--pass 2--> Slab: events of a stretch of time, in order --> waits, slices, I/O, memory (sched, block_io, memory)
//!                       \                                         /
//!                        Visitor: tables (Parquet)  reports (text, JSON, SVG)  export (formats of others)
//! ```
//!
//! What is damaged or unknown is counted and stepped over. Memory is bounded by what [`slab`] says and by [`meta::Meta`].
//! The same trace gives the same bytes at any number of threads. The library knows no paths but those of local binaries
//! that hold symbols, and no terminals.
#![forbid(unsafe_code)]

// Pass 1: what events are about.
pub mod binaries;
pub mod cgroups;
pub mod clock;
pub mod cut;
pub mod damage;
pub mod jit;
pub mod kernel;
pub mod losses;
pub mod mappings;
pub mod meta;
pub mod recorded;
pub mod stacks;
pub mod symbols;
pub mod tasks;
pub mod versions;

// Pass 2: events in order, and what is made of several.
pub mod block_io;
pub mod memory;
pub mod offcpu;
pub mod pipeline;
pub mod sched;
pub mod sched_off;
pub mod sheds;
pub mod slab;

// Results.
pub mod bundle;
mod constants;
pub mod diff;
pub mod everything;
pub mod export;
pub mod filter;
pub mod flamegraph;
pub mod histogram;
pub mod parquet_file;
pub mod reports;
pub mod symbolize;
pub mod tables;
pub mod views;

mod error;
mod page;
pub mod text;
mod view;

pub use error::{Error, Result};
pub use everything::analyze;
pub use filter::Filter;
pub use meta::Meta;
pub use parquet_file::Output;
