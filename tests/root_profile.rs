//! Needs root: CPU samples fall where the time goes and are named.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use common::*;

#[test]
fn root_shares_of_two_functions_are_seventy_to_thirty() {
    let Some(_alone) = alone_as_root("burn") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let script = format!("echo pid $$; printf 'cpu '; exec {} 5", load("burn").display());
    let out = record_while(&scratch, &trace, &["-e", "profile", "-F", "999"], &script);
    let pid = printed(&out, "pid");
    let cpu_s: f64 = printed(&out, "cpu").parse().unwrap();
    assert_no_loss(&trace);

    let stacks = folded(&trace, &["--pid", pid]);
    let (seventy, thirty) = (samples_in(&stacks, "burn_seventy"), samples_in(&stacks, "burn_thirty"));
    let all: u64 = stacks.iter().map(|(_, count)| count).sum();
    assert!(seventy + thirty > all * 9 / 10, "{seventy} + {thirty} of {all} samples are in the two functions");
    let share = 100.0 * seventy as f64 / (seventy + thirty) as f64;
    assert!((66.0..=74.0).contains(&share), "{share:.1} % in burn_seventy");
    // Its CPU seconds, not the wall's: other programs run on this machine too.
    assert_near("samples", all as f64, 999.0 * cpu_s, 0.1);
}

#[test]
fn root_a_process_of_five_milliseconds_is_named_and_its_frames_resolve() {
    let Some(_alone) = alone_as_root("blip") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    std::fs::copy(load("blip"), scratch.path("blip_fleeting")).unwrap();
    let script = "i=0; while [ $i -lt 40 ]; do \"$dir/blip_fleeting\"; i=$((i + 1)); done";
    record_while(&scratch, &trace, &["-e", "sched,profile", "-F", "4999"], script);

    let exe = scratch.path("blip_fleeting");
    let mut runs = 0;
    replay(&trace, |event| {
        if event["kind"] == "sched_exec" && event["comm"] == "blip_fleeting" {
            runs += 1;
            assert_eq!(event["exe"].as_str(), exe.to_str(), "the path of the program");
        }
    });
    assert_eq!(runs, 40, "runs of the program that were seen");

    let stacks = folded(&trace, &[]);
    let of_blip: Vec<_> = stacks.into_iter().filter(|(frames, _)| frames[0].starts_with("blip_fleeting")).collect();
    let named = samples_in(&of_blip, "blip_work");
    // 40 times 5 ms at 4999 Hz are 1000 samples; short lives lose some at their edges.
    assert!(named > 300, "{named} samples in blip_work of {of_blip:?}");
}

#[test]
fn root_kernel_frames_have_names() {
    let Some(_alone) = alone_as_root("kernel symbols") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let script = "timeout 2 dd if=/dev/zero of=/dev/null bs=16M status=none || true";
    record_while(&scratch, &trace, &["-e", "profile", "-F", "999"], script);
    let stacks: Vec<_> = folded(&trace, &[]).into_iter().filter(|(frames, _)| frames[0].starts_with("dd")).collect();
    let all: u64 = stacks.iter().map(|(_, count)| count).sum();
    assert!(all > 500, "{all} samples of dd");
    let named = ["read_zero", "clear_user", "vfs_read", "ksys_read"].map(|f| samples_in(&stacks, f));
    assert!(named.iter().max().unwrap() > &(all / 2), "named {named:?} of {all}: {stacks:?}");
}
