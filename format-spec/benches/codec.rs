//! Nanoseconds an event to encode and to decode, on a recorded trace: `cargo bench -p bpfrec-format`.
#![allow(missing_docs, reason = "criterion's macros")]

use std::path::Path;

use bpfrec_format::codec::{Compressor, LEVEL};
use bpfrec_format::pack::Packer;
use bpfrec_format::writer::Chunk;
use bpfrec_format::{BlockType, Column, Kind, Registry, Table, Trace, events};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/v1/mixed-6.18.bpr");

/// The rows of a table as a ring carries them.
fn rows(kind: &Kind, table: &Table) -> Vec<u8> {
    let size = kind.row_size as usize;
    let mut rows = vec![0; size * table.rows()];
    for (field, column) in kind.fields.iter().zip(&table.columns) {
        let (at, width) = (usize::from(field.offset), usize::from(field.width));
        for (row, i) in rows.chunks_exact_mut(size).zip(0..) {
            match column {
                Column::Int(v) => row[at..at + width].copy_from_slice(&v[i].to_le_bytes()[..width]),
                Column::Text(t) => row[at..at + t.get(i).len()].copy_from_slice(t.get(i)),
                Column::List(_) => {}
            }
        }
    }
    rows
}

/// The chunks of a trace, and its events.
fn chunks(trace: &Trace, registry: &Registry) -> (Vec<Chunk>, u64) {
    let (mut chunks, mut events) = (Vec::new(), 0);
    for (segment, block) in trace.blocks().filter(|(_, b)| b.header.block_type == BlockType::Events as u8) {
        let tables = trace.segments[segment].1.read(block, &|_| true).unwrap().tables;
        let of = |t: &Table| (t.kind, rows(registry.get(t.kind).unwrap(), t));
        events += u64::from(block.header.rows);
        chunks.push(Chunk { rows: tables.iter().map(of).collect(), ..Chunk::default() });
    }
    (chunks, events)
}

fn codec(criterion: &mut Criterion) {
    let (trace, registry) = (Trace::open(Path::new(TRACE)).unwrap(), Registry::default());
    let (chunks, events) = chunks(&trace, &registry);
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(events));
    let (mut zstd, mut packer) = (Compressor::new(LEVEL).unwrap(), Packer::default());
    let mut encode = |name: &str, compress: bool, raw: bool| {
        group.bench_function(name, |b| {
            b.iter(|| {
                let one = |c: &Chunk| c.pack(&registry, &mut packer, compress.then_some(&mut zstd), raw).unwrap();
                chunks.iter().map(one).count()
            });
        });
    };
    encode("encode columns, zstd", true, false);
    encode("encode columns", false, false);
    encode("encode raw", false, true);
    let mut decode = |name: &str, wanted: &dyn Fn(u16, usize) -> bool| {
        group.bench_function(name, |b| {
            b.iter(|| {
                let blocks = trace.blocks().filter(|(_, b)| b.header.block_type == BlockType::Events as u8);
                blocks
                    .map(|(s, block)| trace.segments[s].1.read_fields(block, wanted).unwrap().tables.len())
                    .sum::<usize>()
            });
        });
    };
    decode("decode", &|_, _| true);
    decode("decode times and tids of switches", &|kind, field| kind == events::SCHED_SWITCH && field < 2);
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
