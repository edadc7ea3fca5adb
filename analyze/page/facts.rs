//! The head of the page: what was recorded where and when, what it cost, what was lost.

use serde_json::{Value, json};

use super::gather::Gather;
use crate::reports::Context;
use crate::reports::summary::cpu_count;
use crate::tables::meta::source_name;
use crate::text::{percent, plain, utc};

/// Facts about the recording.
pub(super) fn of(context: &Context<'_>) -> Value {
    let meta = context.meta;
    let item = |key| plain(meta.item(key));
    let (cpus, r) = (cpu_count(meta.item("cpus_online")), &meta.recorder);
    let bpf_ns = r.bpf_ns.max(meta.sources.values().map(|s| s.bpf_ns).fold(0, u64::saturating_add));
    let sources = meta.sources.iter().filter(|(_, s)| s.kept > 0 || s.lost > 0);
    let source = |(source, s): (&u16, &crate::meta::SourceStats)| {
        let lost = s.lost.max(meta.losses.of_source(*source));
        json!({"name": source_name(*source), "kept": s.kept, "lost": lost, "bpf_ns": s.bpf_ns})
    };
    json!({
        "host": item("host"),
        "kernel": item("kernel"),
        "arch": item("arch"),
        "start": utc(meta.clock.unix_ns(meta.first_ns)),
        "start_unix_ms": meta.clock.unix_ns(meta.start_ns) / 1_000_000,
        "first_ns": meta.first_ns.saturating_sub(meta.start_ns),
        "end_ns": meta.end_ns.saturating_sub(meta.start_ns),
        "duration_ns": meta.duration_ns(),
        "asked": item("sources"),
        "sources": sources.map(source).collect::<Vec<_>>(),
        "events": context.events(),
        "cpus": cpus,
        "command": item("command"),
        "sample_hz": meta.number("sample_hz").filter(|hz| *hz > 0).unwrap_or(99),
        "recorder_cpu_ns": r.cpu_ns,
        "recorder_rss_bytes": r.max_rss_bytes,
        "bpf_ns": bpf_ns,
        "cost_percent": percent(r.cpu_ns.saturating_add(bpf_ns), cpus.saturating_mul(meta.duration_ns())),
        "lost": context.all_lost(),
        "damaged": context.reading.damage.any(),
        "exact_cpu": meta.has_source(bpfrec_format::Source::Sched),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// The part of the trace that the page is of, as flags of the command; null where that is all.
pub(super) fn window(gather: &Gather, context: &Context<'_>) -> Value {
    let (meta, filter) = (context.meta, &gather.filter);
    let since = |ns: u64| ns.saturating_sub(meta.start_ns);
    let root = filter.cgroups.as_ref().and_then(|ids| {
        let paths = ids.iter().map(|id| meta.cgroups.path(*id));
        paths.min_by_key(|path| (path.len(), path.clone()))
    });
    json!({
        "from_ns": (filter.from_ns > 0).then(|| since(filter.from_ns)),
        "to_ns": (filter.to_ns < u64::MAX).then(|| since(filter.to_ns)),
        "pid": filter.pid,
        "cgroup": root.map(|path| plain(&path).into_owned()),
    })
}
