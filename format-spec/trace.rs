//! A trace: one segment file, or a directory of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::block::{BlockHeader, BlockType};
use crate::error::{Error, Result};
use crate::reader::{BlockRef, Segment};

/// The open segments of a trace in order.
pub struct Trace {
    /// Path and content of each segment.
    pub segments: Vec<(PathBuf, Segment)>,
    /// Files of a directory that are no segment of this trace, and why.
    pub refused: Vec<(PathBuf, Error)>,
}

impl Trace {
    /// Opens a file, or all `seg-*.bpr` and `seg-*.bpr.part` of a directory.
    pub fn open(path: &Path) -> Result<Trace> {
        Self::with(path, Segment::open)
    }

    /// As [`Trace::open`], without trusting any index.
    pub fn walk(path: &Path) -> Result<Trace> {
        Self::with(path, Segment::walk)
    }

    fn with(path: &Path, open: fn(Box<dyn crate::ReadAt>) -> Result<Segment>) -> Result<Trace> {
        let mut trace = Trace { segments: Vec::new(), refused: Vec::new() };
        if !fs::metadata(path)?.is_dir() {
            trace.segments.push((path.into(), open(Box::new(File::open(path)?))?));
            return Ok(trace);
        }
        let mut paths: Vec<PathBuf> = fs::read_dir(path)?.filter_map(|e| Some(e.ok()?.path())).collect();
        paths.retain(|p| is_segment(p));
        paths.sort();
        for path in paths {
            match File::open(&path).map_err(Error::from).and_then(|f| open(Box::new(f))) {
                Ok(segment) => trace.segments.push((path, segment)),
                Err(error) => trace.refused.push((path, error)),
            }
        }
        trace.segments.sort_by_key(|(_, s)| s.blocks[0].header.segment);
        trace.keep_one_trace();
        trace.keep_each_number_once();
        match (trace.segments.is_empty(), trace.refused.pop()) {
            (true, Some((_, error))) => Err(error),
            (true, None) => Err(Error::NotATrace { len: 0 }),
            (false, last) => {
                trace.refused.extend(last);
                Ok(trace)
            }
        }
    }

    /// Refuses segments of other traces than the one that most bytes belong to.
    fn keep_one_trace(&mut self) {
        let id = |s: &Segment| s.blocks[0].header.trace_id;
        let mut bytes = BTreeMap::<u64, u64>::new();
        self.segments.iter().for_each(|(_, s)| *bytes.entry(id(s)).or_default() += s.len);
        let own = bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(id, _)| id);
        let (own, other) = std::mem::take(&mut self.segments).into_iter().partition(|(_, s)| Some(id(s)) == own);
        self.segments = own;
        for (path, segment) in other {
            let what = format!("belongs to another trace, {:016x}", id(&segment));
            self.refused.push((path, Error::Damaged { offset: 0, what }));
        }
    }

    /// Refuses a second file of a segment. A finished one stands before an unfinished one.
    fn keep_each_number_once(&mut self) {
        let mut kept: Vec<(PathBuf, Segment)> = Vec::new();
        for (path, segment) in std::mem::take(&mut self.segments) {
            let number = segment.blocks[0].header.segment;
            if kept.last().is_some_and(|(_, last)| last.blocks[0].header.segment == number) {
                let what = format!("segment {number} stands here a second time");
                self.refused.push((path, Error::Damaged { offset: 0, what }));
            } else {
                kept.push((path, segment));
            }
        }
        self.segments = kept;
    }

    /// Blocks of all segments, each with the number of its segment in [`Trace::segments`].
    pub fn blocks(&self) -> impl Iterator<Item = (usize, &BlockRef)> {
        self.segments.iter().enumerate().flat_map(|(i, (_, s))| s.blocks.iter().map(move |b| (i, b)))
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|(_, s)| s.len).sum()
    }

    /// Whether all segments are finished and undamaged, none is missing, and the last one ended for a reason other than
    /// rotation.
    pub fn is_complete(&self) -> bool {
        let whole = self.segments.iter().all(|(_, s)| s.is_complete());
        let last = self.segments.last().and_then(|(_, s)| s.end);
        whole && self.refused.is_empty() && self.missing_blocks() == 0 && last != Some(crate::EndReason::Rotate)
    }

    /// Blocks whose numbers are missing between the first and the last one, and those before the first one: a segment begins with
    /// a HEADER.
    pub fn missing_blocks(&self) -> u64 {
        let mut missing = 0u64;
        let mut before: Option<BlockHeader> = None;
        for (_, block) in self.blocks() {
            missing = missing.saturating_add(missing_before(before.as_ref(), &block.header));
            before = Some(block.header);
        }
        missing
    }
}

/// Blocks that are missing between two that follow upon each other, or before the first of a trace.
pub fn missing_before(before: Option<&BlockHeader>, block: &BlockHeader) -> u64 {
    match before {
        Some(before) => block.seq.saturating_sub(before.seq.saturating_add(1)),
        None if block.block_type == BlockType::Header as u8 => 0,
        // The numbers of a recording begin with 0; how many there were before the first segment that was kept nobody knows.
        None if block.segment == 0 => block.seq.max(1),
        None => 1,
    }
}

fn is_segment(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.starts_with("seg-") && (name.ends_with(".bpr") || name.ends_with(".bpr.part"))
}
