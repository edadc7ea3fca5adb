//! What a recorder gave up to stay within its budget stands in every report that it touches.

mod common;

use bpfrec_analyze::{Filter, Meta};
use bpfrec_format::Registry;
use bpfrec_format::meta::shed;
use common::{Builder, S, T0, V, analyze, json, report, report_of};
use serde_json::json;

const MS: u64 = 1_000_000;

/// A step that is given up, or taken back, at `T0 + at`.
fn step(b: &mut Builder, at: u64, step: u64, source: u64, restored: bool) {
    let every = if step == shed::SAMPLING && !restored { 8 } else { 1 };
    let fields = [
        ("ts_ns", V::N(T0 + at)),
        ("step", V::N(step)),
        ("source", V::N(source)),
        ("cause", V::N(shed::CPU)),
        ("value", V::N(18_000)),
        ("limit", V::N(10_000)),
        ("restored", V::N(u64::from(restored))),
        ("every", V::N(every)),
    ];
    b.row("shed", &fields);
}

/// Of all sources; a thread that runs 1 ms and sleeps 9, and a sample in each run, for 30 s.
fn recorded() -> Builder {
    let mut b = Builder::with(Registry::default(), &[("sources", "sched,block,profile")]);
    b.task(50, 50, "busy");
    for i in 0..3000u64 {
        let at = T0 + i * 10 * MS;
        b.wakeup(0, at, 50).switch(0, at + 5000, 0, 0, 50).switch(0, at + MS, 50, 1, 0);
        b.event(0, "cpu_sample", at + MS / 2, &[("tid", 50), ("pid", 50)]);
    }
    b.block("block_issue", T0 + S, 1, &[]).block("block_complete", T0 + S + MS, 1, &[]);
    b
}

const STACKS: &str = "# user stacks were shed from 12.300 s to 20.100 s: cpu 1.80 % of 1.00 %";

#[test]
fn reports_say_what_was_shed_where_it_touches_them() {
    let mut b = recorded();
    step(&mut b, 12_300 * MS, shed::USER_STACKS, 0, false);
    step(&mut b, 20_100 * MS, shed::USER_STACKS, 0, true);
    let trace = b.trace();
    for name in ["profile", "summary"] {
        let text = report(&trace, name, &[], false).output;
        assert!(text.lines().any(|line| line == STACKS), "{name}: {text}");
        let expected = json!([{"step": "user stacks", "source": null, "from_ns": 12_300 * MS, "to_ns": 20_100 * MS,
            "cause": "cpu", "value": 18_000, "limit": 10_000, "every": 1}]);
        assert_eq!(json(&trace, name, &[])["shed"], expected, "{name}");
    }
    // Neither has stacks.
    for name in ["runqlat", "biolatency"] {
        assert!(!report(&trace, name, &[], false).output.contains("shed"), "{name}");
        assert_eq!(json(&trace, name, &[])["shed"], json!(null), "{name}");
    }
    let meta = Meta::load(&trace).unwrap();
    for (from, to, is) in [("0s", "12s", false), ("12s", "13s", true), ("20s", "30s", true), ("20.2s", "30s", false)] {
        let window = Filter::new(&meta, Some(from), Some(to), None, None).unwrap();
        let text = report_of(&trace, "profile", &[], false, &window).output;
        assert_eq!(text.contains("user stacks were shed"), is, "{from} to {to}: {text}");
    }
}

#[test]
fn samples_of_a_lowered_rate_count_for_those_that_were_not_taken() {
    let mut b = Builder::new();
    b.task(50, 50, "busy");
    // All until 8 s, then one in eight.
    for i in (0..800u64).chain((800..1600).step_by(8)) {
        b.event(0, "cpu_sample", T0 + i * 10 * MS, &[("tid", 50), ("pid", 50)]);
    }
    step(&mut b, 8 * S - 1, shed::SAMPLING, 0, false);
    step(&mut b, 16 * S - 1, shed::SAMPLING, 0, true);
    let trace = b.trace();
    let all = json(&trace, "profile", &[]);
    assert_eq!((&all["samples"], &all["stacks"][0]["count"]), (&json!(1600), &json!(1600)));
    let text = report(&trace, "profile", &[], false).output;
    let note = "# the sampling rate was shed (one in 8 was kept and counts so often) from 8.000 s to 16.000 s: cpu 1.80 % of 1.00 %";
    assert!(text.contains(note), "{text}");
    // 1600 samples at 99 a second.
    let summary = json(&trace, "summary", &[]);
    assert_eq!(summary["processes"][0]["cpu_ns"], json!(1600 * S / 99));
}

#[test]
fn nothing_is_paired_across_a_source_that_was_shed() {
    let mut b = Builder::new();
    b.task(50, 50, "busy");
    b.wakeup(0, T0 + MS, 50).switch(0, T0 + 2 * MS, 0, 0, 50).switch(0, T0 + 3 * MS, 50, 0, 0);
    // What seems to be a wait of 7 s: the thread ran and slept meanwhile, unseen.
    step(&mut b, S, shed::SOURCE, 2, false);
    step(&mut b, 6 * S, shed::SOURCE, 2, true);
    b.switch(0, T0 + 7 * S, 0, 0, 50).switch(0, T0 + 7 * S + MS, 50, 1, 0);
    let trace = b.trace();
    let all = json(&trace, "runqlat", &[]);
    assert_eq!((&all["groups"][0]["count"], &all["groups"][0]["sum_ns"]), (&json!(1), &json!(MS)), "{all}");
    assert_eq!(all["shed"][0]["source"], "sched");
    let text = report(&trace, "runqlat", &[], false).output;
    assert!(text.contains("# source sched was shed from 1.000 s to 6.000 s: cpu 1.80 % of 1.00 %"), "{text}");
}

#[test]
fn the_page_and_the_tables_have_it_too() {
    let mut b = recorded();
    step(&mut b, 2 * S, shed::USER_STACKS, 0, false);
    step(&mut b, 10 * S, shed::SOURCE, 3, false);
    let trace = b.trace();
    let found = json(&trace, "html", &[]);
    let text = found["findings"][0]["text"].as_str().unwrap();
    let begin = "User stacks were shed from 2.000 s to the end: cpu 1.80 % of 1.00 %. And 1 more: see the notes below.";
    assert!(text.starts_with(begin), "{text}");
    assert_eq!(found["shed"].as_array().map(Vec::len), Some(2));
    let (summary, files) = analyze(&trace, 1);
    assert!(summary.text.contains("# source block was shed from 10.000 s to the end"), "{}", summary.text);
    assert!(!summary.lossy, "nothing was lost");
    let page = String::from_utf8_lossy(&files["report.html"]);
    assert!(page.contains("not recorded"), "the page has no word for it");
    let report = String::from_utf8_lossy(&files["report.txt"]);
    assert_eq!(report.matches("source block was shed").count(), 2, "summary and biolatency");
}

#[test]
fn a_step_that_each_segment_repeats_is_one() {
    let mut b = recorded();
    for _ in 0..3 {
        step(&mut b, 4 * S, shed::KERNEL_STACKS, 0, false);
    }
    let shed = json(&b.trace(), "profile", &[])["shed"].clone();
    assert_eq!(shed.as_array().map(Vec::len), Some(1), "{shed}");
    assert_eq!((&shed[0]["from_ns"], &shed[0]["to_ns"]), (&json!(4 * S), &json!(null)));
}
