//! Whatever bytes a file has, reading it ends in rows, reports or an error, never in a panic, and what is recovered is whole.
//!
//! Files of testdata are changed at random, a fixed number of rounds from a fixed start: bytes as they are, payloads with their
//! checksums made right again, values of all columns. It needs no minute and no fuzzer, so it is a plain test, and looks at memory;
//! what finds its way by what code it reaches is `scripts/fuzz`, and what is done with a file is the same here. What once broke something is in `testdata/broken` for ever.

#[path = "../../../format-spec/tests/common/mod.rs"]
mod builder;
mod bytes;
mod model;
mod values;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use bpfrec_format::Segment;
use bpfrec_fuzz::{block, everything, read_as, recover};
use builder::Random;
use model::Model;

/// Rounds of each way to change a file when this runs as a test.
const ROUNDS: u64 = 60;
/// What all of it may take, KiB: the budget of one block, ten times over, for as many threads, and what the reports gather.
const MEMORY_KIB: u64 = 1536 << 10;

fn testdata(part: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(part);
    let mut all: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().map(|e| e.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|e| e == "bpr"));
    all.sort();
    all
}

/// Small traces to begin with: the beginning of each real one, and one with one of everything.
fn seeds() -> Vec<Model> {
    let mut seeds: Vec<Model> = testdata("v1").iter().map(|path| Model::of_file(path)).collect();
    assert!(seeds.len() >= 6);
    seeds.push(Model::of_bytes(&builder::trace(builder::TRACE_ID)[1]));
    seeds
}

/// Reads the file in the ways of the targets, one in five with all reports at once; says what broke.
fn run(bytes: &[u8], random: &mut Random) -> Result<(), String> {
    /// Where the last panic was, and what it said.
    static PANIC: Mutex<String> = Mutex::new(String::new());
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            if let Ok(mut said) = PANIC.lock() {
                *said = info.to_string();
            }
        }));
    });
    let (all, choice) = (random.next(5) == 0, random.next(u64::MAX));
    let result = catch_unwind(AssertUnwindSafe(|| {
        block(bytes);
        recover(bytes);
        match Segment::open(Box::new(bytes.to_vec())) {
            Ok(segment) if all => everything(segment),
            _ => read_as(bytes.to_vec(), choice),
        }
    }));
    result.map_err(|_| PANIC.lock().map(|said| said.clone()).unwrap_or_default())
}

#[test]
fn no_bytes_break_it() {
    let seeds = seeds();
    let originals: Vec<Vec<u8>> = seeds.iter().map(Model::bytes).collect();
    let (start, mut broken) = (Instant::now(), BTreeMap::new());
    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        let mut random = Random(0x9e37_79b9_7f4a_7c15u64.wrapping_add(round * 2 + 1) | 1);
        (0..8).for_each(|_| {
            random.next(2);
        });
        let number = random.next(seeds.len() as u64) as usize;
        let inputs = [
            bytes::changed(&originals[number], &mut random),
            bytes::with_changed_payloads(&originals[number], &mut random),
            values::changed(&seeds[number], &mut random).bytes(),
        ];
        for input in inputs {
            let begun = Instant::now();
            if let Err(why) = run(&input, &mut random) {
                keep(&input, &why);
                broken.entry(why).or_insert(round);
            }
            slowest = slowest.max(begun.elapsed());
        }
    }
    println!("{ROUNDS} rounds of 3 files in {:?}, the slowest file took {slowest:?}", start.elapsed());
    assert!(broken.is_empty(), "{} ways to break it, kept in target/fuzz: {broken:#?}", broken.len());
    let high = high_water_kib();
    assert!(high < MEMORY_KIB, "{high} KiB were in use, at most {MEMORY_KIB} are expected");
}

/// The largest set of pages that this process had.
fn high_water_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Files that once broke something, and those that are whole.
#[test]
fn what_once_broke_it() {
    let mut random = Random(1);
    for path in testdata("broken").into_iter().chain(testdata("v1").into_iter().filter(|path| path.is_file())) {
        let bytes = std::fs::read(&path).unwrap();
        run(&bytes, &mut random).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    }
}

/// Keeps a file that breaks something.
fn keep(input: &[u8], why: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz");
    std::fs::create_dir_all(&dir).unwrap();
    let name = format!("{:08x}.bpr", crc32c::crc32c(why.as_bytes()));
    println!("{name}: {why}");
    if !dir.join(&name).exists() {
        std::fs::write(dir.join(name), input).unwrap();
    }
}
