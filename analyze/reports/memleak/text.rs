//! As text: BCC's layout first, then what BCC does not know.

use std::cmp::Reverse;
use std::fmt::Write;

use super::group::{Amount, Group, Key, Outstanding};
use super::rows::{self, Section};
use super::{By, Memleak, OLDER_NS, TOP};
use crate::histogram::Unit;
use crate::memory::{Of, op};
use crate::reports::Context;
use crate::text::{bytes, count, duration, plain, utc};

pub(super) fn write(report: &Memleak, context: &Context<'_>, out: &mut String) {
    let top = report.top.unwrap_or(TOP);
    let sections = rows::sections(report, context);
    let both = sections.iter().any(|s| s.kernel) && sections.iter().any(|s| !s.kernel);
    let mut first = true;
    for section in sections {
        if report.by != By::All && section.leaks().next().is_none() {
            continue;
        }
        heading(report, &section, context, both, &mut first, out);
        let at = utc(context.meta.clock.unix_ns(report.last_ns(context.meta)));
        let _ = writeln!(out, "[{}] Top {top} stacks with outstanding allocations:", &at[11..19]);
        for (size, addr) in report.shown.get(&(section.kernel, section.id)).map_or(Vec::new(), |s| rows::sorted(s)) {
            let _ = writeln!(out, "\taddr = {addr:x} size = {size}");
        }
        for row in section.leaks().take(top) {
            let o = &row.outstanding;
            let (size, allocs) = (o.all.bytes(), o.all.count());
            let _ = writeln!(out, "\t{size} bytes in {allocs} allocations from stack{}", marks(row));
            for line in row.lines(context) {
                let _ = writeln!(out, "\t\t{line}");
            }
        }
        if !report.combined {
            more(report, &section, context, top, out);
        }
    }
}

fn heading(report: &Memleak, s: &Section, context: &Context<'_>, both: bool, first: &mut bool, out: &mut String) {
    let side = match (both, s.kernel) {
        (false, _) => "",
        (_, true) => "kernel memory",
        (_, false) => "memory of processes",
    };
    let label = s.label(report.by, context);
    let label = plain(&label);
    let of = match report.by {
        By::All => String::new(),
        By::Process => format!("pid = {} {label}", s.id),
        By::Cgroup => format!("cgroup = {label}"),
    };
    let parts: Vec<&str> = [side, &of].into_iter().filter(|p| !p.is_empty()).collect();
    if !std::mem::take(first) || !of.is_empty() {
        out.push('\n');
    }
    if !parts.is_empty() {
        let _ = writeln!(out, "{}", parts.join(", "));
    }
}

/// What stands behind a stack's line: only what BCC could not say.
fn marks(row: &Group) -> String {
    let o = &row.outstanding;
    let mut marks = Vec::new();
    if row.estimate {
        let (bytes, count) = o.error();
        marks.push(format!("estimates: +- {bytes} bytes, +- {count} allocations"));
    }
    let mut of = |part: &Amount, what: &str| {
        if *part == o.all {
            marks.push(what.to_owned());
        } else if *part != Amount::default() {
            marks.push(format!("{} bytes in {} allocations {what}", part.bytes(), part.count()));
        }
    };
    of(&o.uncertain, "uncertain");
    of(&o.ended, "process ended");
    if marks.is_empty() { String::new() } else { format!(" ({})", marks.join("; ")) }
}

const HEAD: &str =
    "      growth/s  verdict         allocs/s   frees/s    in/s         out/s        other thread  oldest      stack";

/// Growth, churn, ages.
fn more(report: &Memleak, section: &Section, context: &Context<'_>, top: usize, out: &mut String) {
    let numbers = |row: &Group| section.leaks().take(top).position(|r| r.key == row.key).map(|i| i + 1);
    let table = |rows: &[&Group], out: &mut String| {
        let _ = writeln!(out, "{HEAD}");
        for row in rows {
            line(report, row, context, numbers(row), out);
        }
    };
    let leaks: Vec<&Group> = section.leaks().take(top).collect();
    if !leaks.is_empty() {
        let _ = writeln!(out, "\nGrowth of these stacks:");
        table(&leaks, out);
    }
    let shown: Vec<Key> = leaks.iter().map(|row| row.key).collect();
    let mut busy: Vec<&Group> = section.rows.iter().filter(|row| !shown.contains(&row.key)).collect();
    busy.sort_by_key(|g| Reverse((g.allocated.bytes, g.allocated.count)));
    busy.truncate(top);
    if !busy.is_empty() {
        let _ = writeln!(out, "\nOther stacks, by bytes allocated:");
        table(&busy, out);
    }
    if let Some(ages) = report.ages.get(&(section.kernel, section.id)) {
        let _ =
            writeln!(out, "\nAges of outstanding allocations{}:", if section.estimate { ", as sampled" } else { "" });
        ages.text(Unit::Msecs, report.width, out);
    }
}

fn line(report: &Memleak, row: &Group, context: &Context<'_>, number: Option<usize>, out: &mut String) {
    let growth = row.growth(report, context);
    let per_s = |n: u64| n as f64 / report.seconds();
    let amount = |n: u64| bytes(per_s(n).round() as u64);
    let sign = if growth.bytes_per_s.round() < 0.0 { "-" } else { "+" };
    let slope = format!("{sign}{}", bytes(growth.bytes_per_s.abs().round() as u64));
    let other = match row.freed.count() {
        0 => "-".into(),
        freed => format!("{:.0} %", 100.0 * row.by_other.count() as f64 / freed as f64),
    };
    let oldest = if row.outstanding.recorded > 0 { duration(row.outstanding.oldest_ns) } else { "-".into() };
    let number = number.map_or(String::new(), |n| format!("#{n} "));
    let op = format!("({}) ", op::name(row.key.op));
    let _ = writeln!(
        out,
        "  {slope:>12}  {:<14}  {:<9.1}  {:<9.1}  {:<11}  {:<11}  {other:<12}  {oldest:<10}  {number}{op}{}",
        growth.verdict.name(),
        per_s(row.allocated.count()),
        per_s(row.freed.count()),
        amount(row.allocated.bytes()),
        amount(row.freed.bytes()),
        row.short(context),
    );
}

pub(super) fn notes(report: &Memleak, context: &Context<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let sections = rows::sections(report, context);
    for kernel in [false, true] {
        let of_side: Vec<&Section> = sections.iter().filter(|s| s.kernel == kernel).collect();
        if of_side.is_empty() {
            continue;
        }
        let side = if kernel { "kernel" } else { "processes" };
        let (mut total, mut hidden) = (Outstanding::default(), Amount::default());
        let mut by_op = std::collections::BTreeMap::<u8, Amount>::new();
        for row in of_side.iter().flat_map(|s| &s.rows) {
            total.join(&row.outstanding);
            hidden.join(&row.hidden);
            by_op.entry(row.key.op).or_default().join(&row.outstanding.all);
        }
        let amount = |a: &Amount| format!("{} bytes in {} allocations", count(a.bytes()), count(a.count()));
        let estimate = of_side.iter().any(|s| s.estimate);
        let (bytes, allocs) = total.error();
        let error = if estimate { format!(" (+- {}, +- {})", count(bytes), count(allocs)) } else { String::new() };
        notes.push(format!("outstanding, {side}: {}{error}", amount(&total.all)));
        if kernel {
            let parts: Vec<String> =
                by_op.iter().map(|(op, a)| format!("{} {}", op::name(*op), count(a.bytes()))).collect();
            notes.push(format!(
                "  by kind, in bytes: {}; slab objects lie in pages, so that kinds overlap",
                parts.join(", ")
            ));
        }
        if total.ended != Amount::default() {
            notes.push(format!("  of processes that have ended since: {}", amount(&total.ended)));
        }
        if total.uncertain != Amount::default() {
            notes.push(format!(
                "  uncertain: {}: events were lost while they were outstanding, and their frees may be among them",
                amount(&total.uncertain)
            ));
        }
        if hidden != Amount::default() {
            let older = duration(report.older_ns.unwrap_or(OLDER_NS));
            notes.push(format!("  not shown: {}, by age (--older {older})", amount(&hidden)));
        }
        if estimate {
            notes.push(
                "  estimates: an allocation recorded with a chance of 1/w counts w times; +- is 1.96 sqrt(sum of bytes^2 \
                 w (w - 1)), which holds in 95 of 100 cases; rates have no such bound, as all uses of an address are \
                 recorded or none"
                    .into(),
            );
        }
        notes.extend(frees(report, kernel, side));
    }
    notes
}

/// Frees without an allocation, allocations without a free.
fn frees(report: &Memleak, kernel: bool, side: &str) -> Option<String> {
    let told = &report.frees[usize::from(kernel)];
    let n = |of: Of| told.get(&of).copied().unwrap_or(0);
    let parts = [
        (n(Of::Before), "of memory from before the recording"),
        (n(Of::Inherited), "of memory that a forked process has from its parent"),
        (n(Of::Unknown), "of memory that the trace does not know, or that a thread's cache gave back once more"),
        (n(Of::Lost), "of memory that it does not know, after a loss"),
        (n(Of::Partly), "of ranges known in part"),
        (report.replaced[usize::from(kernel)], "not seen, as their address was given out again"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", count(*n))).collect();
    (!parts.is_empty()).then(|| format!("frees, {side}: {} paired, {}", count(n(Of::Known)), parts.join(", ")))
}
