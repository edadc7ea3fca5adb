//! Needs root: what cannot work ends with one sentence and a code, and harms no file.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::nobody::Open;
use common::refused::assert_one_sentence;
use common::*;

fn record_to(path: &Path) -> Output {
    Command::new(BPFREC).args(["record", "-q", "-d", "1s", "-o"]).arg(path).output().unwrap()
}

#[test]
fn root_an_existing_output_is_kept_without_force() {
    let Some(_alone) = alone_as_root("existing output") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    fs::write(&trace, "precious").unwrap();
    assert_one_sentence(&record_to(&trace), 1, &["--force"]);
    assert_eq!(fs::read_to_string(&trace).unwrap(), "precious");
    bpfrec_ok(&["record", "-q", "-d", "1s", "--force", "-o", trace.to_str().unwrap()]);
    bpfrec_ok(&["verify", trace.to_str().unwrap()]);
}

#[test]
fn root_without_root_it_says_so() {
    let Some(_alone) = alone_as_root("no privileges") else { return };
    let open = Open::new();
    let output = open.record(&[], &["-q", "-d", "1s", "-o", "t.bpr"]);
    assert_one_sentence(&output, 1, &["root"]);
    assert!(!open.0.join("t.bpr").exists(), "an empty trace was left behind");
}

#[test]
fn root_without_the_capabilities_it_says_so() {
    let Some(_alone) = alone_as_root("no capabilities") else { return };
    let scratch = Scratch::new();
    for without in ["-bpf,-sys_admin", "-perfmon,-sys_admin"] {
        let trace = scratch.path("t.bpr");
        let output = Command::new("setpriv")
            .args([&format!("--bounding-set={without}"), &format!("--inh-caps={without}"), BPFREC])
            .args(["record", "-q", "-d", "1s", "-o"])
            .arg(&trace)
            .output()
            .unwrap();
        assert_one_sentence(&output, 1, &["cap_"]);
        assert!(!trace.exists(), "an empty trace was left behind without {without}");
    }
}

#[test]
fn root_a_read_only_folder_is_named() {
    let Some(_alone) = alone_as_root("read-only folder") else { return };
    let scratch = Scratch::new();
    let mount = Tmpfs::mount(scratch.path("ro"), "ro");
    assert_one_sentence(&record_to(&mount.0.join("t.bpr")), 1, &["read-only"]);
}

#[test]
fn root_a_folder_that_is_not_there_is_named() {
    let Some(_alone) = alone_as_root("missing folder") else { return };
    let scratch = Scratch::new();
    assert_one_sentence(&record_to(&scratch.path("none/t.bpr")), 1, &["none/t.bpr"]);
}

#[test]
fn root_a_full_disk_ends_the_recording_with_a_whole_file() {
    let Some(_alone) = alone_as_root("full disk") else { return };
    let scratch = Scratch::new();
    let mount = Tmpfs::mount(scratch.path("small"), "size=2m");
    let trace = mount.0.join("t.bpr");
    let _load = MixedLoad::start(&scratch, 60);
    let output = Command::new(BPFREC).args(["record", "-q", "-d", "50s", "-o"]).arg(&trace).output().unwrap();
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(4), "{err}");
    assert!(err.contains("full") || err.contains("No space"), "{err}");
    let info = info(&trace);
    assert!(info["events"].as_u64().unwrap() > 1000, "{info}");
    bpfrec_ok(&["verify", trace.to_str().unwrap()]);
}

#[test]
fn root_an_unknown_source_is_named() {
    let Some(_alone) = alone_as_root("unknown source") else { return };
    let scratch = Scratch::new();
    let output = bpfrec(["record", "-o", scratch.path("t.bpr").to_str().unwrap(), "-e", "sched,blok", "-d", "1s"]);
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("blok"), "{err}");
}

#[test]
fn root_a_command_that_cannot_start_is_named() {
    let Some(_alone) = alone_as_root("missing command") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let output = bpfrec(["record", "-q", "-o", trace.to_str().unwrap(), "--", "no-such-command-here"]);
    let (_, err) = texts(&output);
    assert!(!output.status.success());
    assert!(err.contains("no-such-command-here"), "{err}");
}

#[test]
fn root_sources_are_listed_and_nothing_is_recorded() {
    let Some(_alone) = alone_as_root("root_sources_are_listed_and_nothing_is_recorded") else { return };
    let scratch = Scratch::new();
    let list = |args: &[&str]| {
        let output =
            Command::new(BPFREC).args(["record", "--list-sources"]).args(args).current_dir(scratch.path("")).output();
        let output = output.unwrap();
        let (out, err) = texts(&output);
        assert!(output.status.success() && err.is_empty(), "{out}{err}");
        out
    };
    let text = list(&[]);
    let json: serde_json::Value = serde_json::from_str(&list(&["--json"])).unwrap();
    let all = json.as_array().unwrap();
    for name in ["sched", "offcpu", "block", "malloc", "kmem", "profile", "mappings", "cgroups"] {
        let row = all.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {json}"));
        assert!(row["needs"].is_string() && row["otherwise"].is_string(), "{row}");
        let said = if row["available"] == true { &row["with"] } else { &row["why_not"] };
        assert!(text.contains(said.as_str().unwrap()), "{said}: {text}");
    }
    // A recording of the default sources works here, so the list must say so.
    assert!(all.iter().filter(|row| row["available"] == true).any(|row| row["name"] == "sched"), "{json}");
    assert_eq!(fs::read_dir(scratch.path("")).unwrap().count(), 0);
}
