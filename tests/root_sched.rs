//! Needs root: the scheduler source tells the truth about programs whose switches and waits are known.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use common::*;

#[test]
fn root_sleeper_is_switched_and_waits_a_hundred_times() {
    let Some(_alone) = alone_as_root("sleeper") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let script = format!("echo pid $$; exec {} 100", load("sleeper").display());
    let out = record_while(&scratch, &trace, &["-e", "sched"], &script);
    let pid: u64 = printed(&out, "pid").parse().unwrap();
    assert_no_loss(&trace);

    let (waits, _) = totals(&report("runqlat", &trace, &["--pid", &pid.to_string()]));
    assert_between("waits of a program that slept a hundred times", waits as f64, 100.0, 1.0 - MISSED, 1.3);

    let mut sleeps = 0;
    let mut named = false;
    replay(&trace, |event| match event["kind"].as_str().unwrap() {
        // 1: interruptible sleep.
        "sched_switch" => {
            let slept = event["prev_state"].as_u64().is_some_and(|s| s & 1 == 1) || event["prev_state"] == "S";
            sleeps += u32::from(event["prev_tid"] == pid && slept);
        }
        "sched_exec" => named |= event["pid"] == pid && event["comm"] == "sleeper",
        _ => {}
    });
    assert!((100..=105).contains(&sleeps), "{sleeps} switches out into sleep");
    assert!(named, "its exec is not in the trace");

    let text = bpfrec_ok(&["report", "runqlat", trace.to_str().unwrap(), "-P"]);
    assert!(text.contains("sleeper"), "runqlat -P does not name it:\n{text}");
}

/// Each line of `pinned`: role, pid, wall time and CPU time.
fn players(output: &str) -> Vec<(String, u64, f64, f64)> {
    let line = |line: &str| {
        let field: Vec<&str> = line.split(' ').collect();
        (field[0].to_string(), field[1].parse().unwrap(), field[2].parse().unwrap(), field[3].parse().unwrap())
    };
    let all: Vec<_> = output.lines().map(line).collect();
    assert_eq!(all.len(), 2, "{output}");
    all
}

fn last_cpu() -> usize {
    std::thread::available_parallelism().unwrap().get() - 1
}

#[test]
fn root_two_busy_processes_on_one_cpu_wait_for_each_other() {
    let Some(_alone) = alone_as_root("pinned busy") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let script = format!("{} {} 3 busy busy", load("pinned").display(), last_cpu());
    let out = record_while(&scratch, &trace, &["-e", "sched"], &script);
    assert_no_loss(&trace);
    for (_, pid, wall, cpu) in players(&out) {
        let (waits, sum) = totals(&report("runqlat", &trace, &["--pid", &pid.to_string()]));
        assert!(waits > 10, "{waits} waits");
        assert_between("time waited for the CPU, ns", sum as f64, wall - cpu, 1.0 - MISSED, 1.1);
    }
}

#[test]
fn root_a_sleeper_beside_a_busy_process_waits_as_long_as_it_says() {
    let Some(_alone) = alone_as_root("pinned sleepy") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let script = format!("{} {} 3 busy sleepy", load("pinned").display(), last_cpu());
    let out = record_while(&scratch, &trace, &["-e", "sched"], &script);
    assert_no_loss(&trace);
    let players = players(&out);
    let (_, busy, wall, cpu) = &players[if players[0].0 == "busy" { 0 } else { 1 }];
    let (_, sum) = totals(&report("runqlat", &trace, &["--pid", &busy.to_string()]));
    assert_between("time the busy one waited, ns", sum as f64, wall - cpu, 1.0 - MISSED, 1.1);

    // Per thread: the sleepy one wakes up every 6 ms of its own time and waits each time.
    let (_, sleepy, ..) = &players[if players[0].0 == "busy" { 1 } else { 0 }];
    let (waits, sum) = totals(&report("runqlat", &trace, &["--pid", &sleepy.to_string()]));
    assert!(waits > 50 && sum > 0, "{waits} waits, {sum} ns");
}

#[test]
fn root_only_the_chosen_pid_is_recorded() {
    let Some(_alone) = alone_as_root("filter by pid") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let mut child = std::process::Command::new(load("sleeper")).arg("500").spawn().unwrap();
    let pid = u64::from(child.id());
    record_while(&scratch, &trace, &["-e", "sched", "-p", &pid.to_string()], "sleep 2");
    child.kill().unwrap();
    child.wait().unwrap();
    let (mut mine, mut foreign) = (0, 0);
    replay(&trace, |event| {
        if event["kind"] == "sched_wakeup" {
            if event["pid"] == pid { mine += 1 } else { foreign += 1 }
        }
    });
    assert!((70..=200).contains(&mine), "{mine} wakeups in two seconds and a bit of 20 ms sleeps");
    assert_eq!(foreign, 0, "wakeups of other processes are in the trace");
}
