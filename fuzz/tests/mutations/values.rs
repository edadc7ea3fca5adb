//! Changes values: every column of every kind gets what no recorder would write.

use bpfrec_format::{Column, Ragged, Table};
use bpfrec_fuzz::{EDGES, TEXTS};

use crate::builder::Random;
use crate::model::Model;

/// Values of a HEADER's items.
const ITEMS: [&str; 10] = [
    "",
    "18446744073709551615",
    "-9223372036854775808",
    "0-4294967295",
    "1-0,,5",
    "NaN",
    ",",
    "sched",
    "offcpu,malloc,kmem",
    "1e999",
];

/// A copy with some values changed.
pub fn changed(model: &Model, random: &mut Random) -> Model {
    let mut model = model.clone();
    for _ in 0..1 + random.next(12) {
        one(&mut model, random);
    }
    model
}

fn pick(below: usize, random: &mut Random) -> usize {
    random.next(below.max(1) as u64) as usize
}

fn edge(random: &mut Random) -> u64 {
    match random.next(3) {
        0 => random.next(u64::MAX),
        _ => EDGES[pick(EDGES.len(), random)],
    }
}

fn one(model: &mut Model, random: &mut Random) {
    let at = pick(model.blocks.len(), random);
    match random.next(12) {
        0 if !model.items.is_empty() => {
            let item = pick(model.items.len(), random);
            model.items[item].1 = ITEMS[pick(ITEMS.len(), random)].into();
        }
        1 => {
            let block = model.blocks[at].clone();
            model.blocks.push(block);
        }
        2 if model.blocks.len() > 1 => drop(model.blocks.remove(at)),
        3 => {
            let other = pick(model.blocks.len(), random);
            model.blocks.swap(at, other);
        }
        4 => {
            let header = &mut model.blocks[at].0;
            match random.next(4) {
                0 => header.ts_min_ns = edge(random),
                1 => header.ts_max_ns = edge(random),
                2 => header.stream = edge(random) as u32,
                _ => header.lost_total = edge(random),
            }
        }
        _ => {
            let tables = &mut model.blocks[at].1;
            let table = pick(tables.len(), random);
            cells(&mut tables[table], random);
        }
    }
}

fn cells(table: &mut Table, random: &mut Random) {
    let rows = table.rows();
    let (column, row) = (pick(table.columns.len(), random), pick(rows, random));
    match &mut table.columns[column] {
        Column::Int(values) if !values.is_empty() => match random.next(5) {
            0 => values.fill(edge(random)),
            1 => values.reverse(),
            2 => values[row] = values[pick(rows, random)],
            3 => values.iter_mut().for_each(|v| *v = v.wrapping_mul(EDGES[pick(EDGES.len(), random)])),
            _ => values[row] = edge(random),
        },
        Column::Int(_) => {}
        Column::Text(texts) => {
            let text = match random.next(8) {
                0 => vec![b'a'; 70_000],
                1 => "\u{202e}[x+0x1];y 9".into(),
                2 => (0..random.next(40)).map(|_| random.next(256) as u8).collect(),
                _ => TEXTS[pick(TEXTS.len(), random)].to_vec(),
            };
            replace(texts, row, random.next(4) == 0, &text);
        }
        Column::List(lists) => {
            let list: Vec<u64> = match random.next(3) {
                0 => vec![edge(random); 1024],
                1 => Vec::new(),
                _ => (0..random.next(200)).map(|_| edge(random)).collect(),
            };
            replace(lists, row, random.next(4) == 0, &list);
        }
    }
}

/// One row, or all of them.
fn replace<T: Clone>(ragged: &mut Ragged<T>, row: usize, all: bool, new: &[T]) {
    let mut out = Ragged { ends: Vec::new(), data: Vec::new() };
    // A long one in all rows would not fit into a block.
    let all = all && new.len() < 100;
    (0..ragged.ends.len()).for_each(|i| out.push(if all || i == row { new } else { ragged.get(i) }));
    *ragged = out;
}
