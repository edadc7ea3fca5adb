//! Needs root: a kernel that shows no types of its own, and `--btf FILE`. Hidden here in a mount namespace; tests/vm/no_btf.sh has a
//! kernel that truly has none.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::refused::assert_one_sentence;
use common::*;

const OWN: &str = "/sys/kernel/btf/vmlinux";

/// Runs `bpfrec` where /sys/kernel/btf is hidden, and whatever libbpf looks at in its place.
fn without_types(args: &[&str]) -> Output {
    let hide = "for d in /sys/kernel/btf /boot /lib/modules /usr/lib/debug; do
                  if [ -d $d ]; then mount -t tmpfs none $d; fi; done; exec \"$@\"";
    Command::new("unshare").args(["-m", "sh", "-euc", hide, "sh", BPFREC]).args(args).output().unwrap()
}

/// Raw BTF in which member `member` of struct `of` lies `bytes` further than it does.
fn moved(btf: &[u8], of: &str, member: &str, bytes: u32) -> Vec<u8> {
    let mut out = btf.to_vec();
    let u32_at = |at: usize| u32::from_le_bytes(btf[at..at + 4].try_into().unwrap());
    let (header, types, len, strings) = (u32_at(4), u32_at(8), u32_at(12), u32_at(16));
    let name = |at: usize| {
        let from = (header + strings + u32_at(at)) as usize;
        btf[from..].split(|b| *b == 0).next().unwrap()
    };
    let (mut at, end) = ((header + types) as usize, (header + types + len) as usize);
    let mut found = 0;
    while at < end {
        let info = u32_at(at + 4);
        let (kind, n) = (info >> 24 & 31, (info & 0xffff) as usize);
        if kind == 4 && name(at) == of.as_bytes() {
            for field in (0..n).map(|i| at + 12 + 12 * i).filter(|field| name(*field) == member.as_bytes()) {
                out[field + 8..field + 12].copy_from_slice(&(u32_at(field + 8) + 8 * bytes).to_le_bytes());
                found += 1;
            }
        }
        // Bytes behind the head: uapi/linux/btf.h.
        at += 12
            + match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => 12 * n,
                6 | 13 => 8 * n,
                _ => 0,
            };
    }
    assert_eq!(found, 1, "{of}.{member}");
    out
}

#[test]
fn root_a_kernel_without_type_information_is_said() {
    let Some(_alone) = alone_as_root("no BTF") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let output = without_types(&["record", "-q", "-d", "1s", "-o", trace.to_str().unwrap()]);
    assert_one_sentence(&output, 1, &["BTF", "--btf FILE"]);
    assert!(!trace.exists(), "an empty trace was left behind");
}

#[test]
fn root_types_that_are_not_this_kernels_are_refused() {
    let Some(_alone) = alone_as_root("wrong types") else { return };
    let scratch = Scratch::new();
    let own = fs::read(OWN).unwrap();
    let trace = scratch.path("t.bpr");
    let refused = |output: Output, word: &str| {
        assert_one_sentence(&output, 1, &[word]);
        assert!(!trace.exists(), "an empty trace was left behind: {word}");
    };
    let record = ["record", "-q", "-d", "1s", "-o", trace.to_str().unwrap()];
    let with = |file: &Path| without_types(&[&record[..], &["--btf", file.to_str().unwrap()]].concat());
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        fs::write(scratch.path(name), bytes).unwrap();
        scratch.path(name)
    };
    refused(bpfrec([&record[..], &["--btf", OWN]].concat()), "type information of its own");
    refused(with(&scratch.path("nowhere")), "nowhere");
    refused(with(&file("garbage", &[7; 65536])), "not type information");
    refused(with(&file("cut", &own[..own.len() / 2])), "not type information");
    refused(with(&load("sleeper")), "not type information");
    // A program's own types: whole, but of no kernel.
    refused(with(&file("empty", &[&own[..8], &[0; 16]].concat())), "not ");
    // Of another kernel: something that the recorder knows of itself lies elsewhere by these.
    for (of, member, bytes, said) in [
        // Next to it lies tgid, which is the same of a main thread.
        ("task_struct", "pid", 8, "pid"),
        ("task_struct", "tgid", 4, "pid"),
        ("task_struct", "comm", 8, "name"),
        ("task_struct", "start_time", 16, "start"),
        ("cgroup", "kn", 8, "cgroup"),
        ("css_set", "dfl_cgrp", 8, "cgroup"),
        ("nsproxy", "mnt_ns", 8, "namespaces"),
    ] {
        refused(with(&file("other.btf", &moved(&own, of, member, bytes))), said);
    }
}

#[test]
fn root_with_types_of_a_file_the_same_is_recorded() {
    let Some(_alone) = alone_as_root("types of a file") else { return };
    let scratch = Scratch::new();
    let (trace, btf) = (scratch.path("t.bpr"), scratch.path("vmlinux.btf"));
    fs::copy(OWN, &btf).unwrap();
    let [trace_arg, btf_arg] = [&trace, &btf].map(|path| path.to_str().unwrap());
    let group = format!("bpfrec-types-{}", std::process::id());
    let script = format!(
        "echo pid $$
         mkdir {mount}/{group}
         sh -c 'echo $$ >{mount}/{group}/cgroup.procs; exec {sleeper} 50'
         rmdir {mount}/{group}
         {directio} {file} 300
         exec {burn} 3",
        mount = cgroup_mount().display(),
        sleeper = load("sleeper").display(),
        directio = load("directio").display(),
        burn = load("burn").display(),
        file = scratch.path("file").display(),
    );
    let record = ["record", "-q", "-o", trace_arg, "--btf", btf_arg, "-F", "499", "--", "sh", "-euc", &script];
    let output = without_types(&record);
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}{err}");
    bpfrec_ok(&["verify", trace_arg]);
    let pid = printed(&out, "pid");
    let header = &info(&trace)["header"];
    assert_eq!((&header["types"], &header["types_file"]), (&"file".into(), &btf_arg.into()), "{header}");

    // The scheduler, and the cgroup that was made meanwhile.
    assert_no_loss(&trace);
    let sleeps = sleeps_in(&trace, &format!("/{group}"));
    assert!((50..=55).contains(&sleeps), "{sleeps} sleeps, 50 were made");
    let (waits, _) = totals(&report("runqlat", &trace, &["--cgroup", &format!("/{group}")]));
    assert_between("waits", waits as f64, 50.0, 1.0 - MISSED, 1.4);
    // Requests, by their issuer; names of tasks that were there before are from /proc.
    let (mut issued, mut ended) = (0, 0);
    replay(&trace, |event| {
        issued += u64::from(event["kind"] == "block_issue" && event["bytes"] == 65536);
        ended += u64::from(event["kind"] == "sched_exit" && event["comm"] == "burn");
    });
    assert!((300..=330).contains(&issued), "{issued} I/Os of 64 KiB issued, 300 were made");
    assert_eq!(ended, 1, "ends of burn");
    let by_process = report("runqlat", &trace, &["-P"]).to_string();
    assert!(by_process.contains("\"burn\"") && by_process.contains("ksoftirqd"), "{by_process}");
    // Samples.
    let stacks = folded(&trace, &["--pid", pid]);
    let (seventy, thirty) = (samples_in(&stacks, "burn_seventy"), samples_in(&stacks, "burn_thirty"));
    let share = 100.0 * seventy as f64 / (seventy + thirty).max(1) as f64;
    assert!(seventy + thirty > 300 && (62.0..=78.0).contains(&share), "{share:.1} % of {} samples", seventy + thirty);

    // What cannot be says so.
    let waits =
        without_types(&["record", "-q", "-d", "1s", "--force", "-o", trace_arg, "--btf", btf_arg, "-e", "offcpu"]);
    let (_, err) = texts(&waits);
    assert!(waits.status.code() == Some(1) && err.contains("waits need it"), "{err}");
    let list = without_types(&["record", "--list-sources", "--json", "--btf", btf_arg]);
    let list: serde_json::Value = serde_json::from_str(&texts(&list).0).unwrap();
    for row in list.as_array().unwrap() {
        assert_eq!(row["available"], row["name"] != "offcpu", "{row}");
    }
}
