//! Rows of a table by the names of their columns, with 0 or nothing where a column is missing: files older and
//! newer than this version have fewer and more columns.

use bpfrec_format::{Column, Kind, Ragged, Table};

/// A table and the kind that names its columns.
#[derive(Clone, Copy)]
pub struct View<'a> {
    kind: &'a Kind,
    table: &'a Table,
}

impl<'a> View<'a> {
    /// `table` with the names of `kind`.
    pub fn new(kind: &'a Kind, table: &'a Table) -> Self {
        View { kind, table }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.table.rows()
    }

    /// The integers of a column.
    pub fn ints(&self, name: &str) -> Ints<'a> {
        Ints(self.table.column(self.kind, name).map_or(&[], Column::ints))
    }

    /// The texts of a column.
    pub fn texts(&self, name: &str) -> Texts<'a> {
        match self.table.column(self.kind, name) {
            Some(Column::Text(ragged)) => Texts(Some(ragged)),
            _ => Texts(None),
        }
    }

    /// The lists of a column.
    pub fn lists(&self, name: &str) -> Option<&'a Ragged<u64>> {
        match self.table.column(self.kind, name) {
            Some(Column::List(ragged)) => Some(ragged),
            _ => None,
        }
    }
}

/// Integers of a column that may be missing.
#[derive(Clone, Copy)]
pub struct Ints<'a>(&'a [u64]);

impl<'a> Ints<'a> {
    /// These values.
    pub fn of(values: &'a [u64]) -> Self {
        Ints(values)
    }

    /// The value of a row, 0 where there is none.
    #[inline]
    pub fn get(&self, row: usize) -> u64 {
        self.0.get(row).copied().unwrap_or(0)
    }

    /// The value of a row in 32 bits.
    pub fn get32(&self, row: usize) -> u32 {
        self.get(row) as u32
    }
}

/// Texts of a column that may be missing.
#[derive(Clone, Copy)]
pub struct Texts<'a>(Option<&'a Ragged<u8>>);

impl<'a> Texts<'a> {
    /// The text of a row, empty where there is none.
    pub fn get(&self, row: usize) -> &'a [u8] {
        self.0.filter(|r| row < r.ends.len()).map_or(&[], |r| r.get(row))
    }

    /// The text of a row; what is not UTF-8 becomes U+FFFD.
    pub fn string(&self, row: usize) -> String {
        String::from_utf8_lossy(self.get(row)).into_owned()
    }
}
