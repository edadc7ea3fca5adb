//! Whatever happens to the bytes: no panic, no wrong row, and no more lost than the blocks that were touched.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use bpfrec_format::{BlockType, EndReason, Segment, recover};
use common::{Content, Random, TRACE_ID, contents, long_segment, open, trace, walk};

/// A segment and what it decodes to before anything happens to it.
struct Whole {
    segment: Segment,
    contents: BTreeMap<u64, Content>,
}

fn whole(bytes: &[u8]) -> Whole {
    let segment = walk(bytes).unwrap();
    Whole { contents: contents(&segment), segment }
}

/// Block numbers whose bytes lie, if only partly, in `start..end`.
fn touched(whole: &Whole, start: u64, end: u64) -> BTreeSet<u64> {
    let hit = |b: &&bpfrec_format::BlockRef| b.offset < end && b.offset + b.header.total_len() > start;
    whole.segment.blocks.iter().filter(hit).map(|b| b.header.seq).collect()
}

/// All that `damaged` still gives is as it was, and only blocks of `touched` are gone.
fn check(whole: &Whole, damaged: &Segment, touched: &BTreeSet<u64>, what: &str) {
    let (before, after) = (&whole.contents, contents(damaged));
    let schema = whole.segment.blocks_of(BlockType::Schema).any(|b| touched.contains(&b.header.seq));
    for (seq, content) in &after {
        let expected = before.get(seq).unwrap_or_else(|| panic!("{what}: block {seq} was never written"));
        if schema {
            assert_eq!(content.clone().built_in(), expected.clone().built_in(), "{what}: block {seq}");
        } else {
            assert_eq!(content, expected, "{what}: block {seq}");
        }
    }
    for seq in before.keys().filter(|seq| !after.contains_key(seq)) {
        assert!(touched.contains(seq), "{what}: block {seq} is lost, only {touched:?} were touched");
    }
}

#[test]
fn every_truncation_reads_back_to_the_last_whole_block() {
    for bytes in trace(TRACE_ID) {
        let whole = whole(&bytes);
        let before = &whole.contents;
        for len in 0..bytes.len() {
            let fit = whole.segment.blocks.iter().filter(|b| b.offset + b.header.total_len() <= len as u64);
            let fit: BTreeSet<u64> = fit.map(|b| b.header.seq).collect();
            for segment in [walk(&bytes[..len]), open(&bytes[..len])] {
                match segment {
                    Ok(segment) => {
                        assert!(!segment.is_complete());
                        let after = contents(&segment);
                        assert!(after.keys().eq(fit.iter()), "cut at {len}");
                        // Before SCHEMA is there, what it alone describes is not understood.
                        let schema = fit.len() > 1;
                        assert!(after.iter().all(|(seq, c)| !schema || before[seq] == *c), "cut at {len}");
                    }
                    Err(_) => assert!(fit.is_empty(), "cut at {len}"),
                }
            }
        }
    }
}

#[test]
fn every_truncation_is_recovered_to_a_clean_file() {
    let bytes = &trace(TRACE_ID)[1];
    let remade = [BlockType::Header, BlockType::Schema, BlockType::Index, BlockType::End, BlockType::Checkpoint];
    for len in 0..=bytes.len() {
        let Ok(segment) = walk(&bytes[..len]) else { continue };
        let mut out = Vec::new();
        let result = recover::recover(&segment, &mut out).unwrap();
        assert_eq!(result.is_clean(), len == bytes.len());
        let (new, by_index) = (walk(&out).unwrap(), open(&out).unwrap());
        assert!(new.is_complete());
        assert_eq!(new.end, Some(EndReason::Recovered));
        assert_eq!(new.blocks, by_index.blocks);
        assert_eq!(new.item("host"), segment.item("host"));
        let kept = |s: &Segment| {
            let all = contents(s).into_values();
            all.filter(|c| remade.iter().all(|t| *t as u8 != c.block_type)).collect::<Vec<_>>()
        };
        assert_eq!(kept(&new), kept(&segment), "cut at {len}");
    }
}

#[test]
fn every_flipped_bit_costs_one_block_at_most() {
    for bytes in trace(TRACE_ID).drain(1..2) {
        let whole = whole(&bytes);
        let half = bytes.len() / 2;
        std::thread::scope(|scope| {
            for range in [0..half, half..bytes.len()] {
                let (whole, bytes) = (&whole, &bytes);
                scope.spawn(move || {
                    let mut bad = bytes.clone();
                    for at in range {
                        let touched = touched(whole, at as u64, at as u64 + 1);
                        assert_eq!(touched.len(), 1);
                        for bit in 0..8 {
                            bad[at] ^= 1 << bit;
                            let what = format!("bit {bit} of byte {at}");
                            check(whole, &walk(&bad).unwrap(), &touched, &what);
                            check(whole, &open(&bad).unwrap(), &touched, &what);
                            bad[at] ^= 1 << bit;
                        }
                    }
                });
            }
        });
    }
}

const PAGE: usize = 4096;

fn page(bytes: &[u8], i: usize) -> std::ops::Range<usize> {
    i * PAGE..((i + 1) * PAGE).min(bytes.len())
}

/// Blocks in pages, large and so small that several fit into one.
fn long_segments() -> Vec<Vec<u8>> {
    vec![long_segment(TRACE_ID, 50, 80), long_segment(TRACE_ID, 120, 8)]
}

#[test]
fn zeroed_duplicated_and_removed_pages() {
    for bytes in long_segments() {
        let whole = whole(&bytes);
        for i in 0..bytes.len() / PAGE {
            let range = page(&bytes, i);
            let hit = touched(&whole, range.start as u64, range.end as u64);
            let mut bad = bytes.clone();
            bad[range.clone()].fill(0);
            check(&whole, &walk(&bad).unwrap(), &hit, &format!("zeroed page {i}"));
            check(&whole, &open(&bad).unwrap(), &hit, &format!("zeroed page {i} by index"));

            let mut bad = bytes.clone();
            bad.splice(range.end..range.end, bytes[range.clone()].to_vec());
            let edge = touched(&whole, range.end as u64 - 1, range.end as u64 + 1);
            check(&whole, &walk(&bad).unwrap(), &edge, &format!("page {i} twice"));

            let mut bad = bytes.clone();
            bad.drain(range);
            check(&whole, &walk(&bad).unwrap(), &hit, &format!("page {i} cut out"));
        }
    }
}

#[test]
fn swapped_and_overwritten_pages() {
    let mut random = Random(99);
    for bytes in long_segments() {
        let whole = whole(&bytes);
        let pages = (bytes.len() / PAGE) as u64;
        for _ in 0..250 {
            let (a, b) = (random.next(pages) as usize, random.next(pages) as usize);
            let (one, two) = (page(&bytes, a), page(&bytes, b));
            let mut hit = touched(&whole, one.start as u64, one.end as u64);
            let mut bad = bytes.clone();
            bad[one.clone()].copy_from_slice(&bytes[two.clone()]);
            check(&whole, &walk(&bad).unwrap(), &hit, &format!("page {b} over page {a}"));

            hit.extend(touched(&whole, two.start as u64, two.end as u64));
            bad[two].copy_from_slice(&bytes[one]);
            check(&whole, &walk(&bad).unwrap(), &hit, &format!("pages {a} and {b} swapped"));
        }
    }
}

#[test]
fn stale_data_is_never_accepted() {
    let own = trace(TRACE_ID);
    for (bytes, stale) in [
        (own[0].clone(), trace(1)[0].clone()),
        (own[0].clone(), own[1].clone()),
        (own[0].clone(), [trace(1), trace(2)].concat().concat()),
        (long_segment(TRACE_ID, 100, 100), long_segment(5, 100, 100)),
    ] {
        let whole = whole(&bytes);
        let joined = [bytes.as_slice(), &stale].concat();
        for segment in [walk(&joined).unwrap(), open(&joined).unwrap()] {
            check(&whole, &segment, &BTreeSet::new(), "appended");
            assert!(!segment.is_complete());
        }
        // Cut anywhere and filled up with what the file held before: a recycled file.
        let step = if bytes.len() > 10_000 { 997 } else { 7 };
        for len in (PAGE.min(1500)..bytes.len().min(stale.len())).step_by(step) {
            let recycled = [&bytes[..len], &stale[len..]].concat();
            let gone = touched(&whole, len as u64, u64::MAX);
            check(&whole, &walk(&recycled).unwrap(), &gone, &format!("recycled from {len}"));
            check(&whole, &open(&recycled).unwrap(), &gone, &format!("recycled from {len}"));
        }
        for i in 1..bytes.len().min(stale.len()) / PAGE {
            let mut bad = bytes.clone();
            bad[page(&bytes, i)].copy_from_slice(&stale[page(&bytes, i)]);
            let hit = touched(&whole, (i * PAGE) as u64, ((i + 1) * PAGE) as u64);
            check(&whole, &walk(&bad).unwrap(), &hit, &format!("foreign page {i}"));
        }
    }
}

#[test]
fn recovery_tells_what_is_gone_for_good() {
    let bytes = long_segment(TRACE_ID, 60, 50);
    let whole = whole(&bytes);
    let victims: Vec<_> = whole.segment.blocks_of(BlockType::Events).skip(5).take(2).copied().collect();
    let mut bad = bytes.clone();
    bad[victims[0].offset as usize + 20] ^= 1;
    bad[victims[1].offset as usize + 96] ^= 1;
    let mut out = Vec::new();
    let result = recover::recover(&walk(&bad).unwrap(), &mut out).unwrap();
    let rows = victims.iter().map(|b| u64::from(b.header.rows)).sum::<u64>();
    assert_eq!(result.events_lost(), rows);
    assert_eq!((result.damaged.len(), result.missing.len()), (1, 1));
    assert_eq!(walk(&out).unwrap().lost(), rows);
}
