//! `report.html`: bounded whatever the trace, no markup out of names, and findings only where figures support them. What a
//! browser makes of it is tested by `tests/page.rs` of the command.

mod common;

use std::io::Read;

use base64::Engine as _;
use bpfrec_format::Registry;
use common::{Builder, S, T0, V, json, report};
use serde_json::Value;

const MS: u64 = S / 1000;

/// The file, and the head of its data.
fn page(builder: Builder) -> (String, Value) {
    let files = report(&builder.trace(), "html", &["output=x.html"], false).files;
    assert_eq!((files.len(), files[0].0.as_str()), (1, "x.html"));
    let html = String::from_utf8(files[0].1.clone()).unwrap();
    let data = html.split_once("id=\"data\">").unwrap().1.split_once('<').unwrap().0;
    let packed = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
    let mut bytes = Vec::new();
    flate2::read::DeflateDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    (html, serde_json::from_slice(&bytes[4..4 + length]).unwrap())
}

fn findings(builder: Builder) -> Vec<String> {
    let answer = json(&builder.trace(), "html", &[]);
    answer["findings"].as_array().unwrap().iter().map(|f| f["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn names_are_data() {
    let evil = "</script><script>alert(1)</script>\u{2028}";
    let items = [("host", evil), ("kernel", evil), ("disk.8:0", evil), ("command", evil)];
    let mut b = Builder::with(Registry::default(), &items);
    b.task(50, 50, evil).wakeup(0, T0 + MS, 50).switch(0, T0 + 2 * MS, 0, 0, 50).switch(0, T0 + 3 * MS, 50, 1, 0);
    b.block("block_issue", T0 + MS, 1, &[]).block("block_complete", T0 + 2 * MS, 1, &[]);
    let (html, head) = page(b);
    assert!(!html.contains("alert(1)") && !html.contains('\u{2028}'));
    // Only our own scripts, and all of them are named by their hashes.
    let policy = html.split_once("Content-Security-Policy\" content=\"").unwrap().1.split_once('"').unwrap().0;
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"));
    assert_eq!(html.matches("<script>").count(), policy.matches("'sha256-").count() - html.matches("<style>").count());
    let without_namespace = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!without_namespace.contains("http://") && !html.contains("src=") && !html.contains("@import"));
    assert_eq!(head["facts"]["host"], "</script><script>alert(1)</script>\\u{2028}");
}

/// Thousands of threads with stacks of their own.
fn crowd(threads: u64, depth: u64) -> Builder {
    let mut b = Builder::new();
    let mut x = 5u64;
    let mut random = move |n: u64| {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 33) % n
    };
    for addr in 0..60_000u64 {
        let name = format!("function_with_a_long_name_{addr}_{}", random(1 << 40));
        let fields = [("addr", V::N(4096 + addr * 16)), ("name", V::T(&name)), ("type", V::N(u64::from(b't')))];
        b.row("kernel_symbol", &fields);
    }
    for thread in 1..=threads {
        let tid = 5000 + thread;
        b.task(tid, 5000 + thread / 7, &format!("worker {thread} {}", random(1 << 40)));
        let frames: Vec<u64> = (0..depth).map(|_| 4096 + random(60_000) * 16).collect();
        b.row("stack", &[("ts_ns", V::N(T0)), ("stack_id", V::N(tid)), ("frames", V::L(&frames))]);
        for _ in 0..8 {
            let ts = T0 + random(60 * S);
            let who = [("tid", tid), ("pid", 5000 + thread / 7), ("cgroup_id", thread % 50), ("kernel_stack_id", tid)];
            b.event((thread % 4) as u32, "cpu_sample", ts, &who);
        }
    }
    b
}

#[test]
fn bounded_and_says_what_is_cut() {
    let (html, head) = page(crowd(20_000, 60));
    assert!(html.len() <= 10_000_000, "{}", html.len());
    let cuts = head["cuts"].to_string();
    assert!(cuts.contains("threads that did least are told together"), "{cuts}");
    assert!(cuts.contains("stacks that were seen least are cut"), "{cuts}");
    println!("{} bytes; {cuts}", html.len());
}

#[test]
fn a_quiet_machine_has_no_findings() {
    let mut b = Builder::new();
    for i in 0..300u64 {
        b.wakeup(0, T0 + i * 10 * MS, 50).switch(0, T0 + i * 10 * MS + 5000, 0, 0, 50);
        b.switch(0, T0 + i * 10 * MS + MS, 50, 1, 0);
        b.block("block_issue", T0 + i * 10 * MS, i, &[]).block(
            "block_complete",
            T0 + i * 10 * MS + 100_000 + i,
            i,
            &[],
        );
    }
    let found = findings(b);
    assert!(found.is_empty(), "{found:?}");
}

/// Who waits for a CPU that another has, on a disk that is slow for one of two processes.
fn troubled() -> Builder {
    let mut b = Builder::new();
    b.task(50, 50, "fast").task(60, 60, "slow").task(70, 70, "hog").task(80, 80, "starved");
    let cgroup = [("ts_ns", V::N(T0)), ("cgroup_id", V::N(800)), ("path", V::T("/starved"))];
    b.row("cgroup", &cgroup);
    for i in 0..400u64 {
        let at = T0 + i * 10 * MS;
        // Runnable at once, on the CPU after 6 ms, for 4 ms.
        b.wakeup(0, at + 1, 80).switch(0, at, 80, 1, 70).switch(0, at + 6 * MS, 70, 0, 80);
        let (pid, length) = if i % 4 == 0 { (60, 12 * MS) } else { (50, 100_000) };
        let who = [("pid", pid), ("tid", pid), ("cmd_flags", u64::from(pid == 60))];
        b.block("block_issue", at, i, &who).block("block_complete", at + length + i * 97, i, &who);
    }
    b
}

#[test]
fn findings_have_their_figures() {
    let found = findings(troubled());
    let has = |text: &str| found.iter().any(|f| f.contains(text));
    assert!(has("Cgroup /starved waited for a CPU for 60 % of its runnable time"), "{found:?}");
    assert!(
        has("Disk sda has a second mode of latency at about 12.0")
            && has("100 of 400 requests (25 %), mostly from writes of slow (60)"),
        "{found:?}"
    );
}

#[test]
fn nothing_is_found_where_too_much_was_lost() {
    let mut b = troubled();
    for source in [bpfrec_format::Source::Sched, bpfrec_format::Source::Block] {
        common::loss(&mut b, source, T0, T0 + 1, 1_000_000);
    }
    let found = findings(b);
    assert!(found.len() == 1 && found[0].starts_with("2,000,000 events were lost"), "{found:?}");
}
