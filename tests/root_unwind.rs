//! Needs root: user stacks of programs without frame pointers, by their .eh_frame.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use bpfrec_format::meta;
use common::*;

/// tests/load/deep.c, compiled with these flags.
fn deep(scratch: &Scratch, name: &str, flags: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/load/deep.c");
    let binary = scratch.path(name);
    let status = Command::new("cc").arg("-O2").args(flags).arg("-o").args([&binary, &source]).status().unwrap();
    assert!(status.success(), "deep.c does not compile with {flags:?}");
    binary
}

const WITHOUT: &str = "-fomit-frame-pointer";
const WITH: &str = "-fno-omit-frame-pointer";

/// Samples of `binary MODE` by their folded stacks, from the outermost frame on.
fn stacks(scratch: &Scratch, binary: &Path, mode: &str, unwind: &str) -> Vec<(Vec<String>, u64)> {
    let trace = scratch.path("t.bpr");
    let _ = std::fs::remove_file(&trace);
    let script = format!("echo pid $$; exec {} 1.5 {mode}", binary.display());
    let out = record_while(scratch, &trace, &["-e", "profile", "-F", "499", "--unwind", unwind], &script);
    folded(&trace, &["-U", "--pid", printed(&out, "pid")])
}

/// The known chain of a stack that ends in the innermost function, whatever of libc lies between and around.
fn chain(frames: &[String]) -> Vec<&str> {
    frames.iter().map(String::as_str).filter(|f| f.starts_with("deep_") || *f == "main" || *f == "compare").collect()
}

fn expected(mode: &str) -> Vec<String> {
    let mut chain = vec!["main".to_owned()];
    chain.extend((1..=7).map(|i| format!("deep_{i:02}")));
    chain.extend((mode == "qsort").then(|| "compare".to_owned()));
    chain.extend((8..=15).map(|i| format!("deep_{i:02}")));
    chain
}

/// Of the samples in the innermost function, how many have the whole chain, of how many.
fn whole(stacks: &[(Vec<String>, u64)], mode: &str) -> (u64, u64) {
    let inner: Vec<_> = stacks.iter().filter(|(frames, _)| frames.iter().any(|f| f == "deep_15")).collect();
    let sum = |all: &mut dyn Iterator<Item = u64>| all.sum::<u64>();
    let all = sum(&mut inner.iter().map(|(_, n)| *n));
    let right = sum(&mut inner.iter().filter(|(frames, _)| chain(frames) == expected(mode)).map(|(_, n)| *n));
    (right, all)
}

#[test]
fn root_fifteen_frames_without_frame_pointers() {
    let Some(_alone) = alone_as_root("deep") else { return };
    let scratch = Scratch::new();
    let builds = [
        ("chain_pie", &[WITHOUT, "-pie", "-fPIE"][..]),
        ("chain_fixed", &[WITHOUT, "-no-pie", "-fno-pie"]),
        ("chain_static", &[WITHOUT, "-static"]),
        ("chain_with", &[WITH]),
    ];
    for (name, flags) in builds {
        let binary = deep(&scratch, name, flags);
        for mode in ["plain", "qsort", "kernel"] {
            let stacks = stacks(&scratch, &binary, mode, "dwarf");
            let (right, all) = whole(&stacks, mode);
            assert!(all > 100, "{name} {mode}: {all} samples in deep_15: {stacks:?}");
            assert!(right * 100 >= all * 98, "{name} {mode}: {right} of {all} have all frames: {stacks:?}");
        }
    }
}

#[test]
fn root_frame_pointers_give_the_same_where_there_are_some() {
    let Some(_alone) = alone_as_root("frame pointers") else { return };
    let scratch = Scratch::new();
    let with = deep(&scratch, "chain_with", &[WITH]);
    let (right, all) = whole(&stacks(&scratch, &with, "plain", "fp"), "plain");
    assert!(all > 100 && right * 100 >= all * 98, "{right} of {all} have all frames");
    let trace = scratch.path("t.bpr");
    let cut = |trace: &Path| {
        let report = report("profile", trace, &["-U"]);
        let cut = report["stacks_cut"].as_array().unwrap().clone();
        cut.iter().map(|c| c["binary"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(!cut(&trace).contains(&with.display().to_string()), "{:?}", cut(&trace));

    // Without them the same way fails, and the report says so and what would help.
    let without = deep(&scratch, "chain_without", &[WITHOUT]);
    let (right, all) = whole(&stacks(&scratch, &without, "plain", "fp"), "plain");
    assert!(all > 100 && right == 0, "{right} of {all} have all frames");
    assert!(cut(&trace).contains(&without.display().to_string()), "{:?}", cut(&trace));
    let output = bpfrec([Path::new("report"), Path::new("profile"), trace.as_path()]);
    let (out, err) = texts(&output);
    let said = format!("{out}{err}");
    assert!(said.contains("stacks look cut in") && said.contains("--unwind dwarf"), "{said}");

    stacks(&scratch, &without, "plain", "dwarf");
    assert!(!cut(&trace).contains(&without.display().to_string()), "{:?}", cut(&trace));
}

/// The id of a user stack as SPEC.md leaves it to the recorder: bpf/stack.bpf.h and record/layout.rs must agree.
fn id_of(pid: u64, exec_id: u64, frames: &[u64]) -> u64 {
    let mix = |hash: u64, word: &u64| {
        let hash = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash ^ hash >> 32
    };
    let tail = [frames.len() as u64];
    [pid, exec_id].iter().chain(frames).chain(&tail).fold(2, mix)
}

#[test]
fn root_ids_are_the_same_however_a_stack_was_walked() {
    let Some(_alone) = alone_as_root("ids") else { return };
    let scratch = Scratch::new();
    let with = deep(&scratch, "chain_with", &[WITH]);
    for unwind in ["fp", "dwarf"] {
        stacks(&scratch, &with, "plain", unwind);
        let trace = bpfrec_format::Trace::open(&scratch.path("t.bpr")).unwrap();
        let mut checked = 0;
        for (segment, block) in trace.blocks() {
            let rows = trace.segments[segment].1.read(block, &|kind| kind == meta::STACK).unwrap();
            for table in rows.tables.iter().filter(|t| t.kind == meta::STACK) {
                let int = |column: usize, row: usize| table.columns[column].ints()[row];
                let bpfrec_format::Column::List(frames) = &table.columns[5] else { panic!("frames are a list") };
                for row in (0..table.rows()).filter(|row| int(2, *row) == meta::space::USER) {
                    let id = id_of(int(3, row), int(4, row), frames.get(row));
                    assert_eq!(id, int(1, row), "{unwind}: a stack of {} frames", frames.get(row).len());
                    checked += 1;
                }
            }
        }
        // One loop, and nobody else may run.
        assert!(checked > 2, "{unwind}: {checked} user stacks");
    }
}

#[test]
fn root_without_room_for_copies_samples_are_there_all_the_same() {
    let Some(_alone) = alone_as_root("copies") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let with = deep(&scratch, "chain_with", &[WITH]);
    let options = ["-e", "profile", "-F", "999", "--unwind", "dwarf,60000"];
    let recording = Attached::start(&scratch, &trace, &options);
    let mut load = Command::new(&with).arg("3").spawn().unwrap();
    // The recorder stands still: the ring of copies fills, and from then on frame pointers have to do.
    let recorder = rustix::process::Pid::from_raw(recording.pid() as i32).unwrap();
    let signal = |signal| rustix::process::kill_process(recorder, signal).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    signal(rustix::process::Signal::STOP);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    signal(rustix::process::Signal::CONT);
    assert!(load.wait().unwrap().success());
    recording.finish();
    let info = info(&trace);
    assert_eq!(info["lost"], 0, "{info}");
    let reasons: Vec<_> = info["losses"].as_array().into_iter().flatten().map(|l| l["reason"].clone()).collect();
    assert!(reasons.iter().any(|r| r == "stack copy ring full"), "{info}");
    let (right, all) = whole(&folded(&trace, &["-U", "--pid", &load.id().to_string()]), "plain");
    assert!(all > 500 && right * 100 >= all * 98, "{right} of {all} have all frames");
    assert!(bpfrec([Path::new("verify"), trace.as_path()]).status.success());
}

#[test]
fn root_stack_memory_is_not_in_the_file() {
    let Some(_alone) = alone_as_root("secret") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let source = scratch.path("secret.c");
    // What stands on the stack while samples are taken; in the program itself it stands otherwise.
    let program = r#"
        #include <time.h>
        #include <string.h>
        int main(void) {
            volatile char secret[64];
            const char other[] = "TIFOJT!TJIU";
            for (int i = 0; i < 11; i++) secret[i] = other[i] - 1;
            clock_t end = clock() + CLOCKS_PER_SEC;
            while (clock() < end) secret[63]++;
            return secret[0] != 'S';
        }"#;
    std::fs::write(&source, program).unwrap();
    let binary = scratch.path("secret");
    let status = Command::new("cc").args(["-O1", "-o"]).args([&binary, &source]).status().unwrap();
    assert!(status.success());
    let script = format!("{}", binary.display());
    record_while(&scratch, &trace, &["-e", "profile", "-F", "999", "--unwind", "dwarf"], &script);
    assert!(folded(&trace, &[]).iter().any(|(frames, _)| frames[0] == "secret"), "it was sampled");
    let bytes = all_bytes(&trace);
    let holds = |what: &[u8]| bytes.windows(what.len()).any(|w| w == what);
    assert!(holds(b"secret"), "the program's name is found in what was unpacked");
    // Whole, and in the words of eight bytes that a stack is made of.
    assert!(!holds(b"SHENIS SIHT") && !holds(b"SHENIS S"), "stack memory is in the file");
}
