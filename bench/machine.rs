//! The machine that figures are from.

use std::fs;

use serde_json::{Value, json};

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn processor() -> String {
    let info = read("/proc/cpuinfo");
    let line = info.lines().find_map(|line| line.strip_prefix("model name"));
    line.map_or("unknown processor".into(), |line| line.trim_start_matches([' ', '\t', ':']).to_owned())
}

/// CPUs that are online.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// In one line.
pub fn text() -> String {
    format!("{} CPUs ({}), Linux {}", cpus(), processor(), read("/proc/sys/kernel/osrelease"))
}

/// The same for programs.
pub fn json() -> Value {
    json!({"cpus": cpus(), "processor": processor(), "kernel": read("/proc/sys/kernel/osrelease")})
}

/// Time that all CPUs were busy, and all time, in ticks.
pub fn ticks() -> (u64, u64) {
    let stat = read("/proc/stat");
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let values: Vec<u64> = fields.take(8).filter_map(|v| v.parse().ok()).collect();
    let idle = values.get(3).unwrap_or(&0) + values.get(4).unwrap_or(&0);
    let all: u64 = values.iter().sum();
    (all - idle, all)
}
