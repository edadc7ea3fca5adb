//! A trace: one segment file, or a directory of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

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
        // A finished file stands before an unfinished one of the same number.
        let mut twice = Vec::new();
        let mut segments: Vec<(PathBuf, Segment)> = Vec::new();
        for (path, segment) in trace.segments {
            match segments.last() {
                Some((_, last)) if last.blocks[0].header.segment == segment.blocks[0].header.segment => {
                    let what = format!("segment {} stands here a second time", segment.blocks[0].header.segment);
                    twice.push((path, Error::Damaged { offset: 0, what }));
                }
                _ => segments.push((path, segment)),
            }
        }
        trace.segments = segments;
        trace.refused.extend(twice);
        let first = trace.segments.first().map(|(_, s)| s.blocks[0].header.trace_id);
        let (own, other): (Vec<_>, Vec<_>) =
            trace.segments.into_iter().partition(|(_, s)| Some(s.blocks[0].header.trace_id) == first);
        trace.segments = own;
        let foreign = || Error::Damaged { offset: 0, what: "belongs to another trace".into() };
        trace.refused.extend(other.into_iter().map(|(path, _)| (path, foreign())));
        match (trace.segments.is_empty(), trace.refused.pop()) {
            (true, Some((_, error))) => Err(error),
            (true, None) => Err(Error::NotATrace { len: 0 }),
            (false, last) => {
                trace.refused.extend(last);
                Ok(trace)
            }
        }
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

    /// Blocks whose numbers are missing between the first and the last one.
    pub fn missing_blocks(&self) -> u64 {
        let mut missing = 0;
        let mut next = None;
        for (_, block) in self.blocks() {
            let seq = block.header.seq;
            missing += next.map_or(0, |n: u64| seq.saturating_sub(n));
            next = Some(seq.saturating_add(1));
        }
        missing
    }
}

fn is_segment(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.starts_with("seg-") && (name.ends_with(".bpr") || name.ends_with(".bpr.part"))
}
