//! Columns that are the same in each row of a Parquet file. A row group's worth of them is encoded once and copied into all
//! full row groups: value by value they would cost a fifth of a table.

use std::io::Write;

use bytes::Bytes;
use parquet::column::writer::{ColumnCloseResult, ColumnWriter, get_column_writer};
use parquet::errors::ParquetError;
use parquet::file::writer::{SerializedFileWriter, SerializedPageWriter, TrackedWrite};

use crate::error::Result;
use crate::parquet_file::{CONSTANT, GROUP_ROWS, Identity};

/// A column of a row group as it stands in the file, and what the file's end says of it.
type Chunk = (Bytes, ColumnCloseResult);

/// The [`CONSTANT`] columns of one file.
pub(crate) struct Constants {
    identity: Identity,
    full: Vec<Chunk>,
}

impl Constants {
    pub(crate) fn new(identity: Identity) -> Constants {
        Constants { identity, full: Vec::new() }
    }

    /// The columns for a row group of so many rows: the last ones of `file`.
    pub(crate) fn of<W: Write + Send>(&mut self, rows: usize, file: &SerializedFileWriter<W>) -> Result<Vec<Chunk>> {
        if rows == GROUP_ROWS && !self.full.is_empty() {
            return Ok(self.full.clone());
        }
        let columns = file.schema_descr().num_columns();
        let made = (columns - CONSTANT.len()..columns).map(|i| self.column(i, rows, file));
        let made = made.collect::<Result<Vec<Chunk>>>()?;
        if rows == GROUP_ROWS {
            self.full.clone_from(&made);
        }
        Ok(made)
    }

    fn column<W: Write + Send>(&self, i: usize, rows: usize, file: &SerializedFileWriter<W>) -> Result<Chunk> {
        let mut sink = TrackedWrite::new(Vec::new());
        let pages = Box::new(SerializedPageWriter::new(&mut sink));
        let there = vec![1; rows];
        let close = match get_column_writer(file.schema_descr().column(i), file.properties().clone(), pages) {
            ColumnWriter::Int64ColumnWriter(mut writer) => {
                writer.write_batch(&vec![self.identity.host_id as i64; rows], Some(&there), None)?;
                writer.close()?
            }
            ColumnWriter::ByteArrayColumnWriter(mut writer) => {
                writer.write_batch(&vec![self.identity.trace_id.as_str().into(); rows], Some(&there), None)?;
                writer.close()?
            }
            _ => return Err(ParquetError::General("a constant column is neither BIGINT nor VARCHAR".into()).into()),
        };
        Ok((sink.into_inner()?.into(), close))
    }
}
