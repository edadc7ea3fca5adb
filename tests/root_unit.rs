//! Needs root: the capabilities that `packaging/bpfrec.service` leaves a recorder are enough, and none is there in vain.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::foreign::Foreign;
use common::*;

/// Capabilities of the unit, as `bpf` and `sys_ptrace`.
fn capabilities() -> Vec<String> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/bpfrec.service");
    let unit = fs::read_to_string(unit).unwrap();
    let line = unit.lines().find_map(|l| l.strip_prefix("CapabilityBoundingSet=")).expect("a list of capabilities");
    line.split(' ').map(|name| name.strip_prefix("CAP_").expect("CAP_").to_lowercase()).collect()
}

/// Records with these capabilities only; whether that went well.
fn record_with(capabilities: &[String], trace: &Path) -> bool {
    let set = capabilities.iter().fold("-all".to_owned(), |set, name| format!("{set},+{name}"));
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set={set}")).arg("--no-new-privs").args([BPFREC, "record", "-q", "-o"]);
    let output = command.arg(trace).args(STRICT).args(["-d", "3s", "-F", "499"]).output().unwrap();
    output.status.success()
}

fn are_kernel_symbols_hidden(trace: &Path) -> bool {
    info(trace).to_string().contains("kernel_symbols_hidden")
}

#[test]
fn root_the_units_capabilities_are_enough() {
    let Some(_alone) = alone_as_root("capabilities of the unit") else { return };
    let scratch = Scratch::new();
    let (there, deleted) = (Foreign::start("there", false), Foreign::start("deleted", true));
    let trace = scratch.path("t.bpr");
    assert!(record_with(&capabilities(), &trace));
    let info = info(&trace);
    for source in ["sched", "block", "profile"] {
        assert!(info["sources"].as_array().unwrap().iter().any(|s| s["name"] == source), "{source}: {info}");
    }
    assert_eq!((there.named(&trace), deleted.named(&trace)), ((true, true), (true, true)));
    assert!(!are_kernel_symbols_hidden(&trace));
}

#[test]
fn root_each_capability_of_the_unit_is_needed() {
    let Some(_alone) = alone_as_root("each capability of the unit") else { return };
    // It stands for most of the others, and is there for kernels that ask for it.
    let all: Vec<String> = capabilities().into_iter().filter(|c| c != "sys_admin").collect();
    if setting("perf_event_paranoid").is_some_and(|n| n > 2) {
        skip("each capability of the unit", "kernel.perf_event_paranoid is more than 2 here: CAP_SYS_ADMIN is needed");
        return;
    }
    let scratch = Scratch::new();
    let (there, deleted) = (Foreign::start("there", false), Foreign::start("deleted", true));
    for without in &all {
        let rest: Vec<String> = all.iter().filter(|c| *c != without).cloned().collect();
        let trace = scratch.path(&format!("{without}.bpr"));
        let recorded = record_with(&rest, &trace);
        match without.as_str() {
            "bpf" | "perfmon" | "sys_ptrace" => assert!(!recorded, "recorded without {without}"),
            "dac_read_search" => assert_eq!(there.named(&trace), (true, false)),
            "checkpoint_restore" => {
                assert_eq!((there.named(&trace), deleted.named(&trace)), ((true, true), (true, false)))
            }
            "syslog" if shows_kernel_symbols_to_all() => {}
            "syslog" => assert!(are_kernel_symbols_hidden(&trace)),
            other => panic!("{other}: what is it for?"),
        }
    }
}

/// Whether this kernel is set to show its addresses to everybody.
fn shows_kernel_symbols_to_all() -> bool {
    setting("kptr_restrict") == Some(0) && setting("perf_event_paranoid").is_some_and(|n| n <= 1)
}

fn setting(name: &str) -> Option<i32> {
    fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok()
}
