//! `pprof`: a gzipped protobuf of <https://github.com/google/pprof/blob/main/proto/profile.proto>.
//!
//! One sample a thread and stack with all weights that the trace has: CPU samples and time, waits and time off the CPU, memory
//! allocated and live. Written message by message; memory grows with distinct frames and stacks.

use bpfrec_format::Source;
use flate2::Compression;
use flate2::write::GzEncoder;
use rustc_hash::FxHashMap;
use std::io::Write;

use super::proto::Message;
use super::scene::{Place, Scene};
use super::sums::Sums;
use super::{Format, Make, Out};
use crate::error::Result;
use crate::memory::op;
use crate::symbols::NameSource;

/// In the list of formats.
pub const FORMAT: Format = Format {
    name: "pprof",
    file: "trace.pb.gz",
    about: "Gzipped protobuf with CPU, off-CPU and memory by stack, for pprof and what reads its files",
    is_text: false,
    of_one_weight: false,
    sources: &[Source::Profile, Source::Offcpu, Source::Malloc, Source::Kmem],
    make: Make::Sums(write),
};

/// Weights by report, and their units.
const TYPES: [&[(&str, &str)]; 3] = [
    &[("samples", "count"), ("cpu", "nanoseconds")],
    &[("waits", "count"), ("offcpu", "nanoseconds")],
    &[("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes")],
];

/// Fields of message `Profile`.
mod field {
    pub const SAMPLE_TYPE: u64 = 1;
    pub const SAMPLE: u64 = 2;
    pub const MAPPING: u64 = 3;
    pub const LOCATION: u64 = 4;
    pub const FUNCTION: u64 = 5;
    pub const STRING_TABLE: u64 = 6;
    pub const TIME_NANOS: u64 = 9;
    pub const DURATION_NANOS: u64 = 10;
    pub const PERIOD_TYPE: u64 = 11;
    pub const PERIOD: u64 = 12;
    pub const COMMENT: u64 = 13;
    pub const DEFAULT_SAMPLE_TYPE: u64 = 14;
}

/// A profile that is being written.
struct Writer<'a, 'o> {
    scene: &'a Scene<'a>,
    gz: GzEncoder<&'a mut Out<'o>>,
    strings: FxHashMap<String, u64>,
    functions: FxHashMap<(u64, u64), u64>,
    mappings: FxHashMap<(u64, u64), u64>,
    /// Ids by the place of the function itself, which stands behind what was inlined into it.
    locations: FxHashMap<Vec<Place>, u64>,
}

impl Writer<'_, '_> {
    fn put(&mut self, field: u64, fill: impl FnOnce(&mut Message)) -> Result<()> {
        let mut message = Message::default();
        message.message(field, fill);
        Ok(self.gz.write_all(message.as_bytes())?)
    }

    /// Number of a string, which is written when it is new.
    fn string(&mut self, text: &str) -> Result<u64> {
        if let Some(number) = self.strings.get(text) {
            return Ok(*number);
        }
        let number = self.strings.len() as u64;
        self.strings.insert(text.into(), number);
        let mut message = Message::default();
        message.text(field::STRING_TABLE, text);
        self.gz.write_all(message.as_bytes())?;
        Ok(number)
    }

    fn value_type(&mut self, field: u64, (name, unit): (&str, &str)) -> Result<()> {
        let (name, unit) = (self.string(name)?, self.string(unit)?);
        self.put(field, |m| {
            m.uint(1, name).uint(2, unit);
        })
    }

    fn mapping(&mut self, place: Place) -> Result<u64> {
        let (scene, binary) = (self.scene, self.scene.binary(place));
        if binary.is_empty() {
            return Ok(0);
        }
        let frame = scene.frame(place);
        let kernel = frame.is_some_and(|f| f.kernel && f.binary.is_empty());
        let recorded = if kernel { scene.meta.item("kernel_build_id") } else { frame.map_or("", |f| &f.build_id) };
        let key = (self.string(&binary)?, self.string(recorded)?);
        if let Some(id) = self.mappings.get(&key) {
            return Ok(*id);
        }
        let id = self.mappings.len() as u64 + 1;
        self.mappings.insert(key, id);
        let options = &scene.meta.names;
        let flags = [true, options.lines, options.lines, options.inlines];
        self.put(field::MAPPING, |m| {
            m.uint(1, id).uint(5, key.0).uint(6, key.1);
            (7..).zip(flags).for_each(|(field, set)| {
                m.uint(field, set.into());
            });
        })?;
        Ok(id)
    }

    fn function(&mut self, place: Place) -> Result<u64> {
        let frame = self.scene.frame(place);
        let name = frame.map_or_else(|| self.scene.name(place), |f| f.func());
        let src = frame.and_then(|f| f.line.as_ref()).map_or("", |line| line.src.as_str());
        let key = (self.string(name)?, self.string(src)?);
        if let Some(id) = self.functions.get(&key) {
            return Ok(*id);
        }
        let id = self.functions.len() as u64 + 1;
        self.functions.insert(key, id);
        self.put(field::FUNCTION, |m| {
            m.uint(1, id).uint(2, key.0).uint(3, key.0).uint(4, key.1);
        })?;
        Ok(id)
    }

    /// A location: a function, and before it what was inlined there, the innermost first.
    fn location(&mut self, places: &[Place]) -> Result<u64> {
        if let Some(id) = self.locations.get(places) {
            return Ok(*id);
        }
        let Some(own) = places.last().copied() else { return Ok(0) };
        let mapping = self.mapping(own)?;
        let mut lines = Vec::with_capacity(places.len());
        for place in places {
            let line = self.scene.frame(*place).and_then(|f| f.line.as_ref()).map_or(0, |line| line.line);
            lines.push((self.function(*place)?, line));
        }
        let id = self.locations.len() as u64 + 1;
        self.locations.insert(places.to_vec(), id);
        // Only of files an offset is known that means the same elsewhere.
        let frame = self.scene.frame(own);
        let in_file = |source| !matches!(source, NameSource::PerfMap | NameSource::JitDump);
        let address = frame.filter(|f| !f.kernel && !f.binary.is_empty() && in_file(f.source)).map_or(0, |f| f.offset);
        self.put(field::LOCATION, |m| {
            m.uint(1, id).uint(2, mapping).uint(3, address);
            for (function, line) in &lines {
                m.message(4, |m| {
                    m.uint(1, *function).uint(2, u64::from(*line));
                });
            }
        })?;
        Ok(id)
    }

    /// Ids of locations, the leaf first, of places with the root first.
    fn stack(&mut self, places: &[Place]) -> Result<Vec<u64>> {
        let (mut ids, mut run) = (Vec::with_capacity(places.len()), Vec::new());
        for place in places.iter().rev() {
            run.push(*place);
            if !self.scene.frame(*place).is_some_and(|f| f.inlined) {
                ids.push(self.location(&run)?);
                run.clear();
            }
        }
        // What is inlined stands in some function.
        if !run.is_empty() {
            ids.push(self.location(&run)?);
        }
        Ok(ids)
    }
}

fn write(scene: &Scene<'_>, sums: &Sums<'_>, out: &mut Out<'_>) -> Result<()> {
    let mut w = Writer {
        scene,
        gz: GzEncoder::new(out, Compression::default()),
        strings: FxHashMap::default(),
        functions: FxHashMap::default(),
        mappings: FxHashMap::default(),
        locations: FxHashMap::default(),
    };
    // The format wants the empty string first.
    w.string("")?;
    let has = sums.has();
    let mut first = [0; 3];
    let mut width = 0;
    for which in (0..3).filter(|which| has[*which]) {
        first[which] = width;
        width += TYPES[which].len();
        for one in TYPES[which] {
            w.value_type(field::SAMPLE_TYPE, *one)?;
        }
    }
    let [pid, tid, thread, operation] = ["pid", "tid", "thread", "allocation"].map(|key| w.string(key));
    let (pid, tid, thread, operation) = (pid?, tid?, thread?, operation?);
    sums.each(scene, &mut |which, of, places| {
        let ids = w.stack(places)?;
        let comm = w.string(&of.comm)?;
        let mut values = vec![0; width];
        let own = &mut values[first[which]..][..TYPES[which].len()];
        own.copy_from_slice(&of.values[..own.len()]);
        if which == 0 {
            own[1] = scene.sample_ns(own[0]);
        }
        let op_name = of.op.map(|number| w.string(op::name(number))).transpose()?;
        w.put(field::SAMPLE, |m| {
            let mut label = |key: u64, field: u64, value: u64| {
                m.message(3, |m| {
                    m.uint(1, key).uint(field, value);
                });
            };
            label(pid, 3, of.pid.into());
            if let Some(number) = of.tid {
                label(tid, 3, number.into());
            }
            label(thread, 2, comm);
            if let Some(name) = op_name {
                label(operation, 2, name);
            }
            m.packed(1, ids).packed(2, values);
        })
    })?;
    let (from_ns, _) = scene.ends();
    let mut rest = Message::default();
    rest.int(field::TIME_NANOS, scene.meta.clock.unix_ns(from_ns));
    rest.uint(field::DURATION_NANOS, sums.duration_ns());
    w.gz.write_all(rest.as_bytes())?;
    if has[0] {
        w.value_type(field::PERIOD_TYPE, ("cpu", "nanoseconds"))?;
        let mut period = Message::default();
        period.uint(field::PERIOD, scene.sample_ns(1));
        w.gz.write_all(period.as_bytes())?;
    }
    // What is shown first: CPU time before time off the CPU before live memory.
    let shown = ["cpu", "offcpu", "inuse_space"].into_iter().zip(has).find_map(|(name, has)| has.then_some(name));
    let shown = w.string(shown.unwrap_or_default())?;
    let mut default = Message::default();
    default.uint(field::DEFAULT_SAMPLE_TYPE, shown);
    w.gz.write_all(default.as_bytes())?;
    for note in scene.loss_lines(&sums.damage) {
        let number = w.string(&note)?;
        let mut comment = Message::default();
        comment.uint(field::COMMENT, number);
        w.gz.write_all(comment.as_bytes())?;
    }
    w.gz.finish()?;
    Ok(())
}
