//! Needs root: a recorder that dies at any moment leaves a trace of all that is older than a second.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::path::Path;
use std::time::Duration;

use common::*;
use rustix::process::Signal;

/// What the recorder promises, and what a busy machine's scheduler may add.
const NEWEST_WITHIN_NS: u64 = 1_000_000_000 + 400_000_000;

/// Time of the last event of `replay`.
fn newest_event_ns(trace: &Path) -> u64 {
    let output = bpfrec([Path::new("replay"), trace, Path::new("--json")]);
    let (out, err) = texts(&output);
    let last = out.lines().last().unwrap_or_else(|| panic!("no event reads back: {err}"));
    let event: serde_json::Value = serde_json::from_str(last).unwrap();
    event["ts_ns"].as_u64().unwrap_or_else(|| panic!("no ts_ns: {event}"))
}

#[test]
fn root_what_is_older_than_a_second_survives_a_kill() {
    let Some(_alone) = alone_as_root("kill -9") else { return };
    let scratch = Scratch::new();
    let _load = MixedLoad::start(&scratch, 120);
    // Moments that are spread over a second's phase, other ones at each run.
    let seed = monotonic_ns() / 1000 % 1000;
    for round in 0..10 {
        let trace = scratch.path(&format!("{round}.bpr"));
        let mut recording = Recording::start(&trace, &["-d", "60s"]);
        let lived = 1600 + (seed + round * 377) % 1000;
        std::thread::sleep(Duration::from_millis(lived));
        let killed_ns = monotonic_ns();
        recording.signal(Signal::KILL);
        recording.0.wait().unwrap();

        let info = info(&trace);
        assert_eq!(info["complete"], false, "round {round}: {info}");
        assert!(info["events"].as_u64().unwrap() > 1000, "round {round}: {info}");
        let age = killed_ns.saturating_sub(newest_event_ns(&trace));
        assert!(
            age < NEWEST_WITHIN_NS,
            "round {round}, after {lived} ms: the newest event is {} ms old",
            age / 1_000_000
        );

        let (trace, whole) = (trace.to_str().unwrap(), scratch.path(&format!("{round}-whole.bpr")));
        let whole = whole.to_str().unwrap();
        let recovered = bpfrec(["recover", trace, "-o", whole]);
        assert!(matches!(recovered.status.code(), Some(0 | 3)), "round {round}: {:?}", texts(&recovered));
        bpfrec_ok(&["verify", whole]);
        assert_eq!(common::info(Path::new(whole))["events"], info["events"], "round {round}: events after recovery");
    }
}
