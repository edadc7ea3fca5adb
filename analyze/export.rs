//! Exports: a trace in the formats of other programs. A new one is a file in `export/` and a line in [`FORMATS`].
//!
//! Two kinds: formats that sum by stack are made of the reports `profile`, `offcputime` and `memleak` ([`sums`]); formats
//! that follow time get items in the order of their ends ([`items`]) and write each at once. Memory: that of the analyzer, and what
//! grows with threads and distinct stacks; columns that a format wants apart wait in an unnamed file ([`spool`]).

mod chrome;
mod counters;
mod csv;
mod firefox;
mod folded;
mod items;
mod lanes;
mod perfetto;
mod pprof;
mod proto;
mod scene;
mod speedscope;
mod spool;
mod sums;
mod tree;

use std::io::Write;
use std::sync::OnceLock;

use bpfrec_format::{Source, Trace};

use self::items::{InTime, Sink, Takes};
use self::scene::Scene;
use self::sums::Sums;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::meta::Meta;
use crate::pipeline::{self, Options};
use crate::reports::{self, Context};
use crate::symbols::Symbols;
use crate::text;

pub use self::sums::Weight;

/// All formats.
pub const FORMATS: &[&Format] = &[
    &perfetto::FORMAT,
    &pprof::FORMAT,
    &speedscope::FORMAT,
    &firefox::FORMAT,
    &folded::FORMAT,
    &chrome::FORMAT,
    &csv::FORMAT,
];

/// A format that can be asked for.
pub struct Format {
    /// Name on the command line.
    pub name: &'static str,
    /// What a file of it may be called.
    pub file: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Whether a terminal can show it.
    pub is_text: bool,
    /// Whether one weight must be chosen ([`Asked::weight`]).
    pub of_one_weight: bool,
    /// Sources of which one at least must have been recorded.
    pub sources: &'static [Source],
    make: Make,
}

/// How a format is made.
enum Make {
    /// Of sums by stack.
    Sums(fn(&Scene<'_>, &Sums<'_>, &mut Out<'_>) -> Result<()>),
    /// Of items in time.
    InTime(Takes, for<'a> fn(&'a Scene<'a>, &'a mut Out<'a>) -> Result<Box<dyn Sink + 'a>>),
}

/// Where an export goes.
pub type Out<'a> = dyn Write + Send + 'a;

/// What was asked for beside a part of the trace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// What a format of one weight shows; the first that was recorded if there is none.
    pub weight: Option<Weight>,
}

/// A finished export.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was lost, what the format cannot show, what was refused: a sentence each.
    pub notes: Vec<String>,
    /// Whether anything was lost or damaged.
    pub lossy: bool,
}

impl Format {
    /// Whether the trace has a source that it can be made from.
    pub fn is_possible(&self, meta: &Meta) -> bool {
        self.sources.iter().any(|s| meta.has_source(*s))
    }
}

/// The format called `name`.
pub fn find(name: &str) -> Option<&'static Format> {
    FORMATS.iter().copied().find(|f| f.name == name)
}

/// Refuses what the trace has nothing of, before anything is written.
pub fn check(meta: &Meta, format: &Format, asked: &Asked) -> Result<()> {
    if !format.is_possible(meta) {
        let names: Vec<String> = format.sources.iter().map(|s| format!("`{}`", s.name())).collect();
        return Err(Error::asked(format!(
            "the trace has no events of {}, of which `{}` is made: record it with one of them (-e)",
            names.join(" or "),
            format.name
        )));
    }
    match asked.weight.filter(|weight| !weight.is_in(meta)) {
        Some(weight) => Err(weight.missing()),
        None => Ok(()),
    }
}

/// Writes the part of a trace that `filter` takes to `out`.
pub fn run(
    trace: &Trace,
    meta: &Meta,
    format: &Format,
    asked: &Asked,
    filter: &Filter,
    out: &mut Out<'_>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Outcome> {
    check(meta, format, asked)?;
    let resolved = OnceLock::new();
    let symbols = resolved.get_or_init(|| Symbols::resolve(meta));
    let scene = Scene::new(meta, symbols, filter);
    let (reading, mut notes) = match &format.make {
        Make::Sums(write) => {
            let mut sums = Sums::new(meta, filter, format.of_one_weight, asked.weight)?;
            let options = Options { until_ns: sums.until_ns(filter), progress, ..Options::default() };
            let reading = pipeline::visit(trace, meta, &options, &mut sums.visitors())?;
            sums.damage.clone_from(&reading.damage);
            write(&scene, &sums, out)?;
            (reading, Vec::new())
        }
        Make::InTime(takes, make) => {
            let sink = make(&scene, out)?;
            let mut visitor = InTime::new(&scene, *takes, sink);
            let options = Options { until_ns: visitor.until_ns(), progress, ..Options::default() };
            let reading = pipeline::visit(trace, meta, &options, &mut [&mut visitor])?;
            let notes = visitor.finish(&reading.damage)?;
            (reading, notes)
        }
    };
    out.flush()?;
    let context = Context { meta, reading: &reading, filter, symbols: &resolved };
    notes.extend(reports::loss_notes(&context, format.sources));
    notes.extend(symbols.notes.iter().map(|note| text::plain(note).into_owned()));
    let lossy = context.lost(format.sources) > 0 || reading.damage.any();
    Ok(Outcome { notes, lossy })
}
