//! The diary that `tests/load/diary.c` keeps, and a trace beside it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use bpfrec_format::{BlockType, Trace, events};

use super::{load, wait_until};

/// The load, killed with its owner.
pub struct Diary(Child, PathBuf);

/// A sleep: before it, and after it, CLOCK_MONOTONIC ns.
pub type Sleep = (u64, u64);

const MOST: usize = 262_144;
const PAGE: usize = 16 + 16 * MOST;

impl Diary {
    pub fn start(file: &Path, threads: usize, seconds: u32) -> Diary {
        let args = [threads.to_string(), seconds.to_string()];
        let diary = Diary(Command::new(load("diary")).arg(file).args(args).spawn().unwrap(), file.into());
        wait_until("the load sleeps", Duration::from_secs(20), || {
            diary.sleeps().iter().filter(|(_, sleeps)| sleeps.len() > 1).count() == threads
        });
        diary
    }

    /// What each thread did so far.
    pub fn sleeps(&self) -> Vec<(u64, Vec<Sleep>)> {
        let bytes = fs::read(&self.1).unwrap_or_default();
        let number = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        let page = |at: usize| {
            let sleeps = (0..number(at + 8) as usize).map(|i| at + 16 + 16 * i).map(|at| (number(at), number(at + 8)));
            (number(at), sleeps.collect())
        };
        (0..bytes.len() / PAGE).map(|i| page(i * PAGE)).collect()
    }
}

impl Drop for Diary {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// When each thread left a CPU, as a trace has it, sorted.
pub fn left_at(trace: &Trace) -> HashMap<u64, Vec<u64>> {
    let mut left: HashMap<u64, Vec<u64>> = HashMap::new();
    for (_, segment) in &trace.segments {
        for block in segment.blocks_of(BlockType::Events) {
            for table in &segment.read(block, &|kind| kind == events::SCHED_SWITCH).unwrap().tables {
                let kind = segment.registry.get(table.kind).unwrap();
                let column = |name: &str| table.columns[kind.index_of(name).unwrap()].ints();
                for (tid, ts) in column("prev_tid").iter().zip(column("ts_ns")) {
                    left.entry(*tid).or_default().push(*ts);
                }
            }
        }
    }
    left.values_mut().for_each(|times| times.sort_unstable());
    left
}

/// Sleeps within a span that a trace does not have.
pub fn missing(sleeps: &[(u64, Vec<Sleep>)], trace: &Trace, (from, to): (u64, u64)) -> (usize, Vec<Sleep>) {
    let left = left_at(trace);
    let (mut all, mut missing) = (0, Vec::new());
    for (tid, sleeps) in sleeps {
        let none = Vec::new();
        let left = left.get(tid).unwrap_or(&none);
        for (before, after) in sleeps.iter().filter(|(before, after)| *before >= from && *after <= to) {
            all += 1;
            if left.get(left.partition_point(|ts| ts < before)).is_none_or(|ts| ts > after) {
                missing.push((*before, *after));
            }
        }
    }
    (all, missing)
}
