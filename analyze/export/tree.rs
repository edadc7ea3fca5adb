//! Stacks as a tree in which each place stands once below its caller. Memory: 24 bytes a node, and 40 a distinct stack.

use rustc_hash::FxHashMap;

use super::scene::{Place, Scene};
use crate::offcpu::What;

/// Nodes by their numbers; a parent has a lower one.
#[derive(Default)]
pub(super) struct Tree {
    /// Parent and place.
    pub nodes: Vec<(Option<u32>, Place)>,
    numbers: FxHashMap<(Option<u32>, Place), u32>,
    known: FxHashMap<(u64, u64, What), Option<u32>>,
}

impl Tree {
    /// The node of a stack's leaf; `None` when there are no frames.
    pub(super) fn leaf(&mut self, scene: &Scene<'_>, kernel: u64, user: u64, what: What) -> Option<u32> {
        if let Some(leaf) = self.known.get(&(kernel, user, what)) {
            return *leaf;
        }
        let mut places = Vec::new();
        scene.stack(kernel, user, what, &mut places);
        let mut node = None;
        for place in places {
            node = Some(self.node(node, place));
        }
        self.known.insert((kernel, user, what), node);
        node
    }

    /// As [`Tree::leaf`], of a sample: without frames the place that stands for no stack.
    pub(super) fn sample(&mut self, scene: &Scene<'_>, kernel: u64, user: u64) -> u32 {
        self.leaf(scene, kernel, user, What::Wait).unwrap_or_else(|| self.node(None, scene.no_stack()))
    }

    fn node(&mut self, parent: Option<u32>, place: Place) -> u32 {
        let nodes = &mut self.nodes;
        *self.numbers.entry((parent, place)).or_insert_with(|| {
            nodes.push((parent, place));
            nodes.len() as u32 - 1
        })
    }
}
