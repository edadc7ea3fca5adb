//! The writer on a disk that fails: at every single call, once or from then on, and when the power goes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, io};

use bpfrec_format::writer::Chunk;
use bpfrec_format::{BlockType, EndReason, Registry, Segment, events};

use super::*;
use crate::output::Pace;
use crate::queue::queue;
use crate::storage::Storage;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Only some of the bytes are taken.
    Short,
    /// A signal came.
    Interrupted,
    /// The output would have to wait.
    Busy,
    /// The disk is broken, after some of the bytes.
    Broken,
    /// The disk is full, after some of the bytes.
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Write,
    Allocate,
    WriteBack,
    GoTo,
    Cut,
    Sync,
}

/// Where and how it fails.
#[derive(Clone, Copy, Debug)]
struct Plot {
    fault: Fault,
    at: usize,
    lasts: bool,
}

#[derive(Clone, Default)]
struct Platter {
    bytes: Vec<u8>,
    at: usize,
    /// Bytes that a power cut leaves.
    synced: usize,
}

/// All files of a run, and what happened to them.
#[derive(Default)]
struct State {
    plot: Option<Plot>,
    calls: usize,
    files: BTreeMap<PathBuf, Platter>,
    /// The call that failed first, and the files as they were then.
    failed: Option<(Call, BTreeMap<PathBuf, Platter>)>,
    /// Each state that a power cut could meet, where that is asked for.
    moments: Option<Vec<Platter>>,
}

struct Faulty(Arc<Mutex<State>>, PathBuf);

impl Faulty {
    /// Counts a call; tells whether it fails.
    fn call(&self, call: Call) -> Option<Fault> {
        let mut state = self.0.lock().unwrap();
        state.calls += 1;
        let moment = state.files[&self.1].clone();
        state.moments.iter_mut().for_each(|moments| moments.push(moment.clone()));
        let plot = state.plot.filter(|p| state.calls == p.at || p.lasts && state.calls > p.at)?;
        let fits = match plot.fault {
            Fault::Short | Fault::Busy => call == Call::Write,
            _ => true,
        };
        if fits && state.failed.is_none() {
            state.failed = Some((call, state.files.clone()));
        }
        fits.then_some(plot.fault)
    }

    fn with<T>(&self, change: impl FnOnce(&mut Platter) -> T) -> T {
        change(self.0.lock().unwrap().files.get_mut(&self.1).unwrap())
    }

    fn plain(&self, call: Call, change: impl FnOnce(&mut Platter)) -> io::Result<()> {
        match self.call(call) {
            None => {
                self.with(change);
                Ok(())
            }
            Some(fault) => Err(error(fault)),
        }
    }
}

fn error(fault: Fault) -> io::Error {
    io::Error::from_raw_os_error(match fault {
        Fault::Interrupted => libc::EINTR,
        Fault::Busy => libc::EAGAIN,
        Fault::Full => libc::ENOSPC,
        _ => libc::EIO,
    })
}

impl Storage for Faulty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fault = self.call(Call::Write);
        let taken = match fault {
            None => bytes.len(),
            Some(Fault::Interrupted | Fault::Busy) => 0,
            Some(_) => bytes.len() / 3,
        };
        self.with(|file| {
            let end = file.at + taken;
            file.bytes.resize(end.max(file.bytes.len()), 0);
            file.bytes[file.at..end].copy_from_slice(&bytes[..taken]);
            file.at = end;
        });
        fault.filter(|f| *f != Fault::Short).map_or(Ok(taken), |fault| Err(error(fault)))
    }

    fn wait(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&mut self, _: u64, _: u64) -> io::Result<()> {
        self.plain(Call::Allocate, |_| {})
    }

    fn write_back(&mut self, _: u64, _: u64, _: bool) -> io::Result<()> {
        self.plain(Call::WriteBack, |_| {})
    }

    fn go_to(&mut self, at: u64) -> io::Result<()> {
        self.plain(Call::GoTo, |file| file.at = at as usize)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.plain(Call::Cut, |file| file.bytes.truncate(len as usize))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.plain(Call::Sync, |file| file.synced = file.bytes.len())
    }
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn messages(rotates: bool) -> Vec<Message> {
    let kind = Registry::default().get(events::SCHED_SWITCH).unwrap().clone();
    let mut random = 7u64;
    let mut messages = Vec::new();
    for i in 0..14u64 {
        let mut rows = Vec::new();
        for row in 0..40u64 {
            let begin = rows.len();
            rows.extend((i * 1000 + row).to_ne_bytes());
            rows.resize_with(begin + kind.row_size as usize, || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) as u8
            });
            rows[begin + 8..begin + 10].copy_from_slice(&kind.id.to_ne_bytes());
        }
        let (ts_min_ns, ts_max_ns) = (i * 1000, i * 1000 + 39);
        let rows = vec![(kind.id, rows)];
        messages.push(Message::Chunk(Chunk { stream: i as u32 % 2, rows, ts_min_ns, ts_max_ns, lost_total: 0 }));
        if i % 5 == 4 {
            messages.push(Message::Checkpoint(Vec::new()));
        }
        if rotates && i % 6 == 5 {
            messages.push(Message::Rotate(vec![(BlockType::Clock, Table::new(&meta::kind(meta::CLOCK)))]));
        }
    }
    messages.push(Message::Finish(EndReason::Exit));
    messages
}

/// Writes a small trace; returns how that ended and what is on the disk, segments under their last names.
fn run(plot: Option<Plot>, rotates: bool, moments: bool) -> (Result<Outcome>, State) {
    let name = format!("bpfrec-faults-{}-{rotates}-{moments}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    fs::create_dir(&folder.0).unwrap();
    let state = Arc::new(Mutex::new(State { plot, moments: moments.then(Vec::new), ..State::default() }));
    let files = Arc::clone(&state);
    // Windows of one or two blocks; some are synced at once and some not.
    let pace = Pace { window: 3000, reserve: 600 << 10, sync: Duration::from_micros(if moments { 300 } else { 0 }) };
    let create = move |path: &Path, _: bool| {
        fs::write(path, "").unwrap();
        files.lock().unwrap().files.insert(path.into(), Platter::default());
        Ok(Output::new(Box::new(Faulty(Arc::clone(&files), path.into())), pace))
    };
    let plan = Plan {
        path: if rotates { folder.0.join("segments") } else { folder.0.join("t.bpr") },
        rotates,
        force: false,
        max_bytes: None,
        trace_id: 77,
        items: vec![("host".into(), "h".into())],
        registry: Arc::default(),
    };
    let outcome = Segments::with(plan, Arc::default(), Box::new(create)).and_then(|mut segments| {
        let (sender, receiver) = queue(QUEUE);
        messages(rotates).into_iter().for_each(|message| assert!(sender.put(message).is_ok()));
        drop(sender);
        segments.run(&receiver)
    });
    let mut state = std::mem::take(&mut *state.lock().unwrap());
    // Of what was removed nothing is left.
    state.files.retain(|path, _| path.exists() || path.with_extension("").exists());
    (outcome, state)
}

type Contents = BTreeMap<u64, (u8, Vec<u8>)>;

/// Blocks by their numbers, and the segment; nothing of a file without one.
fn read(bytes: &[u8]) -> (Contents, Option<Segment>) {
    let Ok(segment) = Segment::walk(Box::new(bytes.to_vec())) else { return (Contents::new(), None) };
    let stored = |b| segment.read_stored(b).ok();
    let blocks = segment.blocks.iter().filter_map(|b| Some((b.header.seq, (b.header.block_type, stored(b)?))));
    (blocks.collect(), Some(segment))
}

fn every_call_may_fail(rotates: bool) {
    let (outcome, perfect) = run(None, rotates, false);
    assert_eq!(outcome.unwrap(), Outcome::Whole);
    assert_eq!(perfect.files.len(), if rotates { 3 } else { 1 });
    let bytes = |state: &State| state.files.values().map(|file| file.bytes.clone()).collect::<Vec<_>>();
    assert!(perfect.calls > 40 && bytes(&perfect).iter().all(|file| read(file).1.unwrap().is_complete()));
    let mut ends = BTreeMap::new();
    for fault in [Fault::Short, Fault::Interrupted, Fault::Busy, Fault::Broken, Fault::Full] {
        let is_final = matches!(fault, Fault::Broken | Fault::Full);
        for (at, lasts) in (1..=perfect.calls).flat_map(|at| [(at, false), (at, true)]) {
            if lasts && !is_final {
                continue;
            }
            let plot = Plot { fault, at, lasts };
            let (outcome, state) = run(Some(plot), rotates, false);
            let Some((call, before)) = &state.failed else {
                assert!(!is_final, "{plot:?}: no call failed");
                continue;
            };
            let what = format!("{plot:?}, {call:?}: {outcome:?}");
            // Without a reserve all goes on; what is only begun to be given back after an error is nobody's loss.
            if !is_final || *call == Call::Allocate && outcome.as_ref().is_ok_and(|o| *o == Outcome::Whole) {
                assert_eq!(outcome.unwrap(), Outcome::Whole, "{what}");
                assert_eq!(bytes(&state), bytes(&perfect), "{what}");
                continue;
            }
            match (&outcome, fault) {
                (Ok(Outcome::DiskFull), Fault::Full) | (Err(_), Fault::Broken) => {}
                // Before a recording has begun there is nothing to be whole.
                (Err(error), Fault::Full) => assert!(is_full(error) && state.files.is_empty(), "{what}"),
                _ => panic!("{what}"),
            }
            if outcome.is_err() && state.files.is_empty() {
                continue;
            }
            let mut complete = true;
            for (path, file) in before {
                // The first blocks of a further segment may be all that there was of it, and go with it.
                let Some(now) = state.files.get(path) else { continue };
                let (was, (is, segment)) = (read(&file.bytes).0, read(&now.bytes));
                // The end is written anew, in the place of another one.
                let lost: Vec<_> =
                    was.iter().filter(|(seq, (kind, stored))| is.get(seq) != Some(&(*kind, stored.clone()))).collect();
                let is_end = |kind: u8| [BlockType::Index as u8, BlockType::End as u8].contains(&kind);
                assert!(
                    lost.iter().all(|(_, (kind, _))| is_end(*kind)),
                    "{what}: of {} blocks {} are gone",
                    was.len(),
                    lost.len()
                );
                let segment = segment.unwrap_or_else(|| panic!("{what}: {} is no trace", path.display()));
                assert!(lasts || segment.damage.is_empty(), "{what}: {:?}", segment.damage);
                complete &= segment.is_complete();
            }
            *ends.entry((format!("{fault:?}"), lasts, complete)).or_insert(0) += 1;
        }
    }
    println!("{ends:?}");
    // A disk that fails once lets the file end well, unless that was the end.
    for fault in ["Broken", "Full"] {
        let count = |complete| ends.get(&(fault.to_owned(), false, complete)).copied().unwrap_or(0);
        assert!(count(true) > 3 * count(false) && count(true) > 20, "{fault}: {ends:?}");
    }
}

#[test]
fn every_call_to_the_disk_may_fail() {
    every_call_may_fail(false);
}

#[test]
fn every_call_to_the_disk_may_fail_in_segments() {
    every_call_may_fail(true);
}

#[test]
fn what_was_synced_survives_a_power_cut() {
    let (outcome, state) = run(None, false, true);
    outcome.unwrap();
    let last = state.files.into_values().next().unwrap();
    let (all, _) = read(&last.bytes);
    let mut random = 3u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let (mut unsynced, mut lost) = (0, 0);
    for moment in state.moments.unwrap() {
        for _ in 0..8 {
            // Of what was not synced each page may be there, or zeros, or what another page was to be; and the length any.
            let mut bytes = moment.bytes.clone();
            for page in (moment.synced..bytes.len()).step_by(512) {
                let end = (page + 512).min(bytes.len());
                match next(3) {
                    0 => bytes[page..end].fill(0),
                    1 if page >= 512 => bytes.copy_within(page - 512..end - 512, page),
                    _ => {}
                }
            }
            bytes.truncate(moment.synced + next(bytes.len() - moment.synced + 1));
            let (synced, found) = (read(&moment.bytes[..moment.synced]).0, read(&bytes).0);
            assert!(synced.iter().all(|(seq, block)| found.get(seq) == Some(block)), "{} bytes synced", moment.synced);
            assert!(found.iter().all(|(seq, block)| all.get(seq) == Some(block)), "a block that was never written");
            unsynced += usize::from(moment.bytes.len() > moment.synced);
            lost += usize::from(found.len() < read(&moment.bytes).0.len());
        }
    }
    assert!(unsynced > 50 && lost > 20, "{unsynced} states with something unsynced, {lost} that lost a block");
}
