//! A section in memory: rows of one kind, column by column.

use crate::error::{Error, Result};
use crate::kind::{Kind, Type};

/// Lists of different lengths in one allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ragged<T> {
    /// End of each row's items in `data`.
    pub ends: Vec<u32>,
    /// All items.
    pub data: Vec<T>,
}

impl<T: Clone> Ragged<T> {
    /// Adds a row.
    pub fn push(&mut self, items: &[T]) {
        self.data.extend_from_slice(items);
        self.ends.push(self.data.len() as u32);
    }

    /// Items of a row.
    pub fn get(&self, row: usize) -> &[T] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.data[start..self.ends[row] as usize]
    }

    /// Rows `start..end`.
    pub fn slice(&self, start: usize, end: usize) -> Self {
        let base = if start == 0 { 0 } else { self.ends[start - 1] };
        let last = if end == 0 { 0 } else { self.ends[end - 1] };
        Ragged {
            ends: self.ends[start..end].iter().map(|e| e - base).collect(),
            data: self.data[base as usize..last as usize].to_vec(),
        }
    }
}

/// One field of all rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// Integers of any width; signed ones sign-extended to 64 bits.
    Int(Vec<u64>),
    /// Bytes, mostly UTF-8 text, as the host had them.
    Text(Ragged<u8>),
    /// Lists of integers.
    List(Ragged<u64>),
}

impl Column {
    /// An empty column for a field of type `ty`.
    pub fn empty(ty: Type) -> Self {
        match ty {
            Type::Text => Column::Text(Ragged::default()),
            Type::List => Column::List(Ragged::default()),
            _ => Column::Int(Vec::new()),
        }
    }

    /// A column of `rows` zeros, empty texts or empty lists: what a field has that the writer did not know.
    pub fn zeros(ty: Type, rows: usize) -> Self {
        match ty {
            Type::Text => Column::Text(Ragged { ends: vec![0; rows], data: Vec::new() }),
            Type::List => Column::List(Ragged { ends: vec![0; rows], data: Vec::new() }),
            _ => Column::Int(vec![0; rows]),
        }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        match self {
            Column::Int(v) => v.len(),
            Column::Text(r) => r.ends.len(),
            Column::List(r) => r.ends.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The integers; an empty slice for the other types.
    pub fn ints(&self) -> &[u64] {
        match self {
            Column::Int(v) => v,
            _ => &[],
        }
    }
}

/// One value of a row that is being added.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// For integer fields.
    Int(u64),
    /// For text fields.
    Text(&'a [u8]),
    /// For list fields.
    List(&'a [u64]),
}

impl From<u64> for Value<'_> {
    fn from(v: u64) -> Self {
        Value::Int(v)
    }
}
impl From<u32> for Value<'_> {
    fn from(v: u32) -> Self {
        Value::Int(u64::from(v))
    }
}
impl<'a> From<&'a str> for Value<'a> {
    fn from(v: &'a str) -> Self {
        Value::Text(v.as_bytes())
    }
}
impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(v: &'a [u8]) -> Self {
        Value::Text(v)
    }
}
impl<'a> From<&'a [u64]> for Value<'a> {
    fn from(v: &'a [u64]) -> Self {
        Value::List(v)
    }
}

/// Rows of one kind. Columns stand in the order of the kind's fields and have the same length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Number of the kind.
    pub kind: u16,
    /// One column a field.
    pub columns: Vec<Column>,
}

impl Table {
    /// No rows.
    pub fn new(kind: &Kind) -> Self {
        Table { kind: kind.id, columns: kind.fields.iter().map(|f| Column::empty(f.ty)).collect() }
    }

    /// Rows. Columns that were not wanted are empty.
    pub fn rows(&self) -> usize {
        self.columns.iter().map(Column::len).find(|rows| *rows > 0).unwrap_or(0)
    }

    /// Adds a row, a value for each field in order.
    ///
    /// # Panics
    /// When the values do not fit the kind: a mistake in the program, never in data.
    pub fn push(&mut self, row: &[Value<'_>]) {
        assert_eq!(row.len(), self.columns.len(), "values for kind {}", self.kind);
        for (column, value) in self.columns.iter_mut().zip(row) {
            match (column, value) {
                (Column::Int(c), Value::Int(v)) => c.push(*v),
                (Column::Text(c), Value::Text(v)) => c.push(v),
                (Column::List(c), Value::List(v)) => c.push(v),
                (column, value) => panic!("{value:?} in {column:?} of kind {}", self.kind),
            }
        }
    }

    /// Adds the rows of a table of the same kind.
    ///
    /// # Panics
    /// When it is of another kind: a mistake in the program, never in data.
    pub fn append(&mut self, other: &Table) {
        assert_eq!(self.kind, other.kind, "tables of two kinds");
        for (column, more) in self.columns.iter_mut().zip(&other.columns) {
            match (column, more) {
                (Column::Int(c), Column::Int(more)) => c.extend_from_slice(more),
                (Column::Text(c), Column::Text(more)) => (0..more.ends.len()).for_each(|row| c.push(more.get(row))),
                (Column::List(c), Column::List(more)) => (0..more.ends.len()).for_each(|row| c.push(more.get(row))),
                (column, more) => panic!("{more:?} to {column:?} of kind {}", self.kind),
            }
        }
    }

    /// Reads rows that lie one after the other as in the C struct: what rings carry.
    pub fn from_rows(kind: &Kind, rows: &[u8]) -> Result<Self> {
        let size = kind.row_size as usize;
        if size == 0 || !rows.len().is_multiple_of(size) {
            return Err(Error::damaged(format!("{} bytes of {} are not rows of {size} bytes", rows.len(), kind.name)));
        }
        Self::from_sized_rows(kind, size, rows)
    }

    /// As [`Table::from_rows`] with rows of `size` bytes, which divides their length. Fields that such a row does not
    /// hold are 0 or empty: another version wrote it.
    pub(crate) fn from_sized_rows(kind: &Kind, size: usize, rows: &[u8]) -> Result<Self> {
        let mut columns = Vec::with_capacity(kind.fields.len());
        for field in &kind.fields {
            let (at, width) = (field.offset as usize, field.width as usize);
            if field.width == 0 || at + width > size {
                columns.push(Column::zeros(field.ty, rows.len() / size));
                continue;
            }
            let cells = rows.chunks_exact(size).map(|row| &row[at..at + width]);
            columns.push(match (field.ty, width) {
                (Type::List, _) => return Err(Error::damaged(format!("list {} in raw rows", field.name))),
                (Type::Text, _) => {
                    let mut text = Ragged::default();
                    cells.for_each(|cell| text.push(cell.split(|b| *b == 0).next().unwrap_or_default()));
                    Column::Text(text)
                }
                (Type::U8, 1) => Column::Int(cells.map(|c| u64::from(c[0])).collect()),
                (Type::U16, 2) => Column::Int(cells.map(|c| u64::from(u16::from_le_bytes([c[0], c[1]]))).collect()),
                (Type::U32, 4) => Column::Int(cells.map(|c| u64::from(le32(c))).collect()),
                (Type::I32, 4) => Column::Int(cells.map(|c| i64::from(le32(c) as i32) as u64).collect()),
                (Type::U64 | Type::I64, 8) => {
                    Column::Int(cells.map(|c| u64::from(le32(c)) | u64::from(le32(&c[4..])) << 32).collect())
                }
                (ty, width) => {
                    return Err(Error::damaged(format!(
                        "field {} of type {} has width {width}",
                        field.name,
                        ty.name()
                    )));
                }
            });
        }
        Ok(Table { kind: kind.id, columns })
    }

    /// Column of the field called `name`.
    pub fn column<'a>(&'a self, kind: &Kind, name: &str) -> Option<&'a Column> {
        self.columns.get(kind.index_of(name)?)
    }
}

#[inline]
fn le32(c: &[u8]) -> u32 {
    u32::from_le_bytes([c[0], c[1], c[2], c[3]])
}
