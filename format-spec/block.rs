//! The 96-byte block header of SPEC.md section 3.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | `0x184D2A5B`, a zstd skippable frame's magic: `zstd -dc` steps over headers |
//! | 4 | 4 | bytes to step over: 88 with a zstd payload, else 88 + payload_len |
//! | 8 | 8 | sync mark `B6 42 50 52 43 0D 0A 1A` |
//! | 16 | 8 | trace id |
//! | 24 | 8 | block number, rising by one over the whole trace |
//! | 32 | 4 | segment number |
//! | 36 | 1 | block type; 0x80 and above may be skipped when unknown |
//! | 37 | 1 | codec |
//! | 38 | 1 | encoding |
//! | 39 | 1 | flags, 0 |
//! | 40 | 4 | stream: CPU number, 0xFFFFFFFF for none |
//! | 44 | 2+2 | format major, minor |
//! | 48 | 4 | payload_len |
//! | 52 | 4 | raw_len: payload after decompression |
//! | 56 | 4 | rows in the block |
//! | 60 | 4 | 0 |
//! | 64 | 8+8 | smallest and largest timestamp, CLOCK_MONOTONIC ns |
//! | 80 | 8 | events lost so far on this stream |
//! | 88 | 4 | crc32c of the payload as stored |
//! | 92 | 4 | crc32c of bytes 0..92 |

use crate::{MAJOR, MAX_PAYLOAD, MINOR};

/// Bytes of a header.
pub const HEADER_LEN: usize = 96;
/// Resynchronisation mark at offset 8 of each header.
pub const SYNC: [u8; 8] = [0xB6, b'B', b'P', b'R', b'C', 0x0D, 0x0A, 0x1A];
/// Stream of blocks that belong to no CPU.
pub const NO_STREAM: u32 = u32::MAX;
const MAGIC: u32 = 0x184D_2A5B;

macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $number:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$item_doc])* $item = $number,)* }

        impl $name {
            /// All that this version knows, in the order of their numbers.
            pub const ALL: &[$name] = &[$($name::$item,)*];

            /// The item with this number, if this version knows it.
            pub fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some($name::$item),)* _ => None }
            }

            /// Name in SPEC.md.
            pub fn name(self) -> &'static str {
                match self { $($name::$item => $text,)* }
            }
        }
    };
}
pub(crate) use numbers;

numbers! {
    /// What a block is for. Numbers from 0x80 on are ignorable.
    BlockType {
        /// Facts about the recording, as keys and values. First of each segment.
        Header = 1 "HEADER",
        /// Names, types and units of every kind's fields.
        Schema = 2 "SCHEMA",
        /// One CPU's events.
        Events = 3 "EVENTS",
        /// Definitions of stack ids.
        Stacks = 4 "STACKS",
        /// Tasks at the segment's start, and their forks, execs, renames, exits.
        Tasks = 5 "TASKS",
        /// Cgroup ids and paths.
        Cgroups = 6 "CGROUPS",
        /// Executable mappings of processes.
        Maps = 7 "MAPS",
        /// The same moment on three clocks.
        Clock = 8 "CLOCK",
        /// Events that were lost.
        Loss = 9 "LOSS",
        /// Totals so far and the index since the last checkpoint.
        Checkpoint = 10 "CHECKPOINT",
        /// Headers of all blocks of the segment.
        Index = 11 "INDEX",
        /// Last block of a finished segment: 160 bytes.
        End = 12 "END",
        /// Kernel symbols.
        KernelSymbols = 0x80 "KERNEL_SYMBOLS",
        /// Binaries that are mapped: identity and layout.
        Binaries = 0x81 "BINARIES",
        /// Functions of binaries.
        BinarySymbols = 0x82 "BINARY_SYMBOLS",
        /// Functions that runtimes compiled while they ran.
        JitSymbols = 0x83 "JIT_SYMBOLS",
    }
}

numbers! {
    /// How a payload is compressed.
    Codec {
        /// Stored as it is.
        None = 0 "none",
        /// One zstd frame with content size.
        Zstd = 1 "zstd",
    }
}

numbers! {
    /// How rows are laid out in a section.
    Encoding {
        /// Rows one after the other, as in the C structs.
        Raw = 0 "raw",
        /// Column after column, each with its own packing.
        Columns = 2 "columns",
    }
}

/// A header's fields. `block_type`, `codec` and `encoding` are numbers, for unknown ones must survive a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Random id of the trace; blocks of another trace are not this one's.
    pub trace_id: u64,
    /// Rises by one with each block of the trace.
    pub seq: u64,
    /// Segment that the block belongs to.
    pub segment: u32,
    /// See [`BlockType`].
    pub block_type: u8,
    /// See [`Codec`].
    pub codec: u8,
    /// See [`Encoding`].
    pub encoding: u8,
    /// 0; whatever a later version puts here survives a copy.
    pub flags: u8,
    /// CPU, or [`NO_STREAM`].
    pub stream: u32,
    /// Format version.
    pub major: u16,
    /// Format version.
    pub minor: u16,
    /// Stored bytes after the header.
    pub payload_len: u32,
    /// Bytes after decompression.
    pub raw_len: u32,
    /// Rows in all sections.
    pub rows: u32,
    /// 0; whatever a later version puts here survives a copy.
    pub extra: u32,
    /// Smallest timestamp, CLOCK_MONOTONIC ns; 0 when the block has none.
    pub ts_min_ns: u64,
    /// Largest timestamp.
    pub ts_max_ns: u64,
    /// Events lost so far on this stream.
    pub lost_total: u64,
    /// crc32c of the payload.
    pub payload_crc: u32,
}

impl BlockHeader {
    /// A header with this version, no codec, and zero elsewhere.
    pub fn new(block_type: BlockType, stream: u32) -> Self {
        BlockHeader {
            trace_id: 0,
            seq: 0,
            segment: 0,
            block_type: block_type as u8,
            codec: Codec::None as u8,
            encoding: Encoding::Columns as u8,
            flags: 0,
            stream,
            major: MAJOR,
            minor: MINOR,
            payload_len: 0,
            raw_len: 0,
            rows: 0,
            extra: 0,
            ts_min_ns: 0,
            ts_max_ns: 0,
            lost_total: 0,
            payload_crc: 0,
        }
    }

    /// Header and payload, in bytes.
    pub fn total_len(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.payload_len)
    }

    /// The 96 bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut b = [0u8; HEADER_LEN];
        let skip = 88 + if self.codec == Codec::Zstd as u8 { 0 } else { self.payload_len };
        b[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        b[4..8].copy_from_slice(&skip.to_le_bytes());
        b[8..16].copy_from_slice(&SYNC);
        b[16..24].copy_from_slice(&self.trace_id.to_le_bytes());
        b[24..32].copy_from_slice(&self.seq.to_le_bytes());
        b[32..36].copy_from_slice(&self.segment.to_le_bytes());
        b[36..40].copy_from_slice(&[self.block_type, self.codec, self.encoding, self.flags]);
        b[40..44].copy_from_slice(&self.stream.to_le_bytes());
        b[44..46].copy_from_slice(&self.major.to_le_bytes());
        b[46..48].copy_from_slice(&self.minor.to_le_bytes());
        b[48..52].copy_from_slice(&self.payload_len.to_le_bytes());
        b[52..56].copy_from_slice(&self.raw_len.to_le_bytes());
        b[56..60].copy_from_slice(&self.rows.to_le_bytes());
        b[60..64].copy_from_slice(&self.extra.to_le_bytes());
        b[64..72].copy_from_slice(&self.ts_min_ns.to_le_bytes());
        b[72..80].copy_from_slice(&self.ts_max_ns.to_le_bytes());
        b[80..88].copy_from_slice(&self.lost_total.to_le_bytes());
        b[88..92].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&b[..92]);
        b[92..96].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// Reads a header. `None` when it is not one: magic, sync, checksum or a length over the caps.
    pub fn decode(b: &[u8]) -> Option<Self> {
        let b: &[u8; HEADER_LEN] = b.get(..HEADER_LEN)?.try_into().ok()?;
        let u16_at = |at: usize| u16::from_le_bytes([b[at], b[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u32_at(0) != MAGIC || b[8..16] != SYNC || crc32c::crc32c(&b[..92]) != u32_at(92) {
            return None;
        }
        let header = BlockHeader {
            trace_id: u64_at(16),
            seq: u64_at(24),
            segment: u32_at(32),
            block_type: b[36],
            codec: b[37],
            encoding: b[38],
            flags: b[39],
            stream: u32_at(40),
            major: u16_at(44),
            minor: u16_at(46),
            payload_len: u32_at(48),
            raw_len: u32_at(52),
            rows: u32_at(56),
            extra: u32_at(60),
            ts_min_ns: u64_at(64),
            ts_max_ns: u64_at(72),
            lost_total: u64_at(80),
            payload_crc: u32_at(88),
        };
        (header.payload_len <= MAX_PAYLOAD && header.raw_len <= MAX_PAYLOAD).then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_every_flipped_bit() {
        let mut header = BlockHeader::new(BlockType::Events, 3);
        header.seq = 77;
        header.payload_len = 1000;
        header.ts_max_ns = u64::MAX;
        let bytes = header.encode();
        assert_eq!(BlockHeader::decode(&bytes), Some(header));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BlockHeader::decode(&bad), None, "bit {bit}");
        }
        assert_eq!(BlockHeader::decode(&bytes[..95]), None);
    }
}
