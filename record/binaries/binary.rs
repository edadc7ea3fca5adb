//! One binary: what is known of it, and how its file is read.

use std::fs::File;

use bpfrec_format::reader::ReadAt;
use rustc_hash::FxHashSet;
use sha2::{Digest, Sha256};

use crate::elf::{self, Layout};
use crate::open::{self, Found};
use crate::processes::Mapping;

/// Bytes at either end of a file that its content id is made of.
const CONTENT: u64 = 4096;
/// A binary that could not be opened is tried again at later mappings, this often.
const TRIES: u8 = 3;

/// Why a binary's symbols are not in the file: `missing` of kind `binary`.
pub mod missing {
    /// Neither its process nor its file was there any more.
    pub const GONE: &str = "gone before it could be opened";
    /// Its process was there.
    pub const REFUSED: &str = "closed to the recorder";
    /// Too many binaries.
    pub const HANDLES: &str = "too many open files";
    /// Stripped.
    pub const STRIPPED: &str = "no symbols in the file";
    /// Something else that is mapped and executable.
    pub const NOT_ELF: &str = "not an ELF file";
    /// `--symbols-max`.
    pub const BUDGET: &str = "over --symbols-max";
    /// A second Ctrl-C, or the time was over.
    pub const STOPPED: &str = "stopped before it was read";
    /// The file was changed or cannot be read.
    pub const UNREADABLE: &str = "cannot be read, or was changed";
}

/// One binary.
pub struct Binary {
    /// Number within the trace.
    pub id: u64,
    /// When it was first seen.
    pub ts_ns: u64,
    /// Build id; empty when it has none.
    pub build_id: Vec<u8>,
    /// Content id; empty where there is a build id.
    pub content_id: Vec<u8>,
    /// Path in the mount namespace of its first process.
    pub path: Vec<u8>,
    /// Device and inode, as in the mapping.
    pub file: (u32, u32, u64),
    /// Bytes.
    pub size: u64,
    /// What its headers say; `None` while it was never opened, or is no ELF file.
    pub layout: Option<Layout>,
    /// The file.
    pub handle: Option<File>,
    /// The vDSO is not a file.
    pub memory: Option<Vec<u8>>,
    /// A mapping of it, by which it can be opened again.
    pub mapping: Mapping,
    /// Functions in the trace.
    pub symbols: u32,
    /// Why there are none; empty for not looked for, or there.
    pub missing: &'static str,
    /// About twice the frames of stacks that lie in it.
    pub hits: u64,
    /// Pages of 4 KiB in the file that they lie in.
    pub pages: FxHashSet<u64>,
    /// Segment of the trace that it stands in, and when it was last put there.
    pub(super) segment: u32,
    /// How often it may be tried again.
    pub(super) tries: u8,
}

impl Binary {
    /// One of which only a mapping is known.
    pub(super) fn new(id: u64, m: &Mapping) -> Binary {
        Binary {
            id,
            ts_ns: m.ts_ns,
            build_id: Vec::new(),
            content_id: Vec::new(),
            path: m.path.clone(),
            file: (m.major, m.minor, m.inode),
            size: 0,
            layout: None,
            handle: None,
            memory: None,
            mapping: m.clone(),
            symbols: 0,
            missing: "",
            hits: 0,
            pages: FxHashSet::default(),
            segment: 0,
            tries: TRIES,
        }
    }

    /// Its file, if need be opened again, or why not.
    pub fn reader(&mut self) -> Result<Box<dyn ReadAt>, &'static str> {
        if let Some(image) = self.memory.take() {
            return Ok(Box::new(image));
        }
        if let Some(file) = self.handle.take() {
            return Ok(Box::new(file));
        }
        if self.layout.is_none() {
            return Err(if self.missing.is_empty() { missing::GONE } else { self.missing });
        }
        let is_this = |found: &Found| {
            let layout = elf::layout(&found.file).unwrap_or_default();
            layout.build_id == self.build_id
                && (!layout.build_id.is_empty() || content_id(&found.file).is_ok_and(|id| id == self.content_id))
        };
        let again = open::candidates(&self.mapping, std::iter::empty()).find(is_this);
        again.map(|found| Box::new(found.file) as Box<dyn ReadAt>).ok_or(missing::HANDLES)
    }
}

/// The number that an id gives.
pub(super) fn first_8(id: &[u8]) -> Option<u64> {
    match id {
        [] => None,
        // A short build id is padded with zeros.
        id => Some(id.iter().take(8).rev().fold(0, |v, b| v << 8 | u64::from(*b))),
    }
}

/// First 16 bytes of the SHA-256 of a file's first and last 4096 bytes and its length.
pub(super) fn content_id(file: &dyn ReadAt) -> std::io::Result<Vec<u8>> {
    let len = file.len()?;
    let mut part = vec![0; len.min(CONTENT) as usize];
    let mut hash = Sha256::new();
    for offset in [0, len - part.len() as u64] {
        file.read_exact_at(&mut part, offset)?;
        hash.update(&part);
    }
    hash.update(len.to_be_bytes());
    Ok(hash.finalize()[..16].to_vec())
}
