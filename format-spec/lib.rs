//! The `.bpr` trace format. `SPEC.md` beside this file is normative; this crate is its reader and writer.
//!
//! A trace is one file or a directory of segment files; a segment is a run of self-checking blocks; a block
//! holds sections; a section is a [`Table`] of rows of one [`Kind`]. Everything, from scheduler events to the
//! index, is such a table, so there is one encoder and one decoder.
//!
//! The crate works on bytes ([`std::io::Write`], [`ReadAt`]) and knows nothing of clocks, terminals or Linux.
#![forbid(unsafe_code)]

pub mod append;
pub mod block;
pub mod codec;
pub mod column;
pub mod container;
pub mod error;
pub mod events;
pub mod kind;
pub mod meta;
pub mod pack;
pub mod reader;
pub mod recover;
mod related;
pub mod section;
pub mod table;
pub mod trace;
pub mod varint;
mod walk;
pub mod writer;

pub use block::{BlockHeader, BlockType, Codec, Encoding, NO_STREAM};
pub use error::{Error, Result};
pub use kind::{Field, Kind, Registry, Source, Type};
pub use reader::{BlockRef, Damage, ReadAt, Segment};
pub use table::{Column, Ragged, Table};
pub use trace::Trace;
pub use writer::{Block, EndReason, SegmentIds, SegmentWriter};

/// Major version: a reader refuses a larger one.
pub const MAJOR: u16 = 1;
/// Minor version: a reader never refuses it.
pub const MINOR: u16 = 0;
/// Most bytes that a block's payload may have, stored or decompressed.
pub const MAX_PAYLOAD: u32 = 16 << 20;
/// Most values (rows times columns, plus list items) that a block may decode to.
pub const MAX_VALUES: usize = 4 << 20;
/// Most frames in one stack.
pub const MAX_FRAMES: usize = 1024;
