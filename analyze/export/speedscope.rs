//! `speedscope`: <https://www.speedscope.app/file-format-schema.json>. For each thread its CPU samples in order of time, and what it
//! waited for with the time that this took; the busiest first. The format has no place for gaps between samples, nor for losses.

use bpfrec_format::Source;
use rustc_hash::FxHashMap;

use super::items::{Item, Sink, Takes, What};
use super::scene::{Lost, Place, Scene, json};
use super::spool::Spool;
use super::{Format, Make, Out};
use crate::error::Result;
use crate::offcpu::What as OffWhat;

/// In the list of formats.
pub const FORMAT: Format = Format {
    name: "speedscope",
    file: "trace.speedscope.json",
    about: "speedscope's own JSON: CPU samples and waits of each thread, in order of time",
    is_text: true,
    of_one_weight: false,
    sources: &[Source::Profile, Source::Offcpu],
    make: Make::InTime(
        Takes { states: false, waits_of_switches: false, io: false, samples: true, memory: false },
        |scene, out| Ok(Box::new(Speedscope::new(scene, out))),
    ),
};

/// A thread's samples, or its waits. Tids are used again: the task's position tells lives apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    waits: bool,
    tid: u32,
    task: Option<u32>,
}

struct Profile {
    key: Key,
    name: String,
    /// Columns: stacks, weights.
    columns: [usize; 2],
    total_ns: u64,
}

struct Speedscope<'a> {
    scene: &'a Scene<'a>,
    out: &'a mut Out<'a>,
    numbers: FxHashMap<Key, usize>,
    profiles: Vec<Profile>,
    spool: Spool,
    /// CPU time that is told so far, by profile: a sample's share need not be a whole number.
    samples: Vec<u64>,
    places: Vec<Place>,
    lost: u64,
}

impl<'a> Speedscope<'a> {
    fn new(scene: &'a Scene<'a>, out: &'a mut Out<'a>) -> Self {
        let (numbers, profiles, samples) = Default::default();
        Speedscope { scene, out, numbers, profiles, spool: Spool::default(), samples, places: Vec::new(), lost: 0 }
    }

    /// Position of a thread's profile.
    fn profile(&mut self, item: &Item, waits: bool) -> usize {
        let Item { end_ns, tid, pid, .. } = *item;
        let key = Key { waits, tid, task: self.scene.meta.tasks.lookup(tid, end_ns) };
        let (scene, spool, profiles) = (self.scene, &mut self.spool, &mut self.profiles);
        *self.numbers.entry(key).or_insert_with(|| {
            let last_name = |tid: u32| scene.meta.tasks.at(tid, end_ns).map_or("", |task| task.last_comm());
            let thread = if tid == 0 { "swapper" } else { last_name(tid) };
            let process = if pid == tid { String::new() } else { format!(" of {} ({pid})", last_name(pid)) };
            let what = if waits { "off the CPU" } else { "CPU" };
            let name = format!("{what}: {thread} ({tid}){process}");
            let columns = [spool.column(), spool.column()];
            profiles.push(Profile { key, name, columns, total_ns: 0 });
            self.samples.push(0);
            profiles.len() - 1
        })
    }

    fn add(&mut self, number: usize, weight: u64) -> Result<()> {
        if self.places.is_empty() {
            self.places.push(self.scene.no_stack());
        }
        let frames: Vec<String> = self.places.iter().map(ToString::to_string).collect();
        let profile = &mut self.profiles[number];
        profile.total_ns = profile.total_ns.saturating_add(weight);
        self.spool.json(profile.columns[0], &format!("[{}]", frames.join(",")))?;
        self.spool.json(profile.columns[1], &weight.to_string())
    }
}

impl Sink for Speedscope<'_> {
    fn item(&mut self, item: &Item) -> Result<()> {
        match &item.what {
            What::Sample { kernel, user, .. } => {
                let number = self.profile(item, false);
                self.scene.stack(*kernel, *user, OffWhat::Wait, &mut self.places);
                let before = self.scene.sample_ns(self.samples[number]);
                self.samples[number] += 1;
                self.add(number, self.scene.sample_ns(self.samples[number]) - before)
            }
            What::Off(off) => {
                let number = self.profile(item, true);
                self.scene.stack(off.kernel, off.user, off.what, &mut self.places);
                self.add(number, item.end_ns - item.start_ns)
            }
            _ => Ok(()),
        }
    }

    fn lost(&mut self, _lost: &Lost) -> Result<()> {
        self.lost += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<Vec<String>> {
        let (out, meta) = (&mut *self.out, self.scene.meta);
        write!(
            out,
            "{{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\",\n\"exporter\":{},\n\"name\":{},\n\
             \"activeProfileIndex\":0,\n\"profiles\":[",
            json(concat!("bpfrec ", env!("CARGO_PKG_VERSION"))),
            json(meta.item("host")),
        )?;
        // CPU time first, each kind by falling time.
        self.profiles.sort_by_key(|p| (p.key.waits, std::cmp::Reverse(p.total_ns), p.key));
        for (number, profile) in self.profiles.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            let (name, total) = (json(&profile.name), profile.total_ns);
            write!(
                out,
                "{comma}\n{{\"type\":\"sampled\",\"name\":{name},\"unit\":\"nanoseconds\",\"startValue\":0,\"endValue\":{total},\n\
                 \"samples\":["
            )?;
            self.spool.copy(profile.columns[0], out)?;
            write!(out, "],\n\"weights\":[")?;
            self.spool.copy(profile.columns[1], out)?;
            write!(out, "]}}")?;
        }
        write!(out, "\n],\n\"shared\":{{\"frames\":[")?;
        for place in self.scene.places() {
            let comma = if place > 0 { "," } else { "" };
            write!(out, "{comma}\n{{\"name\":{}", json(self.scene.name(place)))?;
            let line = self.scene.frame(place).and_then(|f| f.line.as_ref());
            let binary = self.scene.binary(place);
            match line {
                Some(line) => write!(out, ",\"file\":{},\"line\":{}}}", json(&line.src), line.line)?,
                None if binary.is_empty() => write!(out, "}}")?,
                None => write!(out, ",\"file\":{}}}", json(&binary))?,
            }
        }
        writeln!(out, "\n]}}}}")?;
        let note = format!("{} windows of losses have no place in this format", self.lost);
        Ok((self.lost > 0).then_some(note).into_iter().collect())
    }
}
