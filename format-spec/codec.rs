//! Payload compression. zstd level 1 without a dictionary: NOTES.md has the measurements.

use std::cell::RefCell;

use crate::block::Codec;
use crate::error::{Error, Result};

/// zstd level of the recorder.
pub const LEVEL: i32 = 1;
/// Bytes that a match has at least. What is fed are packed columns, where shorter ones cost more time than they save bytes.
const MATCH: u32 = 7;

/// A compressor that keeps its working memory from block to block.
pub struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    /// A compressor at `level`.
    pub fn new(level: i32) -> Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        if level == LEVEL {
            compressor.set_parameter(zstd::zstd_safe::CParameter::MinMatch(MATCH))?;
        }
        Ok(Compressor(compressor))
    }

    /// Compresses `raw` into `out`, whose content it replaces.
    pub fn compress(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        self.0.compress_to_buffer(raw, out)?;
        Ok(())
    }
}

thread_local! {
    /// Working memory, 160 KiB, that a thread keeps from block to block.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decompresses a payload of `raw_len` bytes. The frame must say exactly that length itself, so that no
/// more than `raw_len` is ever allocated.
pub fn decompress(codec: u8, stored: Vec<u8>, raw_len: usize) -> Result<Vec<u8>> {
    match Codec::from_number(codec) {
        Some(Codec::None) if stored.len() == raw_len => Ok(stored),
        Some(Codec::None) => Err(Error::damaged(format!("payload of {} bytes says raw_len {raw_len}", stored.len()))),
        Some(Codec::Zstd) => {
            let size = zstd::zstd_safe::get_frame_content_size(&stored);
            if !matches!(size, Ok(Some(n)) if n == raw_len as u64) {
                return Err(Error::damaged(format!("zstd frame does not say the raw_len {raw_len} of its header")));
            }
            if zstd::zstd_safe::find_frame_compressed_size(&stored) != Ok(stored.len()) {
                return Err(Error::damaged("payload is not exactly one zstd frame"));
            }
            let raw = DECOMPRESSOR.with_borrow_mut(|kept| {
                let decompressor = match kept {
                    Some(decompressor) => decompressor,
                    None => kept.insert(zstd::bulk::Decompressor::new()?),
                };
                decompressor.decompress(&stored, raw_len).map_err(|e| Error::damaged(format!("zstd: {e}")))
            })?;
            if raw.len() != raw_len {
                return Err(Error::damaged(format!("zstd gave {} bytes, raw_len says {raw_len}", raw.len())));
            }
            Ok(raw)
        }
        None => Err(Error::unknown(format!("codec {codec}"))),
    }
}
