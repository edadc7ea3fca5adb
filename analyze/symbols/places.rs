//! From stacks to distinct places: most addresses of most stacks are the same few.

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::jit;
use crate::meta::Meta;
use crate::stacks::Stack;

/// Stacks that are numbered together: fixed, so that numbers do not depend on threads.
const CHUNK: usize = 4096;

/// What an address stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// An address of the kernel, at a moment.
    Kernel(u64, u64),
    /// Position in [`Places::hits`], offset in the file, and what a runtime says of the address: it may compile into a
    /// file of its own.
    File(u32, u64, Option<jit::Place>),
    /// Code that a runtime compiled.
    Compiled(jit::Place),
    /// An address that no mapping covers.
    Unknown(u64),
}

/// A file that stacks hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Hit {
    /// Position in [`crate::mappings::Mappings::files`].
    pub file: u32,
    /// Position in [`crate::binaries::Binaries::all`]. Files without a build id at one path may be several.
    pub binary: Option<u32>,
}

/// All places of a trace's stacks.
pub(crate) struct Places {
    /// Each once.
    pub places: Vec<Place>,
    /// Files that were hit, each once.
    pub hits: Vec<Hit>,
    /// Id of each stack, whether it is a user stack, and positions in `places`.
    pub stacks: Vec<(u64, bool, Vec<u32>)>,
}

/// As [`Place`], before files are numbered.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Found {
    Kernel(u64, u64),
    File(Hit, u64, Option<jit::Place>),
    Compiled(jit::Place),
    Unknown(u64),
}

/// A stretch of time in which the addresses of a process, or of the kernel, mean the same; and a moment in it.
#[derive(Clone, Copy)]
struct Epoch {
    user: bool,
    pid: u32,
    ts_ns: u64,
}

impl Places {
    /// Of all stacks. Mappings are asked once for each distinct address in each stretch of time without a change.
    pub fn of(meta: &Meta) -> Places {
        let stacks = meta.stacks.sorted();
        let (epochs, epoch_of) = epochs(meta, &stacks);
        // Each chunk numbers its own addresses; then chunks are joined in order.
        let stacks: Vec<(u64, Stack, u32)> = stacks.into_iter().zip(epoch_of).map(|((id, s), e)| (id, s, e)).collect();
        let chunks: Vec<_> = stacks.par_chunks(CHUNK).map(|chunk| number(meta, chunk)).collect();
        let (mut numbers, mut distinct) = (FxHashMap::default(), Vec::new());
        let mut joined = Vec::with_capacity(chunks.len());
        for (keys, frames) in chunks {
            let to: Vec<u32> = keys.into_iter().map(|key| intern(&mut numbers, &mut distinct, key)).collect();
            joined.push((to, frames));
        }
        drop(numbers);
        let found: Vec<Found> =
            distinct.par_iter().map(|(epoch, addr)| look(meta, epochs[*epoch as usize], *addr)).collect();
        let (mut places, mut hits) = (Vec::new(), Vec::new());
        let (mut place_numbers, mut hit_numbers) = (FxHashMap::default(), FxHashMap::default());
        let place_of: Vec<u32> = found
            .into_iter()
            .map(|found| {
                let place = match found {
                    Found::Kernel(addr, moment) => Place::Kernel(addr, moment),
                    Found::Unknown(addr) => Place::Unknown(addr),
                    Found::Compiled(place) => Place::Compiled(place),
                    Found::File(hit, offset, place) => {
                        Place::File(intern(&mut hit_numbers, &mut hits, hit), offset, place)
                    }
                };
                intern(&mut place_numbers, &mut places, place)
            })
            .collect();
        let frames: Vec<Vec<u32>> = joined
            .into_par_iter()
            .flat_map_iter(|(to, stacks)| {
                let place_of = &place_of;
                stacks.into_iter().map(move |mut frames| {
                    frames.iter_mut().for_each(|f| *f = place_of[to[*f as usize] as usize]);
                    frames
                })
            })
            .collect();
        let stacks = stacks.into_iter().zip(frames).map(|((id, stack, _), frames)| (id, stack.user, frames)).collect();
        Places { places, hits, stacks }
    }
}

/// The number of `key`, a new one if need be.
fn intern<K: Copy + Eq + std::hash::Hash>(numbers: &mut FxHashMap<K, u32>, keys: &mut Vec<K>, key: K) -> u32 {
    *numbers.entry(key).or_insert_with(|| {
        keys.push(key);
        keys.len() as u32 - 1
    })
}

/// The epoch of each stack.
fn epochs(meta: &Meta, stacks: &[(u64, Stack)]) -> (Vec<Epoch>, Vec<u32>) {
    let (mut epochs, mut numbers) = (Vec::new(), FxHashMap::<_, u32>::default());
    let of = stacks.iter().map(|(_, s)| {
        // Whatever else gives names by time belongs into the key, else its answer for one moment stands for all.
        let key = match s.user {
            true => {
                let compiled = meta.jit.epoch(s.pid, s.ts_ns);
                (true, s.pid, meta.mappings.epoch(&meta.tasks, s.pid, s.ts_ns), compiled)
            }
            false => (false, 0, (meta.kernel.epoch(s.ts_ns), 0), 0),
        };
        *numbers.entry(key).or_insert_with(|| {
            epochs.push(Epoch { user: s.user, pid: s.pid, ts_ns: s.ts_ns });
            epochs.len() as u32 - 1
        })
    });
    let of = of.collect();
    (epochs, of)
}

/// Distinct (epoch, address), and for each stack their positions.
fn number(meta: &Meta, stacks: &[(u64, Stack, u32)]) -> (Vec<(u32, u64)>, Vec<Vec<u32>>) {
    let (mut numbers, mut keys) = (FxHashMap::default(), Vec::new());
    let frames = stacks.iter().map(|(_, stack, epoch)| {
        // Frames but the leaf are return addresses; they stand for the call, the byte before.
        let addresses = meta.stacks.frames(stack).iter().enumerate();
        let addresses = addresses.map(|(depth, addr)| addr.wrapping_sub(u64::from(depth > 0)));
        addresses.map(|addr| intern(&mut numbers, &mut keys, (*epoch, addr))).collect()
    });
    let frames = frames.collect();
    (keys, frames)
}

fn look(meta: &Meta, epoch: Epoch, addr: u64) -> Found {
    if !epoch.user {
        return Found::Kernel(addr, meta.kernel.moment(addr, epoch.ts_ns));
    }
    let compiled = meta.jit.lookup(&meta.tasks, epoch.pid, epoch.ts_ns, addr);
    match (meta.mappings.lookup(&meta.tasks, epoch.pid, epoch.ts_ns, addr), compiled) {
        (None, None) => Found::Unknown(addr),
        (None, Some(place)) => Found::Compiled(place),
        (Some(m), Some(place)) if !meta.mappings.files[m.file as usize].is_file() => Found::Compiled(place),
        (Some(m), _) => {
            let file = &meta.mappings.files[m.file as usize];
            let binary = meta.binaries.find(&file.build_id, m.inode, &file.path, m.ts_ns);
            let hit = Hit { file: m.file, binary };
            Found::File(hit, addr.wrapping_sub(m.start).wrapping_add(m.offset), compiled)
        }
    }
}
