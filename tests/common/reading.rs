//! What is in a trace, as the command says it or as the format has it.

use std::collections::BTreeMap;
use std::path::Path;

use bpfrec_format::{BlockType, Column, Trace, meta};
use serde_json::Value;

use super::{bpfrec, bpfrec_ok, texts};

/// `bpfrec info --json`.
pub fn info(trace: &Path) -> Value {
    let output = bpfrec([Path::new("info"), trace, Path::new("--json")]);
    let (out, err) = texts(&output);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("info --json: {e}: {}\n{out}{err}", output.status))
}

/// `bpfrec report NAME --json`. Exit code 3 tells of lost events: which of them matter, the test knows.
pub fn report(name: &str, trace: &Path, options: &[&str]) -> Value {
    let mut args = vec!["report", name, trace.to_str().unwrap(), "--json"];
    args.extend(options);
    let output = bpfrec(&args);
    let (out, err) = texts(&output);
    assert!(matches!(output.status.code(), Some(0 | 3)), "bpfrec {args:?}: {}\n{out}{err}", output.status);
    serde_json::from_str(&out).unwrap()
}

/// How often threads of a cgroup went to sleep.
pub fn sleeps_in(trace: &Path, cgroup_path: &str) -> u64 {
    let (mut id, mut sleeps) = (None, 0);
    replay(trace, |event| {
        if event["kind"] == "cgroup_mkdir" && event["path"] == cgroup_path {
            id = event["cgroup_id"].as_u64();
        }
        // 1: interruptible sleep.
        let slept = event["kind"] == "sched_switch" && event["prev_state"].as_u64().is_some_and(|s| s & 1 == 1);
        sleeps += u64::from(slept && id.is_some() && event["prev_cgroup_id"].as_u64() == id);
    });
    assert!(id.is_some(), "no cgroup_mkdir of {cgroup_path} in the trace");
    sleeps
}

/// Whether nothing was lost: exact counts can be expected then.
pub fn assert_no_loss(trace: &Path) {
    let info = info(trace);
    assert_eq!(info["lost"], 0, "events were lost: {info}");
}

/// Count and sum in nanoseconds over all groups of a histogram report.
pub fn totals(report: &Value) -> (u64, u64) {
    let groups = report["groups"].as_array().expect("groups");
    let sum = |field: &str| groups.iter().map(|g| g[field].as_u64().expect("a number")).sum();
    (sum("count"), sum("sum_ns"))
}

/// Buckets of a histogram report, added up over its groups: lower bound to count.
pub fn buckets(report: &Value) -> BTreeMap<u64, u64> {
    let mut all = BTreeMap::new();
    for bucket in report["groups"].as_array().expect("groups").iter().flat_map(|g| g["buckets"].as_array().unwrap()) {
        *all.entry(bucket["low"].as_u64().unwrap()).or_insert(0) += bucket["count"].as_u64().unwrap();
    }
    all
}

/// Calls `each` for every event of `replay --json`.
pub fn replay(trace: &Path, mut each: impl FnMut(&Value)) {
    let output = bpfrec([Path::new("replay"), trace, Path::new("--json")]);
    let (out, err) = texts(&output);
    assert!(matches!(output.status.code(), Some(0 | 3)), "replay: {}\n{err}", output.status);
    for line in out.lines() {
        each(&serde_json::from_str(line).unwrap_or_else(|e| panic!("replay --json: {e}: {line}")));
    }
}

/// Every value of a trace, unpacked: numbers as eight bytes, texts as they are.
pub fn all_bytes(trace: &Path) -> Vec<u8> {
    let trace = Trace::open(trace).unwrap();
    let mut bytes = Vec::new();
    for (segment, block) in trace.blocks() {
        for table in trace.segments[segment].1.read(block, &|_| true).unwrap().tables {
            for column in table.columns {
                match column {
                    Column::Int(ints) => bytes.extend(ints.iter().flat_map(|n| n.to_le_bytes())),
                    Column::Text(text) => bytes.extend(text.data),
                    Column::List(list) => bytes.extend(list.data.iter().flat_map(|n| n.to_le_bytes())),
                }
            }
        }
    }
    bytes
}

/// Folded stacks of `report profile -f`: frames from the outermost on, and their samples.
pub fn folded(trace: &Path, options: &[&str]) -> Vec<(Vec<String>, u64)> {
    let mut args = vec!["report", "profile", trace.to_str().unwrap(), "-f"];
    args.extend(options);
    let text = bpfrec_ok(&args);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (stack, count) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not folded: {line}"));
            (stack.split(';').map(String::from).collect(), count.parse().unwrap())
        })
        .collect()
}

/// Samples in whose stack a function's name is, exactly or with an offset or a mark behind it.
pub fn samples_in(stacks: &[(Vec<String>, u64)], function: &str) -> u64 {
    let is = |frame: &String| {
        frame.strip_prefix(function).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    stacks.iter().filter(|(frames, _)| frames.iter().any(is)).map(|(_, count)| count).sum()
}

/// The stacks that a trace defines.
pub fn stacks(trace: &Path) -> BTreeMap<u64, Vec<u64>> {
    let trace = Trace::open(trace).unwrap();
    let mut stacks = BTreeMap::new();
    for (_, segment) in &trace.segments {
        let kind = segment.registry.get(meta::STACK).unwrap();
        for block in segment.blocks_of(BlockType::Stacks) {
            for table in segment.read(block, &|id| id == meta::STACK).unwrap().tables {
                let ids = table.column(kind, "stack_id").map_or(&[][..], Column::ints);
                let Some(Column::List(frames)) = table.column(kind, "frames") else { panic!("no frames") };
                stacks.extend(ids.iter().enumerate().map(|(row, id)| (*id, frames.get(row).to_vec())));
            }
        }
    }
    stacks
}

/// A field of an event, a stack id or another number.
pub fn number(row: &Value, field: &str) -> u64 {
    let value = &row[field];
    let text = || value.as_str().and_then(|s| u64::from_str_radix(s.strip_prefix("0x")?, 16).ok());
    value.as_u64().or_else(text).unwrap_or_else(|| panic!("{field} of {row}"))
}
