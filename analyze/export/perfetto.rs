//! `perfetto`: a Perfetto trace, <https://perfetto.dev/docs/reference/trace-packet-proto>.
//!
//! Tracks: one a CPU with who ran; below each thread when it ran, was off the CPU and waited for one; one a disk with its
//! requests; counters; where events were lost. Wakeups are flows from the waker to the wait that it began. CPU samples are
//! packets of their own kind, with their stacks. Packets stand in the order of ends: the reader sorts. Memory grows
//! with threads and distinct stacks.

mod interned;
mod tracks;

use bpfrec_format::Source;

use self::interned::Interned;
use self::tracks::{Track, Tracks};
use super::counters::Counters;
use super::items::{Item, Sink, Takes, What, left};
use super::proto::Message;
use super::scene::{Lost, Scene};
use super::{Format, Make, Out};
use crate::block_io::flags_and_operation;
use crate::error::Result;
use crate::offcpu::{What as OffWhat, state_name};

/// In the list of formats.
pub const FORMAT: Format = Format {
    name: "perfetto",
    file: "trace.pftrace",
    about: "Perfetto trace: tracks by CPU, process and thread, wakeups, block I/O, samples, counters, losses",
    is_text: false,
    of_one_weight: false,
    sources: &[Source::Sched, Source::Block, Source::Profile, Source::Offcpu, Source::Malloc, Source::Kmem],
    make: Make::InTime(
        Takes { states: true, waits_of_switches: true, io: true, samples: true, memory: true },
        |scene, out| Ok(Box::new(Perfetto::new(scene, out)?)),
    ),
};

/// Fields of message `TracePacket`.
mod packet {
    pub const CLOCK_SNAPSHOT: u64 = 6;
    pub const TIMESTAMP: u64 = 8;
    pub const SEQUENCE: u64 = 10;
    pub const TRACK_EVENT: u64 = 11;
    pub const INTERNED_DATA: u64 = 12;
    pub const SEQUENCE_FLAGS: u64 = 13;
    pub const CLOCK_ID: u64 = 58;
    pub const DEFAULTS: u64 = 59;
    pub const TRACK_DESCRIPTOR: u64 = 60;
    pub const PERF_SAMPLE: u64 = 66;
    pub const FIRST_ON_SEQUENCE: u64 = 87;
}

/// Fields of message `TrackEvent`.
mod event {
    pub const ANNOTATION: u64 = 4;
    pub const TYPE: u64 = 9;
    pub const TRACK: u64 = 11;
    pub const CATEGORY: u64 = 22;
    pub const NAME: u64 = 23;
    pub const COUNTER_VALUE: u64 = 30;
    pub const FLOW: u64 = 47;
    pub const LAST_OF_FLOW: u64 = 48;

    pub const BEGIN: u64 = 1;
    pub const END: u64 = 2;
    pub const INSTANT: u64 = 3;
    pub const COUNTER: u64 = 4;
}

/// Clocks by their numbers in Perfetto.
const REALTIME: u64 = 1;
const MONOTONIC: u64 = 3;
const BOOTTIME: u64 = 6;
/// `SEQ_INCREMENTAL_STATE_CLEARED`, `SEQ_NEEDS_INCREMENTAL_STATE`.
const CLEARED: u64 = 1;
const NEEDS: u64 = 2;

/// Writes packets, all in one sequence.
struct Packets<'a> {
    out: &'a mut Out<'a>,
    trace: Message,
}

impl Packets<'_> {
    /// A packet without a moment of its own.
    fn put(&mut self, flags: u64, fill: impl FnOnce(&mut Message)) -> Result<()> {
        self.trace.clear();
        self.trace.message(1, |m| {
            m.uint(packet::SEQUENCE, 1).uint(packet::SEQUENCE_FLAGS, flags);
            fill(m);
        });
        Ok(self.out.write_all(self.trace.as_bytes())?)
    }

    fn at(&mut self, ts_ns: u64, fill: impl FnOnce(&mut Message)) -> Result<()> {
        self.put(NEEDS, |m| {
            m.uint(packet::TIMESTAMP, ts_ns);
            fill(m);
        })
    }
}

struct Perfetto<'a> {
    scene: &'a Scene<'a>,
    packets: Packets<'a>,
    tracks: Tracks,
    interned: Interned,
    counters: Counters,
    flows: u64,
}

/// A value that stands beside a slice.
enum Note<'a> {
    Number(&'a str, u64),
    Text(&'a str, &'a str),
    /// By its number in the interned strings.
    Interned(&'a str, u64),
}

fn annotate(m: &mut Message, notes: &[Note<'_>]) {
    for note in notes {
        m.message(event::ANNOTATION, |m| {
            match note {
                Note::Number(name, value) => m.text(10, name).uint(3, *value),
                Note::Text(name, value) => m.text(10, name).text(6, value),
                Note::Interned(name, number) => m.text(10, name).uint(17, *number),
            };
        });
    }
}

impl<'a> Perfetto<'a> {
    fn new(scene: &'a Scene<'a>, out: &'a mut Out<'a>) -> Result<Self> {
        let mut packets = Packets { out, trace: Message::default() };
        let rows = &scene.meta.clock.rows;
        for (number, (mono, boot, real)) in rows.iter().enumerate() {
            let fill = |m: &mut Message| {
                m.message(packet::CLOCK_SNAPSHOT, |m| {
                    for (clock, ns) in [(MONOTONIC, *mono), (BOOTTIME, *boot), (REALTIME, (*real).max(0) as u64)] {
                        m.message(1, |m| {
                            m.uint(1, clock).uint(2, ns);
                        });
                    }
                    m.uint(2, MONOTONIC);
                });
            };
            let flags = if number == 0 { CLEARED } else { NEEDS };
            packets.put(flags, fill)?;
        }
        let hz = scene.meta.number("sample_hz").filter(|hz| *hz > 0).unwrap_or(99);
        packets.put(CLEARED, |m| {
            m.uint(packet::FIRST_ON_SEQUENCE, 1);
            m.message(packet::DEFAULTS, |m| {
                m.uint(packet::CLOCK_ID, MONOTONIC);
                // perf_sample_defaults.timebase: frequency, SW_CPU_CLOCK, PERF_CLOCK_MONOTONIC.
                m.message(12, |m| {
                    m.message(1, |m| {
                        m.uint(2, hz).uint(4, 1).uint(11, 2);
                    });
                });
            });
        })?;
        let (tracks, interned, counters) = (Tracks::default(), Interned::default(), Counters::new(scene));
        Ok(Perfetto { scene, packets, tracks, interned, counters, flows: 0 })
    }

    /// Number of a track, which is described when it is new.
    fn track(&mut self, track: Track) -> Result<u64> {
        self.tracks.get(self.scene, track, &mut |descriptor| {
            self.packets.put(NEEDS, |m| {
                m.bytes(packet::TRACK_DESCRIPTOR, descriptor.as_bytes());
            })
        })
    }

    /// A slice on a track.
    fn slice(
        &mut self,
        (start_ns, end_ns): (u64, u64),
        track: u64,
        (category, name): (&str, &str),
        more: impl FnOnce(&mut Message),
    ) -> Result<()> {
        self.packets.at(start_ns, |m| {
            m.message(packet::TRACK_EVENT, |m| {
                m.uint(event::TYPE, event::BEGIN).uint(event::TRACK, track);
                m.text(event::CATEGORY, category).text(event::NAME, name);
                more(m);
            });
        })?;
        self.packets.at(end_ns, |m| {
            m.message(packet::TRACK_EVENT, |m| {
                m.uint(event::TYPE, event::END).uint(event::TRACK, track);
            });
        })
    }

    fn running(&mut self, item: &Item, cpu: u32, end: Option<(u32, bool)>) -> Result<()> {
        let span = (item.start_ns, item.end_ns);
        let cgroup = self.scene.meta.cgroups.path(item.cgroup_id);
        let comm = self.scene.comm(item.tid, item.end_ns);
        let thread = Track::thread(self.scene, item.tid, item.pid, item.end_ns);
        let lane = self.tracks.lane(Track::Running(thread, 0), span);
        let track = self.track(if lane == 0 { Track::Thread(thread) } else { Track::Running(thread, lane) })?;
        let notes = [Note::Number("cpu", cpu.into()), Note::Text("left", left(end)), Note::Text("comm", comm)];
        self.slice(span, track, ("sched", "running"), |m| annotate(m, &notes))?;
        let lane = self.tracks.lane(Track::Cpu(cpu, 0), span);
        let track = self.track(Track::Cpu(cpu, lane))?;
        let who = [
            Note::Number("tid", item.tid.into()),
            Note::Number("pid", item.pid.into()),
            Note::Text("process", self.scene.comm(item.pid, item.end_ns)),
            Note::Text("cgroup", &cgroup),
            Note::Text("left", left(end)),
        ];
        self.slice(span, track, ("cpu", comm), |m| annotate(m, &who))
    }

    fn runnable(&mut self, item: &Item, cpu: u32, waker: Option<u32>) -> Result<()> {
        let (scene, span) = (self.scene, (item.start_ns, item.end_ns));
        let flow = waker.map(|tid| {
            self.flows += 1;
            (tid, self.flows)
        });
        if let Some((waker, flow)) = flow {
            let pid = scene.meta.tasks.at(waker, item.start_ns).map_or(waker, |task| task.pid);
            let track = self.track(Track::Thread(Track::thread(scene, waker, pid, item.start_ns)))?;
            let name = format!("wakes {}", scene.comm(item.tid, item.end_ns));
            self.packets.at(item.start_ns, |m| {
                m.message(packet::TRACK_EVENT, |m| {
                    m.uint(event::TYPE, event::INSTANT).uint(event::TRACK, track);
                    m.text(event::CATEGORY, "wakeup").text(event::NAME, &name).fixed64(event::FLOW, flow);
                    annotate(m, &[Note::Number("tid", item.tid.into())]);
                });
            })?;
        }
        let thread = Track::thread(scene, item.tid, item.pid, item.end_ns);
        let lane = self.tracks.lane(Track::Queue(thread, 0), span);
        let track = self.track(Track::Queue(thread, lane))?;
        self.slice(span, track, ("runq", "waits for a CPU"), |m| {
            annotate(m, &[Note::Number("cpu", cpu.into())]);
            if let Some((waker, flow)) = flow {
                annotate(m, &[Note::Text("woken by", scene.comm(waker, item.start_ns))]);
                m.fixed64(event::LAST_OF_FLOW, flow);
            }
        })
    }

    /// Writes what a stack needs to be named, and its number.
    fn stack(&mut self, kernel: u64, user: u64) -> Result<Option<u64>> {
        let (number, new) = self.interned.stack(self.scene, kernel, user);
        if let Some(new) = new {
            self.packets.put(NEEDS, |m| {
                m.bytes(packet::INTERNED_DATA, new.as_bytes());
            })?;
        }
        Ok(number)
    }
}

impl Sink for Perfetto<'_> {
    fn item(&mut self, item: &Item) -> Result<()> {
        let scene = self.scene;
        let span = (item.start_ns, item.end_ns);
        self.counters.item(item);
        match &item.what {
            What::Running { cpu, end } => self.running(item, *cpu, *end),
            What::Runnable { cpu, waker } => self.runnable(item, *cpu, *waker),
            What::Off(off) => {
                let (text, new) = self.interned.text_of_stack(scene, off);
                if let Some(new) = new {
                    self.packets.put(NEEDS, |m| {
                        m.bytes(packet::INTERNED_DATA, new.as_bytes());
                    })?;
                }
                let thread = Track::thread(scene, item.tid, item.pid, item.end_ns);
                let lane = self.tracks.lane(Track::Off(thread, 0), span);
                let track = self.track(Track::Off(thread, lane))?;
                self.slice(span, track, ("offcpu", state_name(off.state)), |m| {
                    if let Some(text) = text {
                        annotate(m, &[Note::Interned("stack", text)]);
                    }
                    if off.what == OffWhat::Open {
                        annotate(m, &[Note::Text("end", "still off the CPU at the end")]);
                    }
                })
            }
            What::Io(io) => {
                let lane = self.tracks.lane(Track::Disk(io.dev, 0), span);
                let track = self.track(Track::Disk(io.dev, lane))?;
                let notes = [
                    Note::Number("bytes", io.bytes.into()),
                    Note::Number("sector", io.sector),
                    Note::Number("device_ns", io.device_ns()),
                    Note::Number("tid", io.tid.into()),
                    Note::Number("pid", io.pid.into()),
                    Note::Text("comm", scene.comm(io.tid, io.issue_ns)),
                    Note::Text("error", &io.error.to_string()),
                ];
                self.slice(span, track, ("block", &flags_and_operation(io.cmd_flags)), |m| annotate(m, &notes))
            }
            What::Sample { cpu, kernel, user } => {
                self.track(Track::Thread(Track::thread(scene, item.tid, item.pid, item.end_ns)))?;
                let stack = self.stack(*kernel, *user)?;
                // MODE_KERNEL, MODE_USER.
                let mode = if *kernel != 0 { 1 } else { 2 };
                self.packets.at(item.end_ns, |m| {
                    m.message(packet::PERF_SAMPLE, |m| {
                        m.uint(1, (*cpu).into()).uint(2, item.pid.into()).uint(3, item.tid.into()).uint(5, mode);
                        if let Some(stack) = stack {
                            m.uint(4, stack);
                        }
                    });
                })
            }
            What::Memory(_) => Ok(()),
        }
    }

    fn lost(&mut self, lost: &Lost) -> Result<()> {
        // Told in the order of begins, and each CPU by itself: they overlap.
        let lane = self.tracks.lane(Track::Lost(0), (lost.from_ns, lost.to_ns));
        let track = self.track(Track::Lost(lane))?;
        let name = format!("lost: {}", lost.what);
        self.slice((lost.from_ns, lost.to_ns), track, ("lost", &name), |m| {
            annotate(m, &[Note::Number("events", lost.events), Note::Text("why", &lost.why)]);
            if let Some(cpu) = lost.cpu {
                annotate(m, &[Note::Number("cpu", cpu.into())]);
            }
        })
    }

    fn end(&mut self) -> Result<Vec<String>> {
        let counters = std::mem::replace(&mut self.counters, Counters::new(self.scene));
        for (of, values) in counters.series() {
            let track = self.track(Track::Counter(of))?;
            for (ts_ns, value) in values {
                self.packets.at(ts_ns, |m| {
                    m.message(packet::TRACK_EVENT, |m| {
                        m.uint(event::TYPE, event::COUNTER).uint(event::TRACK, track);
                        m.int(event::COUNTER_VALUE, value);
                    });
                })?;
            }
        }
        Ok(Vec::new())
    }
}
