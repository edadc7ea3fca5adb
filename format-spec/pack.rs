//! Writes packed columns: SPEC.md section 5, read by `column.rs`. The smallest packing before compression is taken.
//!
//! Choosing costs as much as packing, and the next chunk of a CPU is much like this one: so what was chosen for a field
//! is remembered and only looked at again now and then, or when it does not fit any more. NOTES.md has the figures.

use rustc_hash::FxHashMap;

use crate::column::{CONST, DELTA, DICT, FIXED, LIST, TEXT, VARINT};
use crate::error::Result;
use crate::kind::{Field, Kind, Type};
use crate::related::{self, From};
use crate::table::{Column, Table};
use crate::varint::{self, put, put_all, zigzag};

/// An expression for each width of an unsigned integer; false for others.
macro_rules! each_width {
    ($width:expr, $n:ident => $e:expr) => {
        match $width {
            2 => {
                const $n: usize = 2;
                $e
            }
            4 => {
                const $n: usize = 4;
                $e
            }
            8 => {
                const $n: usize = 8;
                $e
            }
            _ => false,
        }
    };
}

/// Chunks for which a choice is kept.
const KEPT: u8 = 16;

/// Packs the chunks of a recording; remembers from one to the next.
#[derive(Debug, Default)]
pub struct Packer {
    kinds: FxHashMap<u16, Plan>,
    values: Vec<u64>,
    /// Of this section, the numbers of columns that are stored as dictionaries, by field.
    dicts: Vec<(usize, Vec<u8>)>,
}

/// What is known of a kind.
#[derive(Debug)]
struct Plan {
    sources: Vec<Option<From>>,
    choices: Vec<Choice>,
}

impl Plan {
    fn new(kind: &Kind) -> Plan {
        Plan { sources: related::sources(kind), choices: vec![Choice::default(); kind.fields.len()] }
    }
}

/// What was chosen for a field.
#[derive(Clone, Copy, Debug, Default)]
struct Choice {
    tag: u8,
    /// Chunks until it is looked at again.
    left: u8,
    /// Bytes for 16 rows when it was chosen.
    bytes: usize,
    /// Chunks for which it is not tried again whether the column follows from another.
    alone: u8,
}

impl Packer {
    /// A section of this kind begins: its fields come next, in their order.
    pub(crate) fn section(&mut self, kind: &Kind) {
        self.kinds.entry(kind.id).or_insert_with(|| Plan::new(kind));
        self.dicts.clear();
    }

    /// Appends a column of `rows` as they lie in memory: field `number` of `kind`.
    ///
    /// # Errors
    /// When the field does not fit the rows: a mistake in the schema.
    pub(crate) fn field(&mut self, kind: &Kind, number: usize, rows: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let field = &kind.fields[number];
        let plan = self.kinds.entry(kind.id).or_insert_with(|| Plan::new(kind));
        let choice = &mut plan.choices[number];
        if let Some(from) = plan.sources[number] {
            let told = match from {
                From::By(by) => self.dicts.iter().any(|(field, _)| *field == by),
                From::Before(_) => true,
            };
            if choice.alone > 0 {
                choice.alone -= 1;
            } else if told && follows(kind, number, from, rows, &self.dicts, out) {
                return Ok(());
            } else if told {
                choice.alone = KEPT;
            }
        }
        if !gather(field, kind.row_size as usize, rows, &mut self.values) {
            let one = Kind { fields: vec![field.clone()], ..kind.clone() };
            column(&Table::from_rows(&one, rows)?.columns[0], out);
            return Ok(());
        }
        let start = out.len();
        let tells = plan.sources.contains(&Some(From::By(number)));
        ints(&self.values, choice, tells, out);
        // Its numbers are the last bytes.
        if tells && out[start] == DICT {
            self.dicts.push((number, out[out.len() - self.values.len()..].to_vec()));
        }
        Ok(())
    }
}

/// Appends a column that follows from another; false when it does not.
fn follows(kind: &Kind, number: usize, from: From, rows: &[u8], dicts: &[(usize, Vec<u8>)], out: &mut Vec<u8>) -> bool {
    let size = kind.row_size as usize;
    let cells = |number: usize| {
        let field = &kind.fields[number];
        let (at, end) = (usize::from(field.offset), usize::from(field.offset) + usize::from(field.width));
        let fits = matches!(field.ty, Type::U16 | Type::U32 | Type::U64) && end <= size;
        fits.then_some((at, usize::from(field.width)))
    };
    match (from, cells(number)) {
        (From::By(by), Some((at, width))) => {
            let Some((_, numbers)) = dicts.iter().find(|(field, _)| *field == by) else { return false };
            each_width!(width, N => related::put_mapped(by, numbers, values::<N>(rows, at, size), out))
        }
        (From::Before(other), Some((at, width))) => match cells(other) {
            Some((other_at, other_width)) if other_width == width => each_width!(width, N => related::put_shift(
                other,
                values::<N>(rows, at, size),
                values::<N>(rows, other_at, size),
                out,
            )),
            _ => false,
        },
        _ => false,
    }
}

/// Unsigned integers of `N` bytes.
fn values<const N: usize>(rows: &[u8], at: usize, size: usize) -> impl ExactSizeIterator<Item = u64> {
    rows.chunks_exact(size).map(move |row| {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(row[at..].first_chunk::<N>().unwrap_or(&[0; N]));
        u64::from_le_bytes(wide)
    })
}

/// The integers of a field; false for other types, and for a field that is not in the rows.
fn gather(field: &Field, size: usize, rows: &[u8], values: &mut Vec<u64>) -> bool {
    // A map over exact chunks knows its length, so that the loops below write without looking for room each time.
    fn cells<const N: usize>(rows: &[u8], at: usize, size: usize) -> impl Iterator<Item = [u8; N]> {
        rows.chunks_exact(size).map(move |row| row[at..].first_chunk().copied().unwrap_or([0; N]))
    }
    values.clear();
    let at = usize::from(field.offset);
    if at + usize::from(field.width) > size {
        return false;
    }
    match (field.ty, field.width) {
        (Type::U8, 1) => values.extend(cells(rows, at, size).map(|[byte]| u64::from(byte))),
        (Type::U16, 2) => values.extend(cells(rows, at, size).map(|c| u64::from(u16::from_le_bytes(c)))),
        (Type::U32, 4) => values.extend(cells(rows, at, size).map(|c| u64::from(u32::from_le_bytes(c)))),
        (Type::I32, 4) => values.extend(cells(rows, at, size).map(|c| i64::from(i32::from_le_bytes(c)) as u64)),
        (Type::U64 | Type::I64, 8) => values.extend(cells(rows, at, size).map(u64::from_le_bytes)),
        _ => return false,
    }
    values.len() == rows.len() / size
}

/// Appends tag and data of `column`.
pub fn column(column: &Column, out: &mut Vec<u8>) {
    match column {
        Column::Int(values) => ints(values, &mut Choice::default(), false, out),
        Column::Text(text) => {
            out.push(TEXT);
            put_lengths(&text.ends, out);
            out.extend_from_slice(&text.data);
        }
        Column::List(list) => {
            out.push(LIST);
            put_lengths(&list.ends, out);
            for row in 0..list.ends.len() {
                put_deltas(list.get(row), out);
            }
        }
    }
}

fn put_lengths(ends: &[u32], out: &mut Vec<u8>) {
    let mut start = 0;
    for &end in ends {
        put(out, u64::from(end - start));
        start = end;
    }
}

fn put_deltas(values: &[u64], out: &mut Vec<u8>) {
    let mut before = 0u64;
    put_all(
        out,
        values.iter().map(|&value| {
            let delta = zigzag(value.wrapping_sub(before) as i64);
            before = value;
            delta
        }),
    );
}

/// `tells`: other columns may follow from a dictionary of this one, so it may be a little larger.
fn ints(values: &[u64], choice: &mut Choice, tells: bool, out: &mut Vec<u8>) {
    let Some(&first) = values.first() else {
        out.push(VARINT);
        return;
    };
    let (all, differ) = values.iter().fold((0, 0), |(all, differ), v| (all | v, differ | (v ^ first)));
    if differ == 0 {
        out.push(CONST);
        put(out, first);
        return;
    }
    if all < 0x80 {
        out.push(VARINT);
        out.extend(values.iter().map(|v| *v as u8));
        return;
    }
    let start = out.len();
    if choice.left > 0 && pack(choice.tag, values, out) {
        choice.left -= 1;
        if (out.len() - start) * 16 <= values.len() * (choice.bytes + choice.bytes / 8 + 1) {
            return;
        }
        out.truncate(start);
    }
    let tag = smallest(values, tells);
    if !pack(tag, values, out) {
        pack(VARINT, values, out);
    }
    *choice = Choice { tag, left: KEPT, bytes: (out.len() - start) * 16 / values.len(), ..*choice };
}

/// The packing that takes the fewest bytes, by their number alone.
fn smallest(values: &[u64], tells: bool) -> u8 {
    let (mut plain, mut delta, mut before) = (0usize, 0usize, 0u64);
    for &value in values {
        plain += varint::len(value);
        delta += varint::len(zigzag(value.wrapping_sub(before) as i64));
        before = value;
    }
    let smallest = plain.min(delta);
    let more = if tells { values.len() / 4 } else { 0 };
    if smallest + more > values.len() + values.len() / 8
        && let Some(dict) = Dict::of(values)
        && dict.bytes + values.len() < smallest + more
    {
        DICT
    } else if smallest >= 8 * values.len() {
        FIXED
    } else if plain <= delta {
        VARINT
    } else {
        DELTA
    }
}

/// Appends `values` in the packing `tag`; false when that cannot hold them.
fn pack(tag: u8, values: &[u64], out: &mut Vec<u8>) -> bool {
    match tag {
        DICT => {
            let Some(dict) = Dict::of(values) else { return false };
            out.extend([DICT, (dict.values.len() - 1) as u8]);
            put_all(out, dict.values.iter().copied());
            out.extend_from_slice(&dict.rows);
        }
        FIXED => {
            out.push(FIXED);
            values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
        }
        DELTA => {
            out.push(DELTA);
            put_deltas(values, out);
        }
        _ => {
            out.push(VARINT);
            put_all(out, values.iter().copied());
        }
    }
    true
}

/// The distinct values of a column, in the order of their first row, and each row's number among them.
struct Dict {
    values: Vec<u64>,
    rows: Vec<u8>,
    bytes: usize,
}

impl Dict {
    /// `None` with more than 256 distinct values, or where the first rows promise no gain.
    fn of(values: &[u64]) -> Option<Dict> {
        const SLOTS: usize = 1024;
        let mut slots = [u16::MAX; SLOTS];
        let mut dict = Dict { values: Vec::new(), rows: Vec::with_capacity(values.len()), bytes: 1 };
        for (row, &value) in values.iter().enumerate() {
            let mut slot = (value.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as usize;
            let index = loop {
                match slots[slot] {
                    u16::MAX => {
                        if dict.values.len() == 256 || ((64..128).contains(&row) && dict.values.len() >= row) {
                            return None;
                        }
                        slots[slot] = dict.values.len() as u16;
                        dict.bytes += varint::len(value);
                        dict.values.push(value);
                        break dict.values.len() as u16 - 1;
                    }
                    index if dict.values[index as usize] == value => break index,
                    _ => slot = (slot + 1) % SLOTS,
                }
            };
            dict.rows.push(index as u8);
        }
        Some(dict)
    }
}
