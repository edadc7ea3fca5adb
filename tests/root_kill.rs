//! Needs root: a recorder that dies at any moment leaves a trace of all that is older than a second, and nothing on the host.
#![cfg(all(feature = "record", target_os = "linux"))]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bpfrec_format::Trace;
use common::diary::{Diary, missing};
use common::host::{assert_gone, held_by, pins, waited_ns};
use common::*;
use rustix::process::Signal;

/// How old at the most what a kill costs is, beside the time that the recorder waited for a CPU.
const NEWEST_NS: u64 = 1_000_000_000;
/// Recorders at once.
const OPTIONS: [&[&str]; 5] =
    [&[], &["-e", "sched"], &["-e", "sched,offcpu"], &["-e", "sched", "--rotate-size", "1M"], &["-e", "sched,profile"]];

/// A number of the environment, to repeat what failed or to go on for longer: docs/reliability.md.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text} is no number")))
}

/// A recorder that is going to be killed.
struct Victim {
    recording: Recording,
    trace: PathBuf,
    at: Instant,
    lived_ms: u64,
    waited_ns: u64,
}

/// One that is dead.
struct Dead {
    trace: PathBuf,
    lived_ms: u64,
    killed_ns: u64,
    waited_ns: u64,
}

impl Victim {
    fn start(trace: PathBuf, temp: &Path, options: &[&str], lives_ms: u64) -> Victim {
        let child = Command::new(BPFREC)
            .args(["record", "-q", "-d", "60s", "-o"])
            .arg(&trace)
            .args(options)
            .env("TMPDIR", temp)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Victim { recording: Recording(child), trace, at: Instant::now(), lived_ms: lives_ms, waited_ns: 0 }
    }

    /// Waits until it records; from then on it lives.
    fn begun(&mut self) {
        let is_written = |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.len() > 0);
        wait_until("the trace has begun", Duration::from_secs(30), || {
            assert_eq!(self.recording.0.try_wait().unwrap(), None, "{}", self.trace.display());
            match std::fs::read_dir(&self.trace) {
                Ok(mut segments) => segments.any(|segment| is_written(&segment.unwrap().path())),
                Err(_) => is_written(&self.trace),
            }
        });
        self.at = Instant::now() + Duration::from_millis(self.lived_ms);
        self.waited_ns = waited_ns(self.recording.0.id());
    }

    /// Kills it, and looks that the kernel has nothing more of it.
    fn kill(mut self) -> Dead {
        std::thread::sleep(self.at.saturating_duration_since(Instant::now()));
        let pid = self.recording.0.id();
        let held = held_by(pid);
        for kind in ["prog_id", "map_id", "link_id"] {
            assert!(held.iter().any(|(k, _)| *k == kind), "no {kind} among what the recorder holds: {held:?}");
        }
        let waited_ns = waited_ns(pid) - self.waited_ns;
        let killed_ns = monotonic_ns();
        self.recording.signal(Signal::KILL);
        self.recording.0.wait().unwrap();
        assert_gone(&held);
        Dead { trace: self.trace.clone(), lived_ms: self.lived_ms, killed_ns, waited_ns }
    }
}

/// Looks that all that the load did is there; returns how many sleeps that were, and the age of the oldest that is not.
fn check(dead: &Dead, diary: &Diary) -> (usize, u64) {
    let trace = Trace::open(&dead.trace).unwrap();
    assert!(!trace.is_complete());
    let start_ns: u64 = trace.segments[0].1.item("start_mono_ns").unwrap().parse().unwrap();
    let lost: u64 = trace.segments.iter().map(|(_, segment)| segment.lost()).sum();
    let (all, missing) = missing(&diary.sleeps(), &trace, (start_ns, dead.killed_ns));
    let age = |after: u64| dead.killed_ns - after;
    let oldest = missing.iter().map(|(_, after)| age(*after)).max().unwrap_or(0);
    let old = missing.iter().filter(|(_, after)| age(*after) > NEWEST_NS + dead.waited_ns).count() as u64;
    assert!(
        old <= lost,
        "{}, killed after {} ms: of {all} sleeps {} are missing, {old} of them for over a second; the oldest is {} ms old, {lost} \
         were lost, and the recorder waited {} ms for a CPU",
        dead.trace.display(),
        dead.lived_ms,
        missing.len(),
        oldest / 1_000_000,
        dead.waited_ns / 1_000_000
    );
    (all, oldest)
}

#[test]
fn root_what_is_older_than_a_second_survives_a_kill() {
    let Some(_alone) = alone_as_root("kill -9") else { return };
    let scratch = Scratch::new();
    let (kills, seed) = (number("BPFREC_KILLS", 100), number("BPFREC_SEED", monotonic_ns() / 1000 % 1_000_000));
    println!("BPFREC_KILLS={kills} BPFREC_SEED={seed}");
    let mut random = seed;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let (temp, before) = (scratch.path("temp"), pins());
    std::fs::create_dir(&temp).unwrap();
    let mut ages = Vec::new();
    let mut sleeps = 0;
    for round in 0..kills.div_ceil(OPTIONS.len() as u64) {
        let folder = scratch.path(&format!("round-{round}"));
        std::fs::create_dir(&folder).unwrap();
        // Under load blocks fill within moments; of an idle machine they are written when they are old.
        let busy = round % 2 == 0;
        let _load = busy.then(|| MixedLoad::start(&scratch, 60));
        let diary = Diary::start(&folder.join("diary"), if busy { 3 } else { 1 }, 60);
        let mut victims: Vec<Victim> = OPTIONS
            .iter()
            .enumerate()
            .map(|(i, options)| {
                let name = if options.contains(&"--rotate-size") { format!("{i}") } else { format!("{i}.bpr") };
                Victim::start(folder.join(name), &temp, options, 1200 + next(1300))
            })
            .collect();
        victims.iter_mut().for_each(Victim::begun);
        victims.sort_by_key(|victim| victim.at);
        let dead: Vec<Dead> = victims.into_iter().map(Victim::kill).collect();
        for dead in &dead {
            let (all, oldest) = check(dead, &diary);
            sleeps += all;
            ages.push(oldest / 1_000_000);
        }
        // What is whole can be taken out, all of it.
        let (trace, whole) = (folder.join("0.bpr"), folder.join("whole.bpr"));
        let recovered = bpfrec([Path::new("recover"), &trace, Path::new("-o"), &whole]);
        assert!(matches!(recovered.status.code(), Some(0 | 3)), "round {round}: {:?}", texts(&recovered));
        bpfrec_ok(&["verify", whole.to_str().unwrap()]);
        assert_eq!(info(&whole)["events"], info(&trace)["events"], "round {round}: events after recovery");
        assert_eq!(
            std::fs::read_dir(&folder).unwrap().count(),
            OPTIONS.len() + 2,
            "the recorders left more than traces"
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0, "temporary files are left");
    assert_eq!(pins(), before, "something is pinned");
    ages.sort_unstable();
    let middle = ages[ages.len() / 2];
    println!(
        "{} kills, {sleeps} sleeps; the oldest that is missing is {middle} ms old in the middle, {:?} at most",
        ages.len(),
        ages.last()
    );
    assert!(sleeps > 200 * ages.len(), "{sleeps} sleeps");
}
