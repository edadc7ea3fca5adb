//! The report `memleak` and the tables `alloc` and `free`, of traces whose leaks are known.

mod common;

use bpfrec_analyze::{Filter, Meta};
use bpfrec_format::events::call;
use bpfrec_format::{Source, Trace};
use common::{Builder, S, T0, V, analyze, json, loss, report, report_of};
use serde_json::{Value, json};

const MS: u64 = 1_000_000;
const APP: (u64, u64) = (60, 60);
const WORKER: (u64, u64) = (60, 61);

/// A library and the kernel, with stacks 1 to 3 of the one and 7 and 8 of the other.
fn with_stacks() -> Builder {
    let mut b = Builder::of_memory();
    b.task(60, 60, "app").task(61, 60, "worker").task(70, 70, "other");
    b.row("cgroup", &[("ts_ns", V::N(T0)), ("cgroup_id", V::N(10)), ("path", V::T("/app.slice"))]);
    for (addr, name) in [(0xffff_0000u64, "do_syscall"), (0xffff_1000, "sock_alloc")] {
        b.row("kernel_symbol", &[("addr", V::N(addr)), ("type", V::N(u64::from(b't'))), ("name", V::T(name))]);
    }
    for pid in [60, 70] {
        let place =
            [("start_addr", V::N(0x40_0000)), ("len_bytes", V::N(0x10000)), ("path", V::T("/usr/lib/libleak.so"))];
        b.row("mapping", &[&[("ts_ns", V::N(T0)), ("pid", V::N(pid))], &place[..]].concat());
    }
    let stacks: [(u64, u64, u64, &[u64]); 6] = [
        (1, 1, 60, &[0x40_0100, 0x40_0f01]),
        (2, 1, 60, &[0x40_0200, 0x40_0f01]),
        (3, 1, 60, &[0x40_0300, 0x40_0f01]),
        // The same functions as stack 1, in another process.
        (4, 1, 70, &[0x40_0100, 0x40_0f01]),
        (7, 0, 0, &[0xffff_1010, 0xffff_0021]),
        (8, 0, 0, &[0xffff_0030]),
    ];
    for (id, space, pid, frames) in stacks {
        let fields = [("ts_ns", V::N(T0)), ("stack_id", V::N(id)), ("space", V::N(space)), ("pid", V::N(pid))];
        b.row("stack", &[&fields[..], &[("frames", V::L(frames))]].concat());
    }
    b
}

/// Stack 1: 64 bytes each 10 ms for 10 s, a leak. Stack 2: 4096 bytes at once. Stack 3: comes and goes, freed by another
/// thread every other time.
fn leaky() -> Builder {
    let mut b = with_stacks();
    for i in 0..1000 {
        let ts = T0 + i * 10 * MS;
        b.malloc(ts, APP, call::MALLOC, 0x10_0000 + i * 64, 64, 1);
        b.malloc(ts + 1, APP, call::MALLOC, 0x80, 1000, 3);
        b.free(ts + 2 * MS, if i % 2 == 0 { APP } else { WORKER }, call::FREE, 0x80, 0);
        if i % 100 == 0 {
            b.flush();
        }
    }
    b.malloc(T0 + 5, APP, call::CALLOC, 0x90, 4096, 2);
    b
}

fn of(trace: &Trace, flags: &[&'static str], from: Option<&str>, to: Option<&str>) -> Value {
    let filter = Filter::new(&Meta::load(trace).unwrap(), from, to, None, None).unwrap();
    serde_json::from_str(&report_of(trace, "memleak", flags, true, &filter).output).unwrap()
}

/// (bytes, count) of the whole.
fn outstanding(value: &Value) -> (u64, u64) {
    let o = &value["groups"][0]["outstanding"];
    (o["bytes"].as_u64().unwrap(), o["count"].as_u64().unwrap())
}

#[test]
fn known_leaks() {
    let trace = leaky().trace();
    let all = json(&trace, "memleak", &["older=0"]);
    assert_eq!(outstanding(&all), (64_000 + 4096, 1001));
    let stacks = all["groups"][0]["stacks"].as_array().unwrap();
    let row = |i: usize| {
        let s = &stacks[i];
        let names: Vec<&str> = s["stack"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
        (names[0].to_owned(), s["bytes"].as_u64().unwrap(), s["verdict"].as_str().unwrap().to_owned())
    };
    assert_eq!(row(0), ("[libleak.so+0x100]".into(), 64_000, "grows steadily".into()));
    assert_eq!(row(1), ("[libleak.so+0x200]".into(), 4096, "one-time".into()));
    assert_eq!(row(2), ("[libleak.so+0x300]".into(), 0, "churns".into()));
    let slope = stacks[0]["growth_bytes_per_s"].as_f64().unwrap();
    assert!((slope - 6400.0).abs() < 320.0, "{slope}");
    let churn = &stacks[2];
    assert_eq!((&churn["allocated_count"], &churn["freed_bytes"]), (&json!(1000), &json!(1_000_000)));
    assert_eq!(churn["freed_by_other_thread"], 500);
    assert_eq!(all["frees"]["user"]["known"], 1000);
    // By default what is younger than 500 ms is not told: 50 allocations, and the one that is 500 ms old to the ns is.
    let by_age = json(&trace, "memleak", &[]);
    let hidden = 1001 - outstanding(&by_age).1;
    assert!((49..=51).contains(&hidden), "{hidden}");
    assert_eq!(outstanding(&json(&trace, "memleak", &["older=0", "newer=1s"])).1, 100);
    assert_eq!(outstanding(&json(&trace, "memleak", &["older=9900"])).1 / 10, 1);
    assert_eq!(outstanding(&json(&trace, "memleak", &["older=0", "min-size=65"])), (4096, 1));
    assert_eq!(outstanding(&json(&trace, "memleak", &["older=0", "max-size=64"])), (64_000, 1000));
}

#[test]
fn text_as_bcc_prints_it() {
    let mut b = with_stacks();
    for i in 0..3 {
        b.malloc(T0 + i, APP, call::MALLOC, 0x100 + i * 32, 20 + i, 1);
    }
    b.malloc(T0 + 9, APP, call::MALLOC, 0x200, 100, 2).malloc(T0 + 9, APP, call::MALLOC, 0x300, 1, 99);
    b.malloc(T0 + 10 * S, APP, call::MALLOC, 0x400, 5, 1);
    let trace = b.trace();
    let bcc = "[22:13:30] Top 10 stacks with outstanding allocations:
\t100 bytes in 1 allocations from stack
\t\t[libleak.so+0x200]
\t\t[libleak.so+0xf00]
\t63 bytes in 3 allocations from stack
\t\t[libleak.so+0x100]
\t\t[libleak.so+0xf00]
\t1 bytes in 1 allocations from stack
\t\t[Missed User Stack]
";
    let text = report(&trace, "memleak", &["user"], false).output;
    assert!(text.starts_with(bcc), "{text}");
    assert!(text.contains("# outstanding, processes: 164 bytes in 5 allocations\n"), "{text}");
    assert!(text.contains("#   not shown: 5 bytes in 1 allocations, by age (--older 500.00 ms)\n"), "{text}");
    let age = "Ages of outstanding allocations:\n     msecs               : count    distribution\n";
    assert!(text.contains(age) && text.contains("      8192 -> 16383      : 5        |****"), "{text}");
    let line = |text: &str, needle: &str| text.lines().find(|l| l.contains(needle)).unwrap_or_default().to_owned();
    assert!(line(&text, "#1 ").contains("one-time") && line(&text, "#1 ").contains("10.000 s"), "{text}");

    let top = report(&trace, "memleak", &["user", "combined-only", "top=1"], false).output;
    let one = "[22:13:30] Top 1 stacks with outstanding allocations:\n\t100 bytes in 1 allocations from stack\n";
    assert!(top.starts_with(one) && !top.contains("Growth"), "{top}");
    let by_count = report(&trace, "memleak", &["user", "combined-only", "sort=count"], false).output;
    assert!(by_count.contains("allocations:\n\t68 bytes in 4 allocations from stack\n"), "{by_count}");
    let addresses = report(&trace, "memleak", &["user", "show-allocs"], false).output;
    let expected = "allocations:\n\taddr = 300 size = 1\n\taddr = 100 size = 20\n\taddr = 120 size = 21\n";
    assert!(addresses.contains(expected), "{addresses}");
}

#[test]
fn what_was_outstanding_then() {
    let trace = leaky().trace();
    // Allocated from 2 s on, and still there at 3 s: 100 of the leak; a churner is there at any full 10 ms.
    let part = of(&trace, &["older=0"], Some("2s"), Some("2999ms"));
    assert_eq!(outstanding(&part), (100 * 64, 100));
    let part = of(&trace, &["older=0"], Some("2s"), Some("3001ms"));
    assert_eq!(outstanding(&part), (101 * 64 + 1000, 102));
    let part = of(&trace, &[], Some("2s"), Some("3s"));
    assert!((50..=51).contains(&outstanding(&part).1));
}

#[test]
fn a_program_that_ended_has_its_leaks() {
    let mut b = with_stacks();
    b.row(
        "sched_fork",
        &[
            ("ts_ns", V::N(T0 + S)),
            ("tid", V::N(80)),
            ("pid", V::N(80)),
            ("start_ns", V::N(T0 + S)),
            ("comm", V::T("prog")),
        ],
    );
    b.row(
        "sched_exec",
        &[
            ("ts_ns", V::N(T0 + S + 1)),
            ("tid", V::N(80)),
            ("pid", V::N(80)),
            ("start_ns", V::N(T0 + S)),
            ("comm", V::T("prog")),
        ],
    );
    for i in 0..10 {
        b.malloc(T0 + S + 2 + i * MS, (80, 80), call::MALLOC, 0x100 + 16 * i, 16, 5);
    }
    b.free(T0 + S + 20 * MS, (80, 80), call::FREE, 0x100, 0);
    b.row(
        "sched_exit",
        &[("ts_ns", V::N(T0 + S + 21 * MS)), ("tid", V::N(80)), ("pid", V::N(80)), ("start_ns", V::N(T0 + S))],
    );
    // The same pid, later, is somebody else.
    b.row(
        "sched_fork",
        &[("ts_ns", V::N(T0 + 2 * S)), ("tid", V::N(80)), ("pid", V::N(80)), ("start_ns", V::N(T0 + 2 * S))],
    );
    b.free(T0 + 2 * S + 1, (80, 80), call::FREE, 0x110, 0);
    let trace = b.trace();
    // All are younger than 500 ms, and can be freed no more.
    let all = json(&trace, "memleak", &["user"]);
    let o = &all["groups"][0]["outstanding"];
    assert_eq!((&o["bytes"], &o["count"], &o["ended_bytes"]), (&json!(144), &json!(9), &json!(144)));
    assert_eq!((&all["frees"]["user"]["known"], &all["frees"]["user"]["inherited"]), (&json!(1), &json!(1)));
    let text = report(&trace, "memleak", &["user"], false).output;
    assert!(text.contains("\t144 bytes in 9 allocations from stack (process ended)\n"), "{text}");
    assert!(text.contains("#   of processes that have ended since: 144 bytes in 9 allocations\n"), "{text}");
    assert_eq!(outstanding(&json(&trace, "memleak", &["user", "running"])), (0, 0));
    assert_eq!(outstanding(&json(&trace, "memleak", &["user", "older=15"])).1, 5);
    // Before it ended, it had not.
    let then = of(&trace, &["user", "older=0"], None, Some("1006ms"));
    assert_eq!((outstanding(&then), &then["groups"][0]["outstanding"]["ended_count"]), ((96, 6), &json!(0)));
}

#[test]
fn a_loss_makes_uncertain_not_wrong() {
    let mut b = with_stacks();
    b.malloc(T0, APP, call::MALLOC, 0x100, 10, 1).malloc(T0 + 3 * S, APP, call::MALLOC, 0x200, 100, 1);
    b.malloc(T0 + 3 * S, APP, call::MALLOC, 0x300, 7, 2).event(0, "kmem_alloc", T0, &[("addr", 4096), ("bytes", 5)]);
    b.malloc(T0 + 9 * S, APP, call::MALLOC, 0x400, 7, 3);
    loss(&mut b, Source::Malloc, T0 + S, T0 + 2 * S, 3);
    let trace = b.trace();
    let all = json(&trace, "memleak", &["older=0"]);
    assert_eq!(outstanding(&all), (124, 4));
    assert_eq!(all["groups"][0]["outstanding"]["uncertain_bytes"], 10);
    assert_eq!((&all["groups"][1]["outstanding"]["uncertain_bytes"], &all["lost"]), (&json!(0), &json!(3)));
    let text = report(&trace, "memleak", &["user"], false).output;
    assert!(text.contains("\t110 bytes in 2 allocations from stack (10 bytes in 1 allocations uncertain)\n"), "{text}");
    assert!(text.contains("\n#   uncertain: 10 bytes in 1 allocations: events were lost"), "{text}");
}

#[test]
fn kernel_memory_by_kind_process_and_cgroup() {
    let mut b = with_stacks();
    let kernel = |b: &mut Builder, name: &str, pid: u64, addr: u64, bytes: u64, stack: u64| {
        let fields = [
            ("tid", pid),
            ("pid", pid),
            ("addr", addr),
            ("bytes", bytes),
            ("kernel_stack_id", stack),
            ("cgroup_id", pid - 50),
        ];
        b.event(1, name, T0 + addr, &fields);
    };
    for i in 1..=4 {
        kernel(&mut b, "kmem_alloc", if i < 4 { 60 } else { 70 }, 4096 * i, 192, 7);
    }
    kernel(&mut b, "page_alloc", 60, 32, 32768, 8);
    kernel(&mut b, "percpu_alloc", 60, 4096, 64, 8);
    // Half of the pages come back, from wherever.
    b.event(0, "page_free", T0 + S, &[("addr", 36), ("bytes", 16384), ("pid", 999)]);
    b.event(0, "kmem_free", T0 + S, &[("addr", 77_000), ("pid", 999)]);
    b.malloc(T0 + 2 * S, (70, 70), call::MALLOC, 0x100, 1, 4).malloc(T0 + 2 * S, APP, call::MALLOC, 0x100, 1, 1);
    let trace = b.trace();
    let text = report(&trace, "memleak", &["kernel"], false).output;
    let bcc = "[22:13:22] Top 10 stacks with outstanding allocations:
\t16384 bytes in 1 allocations from stack
\t\tdo_syscall+0x30 [kernel]
\t768 bytes in 4 allocations from stack
\t\tsock_alloc+0x10 [kernel]
\t\tdo_syscall+0x20 [kernel]
\t64 bytes in 1 allocations from stack
";
    assert!(text.starts_with(bcc), "{text}");
    assert!(
        text.contains("#   by kind, in bytes: slab 768, pages 16,384, percpu 64; slab objects lie in pages"),
        "{text}"
    );
    assert!(text.contains("# frees, kernel: 1 paired, 1 of memory from before the recording\n"), "{text}");
    // A stack of the same functions is one, whichever process it is of.
    let all = json(&trace, "memleak", &["user", "older=0"]);
    assert_eq!(all["groups"][0]["stacks"].as_array().unwrap().len(), 1);
    assert_eq!(all["groups"][0]["stacks"][0]["count"], 2);
    let by = json(&trace, "memleak", &["pids", "older=0"]);
    let keys: Vec<String> = by["groups"].as_array().unwrap().iter().map(|g| g["key"].to_string()).collect();
    let key = |side: &str, pid: u64, comm: &str| json!({"side": side, "pid": pid, "comm": comm}).to_string();
    let expected = [("user", 60, "app"), ("user", 70, "other"), ("kernel", 60, "app"), ("kernel", 70, "other")];
    assert_eq!(keys, expected.map(|(side, pid, comm)| key(side, pid, comm)));
    let text = report(&trace, "memleak", &["per-cgroup", "kernel", "combined-only"], false).output;
    assert!(
        text.contains("\ncgroup = /app.slice\n[22:13:22] Top 10") && text.contains("\ncgroup = cgroup 20\n"),
        "{text}"
    );
    let both = report(&trace, "memleak", &["older=0"], false).output;
    assert!(both.starts_with("memory of processes\n[22") && both.contains("\nkernel memory\n["), "{both}");
}

/// Estimates of samples lie within the stated error about as often as they say.
#[test]
fn samples_estimate_totals_within_the_error() {
    let mut x = 99u64;
    let mut random = || {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 11) as f64 / (1u64 << 53) as f64
    };
    let (mut bytes_in, mut counts_in) = (0, 0);
    const RUNS: usize = 200;
    for run in 0..RUNS {
        let mut b = with_stacks();
        let (mut bytes, mut count) = (0u64, 0u64);
        for i in 0..2000u64 {
            let size = 16 + (random() * 500.0) as u64;
            let freed = i % 4 == 0;
            (bytes, count) = if freed { (bytes, count) } else { (bytes + size, count + 1) };
            // By address, 1 in 16; or by size: the chance that one of the bytes is hit.
            let p = if run % 2 == 0 { 1.0 / 16.0 } else { 1.0 - (-(size as f64) / 4096.0).exp() };
            if random() < p {
                let fields = [("pid", 60), ("tid", 60), ("call", 1), ("addr", 0x1000 + i * 16), ("bytes", size)];
                let weight = [("user_stack_id", 1), ("weight_milli", (1000.0 / p).round() as u64)];
                b.event(0, "malloc_alloc", T0 + i, &[&fields[..], &weight].concat());
                if freed {
                    b.free(T0 + S + i, APP, call::FREE, 0x1000 + i * 16, 0);
                }
            }
        }
        let trace = b.trace();
        let all = json(&trace, "memleak", &["user", "older=0"]);
        let o = &all["groups"][0]["outstanding"];
        let within = |estimate: &str, error: &str, truth: u64| {
            o[estimate].as_u64().unwrap().abs_diff(truth) <= o[error].as_u64().unwrap()
        };
        bytes_in += usize::from(within("bytes", "bytes_error", bytes));
        counts_in += usize::from(within("count", "count_error", count));
        assert_eq!((&all["groups"][0]["estimate"], &all["frees"]["user"]["before_start"]), (&json!(true), &json!(0)));
        if run == 0 {
            let text = report(&trace, "memleak", &["user", "older=0"], false).output;
            assert!(text.contains(" allocations from stack (estimates: +- "), "{text}");
            assert!(
                text.contains("#   estimates: an allocation recorded with a chance of 1/w counts w times"),
                "{text}"
            );
        }
    }
    // 95 % of 200 are 190, give or take 3; an error that is stated too large would hold always.
    for within in [bytes_in, counts_in] {
        assert!((178..=199).contains(&within), "{bytes_in} and {counts_in} of {RUNS}");
    }
}

#[test]
fn what_is_asked_for_must_make_sense() {
    let trace = leaky().trace();
    let meta = Meta::load(&trace).unwrap();
    let kind = bpfrec_analyze::reports::find("memleak").unwrap();
    let refused = |flags: &[(&'static str, &str)]| {
        let flags = bpfrec_analyze::reports::Flags(flags.iter().map(|(f, v)| (*f, (*v).to_owned())).collect());
        (kind.new)(&flags, &Filter::everything(&meta)).err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert!(refused(&[("user", ""), ("kernel", "")]).contains("cannot be used together"));
    assert!(refused(&[("sort", "age")]).contains("--sort takes size or count"));
    assert!(refused(&[("older", "soon")]).contains("is no duration"));
    assert!(refused(&[("min-size", "1k")]).contains("--min-size takes a number"));
    let none = Builder::new().trace();
    let error = bpfrec_analyze::reports::run(
        &none,
        &Meta::load(&none).unwrap(),
        kind,
        &Default::default(),
        &Filter::everything(&meta),
        false,
        &|_, _| {},
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no events of `malloc` or `kmem`: record it with `-e malloc` or `-e kmem`"), "{error}");
}

#[test]
fn analyze_writes_tables_and_drawing() {
    let mut b = leaky();
    b.event(0, "kmem_alloc", T0, &[("addr", 4096), ("bytes", 50_000), ("kernel_stack_id", 7)]);
    b.free(T0 + 11 * S, (70, 70), call::FREE, 0x5000, 0);
    let trace = b.trace();
    let (one, files) = analyze(&trace, 1);
    for threads in [2, 5] {
        let (other, same) = analyze(&trace, threads);
        assert_eq!((&one.text, &one.files), (&other.text, &other.files));
        for (name, bytes) in &files {
            assert!(same[name] == *bytes, "{name} differs with {threads} threads");
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let text = || report(&trace, "memleak", &["pids", "show-allocs"], false).output;
        assert_eq!(text(), pool.install(text));
    }
    // One place for what is known of an allocation: its kinds have no tables of their own.
    assert!(!files.keys().any(|name| name.contains("malloc_") || name.contains("kmem_")));
    let rows = |name: &str| {
        let bytes: Vec<u8> = files[&format!("parquet/{name}.parquet")].clone();
        let file = std::env::temp_dir().join(format!("bpfrec-memleak-{}-{name}", std::process::id()));
        std::fs::write(&file, bytes).unwrap();
        let reader =
            parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&file).unwrap());
        let n: usize = reader.unwrap().build().unwrap().map(|batch| batch.unwrap().num_rows()).sum();
        std::fs::remove_file(file).unwrap();
        n
    };
    assert_eq!((rows("alloc"), rows("free")), (2002, 1001));
    let text = String::from_utf8_lossy(&files["memleak.txt"]);
    assert!(text.contains("Top 20 stacks with outstanding") && text.contains("kernel memory"), "{text}");
    assert!(String::from_utf8_lossy(&files["report.txt"]).contains(&*text));
    let svg = String::from_utf8_lossy(&files["memleak.svg"]);
    assert!(
        svg.contains("Outstanding memory of box") && svg.contains("bytes") && svg.contains("kernel: slab"),
        "{svg}"
    );
    assert!(String::from_utf8_lossy(&files["views.sql"]).contains("VIEW leaks AS"));
    if let Some(dir) = std::env::var_os("BPFREC_KEEP") {
        for (name, bytes) in &files {
            let path = std::path::Path::new(&dir).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}
