//! Writes one segment: blocks, checkpoints of the index, the end. Appends only.

use std::io::Write;

use crate::block::{BlockHeader, BlockType, Codec, Encoding, HEADER_LEN, NO_STREAM, numbers};
use crate::codec::{Compressor, LEVEL};
use crate::error::{Error, Result};
use crate::kind::{Kind, Registry};
use crate::pack::Packer;
use crate::table::{Column, Table, Value};
use crate::{MAX_PAYLOAD, meta, section};

numbers! {
    /// Why a segment ended: `reason` of the END block.
    EndReason {
        /// Asked for: time over, command ended.
        Exit = 1 "exit",
        /// SIGINT, SIGTERM or SIGHUP.
        Signal = 2 "signal",
        /// The next segment goes on.
        Rotate = 3 "rotate",
        /// The disk is full.
        DiskFull = 4 "disk full",
        /// Another write error.
        WriteError = 5 "write error",
        /// Made by `recover` from a damaged or unfinished segment.
        Recovered = 6 "recovered",
        /// It has the size that it was to have at most.
        SizeLimit = 7 "size limit",
    }
}

/// What the blocks of a segment have in common.
#[derive(Clone, Copy, Debug)]
pub struct SegmentIds {
    /// Random id of the trace.
    pub trace_id: u64,
    /// Number of the segment.
    pub segment: u32,
    /// Number of the segment's first block.
    pub first_seq: u64,
}

/// A block that is ready to be written, header fields of the segment left out. It may be made on any thread.
#[derive(Debug)]
pub struct Block {
    /// `trace_id`, `seq` and `segment` are filled in by [`SegmentWriter::write`].
    pub header: BlockHeader,
    /// As stored.
    pub payload: Vec<u8>,
}

impl Block {
    /// Makes a block from sections that [`section::encode`] or [`section::encode_raw`] laid into `raw`.
    pub fn new(mut header: BlockHeader, raw: Vec<u8>, compressor: Option<&mut Compressor>) -> Result<Block> {
        if raw.len() > MAX_PAYLOAD as usize {
            return Err(Error::Unwritable(format!("a payload of {} bytes, at most {MAX_PAYLOAD} fit", raw.len())));
        }
        header.raw_len = raw.len() as u32;
        let mut payload = raw;
        if let Some(compressor) = compressor {
            let mut packed = Vec::new();
            compressor.compress(&payload, &mut packed)?;
            header.codec = Codec::Zstd as u8;
            payload = packed;
        }
        header.payload_len = payload.len() as u32;
        header.payload_crc = crc32c::crc32c(&payload);
        Ok(Block { header, payload })
    }

    /// Makes a block of tables in columns; timestamps and rows are taken from them.
    pub fn of_tables(block_type: BlockType, tables: &[&Table], compressor: Option<&mut Compressor>) -> Result<Block> {
        let mut header = BlockHeader::new(block_type, NO_STREAM);
        let mut raw = Vec::new();
        for table in tables {
            section::encode(table, &mut raw);
        }
        header.rows = tables.iter().map(|t| t.rows() as u32).sum();
        let times = || tables.iter().flat_map(|t| times(t)).copied().filter(|ts| *ts > 0);
        header.ts_min_ns = times().min().unwrap_or(0);
        header.ts_max_ns = times().max().unwrap_or(0);
        Block::new(header, raw, compressor)
    }
}

/// Writes a segment to `out`. Dropping it without [`SegmentWriter::finish`] leaves a readable, unfinished segment.
pub struct SegmentWriter<W: Write> {
    out: W,
    ids: SegmentIds,
    offset: u64,
    blocks: u64,
    events: u64,
    lost: u64,
    ts_max_ns: u64,
    index: Table,
    checkpointed: usize,
    compressor: Compressor,
}

impl<W: Write> SegmentWriter<W> {
    /// Begins a segment: writes HEADER with `items` and SCHEMA with all kinds of `registry`.
    pub fn new(out: W, ids: SegmentIds, registry: &Registry, items: &[(String, String)]) -> Result<Self> {
        let mut writer = SegmentWriter {
            out,
            ids,
            offset: 0,
            blocks: 0,
            events: 0,
            lost: 0,
            ts_max_ns: 0,
            index: Table::new(&meta::kind(meta::INDEX_ENTRY)),
            checkpointed: 0,
            compressor: Compressor::new(LEVEL)?,
        };
        let mut header = Table::new(&meta::kind(meta::HEADER_ITEM));
        for (key, value) in items {
            header.push(&[key.as_str().into(), value.as_str().into()]);
        }
        writer.write_tables(BlockType::Header, &[&header])?;
        writer.write_tables(BlockType::Schema, &[&registry.to_table()])?;
        Ok(writer)
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Events written so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What bytes go to.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    /// What bytes go to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Adds to the total of lost events that END tells.
    pub fn count_lost(&mut self, lost: u64) {
        self.lost += lost;
    }

    /// Appends tables as blocks of one type; large ones are split.
    pub fn write_tables(&mut self, block_type: BlockType, tables: &[&Table]) -> Result<()> {
        for table in tables {
            for part in parts(table) {
                let block = Block::of_tables(block_type, &[&part], Some(&mut self.compressor))?;
                self.write(block)?;
            }
        }
        Ok(())
    }

    /// Appends a block. After an error the output may end with part of a block: cut it to [`SegmentWriter::bytes`]
    /// before anything else is written.
    pub fn write(&mut self, mut block: Block) -> Result<()> {
        let h = &mut block.header;
        (h.trace_id, h.segment) = (self.ids.trace_id, self.ids.segment);
        h.seq = self.ids.first_seq.wrapping_add(self.blocks);
        let header = h.encode();
        // One write call: a block is either there or its tail is cut.
        block.payload.splice(0..0, header);
        self.out.write_all(&block.payload)?;
        let h = &block.header;
        self.index.push(&[self.offset.into(), Value::Text(&header)]);
        self.offset += h.total_len();
        self.blocks += 1;
        self.ts_max_ns = self.ts_max_ns.max(h.ts_max_ns);
        if h.block_type == BlockType::Events as u8 {
            self.events += u64::from(h.rows);
        }
        Ok(())
    }

    /// Appends rows as one block with the type, stream, times and loss of `header`, as several where one cannot hold them.
    pub fn write_rows(&mut self, header: BlockHeader, tables: &[Table]) -> Result<()> {
        let mut raw = Vec::new();
        tables.iter().for_each(|table| section::encode(table, &mut raw));
        if raw.len() > MAX_PAYLOAD as usize {
            drop(raw);
            let parts = || tables.iter().flat_map(parts);
            // A part is far below the cap but for a row that alone is over it: that cannot be written.
            if tables.len() > 1 || parts().count() > 1 {
                return parts().try_for_each(|part| self.write_rows(header, &[part]));
            }
            return Err(Error::Unwritable(format!("a row of kind {} of over {MAX_PAYLOAD} bytes", tables[0].kind)));
        }
        let rows = tables.iter().map(|t| t.rows() as u32).sum();
        let block = Block::new(BlockHeader { rows, ..header }, raw, Some(&mut self.compressor))?;
        self.write(block)
    }

    /// Appends a CHECKPOINT: `stats` and the index since the last one.
    pub fn checkpoint(&mut self, stats: &[&Table]) -> Result<()> {
        let part = slice(&self.index, self.checkpointed, self.index.rows());
        self.checkpointed = self.index.rows();
        let mut tables = stats.to_vec();
        tables.push(&part);
        let block = Block::of_tables(BlockType::Checkpoint, &tables, Some(&mut self.compressor))?;
        self.write(block)
    }

    /// Appends INDEX and END and flushes. Returns what bytes went to and the number of the next block of the trace.
    pub fn finish(mut self, reason: EndReason) -> Result<(W, u64)> {
        let index_offset = self.offset;
        let index = std::mem::replace(&mut self.index, Table::new(&meta::kind(meta::INDEX_ENTRY)));
        self.write_tables(BlockType::Index, &[&index])?;
        let kind = meta::kind(meta::END);
        let mut row = Vec::with_capacity(kind.row_size as usize);
        for v in [index_offset, self.offset, self.blocks + 1, self.events, self.lost, self.ts_max_ns] {
            row.extend_from_slice(&v.to_le_bytes());
        }
        row.extend_from_slice(&(reason as u32).to_le_bytes());
        let mut raw = Vec::new();
        section::encode_raw(&kind, &row, &mut raw);
        let mut header = BlockHeader::new(BlockType::End, NO_STREAM);
        (header.encoding, header.rows) = (Encoding::Raw as u8, 1);
        self.write(Block::new(header, raw, None)?)?;
        self.out.flush()?;
        Ok((self.out, self.ids.first_seq.wrapping_add(self.blocks)))
    }
}

/// Bytes of an END block.
pub const END_LEN: usize = HEADER_LEN + 64;

/// Timestamps of a table's rows: the first column of all kinds that have them, but for LOSS. Every kind of event has.
fn times(table: &Table) -> &[u64] {
    let column = match table.kind {
        meta::LOSS => 3,
        meta::HEADER_ITEM | meta::SCHEMA_FIELD | meta::KERNEL_SYMBOL | meta::INDEX_ENTRY | meta::END => return &[],
        meta::BINARY_SEGMENT | meta::BINARY_SYMBOL => return &[],
        _ => 0,
    };
    table.columns.get(column).map_or(&[], Column::ints)
}

/// A table in parts that each stay far below the caps of a block.
fn parts(table: &Table) -> Vec<Table> {
    const ROWS: usize = 1 << 16;
    const BYTES: usize = 4 << 20;
    let mut parts = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for row in 0..table.rows() {
        bytes += row_bytes(table, row);
        if row + 1 - start >= ROWS || bytes >= BYTES {
            parts.push(slice(table, start, row + 1));
            (start, bytes) = (row + 1, 0);
        }
    }
    if start < table.rows() || parts.is_empty() {
        parts.push(slice(table, start, table.rows()));
    }
    parts
}

fn row_bytes(table: &Table, row: usize) -> usize {
    let width = |c: &Column| match c {
        Column::Int(_) => 8,
        Column::Text(r) => r.get(row).len() + 4,
        Column::List(r) => 8 * r.get(row).len() + 4,
    };
    table.columns.iter().map(width).sum()
}

fn slice(table: &Table, start: usize, end: usize) -> Table {
    let cut = |c: &Column| match c {
        Column::Int(v) => Column::Int(v[start..end].to_vec()),
        Column::Text(r) => Column::Text(r.slice(start, end)),
        Column::List(r) => Column::List(r.slice(start, end)),
    };
    Table { kind: table.kind, columns: table.columns.iter().map(cut).collect() }
}

/// One CPU's events on their way into a block: rows of each kind, as the ring gave them.
#[derive(Debug, Default)]
pub struct Chunk {
    /// CPU.
    pub stream: u32,
    /// Raw rows by kind.
    pub rows: Vec<(u16, Vec<u8>)>,
    /// Smallest timestamp.
    pub ts_min_ns: u64,
    /// Largest timestamp.
    pub ts_max_ns: u64,
    /// Events lost so far on this CPU.
    pub lost_total: u64,
}

impl Chunk {
    /// Encodes the chunk. Without a compressor the columns are stored as they are; `raw` stores the rows themselves,
    /// the cheapest of all.
    pub fn encode(&self, registry: &Registry, compressor: Option<&mut Compressor>, raw: bool) -> Result<Block> {
        self.pack(registry, &mut Packer::default(), compressor, raw)
    }

    /// As [`Chunk::encode`], with what `packer` remembers of the chunks before.
    pub fn pack(
        &self,
        registry: &Registry,
        packer: &mut Packer,
        compressor: Option<&mut Compressor>,
        raw: bool,
    ) -> Result<Block> {
        let (header, payload) = self.lay(registry, packer, raw)?;
        Block::new(header, payload, compressor)
    }

    /// The first half of [`Chunk::pack`]: the payload before compression, for [`Block::new`].
    pub fn lay(&self, registry: &Registry, packer: &mut Packer, raw: bool) -> Result<(BlockHeader, Vec<u8>)> {
        let mut header = BlockHeader::new(BlockType::Events, self.stream);
        (header.ts_min_ns, header.ts_max_ns, header.lost_total) = (self.ts_min_ns, self.ts_max_ns, self.lost_total);
        // The next chunk is much like the last one.
        let mut payload = Vec::with_capacity(packer.last_len + packer.last_len / 8);
        for (id, rows) in self.rows.iter().filter(|(_, rows)| !rows.is_empty()) {
            let kind: &Kind =
                registry.get(*id).ok_or_else(|| Error::Unwritable(format!("kind {id} is not registered")))?;
            header.rows += (rows.len() / kind.row_size as usize) as u32;
            if raw {
                section::encode_raw(kind, rows, &mut payload);
            } else {
                section::encode_rows(kind, rows, packer, &mut payload)?;
            }
        }
        packer.last_len = payload.len();
        header.encoding = if raw { Encoding::Raw } else { Encoding::Columns } as u8;
        Ok((header, payload))
    }
}
