//! A comparison as one HTML file, with the pieces of `report.html` and a content-security policy of the same kind.

use rustc_hash::FxHashMap;
use serde_json::json;

use super::Diff;
use super::drawing::Stacks;
use super::side::{Frame, Path};
use crate::error::Result;
use crate::page::columns::{As, Columns};
use crate::page::template::{self, Pieces};
use crate::text::plain;

/// The pieces of the page.
pub(crate) const PAGE: Pieces = Pieces {
    title: "bpfrec diff",
    styles: &[template::PAGE_CSS, include_str!("web/diff.css")],
    scripts: &[template::BASE_JS, template::FLAME_JS, include_str!("web/flame.js"), include_str!("web/diff.js")],
    body: include_str!("web/body.html"),
};

/// Boxes of a flamegraph that a page has room for.
const MOST_NODES: usize = 60_000;

/// Stacks as a tree. Node 0 is its root; parents come before their children.
#[derive(Default)]
struct Tree<'a> {
    parents: Vec<u64>,
    of: Vec<u64>,
    amounts: Vec<[u64; 2]>,
    names: Vec<&'a Frame>,
    numbers: FxHashMap<&'a Frame, u64>,
    nodes: FxHashMap<(u64, u64), u64>,
}

impl<'a> Tree<'a> {
    fn below(&mut self, parent: u64, frame: &'a Frame) -> u64 {
        let names = &mut self.names;
        let func = *self.numbers.entry(frame).or_insert_with(|| {
            names.push(frame);
            names.len() as u64 - 1
        });
        let (parents, of, amounts) = (&mut self.parents, &mut self.of, &mut self.amounts);
        *self.nodes.entry((parent, func)).or_insert_with(|| {
            parents.push(parent);
            of.push(func);
            amounts.push([0, 0]);
            parents.len() as u64 - 1
        })
    }

    fn add(&mut self, path: &'a Path, [before, after]: [u64; 2]) {
        let node = path.iter().fold(0, |node, frame| self.below(node, frame));
        let sums = &mut self.amounts[node as usize];
        *sums = [sums[0] + before, sums[1] + after];
    }
}

impl Diff {
    /// The page.
    pub fn html(&self) -> Result<Vec<u8>> {
        let (mut columns, mut flames) = (Columns::default(), Vec::new());
        let root: Frame = ("all".into(), super::THREAD);
        for stacks in Stacks::ALL {
            let Some(all) = self.stacks(stacks).filter(|all| !all.is_empty()) else { continue };
            // The heaviest first, so that it is the lightest for which there is no room.
            let mut all: Vec<_> = all.into_iter().collect();
            all.sort_by_key(|(path, [before, after])| (std::cmp::Reverse(before + after), *path));
            let mut tree = Tree { parents: vec![0], of: vec![0], amounts: vec![[0, 0]], ..Tree::default() };
            (tree.names, tree.numbers) = (vec![&root], [(&root, 0)].into_iter().collect());
            let mut left_out = [0, 0];
            for (path, amounts) in all {
                if tree.parents.len() < MOST_NODES {
                    tree.add(path, amounts);
                } else {
                    left_out = [left_out[0] + amounts[0], left_out[1] + amounts[1]];
                }
            }
            let n = flames.len();
            columns.add(&format!("{n}.parent"), As::Differences, tree.parents.iter().copied());
            columns.add(&format!("{n}.func"), As::Values, tree.of.iter().copied());
            columns.add(&format!("{n}.before"), As::Values, tree.amounts.iter().map(|a| a[0]));
            columns.add(&format!("{n}.after"), As::Values, tree.amounts.iter().map(|a| a[1]));
            let (unit, scale) = stacks.unit(self.by);
            flames.push(json!({
                "title": stacks.name(),
                "of": if stacks == Stacks::Cpu { "samples" } else { "ns" },
                "unit": unit,
                "scale": scale,
                "names": tree.names.iter().map(|frame| plain(&frame.0)).collect::<Vec<_>>(),
                "kinds": tree.names.iter().map(|frame| frame.1).collect::<Vec<_>>(),
                "left_out": left_out,
            }));
        }
        let head = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "diff": self.json(),
            "amounts": self.by.text(),
            "verdicts": self.verdicts(),
            "flames": flames,
        });
        Ok(template::html(&PAGE, &columns.pack(head)?).into_bytes())
    }
}
