//! `diff`: what changed from one trace to another, and what of it is more than noise.
//!
//! Both are cut into stretches of equal time, [`stretches`]; [`noise`] says what a verdict means. Stretches of a source in
//! which its events were lost are left out, of the figures too. Cgroups, processes and functions go by their names.

mod compare;
mod drawing;
mod gather;
mod json;
mod noise;
pub(crate) mod page;
mod side;
mod stretches;
mod text;

use std::collections::BTreeMap;

use bpfrec_format::Source;

use self::compare::{Latency, Of, Table, Unit};
pub use self::drawing::Stacks;
use self::gather::Waiting;
pub use self::side::Side;
use self::side::{Amounts, Path, THREAD};
pub use self::stretches::{Unfit, length_ns};
use crate::error::{Error, Result};

/// What amounts are normalised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// They are told a second of recorded time: more work is more.
    Time,
    /// They are told as shares of all: more work alone is no change.
    Samples,
}

/// Two traces, compared.
pub struct Diff {
    by: By,
    before: Side,
    after: Side,
    unfit: Option<Unfit>,
    latencies: Vec<Latency>,
    tables: Vec<Table>,
    notes: Vec<String>,
}

impl Diff {
    /// Compares two sides. `unfit`: why they were not cut into stretches, if they were not.
    pub fn new(before: Side, after: Side, by: By, unfit: Option<Unfit>) -> Result<Diff> {
        let sides = [&before, &after];
        if !side::SOURCES.iter().any(|source| sides.iter().all(|side| side.has(*source))) {
            let names =
                |side: &Side| side::SOURCES.iter().filter(|s| side.has(**s)).map(|s| s.name()).collect::<Vec<_>>();
            let (one, other) = (names(&before).join(","), names(&after).join(","));
            return Err(Error::asked(format!(
                "nothing can be compared: {} has {one}, {} has {other}; record both with the same -e",
                before.name, after.name
            )));
        }
        let mut latencies: Vec<Latency> =
            Waiting::ALL.into_iter().filter_map(|waiting| compare::latency(sides, by, waiting)).collect();
        noise::correct(latencies.iter_mut().flat_map(|latency| {
            let quantiles = latency.quantiles.iter_mut().map(|(_, change)| &mut change.verdict);
            quantiles.chain([&mut latency.rate.verdict])
        }));
        let tables = tables(sides, by);
        let notes = notes(sides);
        Ok(Diff { by, unfit, latencies, tables, notes, before, after })
    }

    /// Whether anything was lost or damaged on either side.
    pub fn lossy(&self) -> bool {
        self.before.lossy || self.after.lossy
    }
}

/// All tables, by who and by stack.
fn tables(sides: [&Side; 2], by: By) -> Vec<Table> {
    let weight = hz_weight(sides);
    let has = |source| sides.iter().all(|side| side.has(source));
    let mut tables = Vec::new();
    let mut ledger = |what, unit, source, of: fn(&Side) -> &side::Ledger, weight| {
        let named = |rows: &BTreeMap<String, Amounts>, kind: u8| -> BTreeMap<Path, Amounts> {
            rows.iter().map(|(name, amounts)| (vec![(name.clone(), kind)], amounts.clone())).collect()
        };
        let [cgroups, processes] = ["cgroup", "process"].map(|by_what| {
            let rows = sides.map(|side| match by_what {
                "cgroup" => named(&of(side).cgroups, THREAD),
                _ => named(&of(side).processes, THREAD),
            });
            compare::table(
                sides,
                by,
                Of { what, of: by_what, unit, source, weight, made_of: None },
                [&rows[0], &rows[1]],
            )
        });
        tables.extend([cgroups, processes].into_iter().flatten());
    };
    let once = [1.0, 1.0];
    if has(Source::Sched) {
        ledger("CPU time", Unit::Ns, Source::Sched, |side| &side.cpu, once);
        ledger("time waiting for a CPU", Unit::Ns, Source::Sched, |side| &side.queued, once);
    } else {
        ledger("CPU samples", Unit::Samples, Source::Profile, |side| &side.sampled, weight);
    }
    ledger("block I/O requests", Unit::Requests, Source::Block, |side| &side.requests, once);
    let (unit, source) = (Unit::Samples, Source::Profile);
    let samples = Of { what: "CPU samples", of: "stack", unit, source, weight, made_of: None };
    let (unit, source, made_of) = (Unit::Ns, Source::Offcpu, Some(sides.map(|side| &side.waits)));
    let off = Of { what: "time off the CPU", of: "stack", unit, source, weight: once, made_of };
    tables.extend(compare::table(sides, by, samples, sides.map(|side| &side.samples)));
    tables.extend(compare::table(sides, by, off, sides.map(|side| &side.off)));
    tables
}

/// Where both were sampled at other rates, samples after count for as many as they would be at the rate before.
fn hz_weight(sides: [&Side; 2]) -> [f64; 2] {
    match (sides[0].sample_hz, sides[1].sample_hz) {
        (Some(before), Some(after)) if before != after && after > 0 => [1.0, before as f64 / after as f64],
        _ => [1.0, 1.0],
    }
}

/// What the reader should know of both.
fn notes(sides: [&Side; 2]) -> Vec<String> {
    let mut notes = Vec::new();
    for source in side::SOURCES {
        if let Some(side) = match sides.map(|side| side.has(source)) {
            [true, false] => Some("before"),
            [false, true] => Some("after"),
            _ => None,
        } {
            notes.push(format!("`{}` was recorded only {side}: not compared", source.name()));
        }
    }
    let both = |what: &str, of: fn(&Side) -> String| {
        let [before, after] = sides.map(of);
        (before != after).then(|| format!("{what}: {before} before, {after} after"))
    };
    notes.extend(both("host", |side| side.host.clone()));
    notes.extend(both("kernel", |side| side.kernel.clone()));
    notes.extend(both("CPUs", |side| side.cpus.clone()));
    if hz_weight(sides) != [1.0, 1.0] {
        let hz = sides.map(|side| side.sample_hz.unwrap_or(0));
        let [before, after] = hz;
        notes.push(format!(
            "sampled {before} times a second before, {after} after: samples after are told as at {before}"
        ));
    }
    for (side, when) in sides.into_iter().zip(["before", "after"]) {
        for (source, lost) in side.lost.iter().filter(|(_, lost)| **lost > 0) {
            notes.push(format!("{when}: lost: {} events ({source})", crate::text::count(*lost)));
        }
        notes.extend(side.notes.iter().map(|note| format!("{when}: {note}")));
    }
    notes
}
