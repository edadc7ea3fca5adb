//! A comparison as text.

use std::fmt::Write;

use super::compare::{Change, Latency, Table, Unit};
use super::gather::Waiting;
use super::noise::{self, Verdict};
use super::side::{Path, Side, THREAD};
use super::{By, Diff};
use crate::histogram::bar;
use crate::text::{count, duration, plain, utc};

/// Frames of a stack that a line has room for.
const FRAMES: usize = 8;
/// Sentences about changes that are more than noise.
const MOST_CHANGES: usize = 12;
/// Width of the bars.
const BAR: usize = 40;

impl Waiting {
    /// Title, and the name of one.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Waiting::Cpu => ("run-queue latency", "waits for a CPU"),
            Waiting::Disk => ("block I/O latency", "requests"),
            Waiting::Event => ("off-CPU time, threads of programs", "waits"),
        }
    }
}

impl Diff {
    /// The comparison as text; of each table `top` rows. `width`: characters of a line, if these are limited.
    pub fn text(&self, top: usize, width: Option<usize>) -> String {
        let mut out = String::new();
        self.head(&mut out);
        self.what_changed(&mut out);
        self.latencies.iter().for_each(|latency| self.latency(latency, width, &mut out));
        self.tables.iter().for_each(|table| self.table(table, top, &mut out));
        for note in &self.notes {
            let _ = writeln!(out, "# {}", plain(note));
        }
        out
    }

    fn head(&self, out: &mut String) {
        for (when, side) in [("before", &self.before), ("after ", &self.after)] {
            let (name, host) = (plain(&side.name), plain(&side.host));
            let kernel = plain(&side.kernel);
            let _ = writeln!(
                out,
                "{when}    {name}: {host} {kernel}, {} from {}",
                duration(side.duration_ns),
                utc(side.begin_unix_ns)
            );
        }
        let _ = writeln!(out, "amounts   {}", self.by.text());
        let _ = writeln!(out, "verdicts  {}", self.verdicts());
    }

    /// What verdicts rest upon.
    pub(super) fn verdicts(&self) -> String {
        match self.unfit {
            Some(unfit) => unfit.text(),
            None => {
                let [before, after] = [&self.before, &self.after].map(|side: &Side| side.stretches.count);
                let length = duration(self.before.stretches.length_ns);
                format!("{}; {before} stretches before and {after} after, of {length}", noise::NAME)
            }
        }
    }

    /// Sentences about what is more than noise.
    pub(super) fn changes(&self) -> Vec<String> {
        let mut all = Vec::new();
        for latency in &self.latencies {
            let (title, one) = latency.waiting.names();
            let rate = [("number".to_owned(), latency.rate, false)].into_iter();
            for (what, change, is_length) in
                latency.quantiles.iter().map(|(share, c)| (quantile_name(*share), *c, true)).chain(rate)
            {
                if change.verdict.is_change() {
                    let [before, after] = [change.before, change.after].map(|value| match is_length {
                        true => duration(value as u64),
                        false => format!("{} {one} a second", number(value)),
                    });
                    all.push(format!("{title}, {what}: {before} before, {after} after ({})", percent(&change)));
                }
            }
        }
        for table in &self.tables {
            let rows = table.rows.iter().map(|(path, change)| (plain(&line(path)).into_owned(), change, self.by));
            // All of it is told a second, whatever the rows are.
            let total = [("all".to_owned(), &table.total, By::Time)].into_iter();
            for (name, change, by) in total.chain(rows).filter(|(_, change, _)| change.verdict.is_change()) {
                let [before, after] = [change.before, change.after].map(|value| amount(value, table.unit, by));
                let per = if by == By::Time { " a second" } else { "" };
                let percent = if change.status().is_empty() { percent(change) } else { change.status().into() };
                all.push(format!(
                    "{} by {}, {name}: {before} before, {after} after{per} ({percent})",
                    table.what, table.of
                ));
            }
        }
        all
    }

    fn what_changed(&self, out: &mut String) {
        if self.unfit.is_some() {
            return;
        }
        let changes = self.changes();
        let _ = writeln!(out, "\n== more than noise");
        if changes.is_empty() {
            let _ = writeln!(out, "nothing");
        }
        changes.iter().take(MOST_CHANGES).for_each(|change| {
            let _ = writeln!(out, "{change}");
        });
        if changes.len() > MOST_CHANGES {
            let _ = writeln!(out, "and {} more, below", changes.len() - MOST_CHANGES);
        }
    }

    fn latency(&self, latency: &Latency, width: Option<usize>, out: &mut String) {
        let (title, one) = latency.waiting.names();
        let [before, after] = latency.counts.map(count);
        let _ = writeln!(out, "\n== {title}: {before} {one} before, {after} after");
        left_out(latency.stretches, latency.lossy, out);
        let _ = writeln!(out, "{:<10} {:>12} {:>12} {:>10}", "", "before", "after", "change");
        let mut line = |name: &str, [before, after]: [String; 2], change: &Change| {
            let (percent, verdict) = (percent(change), verdict(&change.verdict));
            let _ = writeln!(out, "{name:<10} {before:>12} {after:>12} {percent:>10}  {verdict}");
        };
        line("a second", [latency.rate.before, latency.rate.after].map(number), &latency.rate);
        for (share, change) in &latency.quantiles {
            let values = [change.before, change.after].map(|ns| duration(ns as u64));
            line(&quantile_name(*share), values, change);
        }
        self.histogram(latency, width, out);
    }

    /// Bars over each other: what is common, and what only one side has.
    fn histogram(&self, latency: &Latency, width: Option<usize>, out: &mut String) {
        let full = width.map_or(BAR, |width| bar(width, "         0 -> 1          : 10,746     10,746     ||".len()));
        let most = latency.buckets.iter().flat_map(|b| b.2).fold(0.0, f64::max);
        let scale = if self.by == By::Time { "a second" } else { "of all" };
        let _ = writeln!(
            out,
            "     {:<19} : {:<10} {:<10} {scale}; * both, - only before, + only after",
            "usecs", "before", "after"
        );
        for (low, high, [before, after]) in &latency.buckets {
            let length = |value: f64| (value / most * full as f64) as usize;
            let (one, other) = (length(*before), length(*after));
            let only = if one > other { "-" } else { "+" };
            let bar = "*".repeat(one.min(other)) + &only.repeat(one.abs_diff(other));
            let [before, after] = [*before, *after].map(|value| match self.by {
                By::Time => number(value),
                By::Samples => format!("{:.2} %", 100.0 * value),
            });
            let _ = writeln!(out, "{low:>10} -> {high:<10} : {before:<10} {after:<10} |{bar:<full$}|");
        }
    }

    fn table(&self, table: &Table, top: usize, out: &mut String) {
        let _ = writeln!(out, "\n== {} by {}, {}", table.what, table.of, self.by.short());
        left_out(table.stretches, table.lossy, out);
        let _ = writeln!(out, "{:>12} {:>12} {:>12}", "before", "after", "change");
        let mut line = |name: &str, change: &Change, by: By| {
            let [before, after] = [change.before, change.after].map(|value| amount(value, table.unit, by));
            let sign = if change.difference() < 0.0 { "-" } else { "+" };
            let difference = format!("{sign}{}", amount(change.difference().abs(), table.unit, by));
            let percent = if change.status().is_empty() { percent(change) } else { change.status().to_owned() };
            let verdict = verdict(&change.verdict);
            let _ = writeln!(out, "{before:>12} {after:>12} {difference:>12} {percent:>10}  {verdict:<26} {name}");
        };
        let all = if self.by == By::Time { "(all)" } else { "(all, a second)" };
        line(all, &table.total, By::Time);
        for (path, change) in table.rows.iter().take(top) {
            line(&plain(&self::line(path)), change, self.by);
        }
        let (light, [before, after]) = table.rest;
        if light > 0 {
            let change = Change { before, after, verdict: Verdict::default() };
            let [before, after] = [change.before, change.after].map(|value| amount(value, table.unit, self.by));
            let _ = writeln!(
                out,
                "{before:>12} {after:>12} {:>12} {:>10}  {:<26} ({light} that weigh less, together)",
                "", "", ""
            );
        }
        let hidden = table.rows.len().saturating_sub(top);
        if hidden > 0 {
            let _ = writeln!(out, "({hidden} that changed less: --top {})", table.rows.len());
        }
        if table.same > 0 {
            let _ = writeln!(out, "({} did not change at all)", table.same);
        }
    }
}

impl By {
    /// In a sentence.
    pub(super) fn text(self) -> &'static str {
        match self {
            By::Time => "by time: those of a second of recorded time (--by samples: shares of all)",
            By::Samples => "by samples: shares of all (--by time: those of a second of recorded time)",
        }
    }

    /// In a title.
    pub(super) fn short(self) -> &'static str {
        match self {
            By::Time => "a second",
            By::Samples => "shares of all",
        }
    }
}

/// What of the stretches is not compared, and why.
fn left_out(stretches: [(usize, usize); 2], lossy: bool, out: &mut String) {
    let [(_, before), (_, after)] = stretches;
    if before + after > 0 {
        let _ = writeln!(out, "left out, as events were lost in them: {before} stretches before, {after} after");
    }
    if lossy {
        let _ = writeln!(out, "events were lost in too many stretches to leave these out: there is no verdict");
    }
}

/// `p99.9`.
pub(super) fn quantile_name(share: f64) -> String {
    format!("p{}", (share * 1000.0).round() / 10.0)
}

/// A stack in one line, the leaf first; or a name alone.
pub(super) fn line(path: &Path) -> String {
    let [thread, frames @ ..] = path.as_slice() else { return String::new() };
    debug_assert_eq!(thread.1, THREAD);
    let mut names: Vec<&str> = frames.iter().rev().take(FRAMES).map(|frame| frame.0.as_str()).collect();
    if frames.len() > FRAMES {
        names.push("...");
    }
    if names.is_empty() { thread.0.clone() } else { format!("{}: {}", thread.0, names.join(" < ")) }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict.adjusted {
        Some(p) => format!("{} (p {})", verdict.text(), p_text(p)),
        None => verdict.text().into(),
    }
}

fn p_text(p: f64) -> String {
    if p < 0.001 {
        format!("{p:.4}")
    } else if p < 0.1 {
        format!("{p:.3}")
    } else {
        format!("{p:.2}")
    }
}

fn percent(change: &Change) -> String {
    match change.percent() {
        Some(percent) if percent.abs() < 10_000.0 => format!("{percent:+.1} %"),
        Some(_) => format!("{} x", count((change.after / change.before).round() as u64)),
        None => change.status().to_owned(),
    }
}

/// An amount that was normalised.
fn amount(value: f64, unit: Unit, by: By) -> String {
    match (by, unit) {
        (By::Samples, _) => format!("{:.2} %", 100.0 * value),
        (By::Time, Unit::Ns) => duration(value.round() as u64),
        (By::Time, _) => number(value),
    }
}

/// With so many digits as matter.
fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => count(v.round() as u64),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 || v == 0.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
