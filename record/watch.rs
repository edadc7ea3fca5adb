//! The thread that the kernel's records wake: it opens a binary within a moment of its first mapping, for its process
//! may live a few milliseconds only. Idle it costs nothing.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

use crate::modules::Modules;
use crate::perf_ring::PerfRing;
use crate::seen::{News, Shared};

/// Longest pause after records with nothing new: processes that start all the time, all of the same few programs, wake
/// us 20 times a second and not at each start. A wakeup costs more than what a dozen of them tell.
const LONGEST_PAUSE: Duration = Duration::from_millis(48);
/// Records after a pause, a few tens of KiB of a ring of 256, after which it gets shorter.
const MANY: usize = 400;
/// After such a time without records the next one is looked at at once.
const QUIET: Duration = Duration::from_millis(50);
/// The first such pause.
const FIRST_PAUSE: Duration = Duration::from_micros(250);
/// Mark of the descriptor that ends the thread.
const STOP: u64 = u64::MAX;
/// Mark of what cannot wait until a pause is over.
const URGENT: u64 = STOP - 1;

/// Room for what a wait tells.
const NOTHING: epoll::Event = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };

/// The thread.
pub struct Watch {
    stop: OwnedFd,
    epoll: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts it.
    pub fn start(seen: Shared) -> Result<Watch> {
        let create = || epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll");
        let (epoll, urgent) = (create()?, create()?);
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("eventfd")?;
        let on = epoll::EventFlags::IN;
        epoll::add(&urgent, &stop, epoll::EventData::new_u64(STOP), on).context("epoll")?;
        if let Some(fd) = seen.lock().modules.as_ref().and_then(Modules::fd) {
            epoll::add(&urgent, fd, epoll::EventData::new_u64(0), on | epoll::EventFlags::ET).context("epoll")?;
        }
        epoll::add(&epoll, &urgent, epoll::EventData::new_u64(URGENT), on).context("epoll")?;
        for ring in seen.lock().sideband.iter().flat_map(|s| s.rings.values()) {
            add(&epoll, ring)?;
        }
        let epoll = Arc::new(epoll);
        let shared = Arc::clone(&epoll);
        let thread =
            std::thread::Builder::new().name("bpfrec-watch".into()).spawn(move || watch(&shared, &urgent, &seen))?;
        Ok(Watch { stop, epoll, thread: Some(thread) })
    }

    /// Records in this ring wake the thread too. It forgets a ring that is closed.
    pub fn add(&self, ring: &PerfRing) -> Result<()> {
        add(&self.epoll, ring)
    }

    /// Ends the thread; it is not waited for when it hangs in a file system that does not answer.
    pub fn stop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        let Some(thread) = self.thread.take() else { return };
        for _ in 0..200 {
            if thread.is_finished() {
                let _ = thread.join();
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Edge-triggered: who drains a ring does not say so to the event.
fn add(epoll: &OwnedFd, ring: &PerfRing) -> Result<()> {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(epoll, ring, epoll::EventData::new_u64(0), flags).context("epoll")
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits for `urgent` at most so long; whether the thread must end.
fn is_stopped(urgent: &OwnedFd, limit: Duration) -> bool {
    let mut events = [NOTHING; 2];
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    let count = epoll::wait(urgent, &mut events, Some(&limit)).unwrap_or(0);
    events[..count].iter().any(|e| e.data.u64() == STOP)
}

fn watch(epoll: &OwnedFd, urgent: &OwnedFd, seen: &Shared) {
    let mut pause = Duration::ZERO;
    loop {
        let mut events = [NOTHING; 16];
        let before = Instant::now();
        let woken = epoll::wait(epoll, &mut events, None);
        if before.elapsed() >= QUIET {
            pause = Duration::ZERO;
        }
        match woken {
            Ok(count) if events[..count].iter().any(|e| e.data.u64() == URGENT) => {
                if is_stopped(urgent, Duration::ZERO) {
                    return;
                }
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        pause = match seen.lock().read() {
            News { binaries: true, .. } => Duration::ZERO,
            News { records: MANY.., .. } => pause / 2,
            News { .. } => (2 * pause).clamp(FIRST_PAUSE, LONGEST_PAUSE),
        };
        if !pause.is_zero() && is_stopped(urgent, pause) {
            return;
        }
    }
}
