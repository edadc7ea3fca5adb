//! Tracks: what slices lie on.

use rustc_hash::FxHashMap;

use crate::error::Result;
use crate::export::counters::Of;
use crate::export::lanes::Lanes;
use crate::export::proto::Message;
use crate::export::scene::Scene;

/// A thread: thread, process, and the task's position, as tids are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Thread {
    tid: u32,
    pid: u32,
    task: Option<u32>,
}

/// A track; where what lies on it may overlap, with the number of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Track {
    Cpus,
    Cpu(u32, u32),
    Process { pid: u32, task: Option<u32> },
    Thread(Thread),
    Running(Thread, u32),
    Off(Thread, u32),
    Queue(Thread, u32),
    Disks,
    Disk(u32, u32),
    Lost(u32),
    Counter(Of),
}

/// `child_ordering` of a track whose children have ranks.
const EXPLICIT: u64 = 3;

impl Track {
    /// The thread that had `tid` at a moment.
    pub(super) fn thread(scene: &Scene<'_>, tid: u32, pid: u32, ts_ns: u64) -> Thread {
        Thread { tid, pid, task: scene.meta.tasks.lookup(tid, ts_ns) }
    }

    /// The track that it stands below.
    fn parent(self, scene: &Scene<'_>) -> Option<Track> {
        match self {
            Track::Cpus | Track::Disks | Track::Process { .. } | Track::Lost(_) | Track::Counter(_) => None,
            Track::Cpu(..) => Some(Track::Cpus),
            Track::Disk(..) => Some(Track::Disks),
            Track::Running(thread, _) | Track::Off(thread, _) | Track::Queue(thread, _) => Some(Track::Thread(thread)),
            Track::Thread(Thread { tid, pid, task }) => {
                // The process is that of the thread's time: its leader began before it, or is it.
                let start_ns = task.map_or(scene.meta.end_ns, |id| scene.meta.tasks.all()[id as usize].start_ns);
                let leader = if tid == pid { task } else { scene.meta.tasks.lookup(pid, start_ns) };
                Some(Track::Process { pid, task: leader })
            }
        }
    }

    fn describe(self, scene: &Scene<'_>, m: &mut Message) {
        let name = |task: Option<u32>| task.map_or("", |id| scene.meta.tasks.all()[id as usize].last_comm());
        match self {
            Track::Cpus => m.text(2, "CPUs").uint(11, EXPLICIT),
            Track::Cpu(cpu, _) => m.text(2, &format!("CPU {cpu}")).uint(12, cpu.into()),
            Track::Process { pid, task } => m.message(3, |m| {
                m.uint(1, pid.into()).text(6, name(task));
            }),
            Track::Thread(Thread { tid, pid, task }) => m.message(4, |m| {
                let name = if tid == 0 { "swapper" } else { name(task) };
                m.uint(1, pid.into()).uint(2, tid.into()).text(5, name);
            }),
            Track::Running(..) => m.text(2, "running"),
            Track::Off(..) => m.text(2, "off the CPU"),
            Track::Queue(..) => m.text(2, "run queue"),
            Track::Disks => m.text(2, "block I/O"),
            Track::Disk(dev, _) => m.text(2, &scene.meta.disk(dev)),
            Track::Lost(_) => m.text(2, "lost events"),
            Track::Counter(of) => {
                m.text(2, &of.name(scene));
                // Units: bytes, or a count.
                m.message(8, |m| {
                    m.uint(3, if of.is_bytes() { 3 } else { 2 });
                })
            }
        };
    }
}

/// All tracks so far.
#[derive(Default)]
pub(super) struct Tracks {
    numbers: FxHashMap<Track, u64>,
    lanes: Lanes<Track>,
}

impl Tracks {
    /// The row for a stretch of time on a track, whose first row is given.
    pub(super) fn lane(&mut self, track: Track, (start_ns, end_ns): (u64, u64)) -> u32 {
        self.lanes.lane(track, start_ns, end_ns)
    }

    /// Number of a track. When it is new, it is described, and before it those that it stands below.
    pub(super) fn get(
        &mut self,
        scene: &Scene<'_>,
        track: Track,
        put: &mut dyn FnMut(&Message) -> Result<()>,
    ) -> Result<u64> {
        if let Some(number) = self.numbers.get(&track) {
            return Ok(*number);
        }
        let parent = track.parent(scene).map(|parent| self.get(scene, parent, put)).transpose()?;
        // 0 is the track of the whole trace.
        let number = self.numbers.len() as u64 + 1;
        self.numbers.insert(track, number);
        let mut m = Message::default();
        m.uint(1, number);
        if let Some(parent) = parent {
            m.uint(5, parent);
        }
        track.describe(scene, &mut m);
        put(&m)?;
        Ok(number)
    }
}
