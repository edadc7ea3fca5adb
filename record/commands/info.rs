//! `bpfrec info`: what a trace holds, what was lost, what the recording cost.

mod cost;
mod facts;
mod shed;

use std::io::{self, Write};

use bpfrec_format::meta::reason;
use bpfrec_format::{BlockType, EndReason, Trace};
use facts::Facts;
use serde_json::{Map, Value, json};

use super::{DAMAGED, DONE, Out, shown};
use crate::cli::InfoArgs;

/// Runs the command.
pub fn run(args: InfoArgs) -> anyhow::Result<u8> {
    let trace = super::open(&args.trace)?;
    let facts = Facts::gather(&trace);
    super::warn(&trace);
    facts.damaged.iter().take(5).for_each(|line| eprintln!("bpfrec: {line}"));
    super::to_stdout(|out| {
        if args.json {
            let text = super::for_terminals(serde_json::to_string_pretty(&json(&trace, &facts))?);
            writeln!(out, "{text}")?;
        } else {
            header(out, &trace, &facts)?;
            body(out, &trace, &facts)?;
        }
        Ok(if super::is_damaged(&trace) || !facts.damaged.is_empty() { DAMAGED } else { DONE })
    })
}

fn is_complete(trace: &Trace, facts: &Facts) -> bool {
    trace.is_complete() && facts.damaged.is_empty() && !facts::is_recovered(trace)
}

fn ended(trace: &Trace) -> &'static str {
    match trace.segments.last().and_then(|(_, s)| s.end) {
        Some(EndReason::Rotate) => "in a segment that is not here",
        Some(reason) => reason.name(),
        None => "cut off, or still being written",
    }
}

fn version(trace: &Trace) -> String {
    let newest = trace.blocks().map(|(_, b)| (b.header.major, b.header.minor)).max().unwrap_or_default();
    format!("{}.{}", newest.0, newest.1)
}

fn type_name(number: u8) -> String {
    BlockType::from_number(number).map_or_else(|| format!("type {number:#04x}"), |t| t.name().to_owned())
}

fn bytes_an_event(trace: &Trace, facts: &Facts) -> f64 {
    trace.bytes() as f64 / facts.events.max(1) as f64
}

fn json(trace: &Trace, facts: &Facts) -> Value {
    let items = trace.segments.iter().find(|(_, s)| !s.items.is_empty());
    let items: Map<String, Value> =
        items.into_iter().flat_map(|(_, s)| s.items.iter().map(|(k, v)| (k.clone(), v.as_str().into()))).collect();
    let sources: Vec<_> = facts
        .sources
        .iter()
        .map(|(name, events, lost)| json!({"name": name, "events": events, "lost": lost}))
        .collect();
    let kinds: Vec<_> =
        facts.kinds.values().map(|k| json!({"name": k.name, "source": k.source, "events": k.events})).collect();
    let losses = facts.losses.iter().map(|((second, source, cpu, why), lost)| {
        let loses = reason::loses_events(*why);
        json!({"second": second, "source": source, "cpu": cpu_json(*cpu), "reason": reason::text(*why), "lost": lost, "loses_events": loses})
    });
    let blocks = facts
        .sizes
        .iter()
        .map(|(ty, size)| json!({"type": type_name(*ty), "blocks": size.blocks, "bytes": size.bytes}));
    let stack_counts = facts.stack_counts.iter().map(|((source, user), n)| {
        json!({"source": source, "space": space(*user), "walked": n.walked, "remembered": n.remembered,
            "checked": n.checked, "wrong": n.wrong, "failed": n.failed})
    });
    json!({
        "format": version(trace),
        "complete": is_complete(trace, facts),
        "ended": ended(trace),
        "duration_ns": facts.duration_ns,
        "suspended_ns": facts.suspended.1,
        "events": facts.events,
        "lost": facts.lost,
        "bytes": trace.bytes(),
        "bytes_per_event": (bytes_an_event(trace, facts) * 100.0).round() / 100.0,
        "stacks": facts.stacks,
        "tasks": facts.tasks,
        "cgroups": facts.cgroups,
        "mappings": facts.mappings,
        "kernel_symbols": facts.kernel_symbols,
        "binaries": {
            "count": facts.binaries,
            "with_symbols": facts.with_symbols,
            "symbols": facts.symbols,
            "missing": facts.missing.clone(),
            "bytes": facts.symbol_bytes(),
        },
        "segments": trace.segments.len(),
        "missing_blocks": trace.missing_blocks(),
        "damaged_blocks": facts.damaged.len(),
        "not_understood_rows": facts.not_understood,
        "sources": sources,
        "kinds": kinds,
        "losses": losses.collect::<Vec<_>>(),
        "shed": facts.sheds.json(),
        "blocks": blocks.collect::<Vec<_>>(),
        "stack_counts": stack_counts.collect::<Vec<_>>(),
        "recorder": facts.recorder.json(trace),
        "header": items,
    })
}

fn space(user: bool) -> &'static str {
    if user { "user" } else { "kernel" }
}

/// Losses of what has no CPU say the highest number.
fn cpu_json(cpu: u64) -> Value {
    if cpu == u64::from(u32::MAX) { Value::Null } else { cpu.into() }
}

fn header(out: &mut Out, trace: &Trace, facts: &Facts) -> io::Result<()> {
    let item = |key: &str| trace.segments.iter().find_map(|(_, s)| s.item(key)).map(shown);
    let segments = match trace.segments.len() {
        1 => String::new(),
        n => format!(", {n} segments"),
    };
    writeln!(out, "format             {}{segments}, {} bytes", version(trace), trace.bytes())?;
    let complete = if is_complete(trace, facts) { "complete" } else { "NOT complete" };
    writeln!(out, "ended              {} ({complete})", ended(trace))?;
    let seconds = facts.duration_ns as f64 / 1e9;
    let since = item("start_realtime_ns").and_then(|v| v.parse().ok()).map(|ns| format!(" from {}", utc(ns)));
    writeln!(out, "recorded           {seconds:.3} s{}", since.unwrap_or_default())?;
    let (times, ns) = facts.suspended;
    if times > 0 {
        let often = match times {
            1 => "once".into(),
            2 => "twice".into(),
            times => format!("{times} times"),
        };
        writeln!(out, "suspended          {:.3} s, {often}; not in the time recorded", ns as f64 / 1e9)?;
    }
    let host: Vec<_> = ["host", "kernel", "arch"].iter().filter_map(|key| item(key)).collect();
    if !host.is_empty() {
        let cpus = item("cpus_online").map(|n| format!(", CPUs {n}")).unwrap_or_default();
        writeln!(out, "host               {}{cpus}", host.join(" "))?;
    }
    let named = ["host", "kernel", "arch", "cpus_online", "start_realtime_ns", "start_mono_ns", "sources"];
    let items = trace.segments.iter().find(|(_, s)| !s.items.is_empty()).map_or(&[][..], |(_, s)| &s.items);
    for (key, value) in items.iter().filter(|(key, _)| !named.contains(&key.as_str())) {
        writeln!(out, "{:<18} {}", shown(key), shown(value))?;
    }
    Ok(())
}

fn body(out: &mut Out, trace: &Trace, facts: &Facts) -> io::Result<()> {
    writeln!(out, "\n{:<20} {:>14} {:>12}", "source/kind", "events", "lost")?;
    for (name, events, lost) in &facts.sources {
        writeln!(out, "{:<20} {events:>14} {lost:>12}", shown(name))?;
        for kind in facts.kinds.values().filter(|k| k.source == *name) {
            writeln!(out, "  {:<18} {:>14}", shown(&kind.name), kind.events)?;
        }
    }
    writeln!(out, "{:<20} {:>14} {:>12}", "EVENTS blocks", facts.events, facts.lost)?;
    losses(out, facts)?;
    facts.sheds.text(out)?;
    writeln!(out, "\n{:<20} {:>14} {:>12}", "blocks", "bytes", "blocks")?;
    for (block_type, size) in &facts.sizes {
        writeln!(out, "{:<20} {:>14} {:>12}", type_name(*block_type), size.bytes, size.blocks)?;
    }
    let bytes: u64 = facts.sizes.values().map(|s| s.bytes).sum();
    writeln!(out, "{:<20} {:>14.2}", "bytes an event", bytes as f64 / facts.events.max(1) as f64)?;
    writeln!(
        out,
        "\n{} stacks, {} tasks, {} cgroups, {} mappings, {} kernel symbols",
        facts.stacks, facts.tasks, facts.cgroups, facts.mappings, facts.kernel_symbols
    )?;
    if facts.binaries > 0 {
        writeln!(
            out,
            "{} binaries, {} with symbols: {} functions, {} bytes",
            facts.binaries,
            facts.with_symbols,
            facts.symbols,
            facts.symbol_bytes()
        )?;
    }
    for (missing, binaries) in &facts.missing {
        writeln!(out, "  {binaries} without: {}", shown(missing))?;
    }
    for ((source, user), n) in &facts.stack_counts {
        let wrong = 100.0 * n.wrong as f64 / n.checked.max(1) as f64;
        writeln!(
            out,
            "{} stacks of {source}: {} walked, {} remembered; {} checked, {} wrong ({wrong:.3} %); {} failed",
            space(*user),
            n.walked,
            n.remembered,
            n.checked,
            n.wrong,
            n.failed
        )?;
    }
    facts.recorder.text(trace, out)?;
    if facts.not_understood > 0 {
        writeln!(out, "{} rows are not understood: try a newer bpfrec", facts.not_understood)?;
    }
    if !facts.damaged.is_empty() {
        writeln!(out, "{} blocks are damaged: `bpfrec verify` shows them", facts.damaged.len())?;
    }
    Ok(())
}

fn losses(out: &mut Out, facts: &Facts) -> io::Result<()> {
    const MOST: usize = 20;
    if facts.losses.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{:<8} {:<10} {:>5} {:>12}  reason", "second", "source", "cpu", "lost")?;
    for ((second, source, cpu, why), lost) in facts.losses.iter().take(MOST) {
        let cpu = if *cpu == u64::from(u32::MAX) { "-".into() } else { cpu.to_string() };
        let kept = if reason::loses_events(*why) { "" } else { " (the events are there)" };
        writeln!(out, "{second:<8} {source:<10} {cpu:>5} {lost:>12}  {}{kept}", reason::text(*why))?;
    }
    if facts.losses.len() > MOST {
        writeln!(out, "... and {} more: --json has all", facts.losses.len() - MOST)?;
    }
    Ok(())
}

/// Date and time of Unix nanoseconds, by Hinnant's civil_from_days.
pub fn utc(ns: i64) -> String {
    let seconds = ns.div_euclid(1_000_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(1_709_210_096_000_000_000), "2024-02-29 12:34:56 UTC");
        assert_eq!(utc(-1), "1969-12-31 23:59:59 UTC");
    }
}
