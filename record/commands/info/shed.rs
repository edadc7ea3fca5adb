//! What a recording gave up to stay within its budget: rows of kind `shed`, as `bpfrec info` shows them.

use std::collections::BTreeMap;
use std::io::{self, Write};

use bpfrec_format::meta::shed;
use serde_json::{Value, json};

use super::Out;
use super::facts::source_name;

/// What a row says beside when and what.
struct Row {
    restored: bool,
    cause: u64,
    value: u64,
    limit: u64,
}

/// Rows by time since the start in ns, step and source: each segment repeats what holds when it begins.
#[derive(Default)]
pub struct Sheds(BTreeMap<(u64, u64, u64), Row>);

impl Sheds {
    /// Takes in rows. `field` gives a column by its name.
    pub fn add<'a>(&mut self, field: &dyn Fn(&str) -> &'a [u64], start_ns: u64) {
        let at = |name: &str, row: usize| field(name).get(row).copied().unwrap_or(0);
        for (row, ts_ns) in field("ts_ns").iter().enumerate() {
            let key = (ts_ns.saturating_sub(start_ns), at("step", row), at("source", row));
            let (cause, value, limit) = (at("cause", row), at("value", row), at("limit", row));
            self.0.insert(key, Row { restored: at("restored", row) != 0, cause, value, limit });
        }
    }

    /// For `--json`.
    pub fn json(&self) -> Vec<Value> {
        let row = |((ns, step, source), row): (&(u64, u64, u64), &Row)| {
            json!({"ns": ns, "step": shed::step(*step), "source": (*step == shed::SOURCE).then(|| source_name(*source)),
                "restored": row.restored, "cause": shed::cause(row.cause), "value": row.value, "limit": row.limit})
        };
        self.0.iter().map(row).collect()
    }

    /// As text.
    pub fn text(&self, out: &mut Out) -> io::Result<()> {
        const MOST: usize = 20;
        if self.0.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n{:<8} {:<24} {:<9} because of", "second", "shed", "")?;
        for ((ns, step, source), row) in self.0.iter().take(MOST) {
            let what = match *step {
                shed::SOURCE => format!("source {}", source_name(*source)),
                step => shed::step(step).to_owned(),
            };
            let amount = |n: u64| match row.cause {
                shed::CPU => format!("{:.2} %", n as f64 / 10_000.0),
                _ => format!("{n} bytes"),
            };
            let (second, back) = (*ns as f64 / 1e9, if row.restored { "restored" } else { "" });
            let (cause, value, limit) = (shed::cause(row.cause), amount(row.value), amount(row.limit));
            writeln!(out, "{second:<8.1} {what:<24} {back:<9} {cause}: {value} of {limit}")?;
        }
        if self.0.len() > MOST {
            writeln!(out, "... and {} more: --json has all", self.0.len() - MOST)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_two_segments_have_is_one() {
        let columns: &[(&str, &[u64])] = &[
            ("ts_ns", &[12, 12, 15]),
            ("step", &[shed::SOURCE; 3]),
            ("source", &[2, 2, 2]),
            ("cause", &[shed::CPU; 3]),
            ("value", &[18_000, 18_000, 400]),
            ("limit", &[10_000; 3]),
            ("restored", &[0, 0, 1]),
        ];
        let field = |name: &str| columns.iter().find(|(n, _)| *n == name).map_or(&[][..], |(_, values)| *values);
        let mut sheds = Sheds::default();
        sheds.add(&field, 10);
        let rows = sheds.json();
        assert_eq!(rows.len(), 2);
        assert_eq!((&rows[0]["source"], &rows[0]["value"]), (&json!("sched"), &json!(18_000)));
        assert_eq!((&rows[1]["ns"], &rows[1]["restored"]), (&json!(5), &json!(true)));
    }
}
