//! Names, frames and stacks, which a trace tells once and then has by number.

use rustc_hash::FxHashMap;

use crate::export::proto::Message;
use crate::export::scene::{Place, Scene};
use crate::offcpu::{Off, What};
use crate::reports::stack_lines::folded_name;

/// Fields of message `InternedData`.
mod field {
    pub const FUNCTION_NAMES: u64 = 5;
    pub const FRAMES: u64 = 6;
    pub const CALLSTACKS: u64 = 7;
    pub const BUILD_IDS: u64 = 16;
    pub const MAPPING_PATHS: u64 = 17;
    pub const MAPPINGS: u64 = 19;
    pub const ANNOTATION_STRINGS: u64 = 29;
}

/// Kernel and user stack, and what a wait is.
type Key = (u64, u64, What);

/// What was told so far. Numbers begin at 1.
#[derive(Default)]
pub(super) struct Interned {
    functions: FxHashMap<String, u64>,
    build_ids: FxHashMap<String, u64>,
    paths: FxHashMap<String, u64>,
    mappings: FxHashMap<(u64, u64), u64>,
    frames: FxHashMap<Place, u64>,
    stacks: FxHashMap<(u64, u64), Option<u64>>,
    texts: FxHashMap<Key, Option<u64>>,
}

/// Number of a string, which is told when it is new.
fn string(known: &mut FxHashMap<String, u64>, text: &str, bytes: &[u8], field: u64, new: &mut Message) -> u64 {
    if let Some(number) = known.get(text) {
        return *number;
    }
    let number = known.len() as u64 + 1;
    known.insert(text.into(), number);
    new.message(field, |m| {
        m.uint(1, number).bytes(2, bytes);
    });
    number
}

/// The bytes of a build id.
fn raw(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map_while(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}

impl Interned {
    /// Number of the stack of a sample, and what must be told first; no number where it has no frames.
    pub(super) fn stack(&mut self, scene: &Scene<'_>, kernel: u64, user: u64) -> (Option<u64>, Option<Message>) {
        if let Some(number) = self.stacks.get(&(kernel, user)) {
            return (*number, None);
        }
        let mut places = Vec::new();
        scene.stack(kernel, user, What::Wait, &mut places);
        if places.is_empty() {
            self.stacks.insert((kernel, user), None);
            return (None, None);
        }
        let mut new = Message::default();
        let frames: Vec<u64> = places.iter().map(|place| self.frame(scene, *place, &mut new)).collect();
        let number = self.stacks.len() as u64 + 1;
        self.stacks.insert((kernel, user), Some(number));
        new.message(field::CALLSTACKS, |m| {
            m.uint(1, number);
            // The root first.
            frames.iter().for_each(|frame| {
                m.uint(2, *frame);
            });
        });
        (Some(number), Some(new))
    }

    fn frame(&mut self, scene: &Scene<'_>, place: Place, new: &mut Message) -> u64 {
        if let Some(number) = self.frames.get(&place) {
            return *number;
        }
        let name = scene.name(place);
        let function = string(&mut self.functions, name, name.as_bytes(), field::FUNCTION_NAMES, new);
        let mapping = self.mapping(scene, place, new);
        let frame = scene.frame(place);
        let number = self.frames.len() as u64 + 1;
        self.frames.insert(place, number);
        new.message(field::FRAMES, |m| {
            m.uint(1, number).uint(2, function).uint(3, mapping).uint(4, frame.map_or(0, |f| f.offset));
        });
        number
    }

    fn mapping(&mut self, scene: &Scene<'_>, place: Place, new: &mut Message) -> u64 {
        let (binary, build_id) = (scene.binary(place), scene.frame(place).map_or("", |f| f.build_id.as_str()));
        let build_id = string(&mut self.build_ids, build_id, &raw(build_id), field::BUILD_IDS, new);
        let path = string(&mut self.paths, &binary, binary.as_bytes(), field::MAPPING_PATHS, new);
        if let Some(number) = self.mappings.get(&(build_id, path)) {
            return *number;
        }
        let number = self.mappings.len() as u64 + 1;
        self.mappings.insert((build_id, path), number);
        new.message(field::MAPPINGS, |m| {
            m.uint(1, number).uint(2, build_id).uint(7, path);
        });
        number
    }

    /// Number of a text with the stack of a wait, and what must be told first.
    pub(super) fn text_of_stack(&mut self, scene: &Scene<'_>, off: &Off) -> (Option<u64>, Option<Message>) {
        let key = (off.kernel, off.user, off.what);
        if let Some(number) = self.texts.get(&key) {
            return (*number, None);
        }
        let mut places = Vec::new();
        scene.stack(off.kernel, off.user, off.what, &mut places);
        if places.is_empty() {
            self.texts.insert(key, None);
            return (None, None);
        }
        let number = self.texts.len() as u64 + 1;
        self.texts.insert(key, Some(number));
        let names: Vec<String> = places.iter().map(|place| folded_name(scene.name(*place))).collect();
        let mut new = Message::default();
        new.message(field::ANNOTATION_STRINGS, |m| {
            m.uint(1, number).text(2, &names.join(";"));
        });
        (Some(number), Some(new))
    }
}
