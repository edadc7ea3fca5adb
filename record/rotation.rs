//! A new segment in the making. What runs is read on a thread of its own, for that takes longer than the rings last;
//! what changes meanwhile goes to the old segment and, again, to the new one.

use std::thread::JoinHandle;

use anyhow::{Result, anyhow};
use bpfrec_format::{BlockType, Table};

use crate::snapshot::{Snapshot, Tables};

type Taken = (Snapshot, Result<Tables>);

/// A new segment in the making.
pub struct Rotation {
    thread: JoinHandle<Taken>,
    since: Tables,
}

impl Rotation {
    /// Begins to read what runs.
    pub fn start(mut snapshot: Snapshot) -> Result<Rotation> {
        let take = move || {
            let tables = snapshot.take().map(|(tables, _)| tables);
            (snapshot, tables)
        };
        let thread = std::thread::Builder::new().name("bpfrec-snapshot".into()).spawn(take)?;
        Ok(Rotation { thread, since: Vec::new() })
    }

    /// Takes note of a change that the snapshot may not have seen.
    pub fn note(&mut self, block_type: BlockType, tables: &[Table]) {
        self.since.extend(tables.iter().map(|t| (block_type, t.clone())));
    }

    /// Whether everything has been read.
    pub fn is_ready(&self) -> bool {
        self.thread.is_finished()
    }

    /// What the new segment begins with, and the snapshot for the next time.
    pub fn finish(self) -> Result<(Snapshot, Tables)> {
        let (snapshot, tables) = self.thread.join().map_err(|_| anyhow!("the snapshot thread panicked"))?;
        let mut tables = tables?;
        tables.extend(self.since);
        Ok((snapshot, tables))
    }
}
