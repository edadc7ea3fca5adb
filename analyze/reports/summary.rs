//! `summary`: what was recorded, what was lost, what it cost; who was busy, who waited.

use std::fmt::Write;

use bpfrec_format::Source;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::biolatency::count_half_ios;
use super::profile::Profile;
use super::runqlat::count_half_waits;
use super::{Context, Flag, Flags, Report, ReportKind};
use crate::cut;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::histogram::Quantiles;
use crate::meta::Meta;
use crate::pipeline::{Need, Visitor};
use crate::sched::Unpaired;
use crate::slab::Slab;
use crate::symbols::coverage::{Coverage, Share, Whose};
use crate::tables::meta::source_name;
use crate::text::{self, count, duration, percent, plain};

/// In the list of reports.
pub const KIND: ReportKind = ReportKind {
    name: "summary",
    about: "What was recorded, lost and spent; the busiest processes and containers; latency quantiles",
    sources: Source::ALL,
    flags: &[Flag { short: None, long: "top", value: Some("N"), help: "Processes and containers to name (10)" }],
    new: |flags, filter| Ok(Box::new(Summary::new(flags, filter)?)),
};

const SHARES: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9")];

/// Binaries whose frames are told of.
const BINARIES: usize = 5;

/// Gathers a little of everything.
pub struct Summary {
    filter: Filter,
    top: usize,
    waits: Quantiles,
    ios: Quantiles,
    /// CPU time, by process and by cgroup.
    cpu_ns: [FxHashMap<u64, u64>; 2],
    /// When each process was last seen, for its name.
    seen_ns: FxHashMap<u64, u64>,
    samples: [FxHashMap<u64, u64>; 2],
    profile: Profile,
    unpaired_waits: Unpaired,
    unpaired_ios: Unpaired,
}

impl Summary {
    /// As asked.
    pub fn new(flags: &Flags, filter: &Filter) -> Result<Summary> {
        let top = flags.value("top").map_or(Ok(10), str::parse);
        Ok(Summary {
            filter: filter.clone(),
            top: top.map_err(|_| Error::asked("--top takes a number"))?,
            waits: Quantiles::default(),
            ios: Quantiles::default(),
            cpu_ns: Default::default(),
            seen_ns: FxHashMap::default(),
            samples: Default::default(),
            profile: Profile::new(&Flags::default(), filter)?,
            unpaired_waits: Unpaired::default(),
            unpaired_ios: Unpaired::default(),
        })
    }

    /// CPU time by process (0) or cgroup (1): exact where switches were recorded, else by samples; the largest first.
    fn busiest(&self, context: &Context<'_>, of: usize) -> Vec<(u64, u64)> {
        let exact = !self.cpu_ns[of].is_empty();
        let hz = context.meta.number("sample_hz").filter(|hz| *hz > 0).unwrap_or(99);
        let from = if exact { &self.cpu_ns[of] } else { &self.samples[of] };
        let ns = |n: u64| if exact { n } else { n * 1_000_000_000 / hz };
        let mut all: Vec<(u64, u64)> = from.iter().map(|(key, n)| (*key, ns(*n))).collect();
        all.sort_unstable_by_key(|(key, ns)| (std::cmp::Reverse(*ns), *key));
        all.truncate(self.top);
        all
    }

    fn comm<'a>(&self, meta: &'a Meta, pid: u64) -> &'a str {
        let ts = self.seen_ns.get(&pid).copied().unwrap_or(meta.end_ns);
        meta.tasks.comm(pid as u32, ts)
    }

    /// Time that all CPUs had together.
    fn capacity_ns(&self, meta: &Meta) -> u64 {
        let cpus = meta.item("cpus_online");
        cpu_count(cpus).saturating_mul(self.filter.duration_ns)
    }
}

/// `4`, or a list as `0-3,8`.
pub(crate) fn cpu_count(text: &str) -> u64 {
    if let Ok(n) = text.parse() {
        return n;
    }
    let span = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let ends = from.trim().parse::<u64>().ok().zip(to.trim().parse::<u64>().ok());
        ends.map_or(0, |(from, to)| (to.saturating_sub(from)).min(1 << 20) + 1)
    };
    text.split(',').map(span).sum::<u64>().max(1)
}

impl Visitor for Summary {
    fn wants(&self, need: &Need<'_>) -> bool {
        matches!(need, Need::Waits | Need::Slices | Need::Ios) || self.profile.wants(need)
    }

    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()> {
        let f = &self.filter;
        count_half_waits(f, slab, &mut self.unpaired_waits);
        count_half_ios(f, slab, &mut self.unpaired_ios);
        slab.waits.iter().filter(|w| f.takes(w.ts_ns, w.pid, w.cgroup_id)).for_each(|w| self.waits.add(w.dur_ns));
        slab.ios
            .iter()
            .filter(|io| f.takes(io.complete_ns, io.pid, io.cgroup_id))
            .for_each(|io| self.ios.add(io.device_ns()));
        for s in &slab.slices {
            // Only the part of a slice that lies in the window was spent in it.
            let (from, to) = (s.ts_ns.max(f.from_ns), s.ts_ns.saturating_add(s.dur_ns).min(f.to_ns));
            if from < to && f.takes(from, s.pid, s.cgroup_id) {
                for (sums, key) in self.cpu_ns.iter_mut().zip([s.pid.into(), s.cgroup_id]) {
                    let sum: &mut u64 = sums.entry(key).or_default();
                    *sum = sum.saturating_add(to - from);
                }
                self.seen_ns.insert(s.pid.into(), s.ts_ns);
            }
        }
        if let Some(table) = slab.table("cpu_sample") {
            let (pid, cgroup) = (table.ints("pid"), table.ints("cgroup_id"));
            for row in 0..table.rows() {
                if f.takes(table.ts[row], pid.get32(row), cgroup.get(row)) {
                    let weight = meta.sheds.weight(table.ts[row]);
                    *self.samples[0].entry(pid.get(row)).or_default() += weight;
                    *self.samples[1].entry(cgroup.get(row)).or_default() += weight;
                    self.seen_ns.insert(pid.get(row), table.ts[row]);
                }
            }
        }
        self.profile.slab(meta, slab)
    }
}

impl Report for Summary {
    fn text(&self, context: &Context<'_>, out: &mut String) {
        let meta = context.meta;
        let start = meta.clock.unix_ns(meta.first_ns);
        let item = |key| plain(meta.item(key));
        let _ = writeln!(
            out,
            "recorded  {} on {} {}, {} from {}",
            item("sources"),
            item("host"),
            item("kernel"),
            duration(meta.duration_ns()),
            text::utc(start)
        );
        if !meta.item("command").is_empty() {
            let code = meta.item("command_exit_code");
            let exit = if code.is_empty() { String::new() } else { format!(", exit code {}", plain(code)) };
            let _ = writeln!(out, "command   {} (pid {}{exit})", item("command"), item("command_pid"));
        }
        let _ = writeln!(
            out,
            "events    {} ({} stacks, {} tasks, {} cgroups)",
            count(context.events()),
            count(meta.stacks.len() as u64),
            count(meta.tasks.all().len() as u64),
            count(meta.cgroups.sorted().len() as u64)
        );
        for (source, stats) in meta.sources.iter().filter(|(_, s)| s.kept > 0 || s.lost > 0) {
            let _ = writeln!(
                out,
                "  {:<8}{:>14} kept{:>12} lost   {} in BPF",
                source_name(*source),
                count(stats.kept),
                count(stats.lost),
                duration(stats.bpf_ns)
            );
        }
        let _ = writeln!(out, "lost      {} events", count(context.all_lost()));
        let r = &meta.recorder;
        let bpf = r.bpf_ns.max(meta.sources.values().map(|s| s.bpf_ns).fold(0, u64::saturating_add));
        let capacity = cpu_count(meta.item("cpus_online")).saturating_mul(meta.duration_ns());
        let _ = writeln!(
            out,
            "cost      recorder {} CPU, probes {} CPU, together {:.3} % of the machine; {} memory",
            duration(r.cpu_ns),
            duration(bpf),
            percent(r.cpu_ns.saturating_add(bpf), capacity),
            text::bytes(r.max_rss_bytes)
        );
        let coverage = self.profile.coverage(context);
        if coverage.all.frames > 0 {
            let named = percent(coverage.all.named, coverage.all.frames);
            let _ = writeln!(out, "symbols   {named:.1} % of frames in samples named");
            for (whose, share) in coverage.sorted().into_iter().take(BINARIES) {
                let name = plain(Coverage::name(context.symbols(), whose));
                let _ =
                    writeln!(out, "{:>13}{:>8.1} %  {name}", count(share.frames), percent(share.named, share.frames));
            }
        }

        let by = if self.cpu_ns[0].is_empty() { "by samples" } else { "by switches" };
        let all = self.capacity_ns(meta);
        for (of, what) in [(0, "processes"), (1, "cgroups")] {
            let busiest = self.busiest(context, of);
            if busiest.is_empty() {
                continue;
            }
            let _ = writeln!(out, "\nbusiest {what}, {by}\n     CPU time   machine  name");
            for (key, ns) in busiest {
                let name = match of {
                    0 => format!("{} ({key})", plain(self.comm(meta, key))),
                    _ => cgroup_name(meta, key),
                };
                let _ = writeln!(out, "{:>13} {:>7.2} %  {name}", duration(ns), percent(ns, all));
            }
        }
        for (what, q) in [("run-queue latency", &self.waits), ("block I/O latency", &self.ios)] {
            if q.count == 0 {
                continue;
            }
            let _ = writeln!(out, "\n{what}, {} in all", count(q.count));
            let values = SHARES.iter().map(|(share, name)| format!("{name} {}", duration(q.quantile(*share))));
            let _ = writeln!(out, "  {}   max {}", values.collect::<Vec<_>>().join("   "), duration(q.max));
        }
    }

    fn json(&self, context: &Context<'_>) -> Value {
        let meta = context.meta;
        let quantiles = |q: &Quantiles| {
            let mut all = json!({"count": q.count});
            SHARES.iter().for_each(|(share, name)| all[format!("{name}_ns")] = q.quantile(*share).into());
            all["max_ns"] = q.max.into();
            all
        };
        let process = |(pid, ns): (u64, u64)| json!({"pid": pid, "comm": self.comm(meta, pid), "cpu_ns": ns});
        let cgroup = |(id, ns): (u64, u64)| {
            let names = meta.cgroups.get(id).map(|c| c.names.clone()).unwrap_or_default();
            json!({
                "cgroup_id": id,
                "cgroup": meta.cgroups.path(id),
                "runtime": names.runtime,
                "container_id": names.container_id,
                "cpu_ns": ns,
            })
        };
        let source = |(source, s): (&u16, &crate::meta::SourceStats)| json!({"name": source_name(*source), "kept": s.kept, "lost": s.lost, "bpf_ns": s.bpf_ns});
        let coverage = self.profile.coverage(context);
        let binary = |(whose, share): (Whose, Share)| {
            let (symbols, mut all) = (context.symbols(), json!({}));
            all["binary"] = Coverage::name(symbols, whose).into();
            if let Whose::Binary(hit) = whose {
                all["build_id"] = symbols.binaries[hit as usize].build_id.as_str().into();
                all["help"] = symbols.binaries[hit as usize].help.clone().into();
            }
            (all["frames"], all["frames_named"]) = (share.frames.into(), share.named.into());
            all
        };
        json!({
            "host": meta.item("host"),
            "kernel": meta.item("kernel"),
            "start_ns": meta.clock.unix_ns(meta.first_ns),
            "duration_ns": meta.duration_ns(),
            "events": context.events(),
            "sources": meta.sources.iter().map(source).collect::<Vec<_>>(),
            "recorder": {
                "cpu_ns": meta.recorder.cpu_ns,
                "bpf_ns": meta.recorder.bpf_ns,
                "max_rss_bytes": meta.recorder.max_rss_bytes,
            },
            "processes": self.busiest(context, 0).into_iter().map(process).collect::<Vec<_>>(),
            "cgroups": self.busiest(context, 1).into_iter().map(cgroup).collect::<Vec<_>>(),
            "runqlat": quantiles(&self.waits),
            "biolatency": quantiles(&self.ios),
            "frames": coverage.all.frames,
            "frames_named": coverage.all.named,
            "binaries": coverage.sorted().into_iter().map(binary).collect::<Vec<_>>(),
        })
    }

    fn notes(&self, context: &Context<'_>) -> Vec<String> {
        let waits = super::unpaired_note("waits", &self.unpaired_waits);
        let ios = super::unpaired_note("I/O", &self.unpaired_ios);
        let damage = &context.reading.damage;
        let unknown = (damage.unknown_rows + damage.unknown_blocks > 0).then(|| {
            let (rows, blocks) = (count(damage.unknown_rows), count(damage.unknown_blocks));
            format!("unknown to this bpfrec: {rows} rows, {blocks} blocks: a newer one may know them")
        });
        let places = damage.places.iter().map(|place| plain(place).into_owned());
        let cut = cut::note(context.meta, &self.profile.cut(context));
        let compiled = compiled_note(context.meta);
        let symbols = context.symbols();
        let help = self.profile.coverage(context).help(symbols, BINARIES);
        let names = help.iter().chain(&symbols.notes).map(|note| plain(note).into_owned());
        let stacks = cut.into_iter().chain(compiled);
        waits.into_iter().chain(ios).chain(stacks).chain(unknown).chain(places).chain(names).collect()
    }
}

/// What of the names of compiled code is missing or doubtful.
fn compiled_note(meta: &Meta) -> Option<String> {
    let said = [
        ("jit_bad_lines", "lines that could not be understood"),
        ("jit_other_clock", "records with times of another clock"),
        ("jit_refused", "files that are not the process's own"),
        ("jit_left_bytes", "bytes beyond the recorder's bound"),
        ("jit_left_processes", "processes beyond it"),
    ];
    let mut parts: Vec<String> =
        said.iter().filter_map(|(key, what)| Some(format!("{} {what}", count(meta.number(key)?)))).collect();
    if meta.versions.left_out > 0 {
        parts.push(format!("{} stacks whose code changed too often to be told apart", count(meta.versions.left_out)));
    }
    (!parts.is_empty()).then(|| format!("names of compiled code: {}", parts.join(", ")))
}

/// Path, with the container where there is one.
fn cgroup_name(meta: &Meta, id: u64) -> String {
    let path = meta.cgroups.path(id);
    let names = meta.cgroups.get(id).map(|c| &c.names);
    match names.and_then(|n| n.runtime.as_ref().zip(n.container_id.as_ref())) {
        Some((runtime, container)) => {
            let short: String = container.chars().take(12).collect();
            format!("{} {} {}", plain(runtime), plain(&short), plain(&path))
        }
        None => plain(&path).into_owned(),
    }
}
