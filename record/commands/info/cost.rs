//! What a recording cost, as it said itself last: `bpfrec info` shows it by source and by step.

use std::collections::BTreeMap;
use std::io::{self, Write};

use bpfrec_format::Trace;
use serde_json::{Map, Value, json};

use super::Out;
use super::facts::source_name;

/// Steps of the recorder: field of `recorder_stats` without `_ns`, and what it stands for.
const STEPS: [(&str, &str); 7] = [
    ("start", "programs loaded, what runs read"),
    ("drain", "rings read, what changes"),
    ("encode", "events into columns"),
    ("compress", "columns compressed"),
    ("write", "blocks of events written"),
    ("tables", "stacks, tasks, names written"),
    ("names", "functions of binaries read"),
];

/// What the recording cost.
#[derive(Default)]
pub struct Cost {
    ts_ns: u64,
    /// CPU time of the recorder.
    pub cpu_ns: u64,
    /// CPU time of the BPF programs.
    pub bpf_ns: u64,
    /// Memory of the recorder at the most.
    pub max_rss_bytes: u64,
    /// Memory when the recorder said it last; 0 in files of older recorders, as the steps.
    rss_bytes: u64,
    steps: [u64; STEPS.len()],
    /// CPU time and runs of BPF programs, by source.
    bpf: BTreeMap<u64, (u64, u64)>,
}

/// A column by its name: empty where the file has none.
type Field<'a> = &'a dyn Fn(&str) -> &'a [u64];

impl Cost {
    /// Takes in rows of kind `recorder_stats`.
    pub fn add(&mut self, field: Field<'_>) {
        let at = |name: &str, row: usize| field(name).get(row).copied().unwrap_or(0);
        if let Some((row, ts_ns)) = field("ts_ns").iter().enumerate().rfind(|(_, ts)| **ts >= self.ts_ns) {
            self.ts_ns = *ts_ns;
            (self.cpu_ns, self.bpf_ns) = (at("cpu_ns", row), at("bpf_ns", row));
            (self.max_rss_bytes, self.rss_bytes) = (at("max_rss_bytes", row), at("rss_bytes", row));
            self.steps = STEPS.map(|(name, _)| at(&format!("{name}_ns"), row));
        }
    }

    /// Takes in rows of kind `source_stats`: totals, so the highest are the last.
    pub fn add_sources(&mut self, field: Field<'_>) {
        for ((source, ns), runs) in field("source").iter().zip(field("bpf_ns")).zip(field("bpf_runs")) {
            let last = self.bpf.entry(*source).or_default();
            *last = (last.0.max(*ns), last.1.max(*runs));
        }
    }

    /// CPU time of threads that no step stands for.
    fn other_ns(&self) -> u64 {
        self.cpu_ns.saturating_sub(self.steps.iter().sum())
    }

    fn has_steps(&self) -> bool {
        self.steps.iter().any(|ns| *ns > 0)
    }

    /// Bytes of each file that stay in the page cache at most, where the recorder says.
    fn page_cache(trace: &Trace) -> Option<u64> {
        trace.segments.iter().find_map(|(_, s)| s.item("page_cache_bytes")?.parse().ok())
    }

    /// For `--json`.
    pub fn json(&self, trace: &Trace) -> Value {
        let mut steps: Map<String, Value> = STEPS
            .iter()
            .zip(self.steps)
            .filter(|_| self.has_steps())
            .map(|((name, _), ns)| (format!("{name}_ns"), ns.into()))
            .collect();
        if self.has_steps() {
            steps.insert("other_ns".into(), self.other_ns().into());
        }
        let source = |(source, (ns, runs)): (&u64, &(u64, u64))| json!({"name": source_name(*source), "bpf_ns": ns, "bpf_runs": runs});
        json!({
            "cpu_ns": self.cpu_ns,
            "bpf_ns": self.bpf_ns,
            "max_rss_bytes": self.max_rss_bytes,
            "rss_bytes": self.rss_bytes,
            "page_cache_bytes": Cost::page_cache(trace),
            "steps": steps,
            "sources": self.bpf.iter().map(source).collect::<Vec<_>>(),
        })
    }

    /// As text.
    pub fn text(&self, trace: &Trace, out: &mut Out) -> io::Result<()> {
        let seconds = |ns: u64| ns as f64 / 1e9;
        let mib = |bytes: u64| bytes as f64 / 1048576.0;
        writeln!(
            out,
            "recorder: {:.3} s of CPU, {:.3} s in BPF programs, {:.1} MiB at most",
            seconds(self.cpu_ns),
            seconds(self.bpf_ns),
            mib(self.max_rss_bytes)
        )?;
        let ran: Vec<_> = self.bpf.iter().filter(|(_, (_, runs))| *runs > 0).collect();
        if !ran.is_empty() {
            writeln!(out, "\n{:<20} {:>14} {:>12} {:>12}", "BPF programs of", "CPU time, s", "runs", "ns a run")?;
        }
        for (source, (ns, runs)) in ran {
            let (name, each) = (source_name(*source), ns / runs);
            writeln!(out, "{name:<20} {:>14.3} {runs:>12} {each:>12}", seconds(*ns))?;
        }
        if self.has_steps() {
            writeln!(out, "\n{:<20} {:>14} {:>12}", "recorder", "CPU time, s", "share")?;
            let other = (("other", "threads that watch binaries, compiled code, stacks"), self.other_ns());
            for ((name, what), ns) in STEPS.into_iter().zip(self.steps).chain([other]) {
                let share = 100.0 * ns as f64 / self.cpu_ns.max(1) as f64;
                writeln!(out, "{name:<20} {:>14.3} {share:>10.1} %  {what}", seconds(ns))?;
            }
        }
        if self.rss_bytes > 0 {
            writeln!(out, "{:<20} {:>14} bytes at the end", "memory", self.rss_bytes)?;
        }
        if let Some(bytes) = Cost::page_cache(trace) {
            writeln!(out, "{:<20} {bytes:>14} bytes of each file at most", "page cache")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_row_counts_and_what_is_left_is_of_others() {
        let mut cost = Cost::default();
        let columns: &[(&str, &[u64])] = &[
            ("ts_ns", &[5, 9]),
            ("cpu_ns", &[50, 100]),
            ("bpf_ns", &[1, 2]),
            ("max_rss_bytes", &[7, 8]),
            ("drain_ns", &[10, 30]),
            ("write_ns", &[1, 20]),
            ("source", &[2, 2]),
            ("bpf_runs", &[10, 40]),
        ];
        let field = |name: &str| columns.iter().find(|(n, _)| *n == name).map_or(&[][..], |(_, values)| *values);
        cost.add(&field);
        cost.add_sources(&field);
        assert_eq!((cost.cpu_ns, cost.bpf_ns, cost.max_rss_bytes, cost.rss_bytes), (100, 2, 8, 0));
        assert_eq!((cost.steps, cost.other_ns()), ([0, 30, 0, 0, 20, 0, 0], 50));
        assert_eq!(cost.bpf[&2], (2, 40));
    }
}
