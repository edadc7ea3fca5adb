//! Reads one segment: finds its blocks by the index or by `walk.rs`, and decodes those that are asked for.

use std::fs::File;
use std::io;

use crate::block::{BlockHeader, BlockType, HEADER_LEN};
use crate::codec;
use crate::error::{Error, Result};
use crate::kind::Registry;
use crate::table::{Column, Table};
use crate::writer::{END_LEN, EndReason};
use crate::{MAJOR, MAX_PAYLOAD, meta, section};

/// Bytes that can be read at any offset, from several threads.
pub trait ReadAt: Send + Sync {
    /// Fills `buf` from `offset` on.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Bytes in all.
    fn len(&self) -> io::Result<u64>;
    /// Whether there are no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|s| self.get(s..s.checked_add(buf.len())?));
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(Vec::len(self) as u64)
    }
}

#[cfg(unix)]
impl ReadAt for File {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buf, offset)
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Where a block is and what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef {
    /// Bytes from the start of the segment.
    pub offset: u64,
    /// The header.
    pub header: BlockHeader,
}

/// Bytes that are no valid block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Bytes from the start of the segment.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// What is wrong.
    pub what: String,
}

/// An open segment.
pub struct Segment {
    pub(crate) source: Box<dyn ReadAt>,
    /// Valid headers in file order. Payloads are checked when they are read.
    pub blocks: Vec<BlockRef>,
    /// What is not a block.
    pub damage: Vec<Damage>,
    /// Why the segment ended; `None` when it was never finished.
    pub end: Option<EndReason>,
    /// Length in bytes.
    pub len: u64,
    /// Kinds, as the segment's own schema describes them.
    pub registry: Registry,
    /// Keys and values of the HEADER block.
    pub items: Vec<(String, String)>,
}

impl Segment {
    /// Opens a segment by its index where it has a whole one, else by walking it.
    pub fn open(source: Box<dyn ReadAt>) -> Result<Segment> {
        Self::with(source, true)
    }

    /// Opens a segment by walking all headers, whatever its index says.
    pub fn walk(source: Box<dyn ReadAt>) -> Result<Segment> {
        Self::with(source, false)
    }

    fn with(source: Box<dyn ReadAt>, by_index: bool) -> Result<Segment> {
        let len = source.len()?;
        let mut segment = Segment {
            source,
            blocks: Vec::new(),
            damage: Vec::new(),
            end: None,
            len,
            registry: Registry::default(),
            items: Vec::new(),
        };
        if !(by_index && segment.by_index().unwrap_or(false)) {
            segment.by_walk()?;
        }
        if segment.blocks.is_empty() {
            return Err(Error::NotATrace { len });
        }
        if let Some(newer) = segment.blocks.iter().find(|b| b.header.major > MAJOR) {
            return Err(Error::NewerMajor { major: newer.header.major, minor: newer.header.minor });
        }
        segment.learn();
        Ok(segment)
    }

    /// Schema, header items and end. Damage in them is found again by whoever reads the block; here the defaults stand.
    fn learn(&mut self) {
        for table in self.tables_of(BlockType::Schema, meta::SCHEMA_FIELD) {
            let _ = self.registry.learn(&table);
        }
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        for table in self.tables_of(BlockType::Header, meta::HEADER_ITEM) {
            if let [Column::Text(keys), Column::Text(values), ..] = &table.columns[..] {
                self.items.extend((0..table.rows()).map(|i| (text(keys.get(i)), text(values.get(i)))));
            }
        }
        self.end = self.tables_of(BlockType::End, meta::END).first().and_then(|end| {
            let reason = *end.columns.get(6)?.ints().first()?;
            EndReason::from_number(u8::try_from(reason).ok()?)
        });
    }

    /// Rows of one kind from the first blocks of a type: the writer makes a few small ones, a bomb thousands.
    fn tables_of(&self, block_type: BlockType, kind: u16) -> Vec<Table> {
        let mut left = 2 * u64::from(MAX_PAYLOAD);
        let first = self.blocks_of(block_type).take_while(|b| {
            let before = left;
            left = left.saturating_sub(u64::from(b.header.raw_len));
            before > 0
        });
        let mut tables: Vec<_> =
            first.filter_map(|b| self.read(b, &|id| id == kind).ok()).flat_map(|rows| rows.tables).collect();
        tables.retain(|t| t.kind == kind);
        tables
    }

    pub(crate) fn header_at(&self, offset: u64) -> Option<BlockHeader> {
        let mut bytes = [0u8; HEADER_LEN];
        self.source.read_exact_at(&mut bytes, offset).ok()?;
        BlockHeader::decode(&bytes)
    }

    /// `Ok(true)`: blocks were filled from a whole index. Anything unexpected means `false`: then the walk decides.
    fn by_index(&mut self) -> Result<bool> {
        let Some(end_at) = self.len.checked_sub(END_LEN as u64) else { return Ok(false) };
        let Some(end) = self.header_at(end_at) else { return Ok(false) };
        if end.block_type != BlockType::End as u8 || end.major > MAJOR {
            return Ok(false);
        }
        // A file that is written over an older one may still have that one's end.
        let Some(first) = self.header_at(0) else { return Ok(false) };
        let tables = self.read(&BlockRef { offset: end_at, header: end }, &|_| true)?.tables;
        let field = |i: usize| tables.first().and_then(|t| t.columns.get(i)?.ints().first().copied());
        let (Some(mut at), Some(own)) = (field(0), field(1)) else { return Ok(false) };
        if own != end_at {
            return Ok(false);
        }
        // The index must account for every byte: else something was damaged, joined on or cut out. That also bounds
        // the number of entries by the length of the segment.
        let mut blocks: Vec<BlockRef> = Vec::new();
        let follows = |blocks: &[BlockRef], offset: u64, h: &BlockHeader| match blocks.last() {
            Some(last) => {
                let b = &last.header;
                let same = (h.trace_id, h.segment) == (b.trace_id, b.segment);
                same && offset == last.offset + b.total_len() && Some(h.seq) == b.seq.checked_add(1)
            }
            None => offset == 0 && *h == first,
        };
        let mut tail = Vec::new();
        while at < end_at {
            let Some(header) = self.header_at(at) else { return Ok(false) };
            let block = BlockRef { offset: at, header };
            if header.block_type != BlockType::Index as u8 {
                return Ok(false);
            }
            for table in self.read(&block, &|kind| kind == meta::INDEX_ENTRY)?.tables {
                let [Column::Int(offsets), Column::Text(headers), ..] = &table.columns[..] else { return Ok(false) };
                for (row, offset) in offsets.iter().enumerate() {
                    let Some(header) = BlockHeader::decode(headers.get(row)) else { return Ok(false) };
                    if *offset >= end_at || !follows(&blocks, *offset, &header) {
                        return Ok(false);
                    }
                    blocks.push(BlockRef { offset: *offset, header });
                }
            }
            tail.push(block);
            at += header.total_len();
        }
        tail.push(BlockRef { offset: end_at, header: end });
        for block in tail {
            if !follows(&blocks, block.offset, &block.header) {
                return Ok(false);
            }
            blocks.push(block);
        }
        if end_at + end.total_len() != self.len {
            return Ok(false);
        }
        self.blocks = blocks;
        Ok(true)
    }

    /// A block's payload as stored, checked.
    pub fn read_stored(&self, block: &BlockRef) -> Result<Vec<u8>> {
        let mut stored = vec![0u8; block.header.payload_len as usize];
        self.source.read_exact_at(&mut stored, block.offset + HEADER_LEN as u64)?;
        if crc32c::crc32c(&stored) != block.header.payload_crc {
            return Err(Error::damaged("payload checksum differs").at(block.offset));
        }
        Ok(stored)
    }

    /// Decodes the sections of a block that are of a `wanted` kind.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the block's offset. Memory stays below twice [`crate::MAX_PAYLOAD`] plus 16 bytes for each
    /// of [`crate::MAX_VALUES`]: 96 MiB at the very most, about 2 MiB for what the recorder writes.
    pub fn read(&self, block: &BlockRef, wanted: &dyn Fn(u16) -> bool) -> Result<Rows> {
        self.read_fields(block, &|kind, _| wanted(kind))
    }

    /// As [`Segment::read`], of each kind only the fields that `wanted` takes by their positions: [`section::decode_fields`].
    pub fn read_fields(&self, block: &BlockRef, wanted: &dyn Fn(u16, usize) -> bool) -> Result<Rows> {
        let stored = self.read_stored(block)?;
        let h = &block.header;
        let decode = || {
            let payload = codec::decompress(h.codec, stored, h.raw_len as usize)?;
            section::decode_fields(&payload, h.encoding, &self.registry, wanted)
        };
        let (tables, unknown_rows) = decode().map_err(|e| e.at(block.offset))?;
        Ok(Rows { tables, unknown_rows })
    }

    /// The kinds and rows of a block's sections, known or not, without decoding them.
    pub fn counts(&self, block: &BlockRef) -> Result<Vec<(u16, u32)>> {
        let h = &block.header;
        let payload = self.read_stored(block).and_then(|stored| codec::decompress(h.codec, stored, h.raw_len as usize));
        let payload = payload.map_err(|e| e.at(block.offset))?;
        let sections = section::split(&payload).map_err(|e| e.at(block.offset))?;
        Ok(sections.iter().map(|s| (s.kind, s.rows)).collect())
    }

    /// Events that LOSS blocks count as gone.
    pub fn lost(&self) -> u64 {
        let mut lost = 0u64;
        for block in self.blocks_of(BlockType::Loss) {
            for table in self.read(block, &|kind| kind == meta::LOSS).map(|rows| rows.tables).unwrap_or_default() {
                let [.., Column::Int(reasons), Column::Int(counts)] = &table.columns[..6] else { continue };
                let gone = reasons.iter().zip(counts).filter(|(reason, _)| meta::reason::loses_events(**reason));
                lost = gone.fold(lost, |sum, (_, count)| sum.saturating_add(*count));
            }
        }
        lost
    }

    /// Blocks of a type.
    pub fn blocks_of(&self, block_type: BlockType) -> impl Iterator<Item = &BlockRef> {
        self.blocks.iter().filter(move |b| b.header.block_type == block_type as u8)
    }

    /// Value of a HEADER key.
    pub fn item(&self, key: &str) -> Option<&str> {
        self.items.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Whether the segment was finished and no byte of it is damaged, as far as headers tell.
    pub fn is_complete(&self) -> bool {
        self.end.is_some() && self.damage.is_empty()
    }
}

/// What a block decodes to.
#[derive(Debug, Default)]
pub struct Rows {
    /// Sections of known kinds.
    pub tables: Vec<Table>,
    /// Rows that are not understood: of kinds that neither this version nor the trace's schema knows, or in an unknown
    /// packing.
    pub unknown_rows: u64,
}
