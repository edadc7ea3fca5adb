//! Columns that follow from another one of their rows: SPEC.md section 5.2, tags `shift` and `mapped`. Who leaves a CPU came
//! to it in the row before, and a thread has one process; such columns cost next to nothing to store, to write and to read.

use crate::column;
use crate::error::{Error, Result};
use crate::kind::{Kind, Type};
use crate::table::Column;
use crate::varint::{put, take};

/// Where a column may follow from. It is tried in each chunk; names only say where trying pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// The value of this field one row before: `prev_tid` is the last row's `next_tid`.
    Before(usize),
    /// This field tells: a thread's `pid`, `prio` and `cgroup_id` follow from its `tid`.
    By(usize),
}

/// For each field of `kind`.
pub(crate) fn sources(kind: &Kind) -> Vec<Option<From>> {
    let named = |name: &str| kind.fields.iter().position(|f| f.name == name);
    let source = |name: &str| {
        if let Some(rest) = name.strip_prefix("prev_") {
            return named(&format!("next_{rest}")).map(From::Before);
        }
        let prefix = ["pid", "prio", "cgroup_id"].iter().find_map(|end| name.strip_suffix(end))?;
        named(&format!("{prefix}tid")).map(From::By)
    };
    kind.fields.iter().map(|f| source(&f.name)).collect()
}

/// Appends a column of `values` of which each is the one of `other` a row before, with at most one exception in sixteen; false,
/// and nothing appended, when there are more.
pub(crate) fn put_shift(
    field: usize,
    mut values: impl ExactSizeIterator<Item = u64>,
    other: impl Iterator<Item = u64>,
    out: &mut Vec<u8>,
) -> bool {
    let most = values.len() / 16;
    // The first row has none before it: it is one of them.
    let mut exceptions: Vec<_> = values.next().map(|first| (0, first)).into_iter().collect();
    for (before, (value, other)) in values.zip(other).enumerate() {
        if value != other {
            if exceptions.len() > most {
                return false;
            }
            exceptions.push((before + 1, value));
        }
    }
    out.push(column::SHIFT);
    put(out, field as u64);
    put(out, exceptions.len() as u64);
    let mut next = 0;
    for (row, value) in exceptions {
        put(out, (row - next) as u64);
        put(out, value);
        next = row + 1;
    }
    true
}

/// Appends a column of `values` that follow from field `field`, of whose distinct values `rows` has the numbers, counted in the
/// order of their first rows; false, and nothing appended, when they do not follow.
pub(crate) fn put_mapped(field: usize, rows: &[u8], values: impl Iterator<Item = u64>, out: &mut Vec<u8>) -> bool {
    let (mut of, mut known) = ([0u64; 256], 0);
    for (&number, value) in rows.iter().zip(values) {
        let place = &mut of[usize::from(number)];
        if usize::from(number) == known {
            *place = value;
            known += 1;
        } else if *place != value {
            return false;
        }
    }
    let of = &of[..known];
    let Some(&first) = of.first() else { return false };
    if of.iter().all(|value| *value == first) {
        out.push(column::CONST);
        put(out, first);
        return true;
    }
    out.push(column::MAPPED);
    put(out, field as u64);
    of.iter().for_each(|value| put(out, *value));
    true
}

/// A section's stored columns, by field.
pub(crate) struct Stored<'a> {
    /// Tag and data of each.
    pub columns: Vec<&'a [u8]>,
    /// Rows of each.
    pub rows: usize,
}

impl<'a> Stored<'a> {
    /// Reads the column of a field. `done` has those fields that are read already, or are empty.
    pub(crate) fn decode(&self, field: usize, ty: Type, done: &[Column], budget: &mut usize) -> Result<Column> {
        let data = self.columns[field];
        match data.split_first() {
            Some((&column::SHIFT, data)) if is_int(ty) => self.shift(data, done, budget).map(Column::Int),
            Some((&column::MAPPED, data)) if is_int(ty) => self.mapped(data, budget).map(Column::Int),
            _ => column::decode(data, ty, self.rows, budget),
        }
    }

    /// Whether the column of a field has this tag.
    pub(crate) fn is(&self, field: usize, tag: u8) -> bool {
        self.columns[field].first() == Some(&tag)
    }

    /// The field that data of such a column begins with.
    fn other(&self, data: &mut &[u8]) -> Result<usize> {
        let field = take(data)?;
        let known = usize::try_from(field).ok().filter(|field| *field < self.columns.len());
        known.ok_or_else(|| Error::damaged(format!("follows from column {field} of {}", self.columns.len())))
    }

    fn shift(&self, mut data: &[u8], done: &[Column], budget: &mut usize) -> Result<Vec<u64>> {
        column::spend(budget, self.rows)?;
        let other = self.other(&mut data)?;
        if self.is(other, column::SHIFT) {
            return Err(Error::damaged(format!("follows from column {other}, which follows itself")));
        }
        // One of a type that has no integers is found out here.
        let read;
        let before = match done.get(other) {
            Some(Column::Int(values)) if values.len() == self.rows => values,
            _ => {
                read = self.decode(other, Type::U64, &[], budget)?;
                read.ints()
            }
        };
        let mut values = Vec::with_capacity(self.rows);
        values.extend(std::iter::once(&0).chain(before).take(self.rows));
        let mut row = 0u64;
        for _ in 0..take(&mut data)? {
            row = row.saturating_add(take(&mut data)?);
            let place = usize::try_from(row).ok().and_then(|row| values.get_mut(row));
            *place.ok_or_else(|| Error::damaged(format!("an exception for row {row} of {}", self.rows)))? =
                take(&mut data)?;
            row += 1;
        }
        if data.is_empty() { Ok(values) } else { Err(Error::damaged("bytes after the end of a column")) }
    }

    fn mapped(&self, mut data: &[u8], budget: &mut usize) -> Result<Vec<u64>> {
        column::spend(budget, self.rows)?;
        let other = self.other(&mut data)?;
        let Some((&column::DICT, [last, dict @ ..])) = self.columns[other].split_first() else {
            return Err(Error::damaged(format!("follows from column {other}, which has no dictionary")));
        };
        let mut of = [0u64; 256];
        let of = &mut of[..=usize::from(*last)];
        for value in of.iter_mut() {
            *value = take(&mut data)?;
        }
        // The numbers stand at the end of a dictionary's column.
        let numbers = dict.len().checked_sub(self.rows).map(|at| &dict[at..]);
        let numbers = numbers.ok_or_else(|| Error::damaged("dictionary column is cut"))?;
        let values: Option<Vec<u64>> = numbers.iter().map(|i| of.get(usize::from(*i)).copied()).collect();
        let values = values.ok_or_else(|| Error::damaged("number outside the dictionary"))?;
        if data.is_empty() { Ok(values) } else { Err(Error::damaged("bytes after the end of a column")) }
    }
}

fn is_int(ty: Type) -> bool {
    !matches!(ty, Type::Text | Type::List)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events;
    use proptest::prelude::*;

    #[test]
    fn what_names_tell() {
        let kinds = events::kinds();
        let of = |id: u16, name: &str| {
            let kind = kinds.iter().find(|k| k.id == id).unwrap();
            let at = kind.fields.iter().position(|f| f.name == name).unwrap();
            sources(kind)[at].map(|from| match from {
                From::Before(i) => format!("before {}", kind.fields[i].name),
                From::By(i) => format!("by {}", kind.fields[i].name),
            })
        };
        assert_eq!(of(events::SCHED_SWITCH, "prev_tid").as_deref(), Some("before next_tid"));
        assert_eq!(of(events::SCHED_SWITCH, "prev_cgroup_id").as_deref(), Some("before next_cgroup_id"));
        assert_eq!(of(events::SCHED_SWITCH, "next_pid").as_deref(), Some("by next_tid"));
        assert_eq!(of(events::SCHED_WAKEUP, "prio").as_deref(), Some("by tid"));
        assert_eq!((of(events::SCHED_SWITCH, "prev_state"), of(events::SCHED_SWITCH, "ts_ns")), (None, None));
    }

    /// A dictionary column as `pack.rs` writes it.
    fn dictionary(numbers: &[u8], values: &[u64]) -> Vec<u8> {
        let mut out = vec![column::DICT, (values.len() - 1) as u8];
        values.iter().for_each(|v| put(&mut out, *v));
        out.extend_from_slice(numbers);
        out
    }

    proptest! {
        #[test]
        fn shifted(other: Vec<u64>, wrong in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 0..4)) {
            let mut values: Vec<u64> = std::iter::once(7).chain(other.iter().copied()).take(other.len()).collect();
            let rows = values.len();
            for (at, value) in wrong.iter().filter(|_| rows > 0) {
                values[at.index(rows)] = *value;
            }
            let (mut plain, mut out) = (Vec::new(), Vec::new());
            crate::pack::column(&Column::Int(other.clone()), &mut plain);
            if put_shift(0, values.iter().copied(), other.iter().copied(), &mut out) {
                let stored = Stored { columns: vec![&plain, &out], rows: values.len() };
                for done in [vec![], vec![Column::Int(other)]] {
                    let column = stored.decode(1, Type::U64, &done, &mut 1000).unwrap();
                    prop_assert_eq!(column.ints(), &values[..]);
                }
            } else {
                prop_assert!(out.is_empty() && !wrong.is_empty());
            }
        }

        #[test]
        fn mapped(keys in prop::collection::vec(0u8..9, 1..200), of: [u64; 9]) {
            // Numbered by their first rows.
            let mut order: Vec<u8> = Vec::new();
            let numbers: Vec<u8> = keys.iter().map(|k| order.iter().position(|o| o == k).unwrap_or_else(|| {
                order.push(*k);
                order.len() - 1
            }) as u8).collect();
            let values: Vec<u64> = keys.iter().map(|k| of[usize::from(*k)]).collect();
            let plain = dictionary(&numbers, &order.iter().map(|k| u64::from(*k)).collect::<Vec<_>>());
            let mut out = Vec::new();
            prop_assert!(put_mapped(0, &numbers, values.iter().copied(), &mut out));
            let stored = Stored { columns: vec![&plain, &out], rows: values.len() };
            let column = stored.decode(1, Type::U32, &[], &mut 1000).unwrap();
            prop_assert_eq!(column.ints(), &values[..]);
        }

        #[test]
        fn hostile(one: Vec<u8>, two: Vec<u8>, tags in (0u8..9, 0u8..9), rows in 0usize..300) {
            let (one, two) = ([&[tags.0][..], &one].concat(), [&[tags.1][..], &two].concat());
            let stored = Stored { columns: vec![&one, &two], rows };
            for field in 0..2 {
                let _ = stored.decode(field, Type::U64, &[], &mut 1000);
            }
        }
    }

    #[test]
    fn what_cannot_be_told() {
        let dict = dictionary(&[0, 1, 0], &[5, 6]);
        let decode = |data: &[u8], rows, budget: usize| {
            Stored { columns: vec![data, &dict], rows }
                .decode(0, Type::U64, &[], &mut { budget })
                .map(|c| c.ints().to_vec())
        };
        assert_eq!(decode(&[column::MAPPED, 1, 8, 9], 3, 3).unwrap(), [8, 9, 8]);
        assert_eq!(decode(&[column::SHIFT, 1, 1, 0, 4], 3, 6).unwrap(), [4, 5, 6]);
        // Itself, a column that is not there, too few values, too many, a row too far, too many values for the budget.
        for (data, budget) in [
            (&[column::SHIFT, 0, 0][..], 99),
            (&[column::SHIFT, 2, 0], 99),
            (&[column::MAPPED, 0, 1, 2], 99),
            (&[column::MAPPED, 1, 8], 99),
            (&[column::MAPPED, 1, 8, 9, 9], 99),
            (&[column::SHIFT, 1, 1, 3, 4], 99),
            (&[column::SHIFT, 1, 1, 0, 4], 5),
            (&[column::MAPPED, 1, 8, 9], 2),
        ] {
            assert!(decode(data, 3, budget).is_err(), "{data:?}");
        }
        let mut out = Vec::new();
        assert!(!put_mapped(0, &[0, 0], [1, 2].into_iter(), &mut out));
        assert!(!put_shift(0, [1, 2, 3].into_iter(), [0, 0, 0].into_iter(), &mut out));
        assert!(out.is_empty());
    }
}
