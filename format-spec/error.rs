//! What can be wrong with a trace, said so that the reader of the message knows where to look and what to try.

use std::io;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong while a trace is read or written. Offsets are bytes from the start of the segment.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a read or a write.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No block was found at all.
    #[error("not a .bpr trace: no valid block in {len} bytes (expected the magic 5b 2a 4d 18 at offset 0)")]
    NotATrace {
        /// Length of the file in bytes.
        len: u64,
    },
    /// Written by a future bpfrec.
    #[error(
        "the trace has format version {major}.{minor}, this bpfrec reads up to major {}: use a newer bpfrec",
        crate::MAJOR
    )]
    NewerMajor {
        /// Major version found.
        major: u16,
        /// Minor version found.
        minor: u16,
    },
    /// A block's bytes are not what its checksums or its own fields say.
    #[error("damaged block at offset {offset}: {what}; `bpfrec recover` keeps the rest")]
    Damaged {
        /// Offset of the block.
        offset: u64,
        /// What was expected and found.
        what: String,
    },
    /// A whole block that this version has no decoder for.
    #[error("block at offset {offset} is not understood: {what}; a newer bpfrec reads it")]
    NotUnderstood {
        /// Offset of the block.
        offset: u64,
        /// What is unknown.
        what: String,
    },
    /// A value that the format cannot hold was given to the writer.
    #[error("cannot be written: {0}")]
    Unwritable(String),
}

impl Error {
    /// A damaged block whose offset is filled in by [`Error::at`].
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Error::Damaged { offset: 0, what: what.into() }
    }

    /// A number that this version does not know; the offset is filled in by [`Error::at`].
    pub(crate) fn unknown(what: impl Into<String>) -> Self {
        Error::NotUnderstood { offset: 0, what: what.into() }
    }

    /// The same error at `at` when it is about a block.
    pub(crate) fn at(self, at: u64) -> Self {
        match self {
            Error::Damaged { what, .. } => Error::Damaged { offset: at, what },
            Error::NotUnderstood { what, .. } => Error::NotUnderstood { offset: at, what },
            other => other,
        }
    }
}
