//! Numbers of reports.

use std::path::Path;

use crate::common::{bpfrec, texts};

/// All numbers of a report, whatever the order of rows that are alike.
pub fn figures(trace: &Path, report: &str) -> Vec<String> {
    fn collect(value: &serde_json::Value, all: &mut Vec<String>) {
        match value {
            serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, all)),
            serde_json::Value::Object(fields) => fields.values().for_each(|field| collect(field, all)),
            serde_json::Value::Number(number) => all.push(number.to_string()),
            _ => {}
        }
    }
    let mut words = report.split(' ');
    let args = ["report", words.next().unwrap(), trace.to_str().unwrap(), "--json", "--trace-only"];
    let output = bpfrec(args.into_iter().chain(words));
    let (out, err) = texts(&output);
    if output.status.code() == Some(1) {
        return vec![err.rsplit(": ").next().unwrap_or_default().to_owned()];
    }
    let mut all = Vec::new();
    collect(&serde_json::from_str(&out).unwrap_or_else(|e| panic!("{report}: {e}: {out}{err}")), &mut all);
    all.sort();
    all
}
