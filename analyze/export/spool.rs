//! Columns that grow side by side and are wanted one after the other: they wait in one unnamed file.
//!
//! Memory: [`BUFFERED`] bytes, and 12 bytes a stretch that was written, which is the whole buffer's share of a column.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};

use super::Out;
use crate::error::Result;

/// Bytes of all columns together that are held before they are written.
const BUFFERED: usize = 16 << 20;

/// Columns, by their numbers.
#[derive(Default)]
pub(super) struct Spool {
    columns: Vec<Column>,
    buffered: usize,
    file: Option<BufWriter<File>>,
    len: u64,
}

#[derive(Default)]
struct Column {
    buffer: Vec<u8>,
    /// Where its stretches stand in the file, and their lengths.
    stretches: Vec<(u64, u32)>,
}

impl Spool {
    /// A new column.
    pub(super) fn column(&mut self) -> usize {
        self.columns.push(Column::default());
        self.columns.len() - 1
    }

    /// Adds a value to a column of JSON, with a comma before all but the first.
    pub(super) fn json(&mut self, column: usize, value: &str) -> Result<()> {
        let of = &mut self.columns[column];
        let comma = !of.buffer.is_empty() || !of.stretches.is_empty();
        if comma {
            of.buffer.push(b',');
        }
        of.buffer.extend_from_slice(value.as_bytes());
        self.buffered += value.len() + usize::from(comma);
        if self.buffered >= BUFFERED { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        if self.file.is_none() {
            self.file = Some(BufWriter::with_capacity(1 << 18, tempfile::tempfile()?));
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        for column in self.columns.iter_mut().filter(|c| !c.buffer.is_empty()) {
            file.write_all(&column.buffer)?;
            column.stretches.push((self.len, column.buffer.len() as u32));
            self.len += column.buffer.len() as u64;
            column.buffer = Vec::new();
        }
        self.buffered = 0;
        Ok(())
    }

    /// Copies a column to `out`.
    pub(super) fn copy(&mut self, column: usize, out: &mut Out<'_>) -> Result<()> {
        let of = &self.columns[column];
        if let Some(file) = &mut self.file {
            file.flush()?;
            let file = file.get_mut();
            for (at, len) in &of.stretches {
                file.seek(SeekFrom::Start(*at))?;
                std::io::copy(&mut file.take(u64::from(*len)), out)?;
            }
        }
        Ok(out.write_all(&of.buffer)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_back_whole() {
        let mut spool = Spool::default();
        let columns = [spool.column(), spool.column(), spool.column()];
        let values = 900_000u64;
        for i in 0..values {
            for (factor, column) in columns.iter().enumerate().take(2) {
                let value = (i << 32) * factor as u64;
                spool.json(*column, &format!("{:024}", value)).unwrap();
            }
        }
        assert!(spool.columns[0].stretches.len() > 1, "the test writes too little");
        for (factor, column) in columns.iter().enumerate().take(2) {
            let mut out = Vec::new();
            spool.copy(*column, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            let all: Vec<u64> = text.split(',').map(|v| v.parse().unwrap()).collect();
            assert!(all.iter().copied().eq((0..values).map(|i| (i << 32) * factor as u64)));
        }
        let mut out = Vec::new();
        spool.copy(columns[2], &mut out).unwrap();
        assert!(out.is_empty());
    }
}
