//! Where CPU time went.

use std::collections::BTreeMap;

use bpfrec_format::Source;

use super::{Finding, Seen};
use crate::reports::summary::cpu_count;
use crate::text::{count, duration, percent};

/// A function that has a fifth of all samples by itself is where to look first.
const HOT_PERCENT: f64 = 20.0;
/// With 200 samples a share of 20 % is right to about 5 points.
const SAMPLES: u64 = 200;
/// A process that takes a quarter of the machine.
const BUSY_PERCENT: f64 = 25.0;
/// Below half of the frames named, flamegraphs mislead.
const NAMED_PERCENT: f64 = 50.0;

/// The function that most samples are in.
pub(super) fn hot(seen: &Seen<'_>) -> Vec<Finding> {
    if !seen.trusts(Source::Profile) {
        return Vec::new();
    }
    let mut by_func: BTreeMap<u32, (u64, u32, BTreeMap<u32, u64>)> = BTreeMap::new();
    for (cell, n) in seen.gather.samples.iter() {
        let node = seen.nodes[cell.what as usize];
        if seen.tree.name(node).1 {
            let of = by_func.entry(seen.tree.func_of(node)).or_default();
            (of.0, of.1) = (of.0 + n, node);
            if let Some(pid) = seen.pid(cell.group) {
                *of.2.entry(pid).or_default() += n;
            }
        }
    }
    let all = seen.gather.samples.total();
    let Some((_, (n, node, pids))) = by_func.iter().max_by_key(|(func, of)| (of.0, **func)) else { return Vec::new() };
    let (name, _, binary) = seen.tree.name(*node);
    let share = percent(*n, all);
    let unnamed = name.starts_with('[');
    if share < HOT_PERCENT || all < SAMPLES || unnamed {
        return Vec::new();
    }
    let kernel = name.strip_suffix("_[k]");
    let whose = pids.iter().max_by_key(|(pid, n)| (**n, **pid)).filter(|(_, most)| percent(**most, *n) >= 66.0);
    let whose = whose.map_or(String::new(), |(pid, _)| format!(", mostly in {}", seen.process(*pid)));
    let place = match kernel {
        Some(name) => format!("The kernel's {name}"),
        None if binary.is_empty() => name.to_owned(),
        None => format!("{name} of {}", binary.rsplit('/').next().unwrap_or_default()),
    };
    let text =
        format!("{place} has {share:.0} % of all CPU samples by itself ({} of {}){whose}.", count(*n), count(all));
    vec![Finding::new("flame", share, text)]
}

/// The process with the most CPU time.
pub(super) fn busiest(seen: &Seen<'_>) -> Vec<Finding> {
    if !seen.trusts(Source::Sched) {
        return Vec::new();
    }
    let cpus = cpu_count(seen.context.meta.item("cpus_online"));
    let by_process = seen.gather.cpu.by(|c| seen.pid(c.group));
    let Some((pid, ns)) = by_process.iter().max_by_key(|(pid, ns)| (**ns, **pid)) else { return Vec::new() };
    let (of_machine, of_used) =
        (percent(*ns, cpus.saturating_mul(seen.duration_ns())), percent(*ns, seen.gather.cpu.total()));
    if of_machine < BUSY_PERCENT {
        return Vec::new();
    }
    let text = format!(
        "{} took {of_machine:.0} % of the machine's CPU time, {of_used:.0} % of what was used: {}.",
        seen.process(*pid),
        duration(*ns)
    );
    let mut finding = Finding::new("who", of_machine / 4.0, text);
    finding.pid = Some(*pid);
    vec![finding]
}

/// Frames without names.
pub(super) fn nameless(seen: &Seen<'_>) -> Option<Finding> {
    let (mut named, mut all) = (0, 0);
    let symbols = seen.context.symbols();
    for (cell, n) in seen.gather.samples.iter() {
        let key = seen.gather.stacks.all[cell.what as usize];
        for frame in
            [key.kernel, key.user].into_iter().filter_map(|id| symbols.stack(id)).flat_map(|s| symbols.frames_of(s))
        {
            all += n;
            named += if frame.source == crate::symbols::NameSource::None { 0 } else { n };
        }
    }
    let share = percent(named, all);
    let text =
        format!("Only {share:.0} % of the frames in CPU samples have names; the notes say which binaries lack them.");
    (all >= SAMPLES && share < NAMED_PERCENT).then(|| Finding::new("notes", 0.0, text))
}
