//! From sums to what the page reads. The head is JSON, sums are columns; both stand in `web/data.js` again.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::cells::{Cell, Join};
use super::columns::{As, Columns};
use super::gather::{Class, Gather, Of};
use super::groups::{Group, OTHERS};
use super::stacks::Tree;
use super::{facts, findings};
use crate::block_io::operation;
use crate::error::Result;
use crate::reports::Context;
use crate::reports::memleak::Grown;
use crate::text::{count, plain};

/// Groups and boxes that are told apart, at the first try.
const GROUPS: usize = 1200;
const NODES: usize = 120_000;
/// Losses that are shaded.
const LOSSES: usize = 1000;

/// What the page reads, at a level of detail: 0 is the finest.
pub(super) fn pack(
    gather: &Gather,
    grown: &[Grown],
    context: &Context<'_>,
    notes: &[String],
    level: u32,
) -> Result<(Vec<u8>, Value)> {
    let (meta, mut columns) = (context.meta, Columns::default());
    let (groups, went) = gather.groups.cut(GROUPS >> level);
    let mut tree = Tree::new(NODES >> level);
    let nodes = nodes(gather, context, &mut tree);
    let group = |cell: Cell| Cell { group: went[cell.group as usize], ..cell };
    let node = |cell: Cell| Cell { what: nodes[cell.what as usize], ..group(cell) };

    let cpu = gather.cpu.sorted(group);
    table(&mut columns, "cpu", &cpu, &[]);
    column(&mut columns, "cpu.ns", &cpu, |ns| *ns);
    let latency = gather.latency.sorted(group);
    table(&mut columns, "latency", &latency, &["what", "more"]);
    column(&mut columns, "latency.count", &latency, |n| *n);
    let lengths = gather.lengths.sorted(group);
    table(&mut columns, "length", &lengths, &["what"]);
    column(&mut columns, "length.ns", &lengths, |l| l.ns);
    column(&mut columns, "length.max_ns", &lengths, |l| l.max_ns);
    let samples = gather.samples.sorted(node);
    table(&mut columns, "sample", &samples, &["what"]);
    column(&mut columns, "sample.count", &samples, |n| *n);
    let waits = gather.waits.sorted(node);
    table(&mut columns, "wait", &waits, &["what"]);
    column(&mut columns, "wait.ns", &waits, |a| a.much);
    column(&mut columns, "wait.count", &waits, |a| a.times);

    let rows = leak_rows(gather, grown, context);
    let item = |cell: Cell| Cell { what: rows.of[&cell.what], ..group(cell) };
    let memory = gather.memory.sorted(item);
    table(&mut columns, "memory", &memory, &["what", "more"]);
    column(&mut columns, "memory.bytes_milli", &memory, |a| a.much);
    column(&mut columns, "memory.count_milli", &memory, |a| a.times);
    columns.add("item.row", As::Values, rows.items.iter().map(|i| u64::from(i.0)));
    columns.add("item.node", As::Values, rows.items.iter().map(|i| u64::from(nodes[i.1 as usize])));

    let findings = findings::of(&findings::Seen { gather, tree: &tree, nodes: &nodes, grown, context });
    let functions = tree.write(&mut columns);
    let who = who(&groups, context, &mut columns);
    let class = |class: &Class| match class {
        Class::RunQueue => json!({}),
        Class::Io { dev, op } => json!({"disk": plain(&meta.disk(*dev)), "op": operation(u32::from(*op))}),
    };
    let (bins, start) = (&gather.bins, meta.start_ns);
    let since = |ns: u64| ns.saturating_sub(start);
    let leak = |g: &Grown| {
        json!({
            "op": crate::memory::op::name(g.op),
            "kernel": g.kernel,
            "verdict": g.verdict,
            "bytes_per_s": g.bytes_per_s,
            "estimate": g.estimate,
            "uncertain": g.uncertain,
            "ended": g.bytes > 0 && 2 * g.ended >= g.bytes,
        })
    };
    // Nothing was lost where a source was not recorded, but nothing is there either.
    let unseen = meta.sheds.all.iter().filter(|s| s.step == bpfrec_format::meta::shed::SOURCE);
    let unseen = unseen.map(|s| {
        let to_ns = since(s.to_ns.min(meta.end_ns));
        json!([since(s.from_ns), to_ns, crate::tables::meta::source_name(s.source), 0])
    });
    let losses = meta.losses.rows.iter().filter(|l| l.is_of_events() && l.lost > 0);
    let losses: Vec<Value> = losses
        .take(LOSSES)
        .map(|l| json!([since(l.from_ns), since(l.to_ns), crate::tables::meta::source_name(l.source), l.lost]))
        .chain(unseen)
        .collect();
    let damaged = context.reading.damage.spans.iter().take(LOSSES);
    let head = json!({
        "facts": facts::of(context),
        "bins": {"origin_ns": since(bins.origin_ns), "width_ns": bins.width_ns, "count": bins.count},
        "window": facts::window(gather, context),
        "who": who,
        "classes": gather.classes.all.iter().map(class).collect::<Vec<_>>(),
        "functions": functions,
        "leaks": grown.iter().map(leak).collect::<Vec<_>>(),
        "losses": losses,
        "damaged": damaged.map(|(from, to)| json!([since(from), since(to)])).collect::<Vec<_>>(),
        "findings": findings,
        "cuts": cuts(gather, &groups, &tree, context),
        "notes": notes,
    });
    let findings = head["findings"].clone();
    Ok((columns.pack(head)?, findings))
}

/// The node of each stack. Heavy stacks come first, for those that there is room for.
fn nodes(gather: &Gather, context: &Context<'_>, tree: &mut Tree) -> Vec<u32> {
    let mut weights = vec![0u128; gather.stacks.all.len()];
    let mut weigh = |of: &mut dyn Iterator<Item = (u32, u64)>, total: u64| {
        for (stack, n) in of {
            weights[stack as usize] += u128::from(n) * 1_000_000_000 / u128::from(total.max(1));
        }
    };
    weigh(&mut gather.samples.iter().map(|(c, n)| (c.what, n)), gather.samples.total());
    weigh(&mut gather.waits.iter().map(|(c, a)| (c.what, a.much)), gather.waits.total().much);
    weigh(&mut gather.memory.iter().map(|(c, a)| (c.what, a.much)), gather.memory.total().much);
    let mut seen = vec![0u64; gather.stacks.all.len()];
    let cells = gather.samples.iter().map(|(c, _)| c).chain(gather.waits.iter().map(|(c, _)| c));
    for cell in cells.chain(gather.memory.iter().map(|(c, _)| c)) {
        let last = gather.groups.all[cell.group as usize].last_ns;
        seen[cell.what as usize] = seen[cell.what as usize].max(last);
    }
    let mut order: Vec<u32> = (0..weights.len() as u32).collect();
    order.sort_by_key(|n| (std::cmp::Reverse(weights[*n as usize]), *n));
    let mut nodes = vec![0; weights.len()];
    for n in order {
        nodes[n as usize] = tree.add(context, &gather.stacks.all[n as usize], seen[n as usize]);
    }
    nodes
}

/// Columns of what sums are by.
fn table<V>(columns: &mut Columns, name: &str, rows: &[(Cell, V)], more: &[&str]) {
    let mut add = |field: &str, of: fn(&Cell) -> u64| {
        columns.add(&format!("{name}.{field}"), As::Differences, rows.iter().map(|(cell, _)| of(cell)));
    };
    add("group", |c| c.group.into());
    add("bin", |c| c.bin.into());
    if more.contains(&"what") {
        add("what", |c| c.what.into());
    }
    if more.contains(&"more") {
        add("more", |c| c.more.into());
    }
}

fn column<V: Join>(columns: &mut Columns, name: &str, rows: &[(Cell, V)], value: fn(&V) -> u64) {
    columns.add(name, As::Values, rows.iter().map(|(_, v)| value(v)));
}

/// Containers, processes and threads.
fn who(groups: &[Group], context: &Context<'_>, columns: &mut Columns) -> Value {
    let meta = context.meta;
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    for group in groups {
        let seen = last.entry(group.who.pid).or_default();
        *seen = (*seen).max(group.last_ns);
    }
    let mut cgroups: Vec<u64> = groups.iter().map(|g| g.who.cgroup_id).collect();
    cgroups.dedup();
    let position = |id: u64| cgroups.binary_search(&id).unwrap_or(0) as u64;
    let pids: Vec<u32> = last.keys().copied().collect();
    columns.add("group.cgroup", As::Differences, groups.iter().map(|g| position(g.who.cgroup_id)));
    columns.add(
        "group.process",
        As::Differences,
        groups.iter().map(|g| pids.binary_search(&g.who.pid).unwrap_or(0) as u64),
    );
    columns.add("group.kernel", As::Values, groups.iter().map(|g| u64::from(g.who.kernel)));
    let comm = |tid: u32, ns: u64| plain(meta.tasks.comm(tid, ns)).into_owned();
    let thread = |g: &Group| match g.who.tid {
        OTHERS => Value::Null,
        tid => json!([tid, comm(tid, g.last_ns)]),
    };
    let process = |(pid, ns): (&u32, &u64)| match *pid {
        OTHERS => Value::Null,
        pid => json!([pid, comm(pid, *ns)]),
    };
    let cgroup = |id: &u64| {
        let names = meta.cgroups.get(*id).map(|c| c.names.clone()).unwrap_or_default();
        let container = names.runtime.zip(names.container_id);
        let container = container.map(|(runtime, id)| format!("{runtime} {}", id.chars().take(12).collect::<String>()));
        json!({"path": plain(&meta.cgroups.path(*id)), "name": container.or(names.unit).map(|n| plain(&n).into_owned())})
    };
    json!({
        "cgroups": cgroups.iter().map(cgroup).collect::<Vec<_>>(),
        "processes": last.iter().map(process).collect::<Vec<_>>(),
        "threads": groups.iter().map(thread).collect::<Vec<_>>(),
    })
}

/// Where memory came from: stacks of the report `memleak`, and which of them each stack is.
struct LeakRows {
    /// By stack: its number in `items`.
    of: BTreeMap<u32, u32>,
    /// Row of the report, stack.
    items: Vec<(u32, u32)>,
}

fn leak_rows(gather: &Gather, grown: &[Grown], context: &Context<'_>) -> LeakRows {
    let rows: BTreeMap<(u8, u64), u32> = grown.iter().zip(0..).map(|(g, n)| ((g.op, g.stack), n)).collect();
    let mut leaks = LeakRows { of: BTreeMap::new(), items: Vec::new() };
    for (key, stack) in gather.stacks.all.iter().zip(0..) {
        if let Of::Memory(op) = key.of {
            let id = key.kernel | key.user;
            let resolved = context.symbols().stack(id).map_or(id, |s| s.id);
            leaks.of.insert(stack, leaks.items.len() as u32);
            leaks.items.push((rows.get(&(op, resolved)).copied().unwrap_or(0), stack));
        }
    }
    leaks
}

/// What the page does not tell as finely as the trace.
fn cuts(gather: &Gather, groups: &[Group], tree: &Tree, context: &Context<'_>) -> Vec<String> {
    let mut cuts = Vec::new();
    let seen = gather.groups.all.len();
    let told = groups.iter().filter(|g| g.who.tid != OTHERS).count();
    if told < seen {
        let what = "threads that did least are told together, by process or container";
        cuts.push(format!("{} of {} {what}", count((seen - told) as u64), count(seen as u64)));
    }
    if tree.left_out > 0 {
        cuts.push(format!("{} stacks that were seen least are cut to their process", count(tree.left_out)));
    }
    if context.meta.losses.rows.len() > LOSSES {
        cuts.push(format!("only the first {} losses are shaded", count(LOSSES as u64)));
    }
    cuts
}
