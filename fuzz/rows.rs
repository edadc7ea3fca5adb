//! Rows of any kind out of a fuzzer's bytes: mostly such that ids meet and times rise, for only then is there something to pair.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use bpfrec_format::{BlockHeader, Column, EndReason, Kind, Registry, SegmentIds, SegmentWriter, Table, Type};

/// Values at the edges. An input chooses by position: what is kept of inputs means the same only as long as this list does.
pub const EDGES: [u64; 14] = [
    0,
    1,
    127,
    u16::MAX as u64,
    i32::MIN as u64,
    u32::MAX as u64 - 1,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
    1_000_000_000,
    0xffff_8000_0000_0000,
];
/// Texts that a terminal, a page, a path or a demangler may stumble over; chosen by position, as [`EDGES`].
pub const TEXTS: [&[u8]; 10] = [
    b"",
    b"/",
    b"/a",
    b"/a/b",
    b"<script>",
    b"../../etc",
    b"\x1b[2J\n\x00\x7f",
    b"\xff\xfe\xc3",
    b"_ZN4core3ptr",
    b"_RNvC6_123foo3bar",
];
/// Keys of the HEADER that readers look at, each with values of use and of none.
const ITEMS: [(&str, &[&str]); 9] = [
    ("sources", &["sched,block,profile,offcpu,malloc,kmem", "sched", "malloc,kmem", "nothing"]),
    ("start_mono_ns", &["0", "1000", "18446744073709551615", "x"]),
    ("start_realtime_ns", &["0", "-9223372036854775808", "1700000000000000000"]),
    ("sample_hz", &["99", "0", "18446744073709551615"]),
    ("cpus", &["0-3", "0-4294967295", "1-0,,5"]),
    ("online_cpus", &["4", "0", "4294967295"]),
    ("recorder_pid", &["1", "4294967296"]),
    ("malloc_sample", &["1", "0", "18446744073709551615"]),
    ("filter_cgroup", &["/", "/a", ""]),
];

/// Items of a HEADER.
pub fn items(u: &mut Unstructured<'_>) -> Vec<(String, String)> {
    let choices: [u8; ITEMS.len()] = u.arbitrary().unwrap_or_default();
    let chosen = ITEMS.iter().zip(choices).filter_map(|((key, values), choice)| {
        // The usual value, or one of the others, or none.
        let value =
            if choice < 128 { values.first() } else { values.get(usize::from(choice - 128) % (values.len() + 1)) };
        value.map(|value| ((*key).to_owned(), (*value).to_owned()))
    });
    chosen.collect()
}

/// A whole file with tables of these kinds.
pub fn file(u: &mut Unstructured<'_>, kinds: &[Arc<Kind>]) -> Vec<u8> {
    let ids = SegmentIds { trace_id: 7, segment: 0, first_seq: 0 };
    let mut writer = SegmentWriter::new(Vec::new(), ids, &Registry::default(), &items(u)).expect("a segment begins");
    for _ in 0..24 {
        if u.is_empty() {
            break;
        }
        let Ok(kind) = u.choose(kinds) else { break };
        let stream = u32::from(u.arbitrary::<u8>().unwrap_or_default() % 4);
        let Ok(table) = table(u, kind, 32) else { break };
        // What cannot be written is left out.
        let _ = writer.write_rows(BlockHeader::new(kind.block_type(), stream), &[table]);
    }
    writer.finish(EndReason::Exit).expect("a segment ends").0
}

/// A table of at most so many rows.
pub fn table(u: &mut Unstructured<'_>, kind: &Kind, most: usize) -> Result<Table> {
    let rows = u.int_in_range(0..=most)?;
    let mut table = Table::new(kind);
    for (column, field) in table.columns.iter_mut().zip(&kind.fields) {
        match column {
            Column::Int(values) => *values = ints(u, rows, &field.name, field.ty)?,
            Column::Text(texts) => (0..rows).try_for_each(|_| text(u).map(|text| texts.push(&text)))?,
            Column::List(lists) => (0..rows).try_for_each(|_| list(u).map(|list| lists.push(&list)))?,
        }
    }
    Ok(table)
}

fn ints(u: &mut Unstructured<'_>, rows: usize, name: &str, ty: Type) -> Result<Vec<u64>> {
    let mode: u8 = u.arbitrary()?;
    let start = u64::from(u.arbitrary::<u8>()?);
    let values = (0..rows as u64).map(|row| {
        Ok(match mode % 8 {
            // Times rise, so that something follows upon something.
            0..=3 if name.ends_with("ts_ns") => start * 1000 + row * (1 << (mode >> 4)),
            0 => start,
            1 => start % 4 + row % 4,
            2 | 3 => u64::from(u.arbitrary::<u8>()? % 8),
            4 => u64::from(u.arbitrary::<u8>()?) << 12,
            5 => EDGES[usize::from(u.arbitrary::<u8>()?) % EDGES.len()],
            6 => u64::from(u.arbitrary::<u16>()?),
            _ => u.arbitrary()?,
        })
    });
    let values: Result<Vec<u64>> = values.collect();
    // As wide as the field is: a reader may count on it, for the decoder of rows gives nothing else. Wider ones come by `reports`.
    let narrow = |v: u64| match ty {
        Type::U8 => v & 0xff,
        Type::U16 => v & 0xffff,
        Type::U32 => v & 0xffff_ffff,
        Type::I32 => v as i32 as i64 as u64,
        _ => v,
    };
    let wide = mode & 0x80 != 0;
    values.map(|values| values.into_iter().map(|v| if wide { v } else { narrow(v) }).collect())
}

fn text(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let choice = usize::from(u.arbitrary::<u8>()?);
    Ok(match choice {
        0..=199 => TEXTS[choice % TEXTS.len()].to_vec(),
        200..=204 => vec![b'a'; 5000],
        205..=219 => vec![b'0' + (choice % 10) as u8; 40],
        _ => u.bytes(choice % 24)?.to_vec(),
    })
}

fn list(u: &mut Unstructured<'_>) -> Result<Vec<u64>> {
    let choice = usize::from(u.arbitrary::<u8>()?);
    match choice {
        250.. => Ok(vec![EDGES[choice % EDGES.len()]; 1024]),
        _ => (0..choice % 12).map(|_| ints(u, 1, "", Type::U64).map(|one| one[0])).collect(),
    }
}
