//! What stands out, in sentences. Each rule says what it takes for the sentence to be true and worth reading; where that is
//! not there, nothing is said: none is better than a wrong one.

mod code;
mod disks;
mod leaks;
mod waiting;

use bpfrec_format::Source;
use serde_json::{Value, json};

use super::gather::Gather;
use super::stacks::Tree;
use crate::reports::Context;
use crate::reports::memleak::Grown;
use crate::text::{count, percent, plain};

/// More than these nobody reads.
const MOST: usize = 6;

/// What findings are made from: the whole of what the page is of.
pub(super) struct Seen<'a> {
    pub(super) gather: &'a Gather,
    pub(super) tree: &'a Tree,
    /// Node of each stack.
    pub(super) nodes: &'a [u32],
    pub(super) grown: &'a [Grown],
    pub(super) context: &'a Context<'a>,
}

/// A sentence, and where the page shows what it is about.
#[derive(Clone, Debug, PartialEq)]
struct Finding {
    text: String,
    /// Id of an element of the page.
    place: &'static str,
    cgroup: Option<String>,
    pid: Option<u32>,
    /// The worst first, within a rule and among rules.
    weight: f64,
}

impl Finding {
    fn new(place: &'static str, weight: f64, text: String) -> Finding {
        Finding { text, place, cgroup: None, pid: None, weight }
    }
}

/// The findings, at most [`MOST`], what endangers the figures first, then by weight.
pub(super) fn of(seen: &Seen<'_>) -> Value {
    let rules = [
        waiting::containers,
        waiting::machine,
        waiting::locks,
        disks::second_mode,
        leaks::grows,
        code::hot,
        code::busiest,
    ];
    let mut all: Vec<Finding> = rules.iter().flat_map(|rule| rule(seen)).collect();
    all.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    let doubts = lost(seen).into_iter().chain(shed(seen)).chain(code::nameless(seen));
    let all: Vec<Finding> = doubts.chain(all).take(MOST).collect();
    let finding = |f: Finding| json!({"text": plain(&f.text), "place": f.place, "cgroup": f.cgroup, "pid": f.pid});
    all.into_iter().map(finding).collect()
}

/// Losses are always worth a sentence: every other figure is too small by them.
fn lost(seen: &Seen<'_>) -> Option<Finding> {
    let damage = &seen.context.reading.damage;
    let lost = seen.context.all_lost();
    let share = percent(lost, lost.saturating_add(seen.context.events()));
    let share = if share < 0.01 { "less than 0.01".to_owned() } else { format!("{share:.2}") };
    let mut text = match lost {
        0 => "Figures may be too small.".to_owned(),
        _ => format!("{} events were lost, {share} % of all: figures of that time are too small.", count(lost)),
    };
    if damage.any() {
        text += " Parts of the file are damaged or missing.";
    }
    (lost > 0 || damage.any()).then(|| Finding::new("time", f64::MAX, text))
}

/// What was not recorded, to stay within the budget: the first of it, and that there is more.
fn shed(seen: &Seen<'_>) -> Option<Finding> {
    let shed = seen.context.shed(Source::ALL);
    let text = shed.first()?.text(seen.context.meta.start_ns);
    let mut text = text[..1].to_uppercase() + &text[1..] + ".";
    if shed.len() > 1 {
        text += &format!(" And {} more: see the notes below.", shed.len() - 1);
    }
    Some(Finding::new("time", f64::MAX, text))
}

impl Seen<'_> {
    /// What the page calls a cgroup, and its path.
    fn cgroup(&self, id: u64) -> (String, String) {
        let path = self.context.meta.cgroups.path(id);
        let names = self.context.meta.cgroups.get(id).map(|c| &c.names);
        let container = names.and_then(|n| n.runtime.as_ref().zip(n.container_id.as_ref()));
        let name = match container {
            Some((runtime, id)) => format!("Container {} ({runtime})", id.chars().take(12).collect::<String>()),
            None if path.starts_with('/') => format!("Cgroup {path}"),
            // Its path is not known: its number stands for it.
            None => path.replace("cgroup", "Cgroup"),
        };
        (name, path)
    }

    /// A process as `name (pid)`, named as it was when it was last seen.
    fn process(&self, pid: u32) -> String {
        let of = self.gather.groups.all.iter().filter(|g| g.who.pid == pid);
        let last = of.map(|g| g.last_ns).max().unwrap_or(self.context.meta.end_ns);
        format!("{} ({pid})", self.context.meta.tasks.comm(pid, last))
    }

    /// Process of a group; `None` for what is told together.
    fn pid(&self, group: u32) -> Option<u32> {
        Some(self.gather.groups.all[group as usize].who.pid).filter(|pid| *pid != super::groups::OTHERS)
    }

    /// Whether enough of a source is there for a sentence about it. The lost may be anybody's: beside one in twenty, a share
    /// of a fifth or more still holds within a point or two.
    fn trusts(&self, source: Source) -> bool {
        let stats = self.context.meta.sources.get(&(source as u16)).copied().unwrap_or_default();
        let lost = stats.lost.max(self.context.meta.losses.of_source(source as u16));
        percent(lost, lost.saturating_add(stats.kept)) < 5.0 && self.context.reading.damage.events == 0
    }

    fn duration_ns(&self) -> u64 {
        self.gather.filter.duration_ns.max(1)
    }
}
