//! A comparison as JSON.

use serde_json::{Value, json};

use super::compare::{Change, Latency, Table};
use super::noise;
use super::side::{Path, Side};
use super::text::{line, quantile_name};
use super::{By, Diff};

impl Diff {
    /// The comparison as JSON: all that the text has, and all rows.
    pub fn json(&self) -> Value {
        json!({
            "report": "diff",
            "by": if self.by == By::Time { "time" } else { "samples" },
            "before": side(&self.before),
            "after": side(&self.after),
            "stretch_ns": self.unfit.is_none().then_some(self.before.stretches.length_ns),
            "test": noise::NAME,
            "unfit": self.unfit.map(|unfit| unfit.text()),
            "changes": self.changes(),
            "latencies": self.latencies.iter().map(latency).collect::<Vec<_>>(),
            "tables": self.tables.iter().map(table).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

fn side(side: &Side) -> Value {
    json!({
        "trace": side.name,
        "host": side.host,
        "kernel": side.kernel,
        "cpus": side.cpus,
        "begin_unix_ns": side.begin_unix_ns,
        "duration_ns": side.duration_ns,
        "sample_hz": side.sample_hz,
        "stretches": side.stretches.count,
        "lost": side.lost,
    })
}

/// `before`, `after`, and what is said of them.
fn change(change: &Change, mut all: Value) -> Value {
    all["before"] = change.before.into();
    all["after"] = change.after.into();
    all["percent"] = change.percent().into();
    all["status"] = change.status().into();
    all["p"] = change.verdict.p.into();
    all["p_adjusted"] = change.verdict.adjusted.into();
    all["verdict"] = change.verdict.text().into();
    all
}

fn stretches(stretches: [(usize, usize); 2]) -> Value {
    let [before, after] = stretches.map(|(kept, left_out)| json!({"compared": kept, "left_out": left_out}));
    json!({"before": before, "after": after})
}

fn latency(latency: &Latency) -> Value {
    let (title, one) = latency.waiting.names();
    let quantile = |(share, ns): &(f64, Change)| change(ns, json!({"name": quantile_name(*share), "share": share}));
    let bucket = |(low, high, [before, after]): &(u64, u64, [f64; 2])| json!({"low": low, "high": high, "before": before, "after": after});
    json!({
        "title": title,
        "of": one,
        "source": latency.waiting.source().name(),
        "stretches": stretches(latency.stretches),
        "lost_in_too_many": latency.lossy,
        "counts": {"before": latency.counts[0], "after": latency.counts[1]},
        "rate": change(&latency.rate, json!({"unit": "a second"})),
        "unit": "ns",
        "quantiles": latency.quantiles.iter().map(quantile).collect::<Vec<_>>(),
        "bucket_unit": "usecs",
        "buckets": latency.buckets.iter().map(bucket).collect::<Vec<_>>(),
    })
}

fn table(table: &Table) -> Value {
    let row = |(path, amounts): &(Path, Change)| {
        let mut row = json!({"name": line(path)});
        if path.len() > 1 || table.of == "stack" {
            row["frames"] = path.iter().map(|frame| Value::from(frame.0.as_str())).collect();
        }
        change(amounts, row)
    };
    json!({
        "what": table.what,
        "by": table.of,
        "unit": table.unit.name(),
        "stretches": stretches(table.stretches),
        "lost_in_too_many": table.lossy,
        "total": change(&table.total, json!({"unit": format!("{} a second", table.unit.name())})),
        "rows": table.rows.iter().map(row).collect::<Vec<_>>(),
        "unchanged": table.same,
        "rest": {"rows": table.rest.0, "before": table.rest.1[0], "after": table.rest.1[1]},
    })
}
