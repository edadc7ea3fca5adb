//! From addresses to functions.
//!
//! Kernel addresses are looked up in the trace's own symbols. A user address becomes a file and an offset by the mapping
//! that was in force, that an address in the binary by what the trace says is loaded, and that a name by the first rung
//! that has one: files that were asked for, fetched files, the trace, the file of this machine. A file counts only when it
//! is the recorded one; and an address that no function covers has no name: never by a guess.

pub mod coverage;
#[cfg(feature = "debuginfod")]
pub mod debuginfod;
pub mod demangle;
pub mod elf;
mod frame;
pub mod functions;
mod kernel_lines;
pub mod ladder;
pub mod lines;
mod names;
mod options;
mod places;

use std::ops::Range;

use rayon::prelude::*;
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64;

pub use self::frame::{Frame, INLINED, Line, NameSource};
use self::lines::Known;
use self::names::Named;
pub use self::names::{Have, HitBinary};
pub(crate) use self::names::{Search, search};
pub use self::options::{Debuginfod, Options};
pub(crate) use self::places::{Place, Places};
use crate::jit;
use crate::meta::Meta;

/// A stack whose frames are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Hash of its frames, without those that were inlined: the same on all hosts and with all options.
    pub id: u64,
    /// Positions in [`Symbols::frames`], the leaf first.
    pub frames: Vec<u32>,
    /// Whether it is a user stack.
    pub user: bool,
}

/// All frames and stacks of a trace.
#[derive(Debug, Default)]
pub struct Symbols {
    /// Frames, each once.
    pub frames: Vec<Frame>,
    /// Binaries that stacks hit.
    pub binaries: Vec<HitBinary>,
    /// What was refused, and what went wrong, a sentence each.
    pub notes: Vec<String>,
    stacks: FxHashMap<u64, Resolved>,
}

impl Symbols {
    /// Resolves all stacks of a trace, each distinct place once, files in parallel.
    pub fn resolve(meta: &Meta) -> Symbols {
        let Places { places, hits, stacks } = Places::of(meta);
        let mut offsets = vec![Vec::new(); hits.len()];
        // Where the name of each place will stand.
        let slot = |place: &Place| match place {
            Place::File(hit, offset, _) => {
                let of_hit: &mut Vec<u64> = &mut offsets[*hit as usize];
                of_hit.push(*offset);
                of_hit.len() - 1
            }
            _ => 0,
        };
        let slots: Vec<usize> = places.iter().map(slot).collect();
        let names = names::names(meta, &hits, &offsets);
        let mut kernel = kernel_lines::look(meta, &places);

        let mut frames = Vec::with_capacity(places.len());
        let mut of_place: Vec<Range<u32>> = Vec::with_capacity(places.len());
        for (place, slot) in places.iter().zip(slots) {
            let begin = frames.len() as u32;
            match place {
                // A runtime may compile into its own file.
                Place::File(hit, _, Some(place)) if names.of[*hit as usize][slot].name.is_none() => {
                    frames.push(compiled(meta, *place));
                }
                Place::File(hit, offset, _) => {
                    let named = &names.of[*hit as usize][slot];
                    frames.extend(in_file(&names.binaries[*hit as usize], *hit, *offset, named));
                }
                Place::Compiled(place) => frames.push(compiled(meta, *place)),
                Place::Kernel(addr, moment) => {
                    frames.extend(in_kernel(meta, *addr, *moment, kernel.known.remove(&(*addr, *moment))));
                }
                Place::Unknown(addr) => frames.push(unknown("unknown", *addr, false)),
            }
            of_place.push(begin..frames.len() as u32);
        }
        let with_id = |(id, user, places): (u64, bool, Vec<u32>)| {
            let (mut bytes, mut all) = (vec![u8::from(user)], Vec::with_capacity(places.len()));
            for frame in places.iter().flat_map(|place| of_place[*place as usize].clone()) {
                all.push(frame);
                if !frames[frame as usize].inlined {
                    bytes.extend_from_slice(&frames[frame as usize].id.to_le_bytes());
                }
            }
            (id, Resolved { id: xxh3_64(&bytes), frames: all, user })
        };
        let stacks: Vec<(u64, Resolved)> = stacks.into_par_iter().map(with_id).collect();
        let mut notes = names.notes;
        notes.append(&mut kernel.notes);
        let settings = meta.item("kernel_symbols_hidden");
        if meta.kernel.is_hidden() || !settings.is_empty() {
            let settings = if settings.is_empty() { String::new() } else { format!(" ({settings})") };
            notes.push(format!(
                "the kernel hid the addresses of its functions from the recorder{settings}, so its frames have no names: \
                 record as root, after `sysctl kernel.kptr_restrict=1`"
            ));
        }
        Symbols { frames, binaries: names.binaries, notes, stacks: stacks.into_iter().collect() }
    }

    /// The stack that the trace calls `id`; `None` when its definition is missing.
    pub fn stack(&self, id: u64) -> Option<&Resolved> {
        self.stacks.get(&id)
    }

    /// The frames of a stack, the leaf first.
    pub fn frames_of<'a>(&'a self, stack: &'a Resolved) -> impl DoubleEndedIterator<Item = &'a Frame> {
        stack.frames.iter().map(|f| &self.frames[*f as usize])
    }

    /// Name of the innermost frame; empty for a stack without frames.
    pub fn leaf(&self, stack: &Resolved) -> &str {
        stack.frames.first().map_or("", |f| self.frames[*f as usize].func())
    }

    /// Every stack once, by its hash as the tables have it.
    pub fn distinct(&self) -> Vec<&Resolved> {
        let mut all: Vec<&Resolved> = self.stacks.values().collect();
        all.sort_unstable_by_key(|s| s.id as i64);
        all.dedup_by_key(|s| s.id);
        all
    }
}

fn hash(name: &str, rest: &[&[u8]]) -> u64 {
    let mut bytes = name.as_bytes().to_vec();
    for part in rest {
        bytes.push(0);
        bytes.extend_from_slice(part);
    }
    xxh3_64(&bytes)
}

fn unknown(of: &str, addr: u64, kernel: bool) -> Frame {
    Frame {
        id: hash(of, &[&addr.to_le_bytes()]),
        name: "[unknown]".into(),
        kernel,
        inlined: false,
        binary: String::new(),
        build_id: String::new(),
        offset: addr,
        line: None,
        source: NameSource::None,
        hit: None,
    }
}

/// The frames of a place in the kernel, as [`in_file`].
fn in_kernel(meta: &Meta, addr: u64, moment: u64, known: Option<Known>) -> Vec<Frame> {
    let Some(place) = meta.kernel.lookup(addr, moment) else { return vec![unknown("kernel", addr, true)] };
    let parts = [place.module.as_bytes(), place.name.as_bytes(), &place.offset.to_le_bytes()];
    let (line, inlined) = known.map_or_else(Default::default, |known| (known.line, known.inlined));
    let own = Frame {
        id: hash(meta.item("kernel"), &parts),
        name: demangle::demangle(place.name.as_bytes()),
        binary: place.module.into(),
        offset: place.offset,
        line,
        source: NameSource::Kallsyms,
        ..unknown("kernel", addr, true)
    };
    let inside = |depth: u64| hash(meta.item("kernel"), &[&parts[..], &[b"inlined", &depth.to_le_bytes()]].concat());
    with_inlined(own, &inlined, &inside)
}

/// What was inlined at a place, the innermost first, then the function itself. `id` gives them ids by their depth.
fn with_inlined(own: Frame, inlined: &[(String, Option<Line>)], id: &dyn Fn(u64) -> u64) -> Vec<Frame> {
    let inlined = inlined.iter().enumerate().rev().map(|(depth, (name, line))| Frame {
        id: id(depth as u64),
        name: format!("{name}{INLINED}"),
        inlined: true,
        line: line.clone(),
        ..own.clone()
    });
    inlined.chain([own.clone()]).collect()
}

/// A place in a function that a runtime compiled.
fn compiled(meta: &Meta, place: jit::Place) -> Frame {
    let name = meta.jit.name(place);
    Frame {
        id: hash("compiled", &[name.as_bytes(), &place.offset.to_le_bytes()]),
        name: name.into(),
        source: if place.jitdump { NameSource::JitDump } else { NameSource::PerfMap },
        ..unknown("compiled", place.offset, false)
    }
}

/// The frames of a place in a file: what was inlined there, the innermost first, then the function itself.
fn in_file(binary: &HitBinary, hit: u32, offset: u64, named: &Named) -> Vec<Frame> {
    let own = Frame {
        id: hash(&binary.identity, &[&offset.to_le_bytes()]),
        name: named.name.as_ref().map_or_else(|| unnamed(&binary.path, offset), |(name, _)| name.clone()),
        kernel: false,
        inlined: false,
        binary: binary.path.clone(),
        build_id: binary.build_id.clone(),
        offset,
        line: named.line.clone(),
        source: named.name.as_ref().map_or(NameSource::None, |(_, source)| *source),
        hit: Some(hit),
    };
    let id = |depth: u64| hash(&binary.identity, &[&offset.to_le_bytes(), b"inlined", &depth.to_le_bytes()]);
    with_inlined(own, &named.inlined, &id)
}

/// What can be said of a place whose function is not known.
fn unnamed(path: &str, offset: u64) -> String {
    if crate::mappings::is_file(path) {
        let base = path.rsplit('/').next().unwrap_or_default();
        return format!("[{base}+{offset:#x}]");
    }
    match path {
        special @ ("[vdso]" | "[vsyscall]" | "[uprobes]") => special.into(),
        _ => format!("[anon+{offset:#x}]"),
    }
}
