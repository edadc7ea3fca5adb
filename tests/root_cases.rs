//! Needs root: the cases of `docs/cases` can be repeated, and what they conclude holds.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs the script of a case for three seconds in `scratch`; its trace.
fn case(name: &str, scratch: &Scratch) -> Option<PathBuf> {
    let script = root().join("docs/cases").join(name).with_extension("sh");
    let output = Command::new(script).arg(scratch.path("")).arg("3").env("BPFREC", BPFREC).output().unwrap();
    let (out, err) = texts(&output);
    if output.status.code() == Some(77) {
        skip(name, err.lines().last().unwrap_or("cannot be made here"));
        return None;
    }
    assert!(output.status.success(), "{name}: {}\n{out}{err}", output.status);
    Some(scratch.path("trace.bpr"))
}

/// All rows of the one SQL query of a case's page.
fn query(name: &str, scratch: &Scratch) -> Value {
    let python = std::env::var_os("BPFREC_PYTHON").map_or_else(|| root().join("target/venv/bin/python"), PathBuf::from);
    let page = root().join("docs/cases").join(name).with_extension("md");
    let script = "import duckdb, json, os, re, sys
query = re.search(r'```sql\\n(.*?)```', open(sys.argv[1]).read(), re.S)[1].replace(' LIMIT 3', '')
os.chdir(sys.argv[2])
db = duckdb.connect()
db.execute(open('views.sql').read())
print(json.dumps(db.execute(query).fetchall()))";
    let output = Command::new(python).args(["-c", script]).arg(page).arg(scratch.path("answers")).output().unwrap();
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{name}: {err}");
    serde_json::from_str(&out).unwrap()
}

/// Requests of a report of latencies that took at least so many ms, and all.
fn at_least(group: &Value, ms: u64) -> (u64, u64) {
    let buckets = group["buckets"].as_array().expect("buckets");
    let count = |low: u64| {
        buckets.iter().filter(|b| b["low"].as_u64() >= Some(low)).map(|b| b["count"].as_u64().unwrap()).sum()
    };
    (count(ms), count(0))
}

#[test]
fn root_the_noisy_neighbour_is_the_batch_job() {
    let Some(_alone) = alone_as_root("noisy neighbour") else { return };
    // Among many neighbours the batch job is not the noisy one.
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = load.split(' ').next().unwrap().parse().unwrap();
    let cpus = std::thread::available_parallelism().unwrap().get();
    if load > 2.0 * cpus as f64 {
        skip("noisy neighbour", &format!("a load of {load} on {cpus} CPUs drowns it"));
        return;
    }
    let scratch = Scratch::new();
    let Some(trace) = case("noisy-neighbour", &scratch) else { return };
    // Four threads share a CPU: the shop waits for a good part of the time.
    let (waits, ns) = totals(&report("runqlat", &trace, &["--cgroup", "/shop"]));
    assert!(waits > 100 && ns > 300_000_000, "{waits} waits of {ns} ns in all");
    // What else this machine did is in the root group; the neighbour is the first of the others.
    let rows = query("noisy-neighbour", &scratch);
    let first = rows.as_array().unwrap().iter().find(|row| row[1] != "/" && row[1] != "/shop").expect("a neighbour");
    assert_eq!((&first[0], &first[1]), (&"crunch".into(), &"/batch".into()), "{rows}");
    let ms = first[2].as_f64().unwrap();
    assert!(ms > 0.05 * ns as f64 / 1e6, "{ms} ms of {ns} ns: {rows}");
}

#[test]
fn root_the_slow_disk_is_the_volume_and_not_the_disk_below() {
    let Some(_alone) = alone_as_root("slow disk") else { return };
    let scratch = Scratch::new();
    let Some(trace) = case("slow-disk", &scratch) else { return };
    let disks = report("biolatency", &trace, &["-D", "-m"]);
    let disks = disks["groups"].as_array().unwrap();
    let volume = disks.iter().find(|g| g.to_string().contains("\"loop")).expect("the volume");
    let (slow, all) = at_least(volume, 16);
    // Twenty a second are let through, at fifty operations a second and more than two an entry.
    assert!(slow >= 10 && slow < all, "{slow} of {all}: {volume}");
    for disk in disks.iter().filter(|g| *g != volume) {
        let (slow, all) = at_least(disk, 16);
        assert!(slow * 20 <= all, "below: {slow} of {all}: {disk}");
    }
    let whose = report("biolatency", &trace, &["-m", "--per-process", "--cgroup", "/ledger"]);
    assert!(whose["groups"][0].to_string().contains("ledger") && at_least(&whose["groups"][0], 16).0 >= 10, "{whose}");
    let waits = report("offcputime", &trace, &["-P", "--cgroup", "/ledger"]).to_string();
    assert!(waits.contains("fdatasync") && waits.contains("ext4_sync_file"), "{waits}");
}

#[test]
fn root_the_leak_is_in_remember_session() {
    let Some(_alone) = alone_as_root("leaking service") else { return };
    let scratch = Scratch::new();
    let Some(trace) = case("leaking-service", &scratch) else { return };
    let text = bpfrec_ok(&["report", "memleak", trace.to_str().unwrap()]);
    let first = text.lines().find(|line| line.contains("cart+0x")).expect("a stack of cart");
    assert!(first.contains("remember_session"), "{text}");
    let growth: Vec<&str> = text.lines().filter(|line| line.contains("grows steadily")).collect();
    assert!(growth.len() == 1 && growth[0].contains("remember_session < main"), "{text}");
    assert!(text.lines().any(|line| line.contains("churns") && line.contains("render_page")), "{text}");
}
