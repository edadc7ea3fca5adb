//! Outputs that fail: at every single call a short write, an interruption, an error of the disk or a full one. What was written before
//! reads back, and a writer that goes on after an error as its contract says makes a whole file.

mod common;

use std::io::{self, ErrorKind, Write};

use bpfrec_format::recover::recover;
use bpfrec_format::{BlockType, EndReason, Error, Registry, SegmentIds, SegmentWriter, Table, events};
use common::{Random, TRACE_ID, contents, items, open, table, walk};

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Only some of the bytes are taken.
    Short,
    /// A signal came.
    Interrupted,
    /// Nothing is taken.
    Nothing,
    /// The disk is broken, after some of the bytes.
    Disk,
    /// The disk is full, after some of the bytes.
    Full,
}

impl Fault {
    const ALL: [Fault; 5] = [Fault::Short, Fault::Interrupted, Fault::Nothing, Fault::Disk, Fault::Full];

    /// Whether a write that meets it is over.
    fn is_final(self) -> bool {
        matches!(self, Fault::Nothing | Fault::Disk | Fault::Full)
    }
}

/// An output that fails once, or from one call on.
struct Faulty {
    bytes: Vec<u8>,
    fault: Fault,
    at: usize,
    lasts: bool,
    calls: usize,
}

impl Write for Faulty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.calls += 1;
        let now = self.calls == self.at || self.lasts && self.calls > self.at && self.fault.is_final();
        let some = if now { bytes.len() / 3 } else { bytes.len() };
        match self.fault {
            Fault::Interrupted if now => return Err(ErrorKind::Interrupted.into()),
            Fault::Nothing if now => return Ok(0),
            Fault::Disk | Fault::Full if now => {
                self.bytes.extend(&bytes[..some]);
                return Err(if self.fault == Fault::Full { ErrorKind::StorageFull } else { ErrorKind::Other }.into());
            }
            _ => {}
        }
        self.bytes.extend(&bytes[..some]);
        Ok(some.max(1))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes tables of events and checkpoints until an error; returns the output, the bytes of whole blocks, and the error.
fn write(fault: Fault, at: usize, goes_on: bool) -> (Faulty, u64, Option<Error>) {
    let registry = Registry::default();
    let mut random = Random(5);
    let out = Faulty { bytes: Vec::new(), fault, at, lasts: !goes_on, calls: 0 };
    let ids = SegmentIds { trace_id: TRACE_ID, segment: 0, first_seq: 0 };
    let mut writer = match SegmentWriter::new(out, ids, &registry, &items()) {
        Ok(writer) => writer,
        // The output is gone with the writer: nothing was written that anybody could read.
        Err(error) => return (Faulty { bytes: Vec::new(), fault, at, lasts: false, calls: at }, 0, Some(error)),
    };
    let kind = registry.get(events::SCHED_SWITCH).unwrap().clone();
    let mut first = None;
    for i in 0..CALLS {
        let rows: Table = table(&kind, 20, 1_000_000 * (i + 1), &mut random);
        let written = match i % 5 {
            4 => writer.checkpoint(&[]),
            _ => writer.write_tables(BlockType::Events, &[&rows]),
        };
        if let Err(error) = written {
            first.get_or_insert(error);
            if !goes_on {
                break;
            }
            // As the contract says: the half block is cut off, and the next one stands in its place.
            let whole = writer.bytes() as usize;
            writer.get_mut().bytes.truncate(whole);
        }
    }
    if first.is_some() && !goes_on {
        let whole = writer.bytes();
        let out = writer.get_mut();
        let taken = Faulty { bytes: std::mem::take(&mut out.bytes), fault, at, lasts: false, calls: out.calls };
        return (taken, whole, first);
    }
    let (out, _) = writer.finish(EndReason::Exit).unwrap();
    let whole = out.bytes.len() as u64;
    (out, whole, first)
}

/// Blocks of events and checkpoints.
const CALLS: u64 = 23;

#[test]
fn every_write_may_fail() {
    let (perfect, ..) = write(Fault::Short, usize::MAX, false);
    let calls = perfect.calls;
    let all = contents(&walk(&perfect.bytes).unwrap());
    assert!(calls > CALLS as usize && open(&perfect.bytes).unwrap().is_complete());
    for fault in Fault::ALL {
        for at in 1..=calls - 2 {
            let (out, whole, error) = write(fault, at, false);
            assert_eq!(error.is_some(), fault.is_final(), "{fault:?} at call {at}");
            if !fault.is_final() {
                assert_eq!(out.bytes, perfect.bytes, "{fault:?} at call {at} must not be seen in the file");
                continue;
            }
            if out.bytes.is_empty() {
                assert!(at <= 2, "{fault:?} at call {at} left nothing");
                continue;
            }
            // All that was written whole reads back, and what is cut is told.
            let segment = walk(&out.bytes).unwrap();
            let found = contents(&segment);
            assert_eq!(found.len(), at - 1, "{fault:?} at call {at}");
            assert!(found.iter().all(|(seq, content)| all.get(seq) == Some(content)), "{fault:?} at call {at}");
            assert!(!segment.is_complete() && out.bytes[..whole as usize] == perfect.bytes[..whole as usize]);
            let mut recovered = Vec::new();
            let kept = recover(&segment, &mut recovered).unwrap();
            assert!(!kept.is_clean() && open(&recovered).unwrap().is_complete(), "{fault:?} at call {at}");
        }
    }
}

#[test]
fn after_an_error_the_writer_can_go_on() {
    for fault in [Fault::Nothing, Fault::Disk, Fault::Full] {
        for at in 3..20 {
            let (out, _, error) = write(fault, at, true);
            assert!(error.is_some(), "{fault:?} at call {at}");
            let segment = open(&out.bytes).unwrap();
            assert!(segment.is_complete(), "{fault:?} at call {at}: {:?}", segment.damage);
            // One block is missing, and no number with it.
            let (perfect, ..) = write(Fault::Short, usize::MAX, false);
            let blocks = |bytes: &[u8]| walk(bytes).unwrap().blocks.len();
            assert_eq!(blocks(&out.bytes) + 1, blocks(&perfect.bytes), "{fault:?} at call {at}");
        }
    }
}

/// What was not synced may be lost or come in another order: of the blocks after the last sync any may be zeros.
#[test]
fn what_was_synced_reads_back_whatever_becomes_of_the_rest() {
    let (perfect, ..) = write(Fault::Short, usize::MAX, false);
    let segment = walk(&perfect.bytes).unwrap();
    let all = contents(&segment);
    let offsets: Vec<usize> = segment.blocks.iter().map(|b| b.offset as usize).collect();
    let mut random = Random(11);
    for _ in 0..200 {
        let synced = 2 + random.next(offsets.len() as u64 - 3) as usize;
        let mut bytes = perfect.bytes.clone();
        for page in (offsets[synced]..bytes.len()).step_by(512) {
            let end = (page + 512).min(bytes.len());
            match random.next(3) {
                0 => bytes[page..end].fill(0),
                1 => bytes.copy_within(page - 512..end - 512, page),
                _ => {}
            }
        }
        bytes.truncate(offsets[synced] + random.next((bytes.len() - offsets[synced]) as u64 + 1) as usize);
        let found = contents(&walk(&bytes).unwrap());
        assert!((0..synced as u64).all(|seq| found.get(&seq) == all.get(&seq)), "synced up to block {synced}");
        assert!(found.iter().all(|(seq, content)| all.get(seq) == Some(content)), "a block that was never written");
    }
}
