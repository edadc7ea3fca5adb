//! `report.html`: one file to look at, that needs no network and no server.
//!
//! Sums over short stretches of time, threads and stacks go into the page, so that it can tell any span, container,
//! process or thread by itself, with the figures that the reports give for the same flags. What the page has no room
//! for is told together, and it says what that is.

mod bins;
mod cells;
pub(crate) mod columns;
mod facts;
mod findings;
mod gather;
mod groups;
mod model;
mod stacks;
mod steps;
pub(crate) mod template;

use serde_json::Value;

use self::gather::Gather;
use crate::error::Result;
use crate::filter::Filter;
use crate::meta::Meta;
use crate::pipeline::{Need, Visitor};
use crate::reports::Context;
use crate::reports::memleak::Grown;
use crate::slab::Slab;

/// The file is no larger than this.
const MOST_BYTES: usize = 10_000_000;

/// Gathers what the page shows. Memory is bounded, whatever the trace.
pub(crate) struct Sums(Gather);

/// A page.
pub(crate) struct Made {
    /// The file.
    pub(crate) html: Vec<u8>,
    /// Its findings.
    pub(crate) findings: Value,
}

impl Sums {
    /// Of a part of a trace.
    pub(crate) fn new(meta: &Meta, filter: &Filter) -> Sums {
        Sums(Gather::new(meta, filter))
    }

    /// The page, as finely as 10 MB allow.
    pub(crate) fn page(&self, grown: &[Grown], context: &Context<'_>, notes: &[String]) -> Result<Made> {
        let mut coarser: Option<Gather> = None;
        let mut level = 0;
        loop {
            let gather = coarser.as_ref().unwrap_or(&self.0);
            let (data, findings) = model::pack(gather, grown, context, notes, level)?;
            let html = template::html(&template::REPORT, &data).into_bytes();
            if html.len() <= MOST_BYTES || level > 8 {
                return Ok(Made { html, findings });
            }
            level += 1;
            coarser.get_or_insert_with(|| self.0.clone()).coarser();
        }
    }
}

impl Visitor for Sums {
    fn wants(&self, need: &Need<'_>) -> bool {
        self.0.wants(need)
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        self.0.slab(meta, slab)
    }
}
