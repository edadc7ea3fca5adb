//! Reports: from a trace to a table that a person reads. A new one is a file in `reports/` and a line in [`REPORTS`].

pub mod biolatency;
pub mod cpudist;
mod grouped;
pub mod html;
pub mod memleak;
pub mod offcputime;
pub mod profile;
pub mod runqlat;
pub(crate) mod stack_lines;
pub mod summary;
mod waits_missing;
pub mod wakeups;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::OnceLock;

use bpfrec_format::meta::reason;
use bpfrec_format::{Source, Trace};
use serde_json::{Value, json};

use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::histogram::{Histogram, Unit};
use crate::meta::Meta;
use crate::offcpu::What;
use crate::pipeline::{self, Options, Reading, Visitor};
use crate::sched::Unpaired;
use crate::sheds::Shed;
use crate::symbols::Symbols;
use crate::text;

/// All reports.
pub const REPORTS: &[&ReportKind] = &[
    &summary::KIND,
    &runqlat::KIND,
    &biolatency::KIND,
    &profile::KIND,
    &offcputime::KIND,
    &wakeups::KIND,
    &cpudist::KIND,
    &memleak::KIND,
    &html::KIND,
];

/// A report that can be asked for.
pub struct ReportKind {
    /// Name on the command line.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Sources of which one at least must have been recorded, and whose losses it shows.
    pub sources: &'static [Source],
    /// Its own flags.
    pub flags: &'static [Flag],
    /// Makes it.
    pub new: fn(&Flags, &Filter) -> Result<Box<dyn Report>>,
}

impl ReportKind {
    /// Whether the trace has a source that it can be made from. Source `task` is always on.
    pub fn is_possible(&self, meta: &Meta) -> bool {
        self.sources.iter().any(|s| *s == Source::Task || meta.has_source(*s))
    }
}

/// A flag of a report.
pub struct Flag {
    /// One letter.
    pub short: Option<char>,
    /// Name.
    pub long: &'static str,
    /// What it takes, if anything.
    pub value: Option<&'static str>,
    /// One line about it.
    pub help: &'static str,
}

impl Flag {
    /// A flag that takes nothing.
    pub const fn new(short: Option<char>, long: &'static str, help: &'static str) -> Flag {
        Flag { short, long, value: None, help }
    }
}

/// Name of a flag that no report lists and all take: characters that a line of text has room for.
pub const WIDTH: &str = "width";

/// Flags that were given, by their long names.
#[derive(Clone, Debug, Default)]
pub struct Flags(pub BTreeMap<&'static str, String>);

impl Flags {
    /// Whether a flag was given.
    pub fn has(&self, long: &str) -> bool {
        self.0.contains_key(long)
    }

    /// What it was given.
    pub fn value(&self, long: &str) -> Option<&str> {
        self.0.get(long).map(String::as_str)
    }

    /// Characters that a line of text has room for, if that is limited.
    pub fn width(&self) -> Option<usize> {
        self.value(WIDTH)?.parse().ok()
    }

    /// Refuses flags that contradict each other.
    pub fn one_of(&self, longs: &[&str]) -> Result<()> {
        let given: Vec<String> = longs.iter().filter(|l| self.has(l)).map(|l| format!("--{l}")).collect();
        if given.len() > 1 {
            return Err(Error::asked(format!("{} cannot be used together", given.join(" and "))));
        }
        Ok(())
    }
}

/// What a report is written from, beside what it gathered itself.
pub struct Context<'a> {
    /// Facts about the recording.
    pub meta: &'a Meta,
    /// What reading it showed.
    pub reading: &'a Reading,
    /// The part of it that was asked for.
    pub filter: &'a Filter,
    /// Resolved when first used.
    pub symbols: &'a OnceLock<Symbols>,
}

impl Context<'_> {
    /// Frames and stacks by name.
    pub fn symbols(&self) -> &Symbols {
        self.symbols.get_or_init(|| Symbols::resolve(self.meta))
    }

    /// What of the sources was not recorded to stay within the budget, in the part that was asked for.
    pub fn shed(&self, sources: &[Source]) -> Vec<&Shed> {
        let recorded: Vec<Source> = sources.iter().copied().filter(|s| self.meta.has_source(*s)).collect();
        self.meta.sheds.of(&recorded, self.filter.window()).collect()
    }

    /// Events that could be read, of all sources.
    pub(crate) fn events(&self) -> u64 {
        self.meta.events.saturating_sub(self.reading.damage.events)
    }

    /// Events that were lost or are in damaged blocks, of all sources.
    pub(crate) fn all_lost(&self) -> u64 {
        self.meta.losses.all().saturating_add(self.reading.damage.events)
    }

    /// Events of the sources that were lost, in the part that was asked for, and those that may be of them.
    pub fn lost(&self, sources: &[Source]) -> u64 {
        let (losses, window) = (&self.meta.losses, self.filter.window());
        sources.iter().map(|s| losses.of(*s, window)).fold(losses.of_any_source(window), u64::saturating_add)
    }
}

/// Notes about what was shed, at most.
const SHEDS: usize = 20;

/// A report that gathers while it visits.
pub trait Report: Visitor {
    /// As text.
    fn text(&self, context: &Context<'_>, out: &mut String);
    /// As JSON; `report` and `lost` are added to it.
    fn json(&self, context: &Context<'_>) -> Value;
    /// Sources that it is made from where it has a choice.
    fn sources(&self, _meta: &Meta, kind: &ReportKind) -> &'static [Source] {
        kind.sources
    }
    /// Up to which moment it needs events: what began in the window may be told after it.
    fn until_ns(&self, filter: &Filter) -> u64 {
        filter.to_ns
    }
    /// What stands below the text: what could not be counted, and why.
    fn notes(&self, _context: &Context<'_>) -> Vec<String> {
        Vec::new()
    }
    /// Whether the text is for another program, so that notes must not stand in it.
    fn is_for_programs(&self) -> bool {
        false
    }
    /// Files that were asked for, by the value of the flag that asked.
    fn files(&self, _context: &Context<'_>) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(Vec::new())
    }
}

/// What a report summed of one stack of a thread or process, for exports.
pub(crate) struct OfStack<'a> {
    /// Process; 0 where the memory is the kernel's.
    pub pid: u32,
    /// Thread, where sums are by thread.
    pub tid: Option<u32>,
    /// Its name.
    pub comm: Cow<'a, str>,
    /// Kernel stack; 0: none.
    pub kernel: u64,
    /// User stack; 0: none.
    pub user: u64,
    /// What kind of waits these are.
    pub what: What,
    /// How memory was asked for.
    pub op: Option<u8>,
    /// `profile`: samples; `offcputime`: waits, ns; `memleak`: allocations and bytes, and those that were not freed.
    pub values: [u64; 4],
}

/// A finished report.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Text or JSON.
    pub output: String,
    /// What belongs to people only, where `output` is for a program.
    pub notes: Vec<String>,
    /// Names and contents of files that were asked for.
    pub files: Vec<(String, Vec<u8>)>,
    /// Whether anything was lost or damaged.
    pub lossy: bool,
    /// Whether `output` is text for another program.
    pub is_for_programs: bool,
}

/// The report called `name`.
pub fn find(name: &str) -> Option<&'static ReportKind> {
    REPORTS.iter().copied().find(|r| r.name == name)
}

/// Makes one report.
pub fn run(
    trace: &Trace,
    meta: &Meta,
    kind: &ReportKind,
    flags: &Flags,
    filter: &Filter,
    as_json: bool,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Outcome> {
    if !kind.is_possible(meta) {
        let names: Vec<String> = kind.sources.iter().map(|s| format!("`{}`", s.name())).collect();
        let record: Vec<String> = kind.sources.iter().map(|s| format!("`-e {}`", s.name())).collect();
        let (names, record) = (names.join(" or "), record.join(" or "));
        return Err(Error::asked(format!("the trace has no events of {names}: record it with {record}")));
    }
    let mut report = (kind.new)(flags, filter)?;
    let options = Options { until_ns: report.until_ns(filter), progress, ..Options::default() };
    let reading = pipeline::visit(trace, meta, &options, &mut [report.as_mut() as &mut dyn Visitor])?;
    let context = Context { meta, reading: &reading, filter, symbols: &OnceLock::new() };
    let mut outcome = Outcome { files: report.files(&context)?, ..Outcome::default() };
    outcome.lossy = context.lost(report.sources(meta, kind)) > 0 || reading.damage.any();
    if as_json {
        outcome.output = text::for_terminals(json_of(kind, report.as_ref(), &context).to_string());
        outcome.output.push('\n');
    } else {
        report.text(&context, &mut outcome.output);
        let mut notes = notes_of(kind, report.as_ref(), &context);
        // The summary tells of them in its own notes.
        if let Some(symbols) = context.symbols.get().filter(|_| kind.name != summary::KIND.name) {
            notes.extend(symbols.notes.iter().map(|note| text::plain(note).into_owned()));
        }
        outcome.is_for_programs = report.is_for_programs();
        if outcome.is_for_programs {
            outcome.notes = notes;
        } else {
            for note in notes {
                let _ = writeln!(outcome.output, "# {note}");
            }
        }
    }
    Ok(outcome)
}

/// The whole JSON of a report.
pub(crate) fn json_of(kind: &ReportKind, report: &dyn Report, context: &Context<'_>) -> Value {
    let mut all = json!({"report": kind.name});
    if let (Value::Object(all), Value::Object(own)) = (&mut all, report.json(context)) {
        all.extend(own);
        all.insert("lost".into(), context.lost(report.sources(context.meta, kind)).into());
        let shed = context.shed(report.sources(context.meta, kind));
        if !shed.is_empty() {
            all.insert("shed".into(), shed.iter().map(|s| s.json(context.meta.start_ns)).collect());
        }
        let damage = &context.reading.damage;
        all.insert("damaged_blocks".into(), damage.blocks.into());
        if damage.any() {
            all.insert("damage".into(), damage_json(damage));
        }
    }
    all
}

/// The counts of [`damage_note`].
fn damage_json(damage: &Damage) -> Value {
    json!({
        "blocks": damage.blocks,
        "events": damage.events,
        "bytes": damage.bytes,
        "missing_blocks": damage.missing_blocks,
        "unfinished": damage.unfinished,
        "refused": damage.refused,
    })
}

/// All notes of a report: losses, damage, its own.
pub(crate) fn notes_of(kind: &ReportKind, report: &dyn Report, context: &Context<'_>) -> Vec<String> {
    let mut notes = loss_notes(context, report.sources(context.meta, kind));
    notes.extend(report.notes(context));
    notes
}

/// Notes about what was lost of these sources, and about damage.
pub(crate) fn loss_notes(context: &Context<'_>, sources: &[Source]) -> Vec<String> {
    let mut notes = Vec::new();
    let lost = context.lost(sources);
    if lost > 0 {
        let (losses, window) = (&context.meta.losses, context.filter.window());
        let by_source = sources.iter().map(|s| (s.name(), losses.of(*s, window)));
        let by_source = by_source.chain([("of any source", losses.of_any_source(window))]).filter(|(_, n)| *n > 0);
        let by_source: Vec<String> = by_source.map(|(name, n)| format!("{name} {}", text::count(n))).collect();
        notes.push(format!("lost: {} events ({})", text::count(lost), by_source.join(", ")));
    }
    for source in sources {
        for (reason, n) in context.meta.losses.incomplete(*source, context.filter.window()) {
            notes.push(format!("incomplete: {} x {} ({})", text::count(n), reason::text(reason), source.name()));
        }
    }
    let shed = context.shed(sources);
    notes.extend(shed.iter().take(SHEDS).map(|shed| shed.text(context.meta.start_ns)));
    if shed.len() > SHEDS {
        notes.push(format!("... and shed {} times more: --json and table `loss` have all", shed.len() - SHEDS));
    }
    notes.extend(damage_note(&context.reading.damage));
    notes
}

/// The note about damage.
pub(crate) fn damage_note(damage: &Damage) -> Option<String> {
    let parts = [
        (damage.blocks, "damaged blocks"),
        (damage.events, "events in them"),
        (damage.bytes, "bytes that are no block"),
        (damage.missing_blocks, "blocks missing"),
        (damage.unfinished, "segments without an end"),
        (damage.refused, "files refused"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", text::count(*n))).collect();
    (!parts.is_empty()).then(|| format!("damaged: {}; see `bpfrec verify`", parts.join(", ")))
}

/// The note about what could not be paired.
fn unpaired_note(what: &str, unpaired: &Unpaired) -> Option<String> {
    let Unpaired { no_start, open, lost } = unpaired;
    unpaired.any().then(|| {
        let [no_start, open, lost] = [*no_start, *open, *lost].map(text::count);
        format!("unpaired {what}: {no_start} began before the trace, {open} did not end in it, {lost} across a loss")
    })
}

fn unpaired_json(unpaired: &Unpaired) -> Value {
    json!({"no_start": unpaired.no_start, "open": unpaired.open, "lost": unpaired.lost})
}

/// `unit`, `groups` and `unpaired` of a report of histograms.
fn histograms_json<'a>(unit: Unit, groups: impl Iterator<Item = (Value, &'a Histogram)>, unpaired: &Unpaired) -> Value {
    let groups: Vec<Value> = groups.map(|(key, histogram)| histogram.json(key)).collect();
    json!({"unit": unit.name(), "groups": groups, "unpaired": unpaired_json(unpaired)})
}
