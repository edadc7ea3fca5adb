//! Needs root: the source kmem sees what a program holds in the kernel, and that it gives it back.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use common::*;

/// `holds N`.
struct Holds(Child, BufReader<ChildStdout>);

impl Holds {
    fn start(n: u64) -> Holds {
        let mut command = Command::new(load("holds"));
        let mut child = command.arg(n.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Holds(child, lines)
    }

    /// When the step was done.
    fn done(&mut self, step: &str) -> u64 {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        printed(&line, step).parse().unwrap()
    }

    fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    }
}

/// What N pipes, sockets and epoll instances take: at least an object of each file, inode (but for epoll) and thing.
const OBJECTS: u64 = 4 + 3 + 2;

fn held(options: &[&str]) -> (u64, u64, u64) {
    let n = 200;
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let mut holds = Holds::start(n);
    holds.done("ready");
    let pid = u64::from(holds.0.id());
    let pid_text = pid.to_string();
    let options = [&["-e", "kmem"][..], options].concat();
    let options: Vec<&str> = options.iter().map(|o| if *o == "PID" { pid_text.as_str() } else { o }).collect();
    let recording = Attached::start(&scratch, &trace, &options);
    holds.go();
    let open = holds.done("open");
    holds.go();
    let close = holds.done("close");
    // Some of it is freed after a grace period.
    std::thread::sleep(Duration::from_secs(1));
    recording.finish();
    holds.go();
    assert!(holds.0.wait().unwrap().success());
    // An interrupt in the middle of a program leaves out the same program's next run, and it is counted.
    let info = info(&trace);
    let (lost, events) = (info["lost"].as_u64().unwrap(), info["events"].as_u64().unwrap());
    assert!(lost * 20 <= events, "{lost} lost of {events}: {info}");

    let (mut live, mut strange, mut without_stack, mut allocs) = (BTreeMap::new(), 0, 0, 0);
    let mut at_open = None;
    replay(&trace, |event| {
        let int = |name: &str| event[name].as_u64().unwrap_or_default();
        if int("ts_ns") > open && at_open.is_none() {
            at_open = Some(live.values().map(|weight| weight / 1000).sum::<u64>());
        }
        match event["kind"].as_str().unwrap() {
            "kmem_alloc" if int("pid") == pid && int("ts_ns") < close => {
                allocs += 1;
                without_stack += u64::from(int("kernel_stack_id") == 0);
                live.insert(int("addr"), int("weight_milli"));
            }
            "kmem_alloc" => drop(live.remove(&int("addr"))), // freed unseen
            "kmem_free" => strange += u64::from(live.remove(&int("addr")).is_none()),
            _ => {}
        }
    });
    assert!(allocs > 0 && without_stack * 100 <= allocs, "{without_stack} of {allocs} without a stack");
    let left: u64 = live.values().map(|weight| weight / 1000).sum();
    (at_open.expect("events after the opening") / n, left / n, strange)
}

#[test]
fn root_what_a_program_holds_and_gives_back() {
    let Some(_alone) = alone_as_root("kernel memory") else { return };
    let (held, left, _) = held(&[]);
    assert!((OBJECTS..4 * OBJECTS).contains(&held), "{held} objects for each three");
    assert!(left * 4 <= held, "{left} of {held} left");
}

#[test]
fn root_of_one_process_also_what_others_free() {
    let Some(_alone) = alone_as_root("kernel memory of a process") else { return };
    let (held, left, strange) = held(&["-p", "PID"]);
    assert!((OBJECTS..4 * OBJECTS).contains(&held), "{held} objects for each three");
    assert!(left * 4 <= held, "{left} of {held} left");
    assert_eq!(strange, 0, "frees of what was not recorded");
}

#[test]
fn root_sampled_kernel_memory() {
    let Some(_alone) = alone_as_root("kernel memory, sampled") else { return };
    // Some 2,000 objects, so 125 of them at 1 in 16: 9 % is a standard error.
    let (held, left, _) = held(&["--sample", "16"]);
    assert!((OBJECTS / 2..6 * OBJECTS).contains(&held), "{held} objects for each three");
    assert!(left * 3 <= held, "{left} of {held} left");
}
