//! Comparisons of traces that are alike, and of traces that differ in a known way.

mod common;

use bpfrec_analyze::diff::{By, Diff, Side, Stacks, length_ns};
use bpfrec_analyze::{Filter, Meta};
use bpfrec_format::{Registry, Source, Trace};
use common::{Builder, S, T0, V, loss};
use serde_json::Value;

const MS: u64 = S / 1000;
const US: u64 = 1000;

/// Pseudo-random numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        self.below(1 << 30) as f64 / (1u64 << 30) as f64
    }
}

/// What a generated host does.
#[derive(Clone, Copy)]
struct Load {
    seed: u64,
    ms: u64,
    /// Waits for a CPU that begin in a millisecond.
    per_ms: u64,
    /// What each wait is longer by.
    slower: f64,
}

const LOAD: Load = Load { seed: 1, ms: 6000, per_ms: 1, slower: 1.0 };

impl Load {
    /// Waits are long or short for a while, as those of real hosts are: neighbours are alike.
    fn builder(self) -> Builder {
        let mut b = Builder::with(Registry::default(), &[("sources", "sched")]);
        b.task(1, 1, "one").task(2, 2, "two");
        let mut random = Random(self.seed);
        let mut mood = 1.0;
        for ms in 0..self.ms {
            if ms % 40 == 0 {
                mood = 0.5 + 2.0 * random.unit() * random.unit();
            }
            for i in 0..self.per_ms {
                let tid = 1 + random.below(2);
                let woken = T0 + ms * MS + i * MS / self.per_ms;
                let wait = (20.0 * US as f64 * mood * self.slower * (0.2 - random.unit().max(1e-6).ln())) as u64;
                b.wakeup(0, woken, tid).switch(0, woken + wait, 0, 0, tid);
                b.switch(0, woken + wait + 10 * US, tid, 1, 0);
            }
            if ms % 1000 == 999 {
                b.flush();
            }
        }
        b
    }

    fn trace(self) -> Trace {
        self.builder().trace()
    }
}

fn compare(before: &Trace, after: &Trace, by: By) -> Diff {
    let parts = [before, after].map(|trace| {
        let meta = Meta::load(trace).unwrap();
        let filter = Filter::everything(&meta);
        (meta, filter)
    });
    let length = length_ns(parts[0].1.duration_ns, parts[1].1.duration_ns);
    let side = |trace, i: usize| {
        let (meta, filter) = &parts[i];
        Side::read(trace, meta, filter, ["a.bpr", "b.bpr"][i], length.ok(), &|_, _| {}).unwrap()
    };
    Diff::new(side(before, 0), side(after, 1), by, length.err()).unwrap()
}

fn quantile<'a>(diff: &'a Value, name: &str) -> &'a Value {
    let all = diff["latencies"][0]["quantiles"].as_array().unwrap();
    all.iter().find(|q| q["name"] == name).unwrap()
}

fn is_change(value: &Value) -> bool {
    value["verdict"] == "more than noise"
}

/// Whether anything of the latency is more than noise.
fn alarmed(diff: &Value) -> bool {
    let latency = &diff["latencies"][0];
    is_change(&latency["rate"]) || latency["quantiles"].as_array().unwrap().iter().any(is_change)
}

fn table<'a>(diff: &'a Value, what: &str, by: &str) -> &'a Value {
    let found = diff["tables"].as_array().unwrap().iter().find(|t| t["what"] == what && t["by"] == by);
    found.unwrap_or_else(|| panic!("no {what} by {by}: {diff:#}"))
}

#[test]
fn a_trace_does_not_differ_from_itself() {
    let trace = LOAD.trace();
    for by in [By::Time, By::Samples] {
        let diff = compare(&trace, &trace, by);
        let json = diff.json();
        assert_eq!(json["changes"].as_array().map(Vec::len), Some(0));
        for table in json["tables"].as_array().unwrap() {
            assert!(table["rows"].as_array().unwrap().is_empty() && table["unchanged"].as_u64() > Some(0), "{table}");
        }
        for quantile in json["latencies"][0]["quantiles"].as_array().unwrap() {
            assert_eq!((quantile["percent"].as_f64(), &quantile["before"]), (Some(0.0), &quantile["after"]));
        }
        assert!(diff.text(10, None).contains("== more than noise\nnothing\n"));
    }
}

#[test]
fn alike_hosts_seldom_differ() {
    let alarms = (0..60).filter(|pair| {
        let before = Load { seed: 2 * pair + 10, ..LOAD }.trace();
        // Lengths differ too.
        let after = Load { seed: 2 * pair + 11, ms: 9000, ..LOAD }.trace();
        alarmed(&compare(&before, &after, By::Time).json())
    });
    // 5 % of 60 are 3; three standard deviations more.
    let alarms = alarms.count();
    println!("{alarms} false alarms in 60 pairs");
    assert!(alarms <= 8, "{alarms} false alarms in 60 pairs");
}

#[test]
fn slower_hosts_do() {
    let mut found = 0;
    for pair in 0..20 {
        let before = Load { seed: 2 * pair + 500, ..LOAD }.trace();
        let after = Load { seed: 2 * pair + 501, slower: 1.6, ..LOAD }.trace();
        let json = compare(&before, &after, By::Time).json();
        let shifts = ["p50", "p90"].map(|name| quantile(&json, name));
        for shift in shifts {
            let percent = shift["percent"].as_f64().unwrap();
            assert!((20.0..130.0).contains(&percent), "{shift}");
        }
        found += u32::from(shifts.iter().any(|shift| is_change(shift)));
        // As many waits as before.
        assert!(json["latencies"][0]["rate"]["percent"].as_f64().unwrap().abs() < 5.0);
    }
    println!("{found} of 20 shifts found");
    assert!(found >= 17, "{found} of 20 shifts found");
}

#[test]
fn more_of_the_same_is_a_change_by_time_and_none_by_samples() {
    let (before, after) = (LOAD.trace(), Load { seed: 2, per_ms: 2, ..LOAD }.trace());
    let row = |by| {
        let json = compare(&before, &after, by).json();
        let cpu = table(&json, "CPU time", "process").clone();
        let mut rows = cpu["rows"].as_array().unwrap().clone();
        rows.sort_by_key(|row| row["name"].as_str().unwrap().to_owned());
        (rows, json)
    };
    let (by_time, json) = row(By::Time);
    assert_eq!(by_time.len(), 2);
    for row in &by_time {
        assert!(is_change(row) && (row["percent"].as_f64().unwrap() - 100.0).abs() < 15.0, "{row}");
        // 500 slices of 10 us a second.
        assert!((row["before"].as_f64().unwrap() - 5.0e6).abs() < 5.0e5, "{row}");
    }
    assert!(is_change(&json["latencies"][0]["rate"]));
    let (by_samples, json) = row(By::Samples);
    assert!(by_samples.iter().all(|row| !is_change(row)), "{by_samples:?}");
    let shares: f64 = by_samples.iter().map(|row| row["after"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9 && json["by"] == "samples");
}

#[test]
fn stretches_with_losses_are_left_out_and_that_is_said() {
    let mut lossy = LOAD.builder();
    // In the second and third of twenty stretches of 300 ms.
    loss(&mut lossy, Source::Sched, T0 + 400 * MS, T0 + 650 * MS, 12_345);
    let (before, after) = (LOAD.trace(), lossy.trace());
    let diff = compare(&before, &after, By::Time);
    let (json, text) = (diff.json(), diff.text(10, None));
    let after = &json["latencies"][0]["stretches"]["after"];
    assert_eq!((after["left_out"].as_u64(), after["compared"].as_u64()), (Some(2), Some(18)), "{json:#}");
    assert!(text.contains("left out, as events were lost in them: 0 stretches before, 2 after"), "{text}");
    assert!(text.contains("# after: lost: 12,345 events (sched)") && diff.lossy());
    assert!(!alarmed(&json));

    // Losses all along: nothing is left out, and nothing told.
    let mut lossy = LOAD.builder();
    loss(&mut lossy, Source::Sched, T0, T0 + 6 * S, 5);
    let json = compare(&before, &lossy.trace(), By::Time).json();
    assert_eq!((&json["latencies"][0]["lost_in_too_many"], alarmed(&json)), (&true.into(), false));
    assert_eq!(json["latencies"][0]["rate"]["verdict"], "too short to tell");
}

#[test]
fn too_short_or_too_unequal_is_said() {
    let (long, short) = (LOAD.trace(), Load { ms: 500, slower: 5.0, ..LOAD }.trace());
    let diff = compare(&long, &short, By::Time);
    assert!(diff.text(10, None).contains("verdicts  too short to tell"), "{}", diff.text(10, None));
    let json = diff.json();
    assert!(json["stretch_ns"].is_null() && !alarmed(&json) && json["changes"].as_array().unwrap().is_empty());
    assert_eq!(quantile(&json, "p50")["verdict"], "too short to tell");
    assert!(quantile(&json, "p50")["percent"].as_f64().unwrap() > 200.0);
    // 500 waits have no p99.9.
    assert_eq!(quantile(&json, "p99.9")["verdict"], "too few to tell");

    let hour = Load { ms: 120_000, per_ms: 1, ..LOAD }.trace();
    let second = Load { ms: 1_500, ..LOAD }.trace();
    let text = compare(&hour, &second, By::Time).text(10, None);
    assert!(text.contains("verdicts  too unequal to tell") && text.contains("--from and --to"), "{text}");
}

/// CPU samples of two functions of a process, and of another process that may be missing.
fn sampled(hz: u64, hot: u64, others: u64, name: &str) -> Trace {
    let hz_text = hz.to_string();
    let mut b = Builder::with(Registry::default(), &[("sources", "profile,offcpu"), ("sample_hz", &hz_text)]);
    b.task(10, 10, "app").task(20, 20, name);
    b.row("kernel_symbol", &[("addr", V::N(4096)), ("name", V::T("hot")), ("type", V::N(u64::from(b't')))]);
    b.row("kernel_symbol", &[("addr", V::N(8192)), ("name", V::T("cold")), ("type", V::N(u64::from(b't')))]);
    for (id, frame) in [(7, 4100), (8, 8200)] {
        let fields = [("ts_ns", V::N(T0)), ("stack_id", V::N(id)), ("space", V::N(0)), ("frames", V::L(&[frame]))];
        b.row("stack", &fields);
    }
    let mut random = Random(hz + hot);
    for i in 0..6 * hz {
        let ts = T0 + i * S / hz + 1;
        let (tid, stack) =
            if random.below(100) < others { (20, 8) } else { (10, 7 + u64::from(random.below(100) >= hot)) };
        let who = [("tid", tid), ("pid", tid), ("cgroup_id", 100)];
        b.event(0, "cpu_sample", ts, &[&who[..], &[("kernel_stack_id", stack)]].concat());
    }
    // One wait that outlasts all, and waits of 4 ms.
    let off = |b: &mut Builder, ts: u64, wait: u64, stack: u64| {
        let fields = [("tid", 10), ("pid", 10), ("wait_ns", wait), ("prev_state", 1), ("count", 1), ("cgroup_id", 100)];
        b.event(1, "offcpu_wait", ts, &[&fields[..], &[("kernel_stack_id", stack)]].concat());
    };
    for i in 1..500 {
        off(&mut b, T0 + i * 12 * MS, 4 * MS, 8);
    }
    off(&mut b, T0 + 6 * S - MS, hot * 60 * MS, 7);
    b.trace()
}

#[test]
fn stacks_and_processes_come_and_go() {
    let (before, after) = (sampled(100, 20, 30, "old"), sampled(200, 60, 30, "new"));
    let diff = compare(&before, &after, By::Time);
    let json = diff.json();
    let rows = |what: &str, by: &str| table(&json, what, by)["rows"].as_array().unwrap().clone();
    let named = |rows: &[Value], name: &str| rows.iter().find(|r| r["name"] == name).cloned().unwrap_or_default();
    let processes = rows("CPU samples", "process");
    let (old, new) = (named(&processes, "old"), named(&processes, "new"));
    assert_eq!((&old["status"], &new["status"]), (&"gone".into(), &"new".into()));
    assert!(is_change(&old) && is_change(&new) && new["percent"].is_null());
    // Twice as many samples a second are no more time.
    assert!(!is_change(&table(&json, "CPU samples", "process")["total"]));
    assert!((new["after"].as_f64().unwrap() - 30.0).abs() < 6.0, "{new}");
    let stacks = rows("CPU samples", "stack");
    let hot = named(&stacks, "app: hot_[k]");
    assert!(is_change(&hot) && (100.0..400.0).contains(&hot["percent"].as_f64().unwrap()), "{stacks:?}");
    assert_eq!(hot["frames"], serde_json::json!(["app", "hot_[k]"]));
    // Of a single wait nothing can be told, however many stretches it lasts.
    let off = rows("time off the CPU", "stack");
    let wait = named(&off, "app: hot_[k]");
    let before = wait["before"].as_f64().unwrap() / MS as f64;
    assert!(wait["verdict"] == "too few to tell" && (before - 200.0).abs() < 0.1, "{off:?}");
    let text = diff.text(10, None);
    assert!(
        text.contains("# sampled 100 times a second before, 200 after: samples after are told as at 100"),
        "{text}"
    );

    let svg = String::from_utf8(diff.svg(Stacks::Cpu).unwrap().unwrap()).unwrap();
    assert!(svg.contains("hot (") && svg.contains("a.bpr to b.bpr") && !svg.contains(">old<"));
    assert!(diff.svg(Stacks::OffCpu).unwrap().is_ok());
    assert!(compare(&LOAD.trace(), &LOAD.trace(), By::Time).svg(Stacks::Cpu).is_none());
}

#[test]
fn names_are_no_markup_and_move_no_cursor() {
    let evil = "</script><b>\u{1b}[2J";
    let diff = compare(&sampled(100, 20, 30, evil), &sampled(100, 60, 30, "new"), By::Samples);
    let html = String::from_utf8(diff.html().unwrap()).unwrap();
    assert!(!html.contains("<b>") && html.contains("Content-Security-Policy") && !html.contains("http://"));
    let text = diff.text(10, None);
    assert!(!text.contains('\u{1b}') && text.contains("</script><b>\\u{1b}[2J"), "{text}");
}

#[test]
fn what_both_lack_cannot_be_compared() {
    let of = |source| Builder::with(Registry::default(), &[("sources", source)]).trace();
    let read = |trace: &Trace| {
        let meta = Meta::load(trace).unwrap();
        Side::read(trace, &meta, &Filter::everything(&meta), "x.bpr", None, &|_, _| {})
    };
    let (sched, block) = (read(&of("sched")).unwrap(), read(&of("block")).unwrap());
    let error = Diff::new(sched, block, By::Time, None).err().unwrap().to_string();
    assert_eq!(error, "nothing can be compared: x.bpr has sched, x.bpr has block; record both with the same -e");
    let error = read(&of("malloc")).err().unwrap().to_string();
    assert!(error.starts_with("the trace has none of the sources `sched`, `block`"), "{error}");
}
