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
const KEPT: u8 = 64;

/// Packs the chunks of a recording; remembers from one to the next.
#[derive(Debug, Default)]
pub struct Packer {
    kinds: FxHashMap<u16, Plan>,
    /// Of this section, the numbers of columns that are stored as dictionaries, by field.
    dicts: Vec<(usize, Vec<u8>)>,
    /// Room for a column.
    room: Vec<u8>,
    /// Bytes of the last chunk.
    pub(crate) last_len: usize,
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

/// How a column may be packed.
#[derive(Clone, Copy, Debug, Default)]
enum Way {
    /// All values are the same.
    Const,
    /// As varints of one byte each.
    #[default]
    Small,
    /// As this tag has it.
    Tag(u8),
}

/// What was chosen for a field.
#[derive(Clone, Copy, Debug, Default)]
struct Choice {
    way: Way,
    /// Chunks until it is looked at again.
    left: u8,
    /// Bytes for 16 rows when it was chosen.
    bytes: usize,
    /// Chunks for which it is not tried again whether the column follows from another.
    alone: u8,
}

impl Packer {
    /// A section of this kind begins: its fields come next, in their order. Returns room for one of them, which
    /// [`Packer::end_section`] takes back.
    pub(crate) fn section(&mut self, kind: &Kind) -> Vec<u8> {
        self.kinds.entry(kind.id).or_insert_with(|| Plan::new(kind));
        self.dicts.clear();
        std::mem::take(&mut self.room)
    }

    /// The section has ended.
    pub(crate) fn end_section(&mut self, room: Vec<u8>) {
        self.room = room;
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
        let start = out.len();
        let tells = plan.sources.contains(&Some(From::By(number)));
        if !ints_of(field, kind.row_size as usize, rows, choice, tells, out) {
            let one = Kind { fields: vec![field.clone()], ..kind.clone() };
            column(&Table::from_rows(&one, rows)?.columns[0], out);
            return Ok(());
        }
        // Its numbers are the last bytes.
        if tells && out[start] == DICT {
            let rows = rows.len() / kind.row_size as usize;
            self.dicts.push((number, out[out.len() - rows..].to_vec()));
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
fn values<const N: usize>(rows: &[u8], at: usize, size: usize) -> impl ExactSizeIterator<Item = u64> + Clone {
    rows.chunks_exact(size).map(move |row| {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(row[at..].first_chunk::<N>().unwrap_or(&[0; N]));
        u64::from_le_bytes(wide)
    })
}

/// Appends the integers of a field, read where they lie in their rows; false for other types, and for a field that is not in
/// the rows.
fn ints_of(field: &Field, size: usize, rows: &[u8], choice: &mut Choice, tells: bool, out: &mut Vec<u8>) -> bool {
    let at = usize::from(field.offset);
    if at + usize::from(field.width) > size {
        return false;
    }
    match (field.ty, field.width) {
        (Type::U8, 1) => ints(values::<1>(rows, at, size), choice, tells, out),
        (Type::U16, 2) => ints(values::<2>(rows, at, size), choice, tells, out),
        (Type::U32, 4) => ints(values::<4>(rows, at, size), choice, tells, out),
        (Type::I32, 4) => ints(values::<4>(rows, at, size).map(|v| i64::from(v as i32) as u64), choice, tells, out),
        (Type::U64 | Type::I64, 8) => ints(values::<8>(rows, at, size), choice, tells, out),
        _ => return false,
    }
    true
}

/// Appends tag and data of `column`.
pub fn column(column: &Column, out: &mut Vec<u8>) {
    match column {
        Column::Int(values) => ints(values.iter().copied(), &mut Choice::default(), false, out),
        Column::Text(text) => {
            out.push(TEXT);
            put_lengths(&text.ends, out);
            out.extend_from_slice(&text.data);
        }
        Column::List(list) => {
            out.push(LIST);
            put_lengths(&list.ends, out);
            for row in 0..list.ends.len() {
                put_deltas(list.get(row).iter().copied(), out);
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

fn put_deltas(values: impl ExactSizeIterator<Item = u64>, out: &mut Vec<u8>) {
    let mut before = 0u64;
    put_all(
        out,
        values.map(|value| {
            let delta = zigzag(value.wrapping_sub(before) as i64);
            before = value;
            delta
        }),
    );
}

/// `tells`: other columns may follow from a dictionary of this one, so it may be a little larger.
fn ints<I>(values: I, choice: &mut Choice, tells: bool, out: &mut Vec<u8>)
where
    I: ExactSizeIterator<Item = u64> + Clone,
{
    let (start, rows) = (out.len(), values.len());
    if choice.left > 0 && pack(choice.way, values.clone(), out) {
        choice.left -= 1;
        if (out.len() - start) * 16 <= rows * (choice.bytes + choice.bytes / 8 + 1) {
            return;
        }
    }
    out.truncate(start);
    let way = smallest(values.clone(), tells);
    if !pack(way, values.clone(), out) {
        out.truncate(start);
        pack(Way::Tag(VARINT), values, out);
    }
    *choice = Choice { way, left: KEPT, bytes: (out.len() - start) * 16 / rows.max(1), ..*choice };
}

/// The packing that takes the fewest bytes, by their number alone.
fn smallest<I: ExactSizeIterator<Item = u64> + Clone>(values: I, tells: bool) -> Way {
    let rows = values.len();
    let Some(first) = values.clone().next() else { return Way::Tag(VARINT) };
    let (all, differ) = values.clone().fold((0, 0), |(all, differ), v| (all | v, differ | (v ^ first)));
    if differ == 0 {
        return Way::Const;
    } else if all < 0x80 {
        return Way::Small;
    }
    let (mut plain, mut delta, mut before) = (0usize, 0usize, 0u64);
    for value in values.clone() {
        plain += varint::len(value);
        delta += varint::len(zigzag(value.wrapping_sub(before) as i64));
        before = value;
    }
    let smallest = plain.min(delta);
    let more = if tells { rows / 4 } else { 0 };
    let tag = if smallest + more > rows + rows / 8
        && let Some(dict) = Dict::of(values)
        && dict.bytes + rows < smallest + more
    {
        DICT
    } else if smallest >= 8 * rows {
        FIXED
    } else if plain <= delta {
        VARINT
    } else {
        DELTA
    };
    Way::Tag(tag)
}

/// Appends `values` packed this way; false, and whatever it wrote, when it cannot hold them.
fn pack<I: ExactSizeIterator<Item = u64> + Clone>(way: Way, mut values: I, out: &mut Vec<u8>) -> bool {
    let tag = match way {
        Way::Const => {
            let Some(first) = values.next() else { return false };
            // All of them, with no branch in between: most columns that were constant are.
            if values.fold(0, |differ, v| differ | (v ^ first)) != 0 {
                return false;
            }
            out.push(CONST);
            put(out, first);
            return true;
        }
        Way::Small => {
            let first = values.clone().next().unwrap_or_default();
            let (mut all, mut differ) = (0, 0);
            out.push(VARINT);
            out.extend(values.map(|v| {
                all |= v;
                differ |= v ^ first;
                v as u8
            }));
            return all < 0x80 && differ != 0;
        }
        Way::Tag(tag) => tag,
    };
    match tag {
        DICT => {
            let Some(dict) = Dict::of(values).filter(|dict| dict.values.len() > 1) else { return false };
            out.extend([DICT, (dict.values.len() - 1) as u8]);
            put_all(out, dict.values.iter().copied());
            out.extend_from_slice(&dict.rows);
        }
        FIXED => {
            out.push(FIXED);
            values.for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
        }
        DELTA => {
            out.push(DELTA);
            put_deltas(values, out);
        }
        _ => {
            out.push(VARINT);
            put_all(out, values);
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
    fn of(values: impl ExactSizeIterator<Item = u64>) -> Option<Dict> {
        const SLOTS: usize = 1024;
        let mut slots = [u16::MAX; SLOTS];
        let mut dict = Dict { values: Vec::new(), rows: Vec::with_capacity(values.len()), bytes: 1 };
        for (row, value) in values.enumerate() {
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
