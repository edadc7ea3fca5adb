//! What is done with bytes that a fuzzer makes up. Each target is a function that panics when a promise does not hold: bytes
//! may be refused, with the offset, and nothing else. `scripts/fuzz` runs them under libFuzzer, `tests/corpus.rs` over what is kept,
//! `tests/mutations/` over files of testdata that it changes.
#![forbid(unsafe_code)]

mod format;
mod mend;
mod reading;
mod rows;
pub mod seeds;

pub use format::{block, column, recover, schema};
pub use reading::{everything, meta, read_as, reports, tables};
pub use rows::{EDGES, TEXTS};

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 7] = [
    ("block", block),
    ("column", column),
    ("recover", recover),
    ("schema", schema),
    ("meta", meta),
    ("tables", tables),
    ("reports", reports),
];
