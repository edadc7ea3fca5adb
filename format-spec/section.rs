//! Sections: a block's payload is a run of them, SPEC.md section 4.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | kind |
//! | 2 | 2 | columns; 0 in raw encoding |
//! | 4 | 4 | rows |
//! | 8 | 4 | bytes that follow |

use crate::MAX_VALUES;
use crate::block::Encoding;
use crate::column;
use crate::error::{Error, Result};
use crate::kind::{Field, Kind, Registry, Type};
use crate::pack::{self, Packer};
use crate::related::Stored;
use crate::table::{Column, Table};
use crate::varint;

const HEADER: usize = 12;
/// Most sections in a block.
const MAX_SECTIONS: usize = 1 << 16;

/// Appends `table` in columns.
pub fn encode(table: &Table, out: &mut Vec<u8>) {
    let start = begin(table.kind, table.columns.len() as u16, table.rows() as u32, out);
    let mut packed = Vec::new();
    for column in &table.columns {
        packed.clear();
        pack::column(column, &mut packed);
        varint::put(out, packed.len() as u64);
        out.extend_from_slice(&packed);
    }
    end(start, out);
}

/// Appends rows that lie in memory in columns.
///
/// # Errors
/// When they are not rows of `kind`.
pub fn encode_rows(kind: &Kind, rows: &[u8], packer: &mut Packer, out: &mut Vec<u8>) -> Result<()> {
    let size = kind.row_size as usize;
    if size == 0 || !rows.len().is_multiple_of(size) {
        return Err(Error::damaged(format!("{} bytes of {} are not rows of {size} bytes", rows.len(), kind.name)));
    }
    let start = begin(kind.id, kind.fields.len() as u16, (rows.len() / size) as u32, out);
    let mut packed = packer.section(kind);
    for number in 0..kind.fields.len() {
        packed.clear();
        packer.field(kind, number, rows, &mut packed)?;
        varint::put(out, packed.len() as u64);
        out.extend_from_slice(&packed);
    }
    end(start, out);
    packer.end_section(packed);
    Ok(())
}

/// Appends rows as they lie in memory.
pub fn encode_raw(kind: &Kind, rows: &[u8], out: &mut Vec<u8>) {
    let start = begin(kind.id, 0, (rows.len() / kind.row_size as usize) as u32, out);
    out.extend_from_slice(rows);
    end(start, out);
}

fn begin(kind: u16, columns: u16, rows: u32, out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&columns.to_le_bytes());
    out.extend_from_slice(&rows.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.len()
}

fn end(start: usize, out: &mut [u8]) {
    let len = (out.len() - start) as u32;
    out[start - 4..start].copy_from_slice(&len.to_le_bytes());
}

/// A section that is not decoded yet.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// Kind of its rows.
    pub kind: u16,
    /// Columns that are stored.
    pub columns: u16,
    /// Rows.
    pub rows: u32,
    /// Stored bytes.
    pub data: &'a [u8],
}

/// Splits a decompressed payload into its sections, without looking into them.
pub fn split(mut payload: &[u8]) -> Result<Vec<Section<'_>>> {
    let mut sections = Vec::new();
    while !payload.is_empty() {
        let [k0, k1, c0, c1, r0, r1, r2, r3, l0, l1, l2, l3, rest @ ..] = payload else {
            return Err(Error::damaged(format!("section header of {HEADER} bytes is cut")));
        };
        let len = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
        let data = rest
            .get(..len)
            .ok_or_else(|| Error::damaged(format!("section of {len} bytes where {} are left", rest.len())))?;
        if sections.len() == MAX_SECTIONS {
            return Err(Error::damaged(format!("more than {MAX_SECTIONS} sections in a block")));
        }
        sections.push(Section {
            kind: u16::from_le_bytes([*k0, *k1]),
            columns: u16::from_le_bytes([*c0, *c1]),
            rows: u32::from_le_bytes([*r0, *r1, *r2, *r3]),
            data,
        });
        payload = &rest[len..];
    }
    Ok(sections)
}

/// Decodes sections of the kinds that `registry` knows and `wanted` takes. Returns the tables and the number of rows
/// that are not understood: of unknown kinds, or in an unknown packing.
pub fn decode(
    payload: &[u8],
    encoding: u8,
    registry: &Registry,
    wanted: &dyn Fn(u16) -> bool,
) -> Result<(Vec<Table>, u64)> {
    decode_fields(payload, encoding, registry, &|kind, _| wanted(kind))
}

/// As [`decode`], of each kind only the fields that `wanted` takes by their positions; the columns of the others are empty.
/// Kinds of which no field is taken are left out.
pub fn decode_fields(
    payload: &[u8],
    encoding: u8,
    registry: &Registry,
    wanted: &dyn Fn(u16, usize) -> bool,
) -> Result<(Vec<Table>, u64)> {
    let encoding = Encoding::from_number(encoding).ok_or_else(|| Error::unknown(format!("encoding {encoding}")))?;
    let (mut tables, mut unknown, mut budget) = (Vec::new(), 0u64, MAX_VALUES);
    for section in split(payload)? {
        match registry.get(section.kind) {
            None => unknown += u64::from(section.rows),
            Some(kind) if !(0..kind.fields.len()).any(|field| wanted(kind.id, field)) => {}
            Some(kind) => {
                let table = match encoding {
                    Encoding::Raw => raw(kind, &section, &mut budget),
                    Encoding::Columns => columns(kind, &section, &mut budget, &|field| wanted(kind.id, field)),
                };
                match table {
                    Ok(table) => tables.push(table),
                    Err(Error::NotUnderstood { .. }) => unknown += u64::from(section.rows),
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok((tables, unknown))
}

fn raw(kind: &Kind, section: &Section<'_>, budget: &mut usize) -> Result<Table> {
    let (rows, len) = (section.rows as usize, section.data.len());
    // Fields may overlap, so a text is paid for by its width, eight bytes a value.
    let width = |f: &Field| 1 + if f.ty == Type::Text { usize::from(f.width) / 8 } else { 0 };
    let values = rows.saturating_mul(kind.fields.iter().map(width).sum());
    *budget = budget.checked_sub(values).ok_or_else(|| Error::damaged("too many values in a block"))?;
    // The length of a row is what is there, not what the schema says: structs grow between versions.
    match len.checked_div(rows) {
        Some(size) if size > 0 && size * rows == len => Table::from_sized_rows(kind, size, section.data),
        None if len == 0 => Ok(Table::new(kind)),
        _ => Err(Error::damaged(format!("{len} bytes of {} are not {rows} rows", kind.name))),
    }
}

/// Columns that the schema does not name are skipped; ones that are not stored are 0 or empty: fields are only
/// ever appended, so both happen between versions and only there.
fn columns(kind: &Kind, section: &Section<'_>, budget: &mut usize, wanted: &dyn Fn(usize) -> bool) -> Result<Table> {
    let rows = section.rows as usize;
    let mut data = section.data;
    let mut stored = Stored { columns: Vec::with_capacity(kind.fields.len()), rows };
    for _ in 0..section.columns {
        let len = varint::take(&mut data)?;
        let len = usize::try_from(len).ok().filter(|len| *len <= data.len());
        let len = len.ok_or_else(|| Error::damaged("column ends after its section"))?;
        stored.columns.push(&data[..len]);
        data = &data[len..];
    }
    if !data.is_empty() {
        return Err(Error::damaged("bytes after the last column of a section"));
    }
    let fields: Vec<_> = kind.fields.iter().take(stored.columns.len()).enumerate().collect();
    let mut columns: Vec<_> = fields.iter().map(|(_, field)| Column::empty(field.ty)).collect();
    // Those that are other columns a row later come last: the other one is there already, as a rule.
    for late in [false, true] {
        for (i, field) in fields.iter().filter(|(i, _)| wanted(*i) && stored.is(*i, column::SHIFT) == late) {
            columns[*i] = stored.decode(*i, field.ty, &columns, budget).map_err(|e| match e {
                Error::Damaged { what, .. } => Error::damaged(format!("{}.{}: {what}", kind.name, field.name)),
                other => other,
            })?;
        }
    }
    for field in kind.fields.iter().skip(columns.len()) {
        *budget = budget.checked_sub(rows).ok_or_else(|| Error::damaged("too many values in a block"))?;
        columns.push(Column::zeros(field.ty, rows));
    }
    Ok(Table { kind: kind.id, columns })
}
