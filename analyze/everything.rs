//! `analyze`: everything that a trace allows, in one pass over its events.

use std::fmt::Write as _;
use std::sync::OnceLock;

use bpfrec_format::Trace;
use rayon::prelude::*;

use crate::error::Result;
use crate::filter::Filter;
use crate::meta::Meta;
use crate::parquet_file::{OfTrace, Output};
use crate::pipeline::{self, Options, Visitor};
use crate::reports::offcputime::Offcputime;
use crate::reports::profile::Profile;
use crate::reports::{self, Context, Flags, Report};
use crate::symbols::Symbols;
use crate::{tables, views};

/// Stacks that `report.txt` names.
const TOP_STACKS: &str = "20";

/// What `analyze` says of a trace.
#[derive(Debug, Default)]
pub struct Summary {
    /// The report `summary`.
    pub text: String,
    /// Whether anything was lost or damaged.
    pub lossy: bool,
    /// Files that were written.
    pub files: Vec<String>,
}

/// Writes `report.html`, `parquet/*.parquet`, `profile.svg`, `offcpu.svg`, `memleak.svg` and `.txt`, `report.txt` and
/// `views.sql` to `output`.
pub fn analyze(
    trace: &Trace,
    meta: &Meta,
    output: &dyn Output,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Summary> {
    let output = &OfTrace::new(output, meta);
    let filter = Filter::everything(meta);
    let symbols = OnceLock::new();
    let resolved = symbols.get_or_init(|| Symbols::resolve(meta));
    // Kernel threads wait for work nearly all of the time, and would hide all else.
    let programs = Flags([("user-threads-only", String::new())].into());
    let mut summary = None;
    let mut made: Vec<(&reports::ReportKind, Box<dyn Report>)> = Vec::new();
    for kind in reports::REPORTS {
        let mut flags = Flags::default();
        if matches!(kind.name, "profile" | "offcputime" | "wakeups") {
            flags.0.insert("top", TOP_STACKS.into());
        }
        if kind.name == "offcputime" {
            flags.0.extend(programs.0.clone());
        }
        if kind.name == "summary" {
            summary = Some(made.len());
        }
        if kind.name == "memleak" {
            flags.0.extend([("top", TOP_STACKS.into()), ("svg", "memleak.svg".into())]);
        }
        if kind.is_possible(meta) {
            made.push((kind, (kind.new)(&flags, &filter)?));
        }
    }
    let mut profile = Profile::new(&Flags::default(), &filter)?;
    let mut offcpu = Offcputime::new(&programs, &filter)?;
    let mut tables = tables::of_trace(trace, meta, resolved, output)?;
    let mut visitors: Vec<&mut dyn Visitor> = vec![&mut profile, &mut offcpu];
    visitors.extend(made.iter_mut().map(|(_, report)| report.as_mut() as &mut dyn Visitor));
    visitors.extend(tables.iter_mut().map(|table| table.as_mut() as &mut dyn Visitor));
    let options = Options { progress, ..Options::default() };
    let reading = pipeline::visit(trace, meta, &options, &mut visitors)?;

    let context = Context { meta, reading: &reading, filter: &filter, symbols: &symbols };
    let mut names: Vec<String> = tables.iter().map(|t| t.name().to_owned()).collect();
    tables.into_par_iter().try_for_each(|table| table.finish())?;
    tables::stacks::write(resolved, output)?;
    tables::meta::write(meta, &reading, resolved, output)?;
    names.extend(["stack", "frame"].into_iter().chain(tables::meta::NAMES).map(Into::into));
    names.extend(tables::meta::side_kinds(meta).map(|(kind, _)| kind.name.clone()));
    names.sort();

    let mut result = Summary { lossy: meta.losses.all() > 0 || reading.damage.any(), ..Summary::default() };
    let mut text = String::new();
    let mut more = Vec::new();
    for (i, (kind, report)) in made.iter().enumerate() {
        more.extend(report.files(&context)?);
        if kind.name == "html" {
            continue;
        }
        let mut one = String::new();
        report.text(&context, &mut one);
        let notes = reports::notes_of(kind, report.as_ref(), &context);
        for note in notes {
            let _ = writeln!(one, "# {note}");
        }
        let _ = writeln!(text, "{}== {}: {}\n\n{one}", if i > 0 { "\n" } else { "" }, kind.name, kind.about);
        if summary == Some(i) {
            result.text = one;
        } else if kind.name == "memleak" {
            more.push(("memleak.txt".into(), one.into_bytes()));
        }
    }
    result.files = names.iter().map(|name| format!("parquet/{name}.parquet")).collect();
    let mut file = |name: &str, bytes: &[u8]| -> Result<()> {
        let mut out = output.create(name)?;
        out.write_all(bytes)?;
        out.flush()?;
        result.files.push(name.into());
        Ok(())
    };
    if meta.has_source(bpfrec_format::Source::Profile) {
        file("profile.svg", &profile.flamegraph(&context)?)?;
    }
    if meta.has_source(bpfrec_format::Source::Offcpu) {
        file("offcpu.svg", &offcpu.flamegraph(&context)?)?;
    }
    for (name, bytes) in &more {
        file(name, bytes)?;
    }
    file("report.txt", text.as_bytes())?;
    file("views.sql", views::sql(&names).as_bytes())?;
    Ok(result)
}
