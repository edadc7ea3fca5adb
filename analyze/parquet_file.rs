//! One Parquet file: what DuckDB and Spark read alike. Signed integers only, no timestamp types, ordered rows, and nothing
//! in the file that depends on when or by how many threads it was written.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, ListArray, StringArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use rayon::prelude::*;

use crate::constants::Constants;
use crate::error::Result;
use crate::meta::Meta;

/// Rows of a row group: four of DuckDB's.
pub(crate) const GROUP_ROWS: usize = 491_520;
/// Columns that are packed as differences: those that rise steadily, for which they are smaller than dictionaries, and lengths
/// of time, whose dictionaries overflow and cost more than the tenth that they save.
const BY_DIFFERENCE: [&str; 7] = ["ts", "ts_mono", "end_mono", "dur_ns", "runq_ns", "wait_ns", "queued_ns"];
/// The order of events. Not by `ts`: a clock of the day may be set back, CLOCK_MONOTONIC cannot.
const IN_TIME: &[&str] = &["ts_mono", "cpu"];
/// Columns that end every table, the same in each row: tables of many hosts and traces can lie together.
pub const CONSTANT: [(&str, Type); 2] = [("host_id", Type::BigInt), ("trace_id", Type::Text)];

/// Where files go. The library names them, the caller makes them.
pub trait Output: Sync {
    /// A new file of this name, as `parquet/task.parquet`.
    fn create(&self, name: &str) -> std::io::Result<Box<dyn Write + Send>>;

    /// Whose rows the tables are to say they hold. Only [`OfTrace`] knows.
    fn identity(&self) -> Identity {
        Identity::default()
    }
}

/// Values of the [`CONSTANT`] columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The same for all traces of a host.
    pub host_id: u64,
    /// Number of the trace in hex.
    pub trace_id: String,
}

/// An output for the tables of one trace.
pub struct OfTrace<'a> {
    output: &'a dyn Output,
    identity: Identity,
}

impl<'a> OfTrace<'a> {
    /// `output` with the identity of the trace.
    pub fn new(output: &'a dyn Output, meta: &Meta) -> Self {
        let identity = Identity { host_id: meta.host_id(), trace_id: format!("{:016x}", meta.trace_id) };
        OfTrace { output, identity }
    }
}

impl Output for OfTrace<'_> {
    fn create(&self, name: &str) -> std::io::Result<Box<dyn Write + Send>> {
        self.output.create(name)
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }
}

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// INT.
    Int,
    /// BIGINT.
    BigInt,
    /// DOUBLE.
    Double,
    /// VARCHAR.
    Text,
    /// LIST of BIGINT.
    List,
}

/// A file that is being written.
pub struct TableFile {
    writer: SerializedFileWriter<Box<dyn Write + Send>>,
    factory: ArrowRowGroupWriterFactory,
    schema: Arc<Schema>,
    /// Columns of the row group that is being filled, without the [`CONSTANT`] ones, and its rows.
    group: Vec<ArrowColumnWriter>,
    rows: usize,
    constants: Constants,
}

impl TableFile {
    /// Begins `parquet/NAME.parquet`, with the [`CONSTANT`] columns behind `columns`. `sorted`: rows come ordered by
    /// `ts_mono`, then `cpu`.
    pub fn new(output: &dyn Output, name: &str, columns: &[(String, Type)], sorted: bool) -> Result<TableFile> {
        Self::ordered(output, name, columns, if sorted { IN_TIME } else { &[] })
    }

    /// As [`TableFile::new`], with the columns by which the rows come ordered, ascending.
    pub fn ordered(output: &dyn Output, name: &str, columns: &[(String, Type)], order: &[&str]) -> Result<TableFile> {
        let constant = CONSTANT.iter().map(|(name, ty)| (*name, ty));
        let fields = columns.iter().map(|(name, ty)| (name.as_str(), ty)).chain(constant).map(|(name, ty)| {
            let ty = match ty {
                Type::Int => DataType::Int32,
                Type::BigInt => DataType::Int64,
                Type::Double => DataType::Float64,
                Type::Text => DataType::Utf8,
                Type::List => DataType::List(item()),
            };
            Field::new(name, ty, true)
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mut properties = WriterProperties::builder()
            .set_created_by("bpfrec".into())
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_max_row_group_row_count(Some(GROUP_ROWS));
        for column in BY_DIFFERENCE {
            let path = ColumnPath::from(column);
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
        if !order.is_empty() {
            let position = |name: &str| columns.iter().position(|(column, _)| column == name);
            let by = order.iter().filter_map(|name| position(name));
            let by = by.map(|i| SortingColumn { column_idx: i as i32, descending: false, nulls_first: false });
            properties = properties.set_sorting_columns(Some(by.collect()));
        }
        let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
        let out = output.create(&format!("parquet/{name}.parquet"))?;
        let writer = ArrowWriter::try_new_with_options(out, schema.clone(), options)?;
        let (writer, factory) = writer.into_serialized_writer()?;
        let constants = Constants::new(output.identity());
        Ok(TableFile { writer, factory, schema, group: Vec::new(), rows: 0, constants })
    }

    /// Adds rows: an array for each column but the [`CONSTANT`] ones.
    pub fn write(&mut self, columns: Vec<ArrayRef>) -> Result<()> {
        let all = columns.first().map_or(0, |c| c.len());
        let mut from = 0;
        while from < all {
            if self.group.is_empty() {
                self.group = self.factory.create_column_writers(self.writer.flushed_row_groups().len())?;
                self.group.truncate(columns.len());
            }
            let rows = (GROUP_ROWS - self.rows).min(all - from);
            let fields = self.schema.fields();
            self.group.par_iter_mut().enumerate().try_for_each(|(i, writer)| -> Result<()> {
                for leaf in compute_leaves(&fields[i], &columns[i].slice(from, rows))? {
                    writer.write(&leaf)?;
                }
                Ok(())
            })?;
            (self.rows, from) = (self.rows + rows, from + rows);
            if self.rows == GROUP_ROWS {
                self.end_group()?;
            }
        }
        Ok(())
    }

    fn end_group(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        let own = std::mem::take(&mut self.group);
        let constants = self.constants.of(rows, &self.writer)?;
        let mut group = self.writer.next_row_group()?;
        let own: Vec<_> = own.into_par_iter().map(|column| column.close()).collect();
        for chunk in own {
            chunk?.append_to_row_group(&mut group)?;
        }
        for (bytes, close) in constants {
            group.append_column(&bytes, close)?;
        }
        group.close()?;
        Ok(())
    }

    /// Writes the end.
    pub fn finish(mut self) -> Result<()> {
        if self.rows > 0 {
            self.end_group()?;
        }
        let mut out = self.writer.into_inner()?;
        Ok(out.flush()?)
    }
}

fn item() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Int64, true))
}

/// INT values.
pub fn ints(values: impl Iterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

/// INT values of which some are NULL.
pub fn some_ints(values: impl Iterator<Item = Option<i32>>) -> ArrayRef {
    Arc::new(values.collect::<Int32Array>())
}

/// BIGINT values.
pub fn big_ints(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// BIGINT values of which some are NULL.
pub fn some_big_ints(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}

/// DOUBLE values.
pub fn doubles(values: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

/// VARCHAR values.
pub fn texts<S: AsRef<str>>(values: impl Iterator<Item = S>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// VARCHAR values, NULL where empty.
pub fn some_texts<S: AsRef<str>>(values: impl Iterator<Item = S>) -> ArrayRef {
    Arc::new(values.map(|s| Some(s).filter(|s| !s.as_ref().is_empty())).collect::<StringArray>())
}

/// LIST values.
pub fn lists<'a>(values: impl Iterator<Item = &'a [u64]>) -> Result<ArrayRef> {
    let (mut lengths, mut items) = (Vec::new(), Vec::new());
    for list in values {
        lengths.push(list.len());
        items.extend(list.iter().map(|v| *v as i64));
    }
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(item(), offsets, Arc::new(Int64Array::from(items)), None)?))
}
