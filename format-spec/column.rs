//! Reads packed columns: SPEC.md section 5. `pack.rs` writes them.

use crate::MAX_FRAMES;
use crate::error::{Error, Result};
use crate::kind::Type;
use crate::table::{Column, Ragged};
use crate::varint::{take, take_all, unzigzag};

/// One varint for all rows.
pub(crate) const CONST: u8 = 0;
/// A varint a row.
pub(crate) const VARINT: u8 = 1;
/// Zigzag varint of the difference to the row before (to 0 for the first), modulo 2^64.
pub(crate) const DELTA: u8 = 2;
/// Number of values less one (u8), the values as varints, then one byte a row.
pub(crate) const DICT: u8 = 3;
/// Eight bytes a row, little-endian.
pub(crate) const FIXED: u8 = 4;
/// Lengths as varints, then the bytes of all rows.
pub(crate) const TEXT: u8 = 5;
/// Lengths as varints, then all items, each a zigzag varint of the difference to the item before in its list.
pub(crate) const LIST: u8 = 6;
/// A field's number, then exceptions: all others are its values one row before. Read by `related.rs`.
pub(crate) const SHIFT: u8 = 7;
/// A field's number, then a varint for each value of its dictionary. Read by `related.rs`.
pub(crate) const MAPPED: u8 = 8;

/// Reads `rows` rows of type `ty` from `data`, all of which must be used. `budget` counts down the values that
/// the block may still decode to, so that a few bytes cannot become gigabytes.
pub fn decode(mut data: &[u8], ty: Type, rows: usize, budget: &mut usize) -> Result<Column> {
    spend(budget, rows)?;
    let (&tag, rest) = data.split_first().ok_or_else(|| Error::damaged("column without a tag"))?;
    data = rest;
    let column = match (ty, tag) {
        (Type::Text, TEXT) => {
            let (ends, total) = take_lengths(&mut data, rows, usize::MAX)?;
            let text = data.get(..total).ok_or_else(|| Error::damaged("text ends before its column"))?;
            data = &data[total..];
            Column::Text(Ragged { ends, data: text.to_vec() })
        }
        (Type::List, LIST) => {
            let (ends, total) = take_lengths(&mut data, rows, MAX_FRAMES)?;
            spend(budget, total)?;
            // Each item takes a byte or more: a lying total is caught before anything is allocated for it.
            if total > data.len() {
                return Err(Error::damaged("list ends before its column"));
            }
            let mut list = Ragged { ends, data: Vec::with_capacity(total) };
            for row in 0..rows {
                let start = if row == 0 { 0 } else { list.ends[row - 1] };
                take_deltas(&mut data, (list.ends[row] - start) as usize, &mut list.data)?;
            }
            Column::List(list)
        }
        (Type::Text | Type::List, ..=LIST | SHIFT | MAPPED) | (_, TEXT | LIST) => {
            return Err(Error::damaged(format!("column of {} has tag {tag}", ty.name())));
        }
        (_, CONST) => Column::Int(vec![take(&mut data)?; rows]),
        (_, VARINT) => {
            let mut values = Vec::with_capacity(rows.min(data.len()));
            take_all(&mut data, rows, |value| values.push(value))?;
            Column::Int(values)
        }
        (_, DELTA) => {
            let mut values = Vec::with_capacity(rows.min(data.len()));
            take_deltas(&mut data, rows, &mut values)?;
            Column::Int(values)
        }
        (_, DICT) => {
            let (&last, rest) = data.split_first().ok_or_else(|| Error::damaged("dictionary without a size"))?;
            data = rest;
            let mut dict = Vec::with_capacity(usize::from(last) + 1);
            for _ in 0..=last {
                dict.push(take(&mut data)?);
            }
            let indices = data.get(..rows).ok_or_else(|| Error::damaged("dictionary column is cut"))?;
            data = &data[rows..];
            let value = |i: &u8| dict.get(usize::from(*i)).copied();
            let values: Option<Vec<u64>> = indices.iter().map(value).collect();
            Column::Int(values.ok_or_else(|| Error::damaged("number outside the dictionary"))?)
        }
        (_, FIXED) => {
            let bytes = data.get(..rows * 8).ok_or_else(|| Error::damaged("fixed column is cut"))?;
            data = &data[rows * 8..];
            Column::Int(bytes.as_chunks().0.iter().map(|c| u64::from_le_bytes(*c)).collect())
        }
        _ => return Err(Error::unknown(format!("column tag {tag}"))),
    };
    if data.is_empty() { Ok(column) } else { Err(Error::damaged("bytes after the end of a column")) }
}

/// Takes `values` from what a block may still decode to.
pub(crate) fn spend(budget: &mut usize, values: usize) -> Result<()> {
    *budget = budget
        .checked_sub(values)
        .ok_or_else(|| Error::damaged(format!("block decodes to more than {} values", crate::MAX_VALUES)))?;
    Ok(())
}

/// Ends of each row and the sum of their lengths.
fn take_lengths(data: &mut &[u8], rows: usize, longest: usize) -> Result<(Vec<u32>, usize)> {
    let mut ends = Vec::with_capacity(rows.min(data.len()));
    let mut end = 0u64;
    for _ in 0..rows {
        let len = take(data)?;
        if len > longest as u64 {
            return Err(Error::damaged(format!("list of {len} items, at most {longest} are allowed")));
        }
        end = end.saturating_add(len);
        let end = u32::try_from(end).map_err(|_| Error::damaged("lengths over 4 GiB"))?;
        ends.push(end);
    }
    Ok((ends, end as usize))
}

fn take_deltas(data: &mut &[u8], count: usize, out: &mut Vec<u64>) -> Result<()> {
    let mut value = 0u64;
    take_all(data, count, |delta| {
        value = value.wrapping_add(unzigzag(delta) as u64);
        out.push(value);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(column: Column, ty: Type) {
        let mut bytes = Vec::new();
        crate::pack::column(&column, &mut bytes);
        let mut budget = crate::MAX_VALUES;
        assert_eq!(decode(&bytes, ty, column.len(), &mut budget).unwrap(), column);
    }

    proptest! {
        #[test]
        fn ints(values: Vec<u64>, shift in 0u32..64, distinct in 1usize..400) {
            let pick = |i: usize| values[i % values.len()] >> shift;
            round_trip(Column::Int(values.iter().map(|v| v >> shift).collect()), Type::U64);
            if !values.is_empty() {
                round_trip(Column::Int((0..999).map(|i| pick(i % distinct)).collect()), Type::U64);
            }
        }

        #[test]
        fn texts_and_lists(texts: Vec<Vec<u8>>, lists: Vec<Vec<u64>>) {
            let (mut text, mut list) = (Ragged::default(), Ragged::default());
            texts.iter().for_each(|t| text.push(t));
            lists.iter().for_each(|l| list.push(l));
            round_trip(Column::Text(text), Type::Text);
            round_trip(Column::List(list), Type::List);
        }

        #[test]
        fn hostile(bytes: Vec<u8>, rows in 0usize..2000, ty in 1u8..9) {
            let _ = decode(&bytes, Type::from_number(ty).unwrap(), rows, &mut 1000);
        }
    }

    #[test]
    fn budget_is_kept() {
        let bytes = [CONST, 1];
        assert!(decode(&bytes, Type::U64, 1000, &mut 1000).is_ok());
        assert!(decode(&bytes, Type::U64, 1001, &mut 1000).is_err());
        assert!(decode(&bytes, Type::U64, usize::MAX, &mut 1000).is_err());
    }
}
