//! The rings: when they are looked into, and how they are drained.

use std::cell::RefCell;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bpfrec_format::Registry;
use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};
use rustix::event::{Timespec, epoll};

use crate::batches::Batches;
use crate::bpf::SharedMaps;
use crate::drained::Drained;

/// Time between two looks into the rings while they are far from full.
pub const POLL: Duration = Duration::from_millis(200);
/// The same on an idle machine. All that is found then goes to the file at once, so that a second is never reached.
pub const IDLE_POLL: Duration = Duration::from_millis(800);
/// Events at a look below which a machine is idle.
const IDLE: u64 = 1024;

/// Events that are taken from a ring at once.
const BATCH: usize = 1 << 16;

/// The rings and what comes out of them.
pub struct Rings {
    /// One a CPU, so that none can starve the others.
    events: Vec<RingBuffer<'static>>,
    /// Those that have a ring, and the slots of their events.
    cpus: Vec<(u32, usize)>,
    batches: Option<Batches>,
    /// When the batches were last flushed.
    flushed: Instant,
    /// Tells, once for each time, that a ring is filling up.
    filling: OwnedFd,
    /// Events that had been kept when it last waited.
    looked: u64,
    /// It last waited as on an idle machine.
    pub idle: bool,
    definitions: RingBuffer<'static>,
    /// Copies of user stacks, where they are asked for.
    copies: Option<RingBuffer<'static>>,
    /// What has been drained.
    pub drained: Rc<RefCell<Drained>>,
}

impl Rings {
    /// Maps the rings.
    pub fn open(shared: &SharedMaps, registry: Arc<Registry>) -> Result<Rings> {
        let drained = Rc::new(RefCell::new(Drained::new(registry)));
        let mut builder = RingBufferBuilder::new();
        let of_tasks = Rc::clone(&drained);
        builder.add(shared.get("task_ring")?, move |row| {
            of_tasks.borrow_mut().task(row);
            0
        })?;
        let of_stacks = Rc::clone(&drained);
        builder.add(shared.get("stack_ring")?, move |row| {
            of_stacks.borrow_mut().stack(row);
            0
        })?;
        let definitions = builder.build().context("cannot map the rings of definitions")?;
        let mut copies = None;
        // Only the profile brings this map.
        if let Ok(ring) = shared.get("copy_ring") {
            let mut builder = RingBufferBuilder::new();
            let drained = Rc::clone(&drained);
            builder.add(ring, move |row| {
                drained.borrow_mut().copy(row);
                0
            })?;
            copies = Some(builder.build().context("cannot map the ring of stack copies")?);
        }
        let filling = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
        let mut rings = Rings {
            events: Vec::new(),
            cpus: Vec::new(),
            batches: None,
            flushed: Instant::now(),
            filling,
            looked: 0,
            idle: false,
            definitions,
            copies,
            drained,
        };
        for name in ["copy_ring", "task_ring", "stack_ring"] {
            if let Ok(ring) = shared.get(name) {
                rings.wakes(ring)?;
            }
        }
        for (cpu, ring) in &shared.rings {
            rings.add_cpu(*cpu, ring)?;
        }
        Ok(rings)
    }

    /// From now on the ring of `cpu` is drained too.
    pub fn add_cpu(&mut self, cpu: u32, ring: &MapHandle) -> Result<()> {
        let slot = self.drained.borrow_mut().slot_of(cpu);
        let drained = Rc::clone(&self.drained);
        let mut builder = RingBufferBuilder::new();
        builder.add(ring, move |row| {
            let taken = drained.borrow_mut().events(slot, row);
            debug_assert_eq!(taken, row.len(), "a ring carried bytes that are no event");
            0
        })?;
        self.wakes(ring)?;
        self.events.push(builder.build().context("cannot map a ring")?);
        self.cpus.push((cpu, slot));
        Ok(())
    }

    /// Edge-triggered: otherwise the few events that come while a ring is drained would wake us again at once.
    fn wakes(&self, ring: &MapHandle) -> Result<()> {
        let when = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.filling, ring, epoll::EventData::new_u64(0), when).context("epoll")
    }

    /// Whether `cpu` has a ring.
    pub fn has(&self, cpu: u32) -> bool {
        self.cpus.iter().any(|(of, _)| *of == cpu)
    }

    /// From now on what lies in `batches` is drained too.
    pub fn add_batches(&mut self, batches: Batches) {
        self.batches = Some(batches);
    }

    /// [`Rings::wait`] ends, too, when `file` can be read.
    pub fn wake_on(&self, file: BorrowedFd<'_>) -> Result<()> {
        epoll::add(&self.filling, file, epoll::EventData::new_u64(0), epoll::EventFlags::IN).context("epoll")
    }

    /// Sleeps until it is time to look, `at_most` so long, or until a ring is filling up.
    pub fn wait(&mut self, at_most: Duration) {
        let kept = self.drained.borrow().kept.iter().sum();
        let few = kept - std::mem::replace(&mut self.looked, kept) < IDLE;
        // What is here already must not grow old while nothing comes.
        self.idle = few && self.drained.borrow().is_empty();
        let pause = if self.idle { IDLE_POLL } else { POLL };
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 16];
        let timeout = Timespec { tv_sec: 0, tv_nsec: at_most.min(pause).as_nanos() as _ };
        // An interrupted wait is a wait that ended: the loop looks at its flags anyway.
        let _ = epoll::wait(&self.filling, &mut events, Some(&timeout));
    }

    /// Takes what is in the rings, at most [`BATCH`] events of each: however fast they come, this returns. Definitions
    /// come second: what an event refers to was sent before it. Batches are flushed when it is time to, or with `all`: a
    /// ring that is filling up needs no more.
    pub fn drain(&mut self, all: bool) -> Result<()> {
        if let Some(batches) = self.batches.as_mut().filter(|_| all || self.flushed.elapsed() >= POLL) {
            self.flushed = Instant::now();
            for (cpu, slot) in &self.cpus {
                let rows = batches.flush(*cpu)?;
                self.drained.borrow_mut().events(*slot, &rows);
            }
        }
        for ring in &self.events {
            let taken = ring.consume_raw_n(BATCH);
            if taken < 0 {
                return Err(std::io::Error::from_raw_os_error(-taken)).context("draining a ring");
            }
        }
        if let Some(copies) = &self.copies {
            copies.consume().context("draining the ring of stack copies")?;
        }
        self.definitions.consume().context("draining the rings of definitions")
    }
}
