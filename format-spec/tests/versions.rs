//! Other versions: a newer minor is read, a newer major refused with a sentence; older and newer fields meet.

mod common;

use bpfrec_format::{BlockType, EndReason, Error, MAJOR, Registry, SegmentIds, SegmentWriter, events, meta, recover};
use common::{DESCRIBED, TRACE_ID, contents, open, patch_header, trace, walk};

/// The segment with every header changed. Its index has the old headers, so it is for a walk.
fn patched(mut bytes: Vec<u8>, change: fn(&mut bpfrec_format::BlockHeader)) -> Vec<u8> {
    for block in walk(&bytes).unwrap().blocks {
        patch_header(&mut bytes, block.offset as usize, change);
    }
    bytes
}

#[test]
fn a_newer_minor_is_read_and_a_newer_major_refused() {
    let bytes = trace(TRACE_ID).remove(0);
    let minor = patched(bytes.clone(), |h| h.minor = 900);
    assert_eq!(contents(&walk(&minor).unwrap()), contents(&walk(&bytes).unwrap()));
    assert_eq!(contents(&open(&minor).unwrap()), contents(&walk(&bytes).unwrap()));
    let major = patched(bytes, |h| h.major = MAJOR + 1);
    for result in [walk(&major), open(&major)] {
        let error = result.err().unwrap();
        assert!(matches!(error, Error::NewerMajor { .. }));
        let text = error.to_string();
        assert_eq!(text, "the trace has format version 2.0, this bpfrec reads up to major 1: use a newer bpfrec");
    }
}

#[test]
fn not_a_trace() {
    let text = walk(b"#!/bin/sh\n").err().unwrap().to_string();
    assert!(text.starts_with("not a .bpr trace"), "{text}");
    assert!(walk(b"").is_err());
}

#[test]
fn what_a_later_minor_adds() {
    let segment = walk(&trace(TRACE_ID)[0]).unwrap();
    // A kind and a field that only SCHEMA describes.
    assert_eq!(segment.registry.by_name("later_event").unwrap().id, DESCRIBED);
    let all = contents(&segment);
    let described: usize = all.values().flat_map(|c| &c.tables).filter(|t| t.kind == DESCRIBED).map(|t| t.rows()).sum();
    assert_eq!(described, 6);
    // A kind that nobody describes is counted.
    assert_eq!(all.values().map(|c| c.unknown_rows).sum::<u64>(), 3);
    // Block types 0x9f and 0x7e are there, and recover keeps them.
    let mut out = Vec::new();
    recover::recover(&segment, &mut out).unwrap();
    let types: Vec<u8> = walk(&out).unwrap().blocks.iter().map(|b| b.header.block_type).collect();
    assert!(types.contains(&0x9f) && types.contains(&0x7e));
}

#[test]
fn an_unknown_codec_or_encoding_is_not_damage() {
    for change in
        [|h: &mut bpfrec_format::BlockHeader| h.codec = 9, |h: &mut bpfrec_format::BlockHeader| h.encoding = 9]
    {
        let mut bytes = trace(TRACE_ID).remove(0);
        let block = *walk(&bytes).unwrap().blocks_of(BlockType::Events).next().unwrap();
        patch_header(&mut bytes, block.offset as usize, change);
        let segment = walk(&bytes).unwrap();
        let error = segment.read(segment.blocks_of(BlockType::Events).next().unwrap(), &|_| true).unwrap_err();
        assert!(matches!(error, Error::NotUnderstood { .. }), "{error}");
        let mut out = Vec::new();
        let result = recover::recover(&segment, &mut out).unwrap();
        assert!(result.is_clean(), "{result:?}");
        assert_eq!(
            walk(&out).unwrap().blocks_of(BlockType::Events).count(),
            segment.blocks_of(BlockType::Events).count()
        );
    }
}

#[test]
fn index_and_walk_agree() {
    for bytes in trace(TRACE_ID).into_iter().chain([common::long_segment(3, 50, 20)]) {
        let (by_index, by_walk) = (open(&bytes).unwrap(), walk(&bytes).unwrap());
        assert_eq!(by_index.blocks, by_walk.blocks);
        assert!(by_index.is_complete() && by_walk.is_complete());
        assert_eq!(by_index.items, by_walk.items);
    }
}

#[test]
fn tables_say_their_times() {
    let ids = SegmentIds { trace_id: 1, segment: 0, first_seq: 0 };
    let registry = Registry::default();
    let mut w = SegmentWriter::new(Vec::new(), ids, &registry, &[]).unwrap();
    let mut tasks = common::table(registry.get(events::SCHED_FORK).unwrap(), 3, 5000, &mut common::Random(4));
    tasks.push(
        &[0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
            .map(|v: u64| v.into())
            .into_iter()
            .chain(["x".into(), 1u64.into()])
            .collect::<Vec<_>>(),
    );
    w.write_tables(BlockType::Tasks, &[&tasks]).unwrap();
    let segment = walk(&w.finish(EndReason::Exit).unwrap().0).unwrap();
    let times = tasks.columns[0].ints();
    let header = segment.blocks_of(BlockType::Tasks).next().unwrap().header;
    assert_eq!((header.ts_min_ns, header.ts_max_ns), (times[0], times[2]));
    assert_eq!(segment.blocks_of(BlockType::Schema).next().unwrap().header.ts_max_ns, 0);
    let end = segment.read(segment.blocks_of(BlockType::End).next().unwrap(), &|_| true).unwrap();
    assert_eq!(end.tables[0].column(&meta::kind(meta::END), "ts_ns").unwrap().ints(), [times[2]]);
}
