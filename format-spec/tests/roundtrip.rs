//! What goes in comes out, for tables of any kind and content; and no bytes make the decoder panic.

mod common;

use bpfrec_format::codec::{Compressor, LEVEL, decompress};
use bpfrec_format::pack::Packer;
use bpfrec_format::{Column, Kind, Ragged, Registry, Table, section};
use proptest::collection::vec;
use proptest::prelude::*;

/// Any table of a kind that this version knows.
fn tables() -> impl Strategy<Value = Table> {
    let kinds = Registry::default().kinds();
    (0..kinds.len(), 0usize..60, any::<u64>(), 0u32..64).prop_flat_map(move |(kind, rows, base, shift)| {
        let kind = kinds[kind].clone();
        let columns: Vec<_> = kind.fields.iter().map(|f| column(Column::empty(f.ty), rows, base, shift)).collect();
        columns.prop_map(move |columns| Table { kind: kind.id, columns })
    })
}

fn column(empty: Column, rows: usize, base: u64, shift: u32) -> BoxedStrategy<Column> {
    match empty {
        Column::Int(_) => {
            vec(any::<u64>().prop_map(move |v| base.wrapping_add(v >> shift)), rows).prop_map(Column::Int).boxed()
        }
        Column::Text(_) => vec(vec(any::<u8>(), 0..20), rows).prop_map(|all| Column::Text(ragged(&all))).boxed(),
        Column::List(_) => vec(vec(any::<u64>(), 0..20), rows).prop_map(|all| Column::List(ragged(&all))).boxed(),
    }
}

fn ragged<T: Clone + Default>(all: &[Vec<T>]) -> Ragged<T> {
    let mut ragged = Ragged::default();
    all.iter().for_each(|one| ragged.push(one));
    ragged
}

/// Raw rows whose fields are, each in its own way, constant, small, of few values, rising, or anything.
fn shaped_rows(kind: &Kind, rows: usize, shapes: &[u8], random: &mut common::Random) -> Vec<u8> {
    let size = kind.row_size as usize;
    let mut bytes = vec![0; rows * size];
    for (i, field) in kind.fields.iter().enumerate() {
        let (at, width, base) = (usize::from(field.offset), usize::from(field.width), random.next(u64::MAX));
        let mut last = base >> 20;
        for row in bytes.chunks_exact_mut(size) {
            let any = random.next(u64::MAX);
            last = last.wrapping_add(any & 0xfff);
            let value = match shapes[i % shapes.len()] {
                0 => base,
                1 => any & 3,
                2 => base ^ (any & 7).wrapping_mul(0x0101_0101_0101),
                3 => last,
                4 => any,
                // Small but for a few.
                _ => {
                    if any & 63 == 0 {
                        base
                    } else {
                        any >> 60
                    }
                }
            };
            let len = width.min(8);
            row[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        }
    }
    bytes
}

proptest! {
    #[test]
    fn chunks_of_which_the_packer_remembers_the_ones_before(
        kind in 0usize..100,
        seed in 1u64..,
        chunks in vec((0usize..200, vec(0u8..6, 1..5), 1usize..4), 1..12),
    ) {
        let registry = Registry::default();
        let kinds: Vec<_> = registry.kinds().into_iter().filter(|k| k.row_size > 0).collect();
        let (kind, mut packer, mut random) = (&kinds[kind % kinds.len()], Packer::default(), common::Random(seed));
        for (rows, shapes, times) in chunks {
            for _ in 0..times {
                let (rows, mut bytes) = (shaped_rows(kind, rows, &shapes, &mut random), Vec::new());
                section::encode_rows(kind, &rows, &mut packer, &mut bytes).unwrap();
                let (decoded, _) = section::decode(&bytes, 2, &registry, &|_| true).unwrap();
                prop_assert_eq!(&decoded, &[Table::from_rows(kind, &rows).unwrap()]);
            }
        }
    }

    #[test]
    fn sections(all in vec(tables(), 0..5)) {
        let (registry, mut raw, mut packed) = (Registry::default(), Vec::new(), Vec::new());
        all.iter().for_each(|t| section::encode(t, &mut raw));
        Compressor::new(LEVEL).unwrap().compress(&raw, &mut packed).unwrap();
        let payload = decompress(1, packed, raw.len()).unwrap();
        let (decoded, unknown) = section::decode(&payload, 2, &registry, &|_| true).unwrap();
        prop_assert_eq!((decoded, unknown), (all, 0));
    }

    #[test]
    fn some_fields(table in tables(), wanted: u64) {
        let (registry, mut raw) = (Registry::default(), Vec::new());
        section::encode(&table, &mut raw);
        let takes = |field: usize| wanted >> (field % 64) & 1 == 1;
        let (decoded, _) = section::decode_fields(&raw, 2, &registry, &|_, field| takes(field)).unwrap();
        if (0..table.columns.len()).any(takes) {
            prop_assert_eq!(decoded[0].rows(), table.rows());
            for (i, column) in table.columns.iter().enumerate() {
                let found = &decoded[0].columns[i];
                let as_asked = if takes(i) { found == column } else { found.is_empty() };
                prop_assert!(as_asked, "field {}", i);
            }
        } else {
            prop_assert_eq!(decoded, []);
        }
    }

    #[test]
    fn raw_rows(rows in 0usize..50, kind in 0usize..100, seed in 1u64..) {
        let registry = Registry::default();
        let kinds: Vec<_> = registry.kinds().into_iter().filter(|k| k.row_size > 0).collect();
        let kind = &kinds[kind % kinds.len()];
        let mut bytes = Vec::new();
        let table = common::table(kind, rows, seed >> 1, &mut common::Random(seed));
        let rows = common::raw_rows(kind, &table);
        section::encode_raw(kind, &rows, &mut bytes);
        let (decoded, _) = section::decode(&bytes, 0, &registry, &|_| true).unwrap();
        prop_assert_eq!(&decoded, &[Table::from_rows(kind, &rows).unwrap()]);
    }

    #[test]
    fn hostile_payloads(kind in 0u16..0x60, columns in 0u16..20, rows in 0u32..300, data in vec(any::<u8>(), 0..400), encoding in 0u8..4) {
        let mut bytes = [kind.to_le_bytes(), columns.to_le_bytes()].concat();
        bytes.extend(rows.to_le_bytes());
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(&data);
        let _ = section::decode(&bytes, encoding, &Registry::default(), &|_| true);
        let _ = section::decode(&data, encoding, &Registry::default(), &|_| true);
        let _ = decompress(encoding, data, rows as usize);
    }

    #[test]
    fn hostile_segments(cuts in vec((0usize..8000, 0usize..8000, 0usize..300), 1..6)) {
        // Pieces of a trace put over and between each other.
        let mut bytes = common::trace(common::TRACE_ID).remove(1);
        for (from, to, len) in cuts {
            let piece = bytes[from.min(bytes.len())..(from + len).min(bytes.len())].to_vec();
            let to = to.min(bytes.len());
            bytes.splice(to..(to + len / 2).min(bytes.len()), piece);
        }
        if let Ok(segment) = common::walk(&bytes) {
            common::contents(&segment);
            let mut out = Vec::new();
            if bpfrec_format::recover::recover(&segment, &mut out).is_ok() {
                prop_assert!(common::walk(&out).unwrap().is_complete());
            }
        }
        let _ = common::open(&bytes).map(|segment| common::contents(&segment));
    }
}
