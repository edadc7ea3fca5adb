//! `html`: everything as one page to look at.

use std::cell::OnceCell;
use std::fmt::Write;

use bpfrec_format::Source;
use serde_json::{Value, json};

use super::memleak::Memleak;
use super::summary::{self, Summary};
use super::{Context, Flag, Flags, Report, ReportKind};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::meta::Meta;
use crate::page::{Made, Sums};
use crate::pipeline::{Need, Visitor};
use crate::slab::Slab;
use crate::text;

/// In the list of reports.
pub const KIND: ReportKind = ReportKind {
    name: "html",
    about: "One page to look at: time line, flamegraphs, histograms, leaks, and what stands out",
    sources: Source::ALL,
    flags: &[Flag { short: Some('o'), long: "output", value: Some("FILE"), help: "File to write [report.html]" }],
    new: |flags, filter| Ok(Box::new(Html::new(flags, filter)?)),
};

/// Gathers for the page. Memory is bounded, but for that of `summary` and `memleak`.
pub struct Html {
    filter: Filter,
    sums: Option<Sums>,
    summary: Summary,
    memleak: Memleak,
    output: String,
    /// Made once, for the file and for what is said of it.
    made: OnceCell<Result<Made>>,
}

impl Html {
    fn new(flags: &Flags, filter: &Filter) -> Result<Html> {
        let all_ages = Flags([("older", "0".to_owned())].into());
        Ok(Html {
            filter: filter.clone(),
            sums: None,
            summary: Summary::new(&Flags::default(), filter)?,
            memleak: Memleak::new(&all_ages, filter)?,
            output: flags.value("output").unwrap_or("report.html").into(),
            made: OnceCell::new(),
        })
    }

    fn page(&self, context: &Context<'_>) -> &Result<Made> {
        self.made.get_or_init(|| self.make(context))
    }

    fn make(&self, context: &Context<'_>) -> Result<Made> {
        let notes = super::notes_of(&summary::KIND, &self.summary, context);
        let grown = self.memleak.grown(context);
        match &self.sums {
            Some(sums) => sums.page(&grown, context, &notes),
            None => Sums::new(context.meta, &self.filter).page(&grown, context, &notes),
        }
    }
}

impl Visitor for Html {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Waits | Need::Slices | Need::Ios | Need::Lives)
            || matches!(need, Need::Field(kind, field) if crate::offcpu::has(&kind.name) && !field.starts_with("waker_"))
            || self.summary.wants(need)
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        self.sums.get_or_insert_with(|| Sums::new(meta, &self.filter)).slab(meta, slab)?;
        self.summary.slab(meta, slab)?;
        self.memleak.slab(meta, slab)
    }
}

impl Report for Html {
    fn text(&self, context: &Context<'_>, out: &mut String) {
        let Ok(made) = self.page(context) else { return };
        for finding in made.findings.as_array().into_iter().flatten() {
            let _ = writeln!(out, "{}", finding["text"].as_str().unwrap_or_default());
        }
        let _ = writeln!(out, "written   {}, {}", text::plain(&self.output), text::bytes(made.html.len() as u64));
    }

    fn json(&self, context: &Context<'_>) -> Value {
        let made = self.page(context);
        json!({
            "file": self.output,
            "bytes": made.as_ref().map(|made| made.html.len()).unwrap_or(0),
            "findings": made.as_ref().map(|made| made.findings.clone()).unwrap_or_default(),
        })
    }

    fn until_ns(&self, _filter: &Filter) -> u64 {
        // Waits and memory that began in the window end after it.
        u64::MAX
    }

    fn files(&self, context: &Context<'_>) -> Result<Vec<(String, Vec<u8>)>> {
        match self.page(context) {
            Ok(made) => Ok(vec![(self.output.clone(), made.html.clone())]),
            Err(error) => Err(Error::Io(std::io::Error::other(error.to_string()))),
        }
    }
}
