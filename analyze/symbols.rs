//! From addresses to functions.
//!
//! Kernel addresses are looked up in the trace's own symbols. A user address becomes a file and an offset by the mapping
//! that was in force, and a name where the file lies here with the build id that was recorded: never by a guess.
//! Frames but the leaf are return addresses; they stand for the call, the byte before.

use std::path::Path;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Symbolizer};
use object::{Object, ObjectSegment, ReadCache};
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::jit;
use crate::mappings::File;
use crate::meta::Meta;

/// Where a frame's name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameSource {
    /// Kernel symbols in the trace.
    Kallsyms,
    /// A file here whose build id is the recorded one.
    LocalFile,
    /// A runtime told in a perf map what it compiled.
    PerfMap,
    /// A runtime told in a jitdump file what it compiled.
    JitDump,
    /// The file is known, the function is not; or not even that.
    None,
}

impl NameSource {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            NameSource::Kallsyms => "kallsyms",
            NameSource::LocalFile => "local file",
            NameSource::PerfMap => "perf map",
            NameSource::JitDump => "jitdump",
            NameSource::None => "none",
        }
    }
}

/// A place in code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Hash of (build id, kernel release or path; offset): the same on all hosts.
    pub id: u64,
    /// Function, or what is known instead.
    pub name: String,
    /// Whether it is the kernel's.
    pub kernel: bool,
    /// Path of the file, or the kernel's module.
    pub binary: String,
    /// Build id of the file.
    pub build_id: String,
    /// Offset in the file, or in the kernel's function.
    pub offset: u64,
    /// Where `name` comes from.
    pub source: NameSource,
}

/// A stack whose frames are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Hash of its frames: the same on all hosts.
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
    stacks: FxHashMap<u64, Resolved>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Kernel(u64),
    /// A file, an offset in it, and what a runtime says of the place: it may compile into its own file.
    File(u32, u64, Option<jit::Place>),
    Jit(jit::Place),
    Unknown(u64),
}

impl Symbols {
    /// Resolves all stacks of a trace, each distinct place once, files in parallel.
    pub fn resolve(meta: &Meta) -> Symbols {
        let mut numbers: FxHashMap<Key, u32> = FxHashMap::default();
        let mut keys = Vec::new();
        let mut stacks = Vec::with_capacity(meta.stacks.len());
        for (id, stack) in meta.stacks.sorted() {
            let number = |(depth, addr): (usize, &u64)| {
                let addr = addr.wrapping_sub(u64::from(depth > 0));
                let mapping = stack.user.then(|| meta.mappings.lookup(&meta.tasks, stack.pid, stack.ts_ns, addr));
                let compiled = mapping.and_then(|_| meta.jit.lookup(&meta.tasks, stack.pid, stack.ts_ns, addr));
                let is_file = |file: u32| meta.mappings.files[file as usize].is_file();
                let key = match (mapping, compiled) {
                    (None, _) => Key::Kernel(addr),
                    (Some(m), Some(place)) if m.is_none_or(|m| !is_file(m.file)) => Key::Jit(place),
                    (Some(Some(m)), place) => Key::File(m.file, (addr - m.start).wrapping_add(m.offset), place),
                    (Some(None), _) => Key::Unknown(addr),
                };
                *numbers.entry(key).or_insert_with(|| {
                    keys.push(key);
                    keys.len() as u32 - 1
                })
            };
            let frames: Vec<u32> = meta.stacks.frames(&stack).iter().enumerate().map(number).collect();
            stacks.push((id, Resolved { id: 0, frames, user: stack.user }));
        }
        let names = if meta.trace_only { FxHashMap::default() } else { local_names(meta, &keys) };
        let frames: Vec<Frame> = keys.iter().map(|key| frame(meta, *key, &names)).collect();
        let with_id = |(id, mut stack): (u64, Resolved)| {
            let mut bytes = vec![u8::from(stack.user)];
            stack.frames.iter().for_each(|f| bytes.extend_from_slice(&frames[*f as usize].id.to_le_bytes()));
            stack.id = xxh3_64(&bytes);
            (id, stack)
        };
        let stacks = stacks.into_iter().map(with_id).collect();
        Symbols { frames, stacks }
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
        stack.frames.first().map_or("", |f| &self.frames[*f as usize].name)
    }

    /// Every stack once, by its hash.
    pub fn distinct(&self) -> Vec<&Resolved> {
        let mut all: Vec<&Resolved> = self.stacks.values().collect();
        all.sort_unstable_by_key(|s| s.id);
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

fn frame(meta: &Meta, key: Key, names: &FxHashMap<(u32, u64), String>) -> Frame {
    let none = |name: String, id: u64, offset: u64| Frame {
        id,
        name,
        kernel: matches!(key, Key::Kernel(_)),
        binary: String::new(),
        build_id: String::new(),
        offset,
        source: NameSource::None,
    };
    match key {
        Key::Unknown(addr) => none("[unknown]".into(), hash("unknown", &[&addr.to_le_bytes()]), addr),
        Key::Kernel(addr) => match meta.kernel.lookup(addr) {
            None => none("[unknown]".into(), hash("kernel", &[&addr.to_le_bytes()]), addr),
            Some(place) => {
                let release = meta.item("kernel");
                let parts = [place.module.as_bytes(), place.name.as_bytes(), &place.offset.to_le_bytes()];
                Frame {
                    binary: place.module.into(),
                    source: NameSource::Kallsyms,
                    ..none(place.name.into(), hash(release, &parts), place.offset)
                }
            }
        },
        Key::Jit(place) => compiled(meta, place),
        Key::File(number, offset, place) => {
            if let Some(place) = place
                && !names.contains_key(&(number, offset))
            {
                return compiled(meta, place);
            }
            let file = &meta.mappings.files[number as usize];
            let identity = if file.build_id.is_empty() { &file.path } else { &file.build_id };
            let known = names.get(&(number, offset));
            let name = known.cloned().unwrap_or_else(|| unnamed(file, offset));
            Frame {
                binary: file.path.clone(),
                build_id: file.build_id.clone(),
                source: if known.is_some() { NameSource::LocalFile } else { NameSource::None },
                ..none(name, hash(identity, &[&offset.to_le_bytes()]), offset)
            }
        }
    }
}

/// A place in a function that a runtime compiled.
fn compiled(meta: &Meta, place: jit::Place) -> Frame {
    let name = meta.jit.name(place);
    Frame {
        id: hash("compiled", &[name.as_bytes(), &place.offset.to_le_bytes()]),
        name: name.into(),
        kernel: false,
        binary: String::new(),
        build_id: String::new(),
        offset: place.offset,
        source: if place.jitdump { NameSource::JitDump } else { NameSource::PerfMap },
    }
}

/// What can be said of a place whose function is not known.
fn unnamed(file: &File, offset: u64) -> String {
    if file.is_file() {
        let base = file.path.rsplit('/').next().unwrap_or_default();
        return format!("[{base}+{offset:#x}]");
    }
    match file.path.as_str() {
        special @ ("[vdso]" | "[vsyscall]" | "[uprobes]") => special.into(),
        _ => format!("[anon+{offset:#x}]"),
    }
}

/// Names of the places in files that lie here unchanged.
fn local_names(meta: &Meta, keys: &[Key]) -> FxHashMap<(u32, u64), String> {
    let mut by_file: FxHashMap<u32, Vec<u64>> = FxHashMap::default();
    for key in keys {
        if let Key::File(file, offset, _) = key
            && meta.mappings.files[*file as usize].is_file()
        {
            by_file.entry(*file).or_default().push(*offset);
        }
    }
    let found: Vec<((u32, u64), String)> = by_file
        .into_par_iter()
        .flat_map_iter(|(number, offsets)| {
            let names = names_in(&meta.mappings.files[number as usize], &offsets);
            offsets.into_iter().zip(names).filter_map(move |(o, name)| Some(((number, o), name?)))
        })
        .collect();
    found.into_iter().collect()
}

/// A name, or none, for each file offset.
fn names_in(file: &File, offsets: &[u64]) -> Vec<Option<String>> {
    let nothing = || vec![None; offsets.len()];
    let Some(segments) = segments_of(Path::new(&file.path), &file.build_id) else { return nothing() };
    let vaddr = |offset: &u64| {
        let of = segments.iter().find(|(start, len, _)| offset.wrapping_sub(*start) < *len);
        of.map(|(start, _, addr)| offset - start + addr)
    };
    let places: Vec<Option<u64>> = offsets.iter().map(vaddr).collect();
    let vaddrs: Vec<u64> = places.iter().copied().flatten().collect();
    let mut elf = Elf::new(&file.path);
    // Names alone come from the symbol table; debugging information costs hundreds of megabytes.
    elf.debug_syms = false;
    let builder = Symbolizer::builder().enable_auto_reload(false).enable_code_info(false);
    let symbolizer = builder.enable_inlined_fns(false).enable_demangling(true).build();
    let Ok(symbols) = symbolizer.symbolize(&Source::Elf(elf), Input::VirtOffset(&vaddrs)) else { return nothing() };
    let mut symbols = symbols.iter().map(|s| s.as_sym().map(|s| s.name.clone().into_owned()));
    places.iter().map(|place| place.and_then(|_| symbols.next().flatten())).collect()
}

/// (file offset, length, address) of what is loaded of a local file; `None` unless its build id is `build_id`.
fn segments_of(path: &Path, build_id: &str) -> Option<Vec<(u64, u64, u64)>> {
    if build_id.is_empty() || !path.metadata().ok()?.is_file() {
        return None;
    }
    let cache = ReadCache::new(std::fs::File::open(path).ok()?);
    let file = object::File::parse(&cache).ok()?;
    let own: String = file.build_id().ok()??.iter().map(|b| format!("{b:02x}")).collect();
    if own != build_id {
        return None;
    }
    let segment = |s: object::Segment<'_, '_, _>| {
        let (start, len) = s.file_range();
        (start, len, s.address())
    };
    Some(file.segments().map(segment).collect())
}
