//! Which stacks the current segment defines. Each segment must define all that its events refer to, and around a
//! rotation an event can come after its stack was defined in the segment before: then the definition is repeated.

use bpfrec_format::writer::Chunk;
use bpfrec_format::{Column, Kind, Registry, Table, meta};
use rustc_hash::{FxHashMap, FxHashSet};

/// Bytes of definitions that are remembered from the segment before.
const REMEMBERED: usize = 16 << 20;

/// Ids that are known at the most are twice as many. The programs' own table (`defined`) is much smaller: what was not seen
/// among so many others is defined anew before it is referred to again.
const KNOWN: usize = 1 << 19;
/// Undefined ids that are looked after at the most; of more each event counts.
const AWAITED: usize = 1 << 16;

/// One definition: its row, without the id.
type Row = (u64, u64, u64, u64, Box<[u64]>);

/// Definitions of the current segment and of the one before.
#[derive(Default)]
pub struct Stacks {
    /// Defined or referred to of late, and what was so before that.
    defined: FxHashSet<u64>,
    older: FxHashSet<u64>,
    /// Definitions of this segment, as far as they fit in.
    rows: FxHashMap<u64, Row>,
    before: FxHashMap<u64, Row>,
    remembered: usize,
    /// Ids that events referred to before their definition came.
    awaited: FxHashMap<u64, u64>,
    /// Events that referred to more of such ids.
    unawaited: u64,
    stack_fields: FxHashMap<u16, Vec<usize>>,
}

impl Stacks {
    /// Takes note of definitions that are about to be written.
    pub fn define(&mut self, table: &Table) {
        let [
            Column::Int(ts),
            Column::Int(ids),
            Column::Int(space),
            Column::Int(pid),
            Column::Int(exec),
            Column::List(frames),
            ..,
        ] = &table.columns[..]
        else {
            return;
        };
        for (i, id) in ids.iter().enumerate() {
            self.awaited.remove(id);
            let size = 8 * frames.get(i).len() + 96;
            if self.remembered + size <= REMEMBERED {
                let row = (ts[i], space[i], pid[i], exec[i], frames.get(i).into());
                // A definition may come again.
                if self.rows.insert(*id, row).is_none() {
                    self.remembered += size;
                }
            }
            know(&mut self.defined, &mut self.older, *id);
        }
    }

    /// Looks at the stack ids of a chunk. Returns definitions of the segment before that must be repeated.
    pub fn refer(&mut self, chunk: &Chunk, registry: &Registry) -> Option<Table> {
        let mut again = FxHashSet::default();
        for (id, rows) in &chunk.rows {
            let Some(kind) = registry.get(*id) else { continue };
            let fields = self.stack_fields.entry(*id).or_insert_with(|| stack_fields(kind));
            for &offset in fields.iter() {
                for row in rows.chunks_exact(kind.row_size as usize) {
                    let stack = row[offset..offset + 8].iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
                    if stack == 0 || self.defined.contains(&stack) {
                        continue;
                    }
                    if self.older.remove(&stack) {
                        know(&mut self.defined, &mut self.older, stack);
                    } else if self.before.contains_key(&stack) {
                        again.insert(stack);
                    } else if self.awaited.len() < AWAITED || self.awaited.contains_key(&stack) {
                        *self.awaited.entry(stack).or_default() += 1;
                    } else {
                        self.unawaited += 1;
                    }
                }
            }
        }
        if again.is_empty() {
            return None;
        }
        let mut table = Table::new(&meta::kind(meta::STACK));
        for id in again {
            if let Some((ts, space, pid, exec, frames)) = self.before.remove(&id) {
                table.push(&[ts.into(), id.into(), space.into(), pid.into(), exec.into(), frames[..].into()]);
            }
        }
        self.define(&table);
        Some(table)
    }

    /// Events so far whose stack is not defined in their segment.
    pub fn undefined(&self) -> u64 {
        self.awaited.values().sum::<u64>() + self.unawaited
    }

    /// A new segment: nothing is defined in it yet.
    pub fn next_segment(&mut self) {
        // What was awaited was told in the loss table of the segment that ended.
        self.awaited.clear();
        self.unawaited = 0;
        self.defined.clear();
        self.older.clear();
        self.before = std::mem::take(&mut self.rows);
        self.remembered = 0;
    }
}

/// Takes note of an id that is defined, in bounds.
fn know(defined: &mut FxHashSet<u64>, older: &mut FxHashSet<u64>, id: u64) {
    if defined.len() >= KNOWN {
        *older = std::mem::take(defined);
    }
    defined.insert(id);
}

/// Offsets of a kind's stack ids in its rows.
fn stack_fields(kind: &Kind) -> Vec<usize> {
    kind.fields.iter().filter(|f| f.name.ends_with("stack_id")).map(|f| usize::from(f.offset)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfrec_format::events;

    fn sample(stack_id: u64) -> Chunk {
        let registry = Registry::default();
        let kind = registry.get(events::CPU_SAMPLE).unwrap();
        let mut row = vec![0u8; kind.row_size as usize];
        let at = usize::from(kind.fields[kind.index_of("user_stack_id").unwrap()].offset);
        row[at..at + 8].copy_from_slice(&stack_id.to_le_bytes());
        Chunk { rows: vec![(events::CPU_SAMPLE, row)], ..Chunk::default() }
    }

    fn definition(id: u64) -> Table {
        let mut table = Table::new(&meta::kind(meta::STACK));
        table.push(&[1u64.into(), id.into(), 1u64.into(), 7u64.into(), 8u64.into(), [id, id + 1][..].into()]);
        table
    }

    #[test]
    fn a_definition_is_repeated_once_in_the_next_segment() {
        let (mut stacks, registry) = (Stacks::default(), Registry::default());
        stacks.define(&definition(5));
        assert_eq!(stacks.refer(&sample(5), &registry), None);
        stacks.next_segment();
        assert_eq!(stacks.refer(&sample(5), &registry), Some(definition(5)));
        assert_eq!(stacks.refer(&sample(5), &registry), None);
        assert_eq!(stacks.undefined(), 0);
    }

    #[test]
    fn what_is_never_defined_is_counted() {
        let (mut stacks, registry) = (Stacks::default(), Registry::default());
        assert_eq!(stacks.refer(&sample(5), &registry), None);
        assert_eq!(stacks.refer(&sample(6), &registry), None);
        assert_eq!(stacks.undefined(), 2);
        stacks.define(&definition(5));
        assert_eq!(stacks.undefined(), 1);
    }

    #[test]
    fn the_known_are_bounded_and_those_in_use_stay() {
        let (mut stacks, registry) = (Stacks::default(), Registry::default());
        stacks.define(&definition(5));
        for id in 0..3 * KNOWN as u64 {
            know(&mut stacks.defined, &mut stacks.older, 1000 + id);
            if id % (KNOWN as u64 / 2) == 0 {
                assert_eq!(stacks.refer(&sample(5), &registry), None);
            }
        }
        assert!(stacks.defined.len() + stacks.older.len() <= 2 * KNOWN);
        assert_eq!(stacks.undefined(), 0, "a stack in use was forgotten");
        (0..AWAITED as u64 + 10).for_each(|id| drop(stacks.refer(&sample(1 << 40 | id), &registry)));
        assert_eq!((stacks.awaited.len(), stacks.undefined()), (AWAITED, AWAITED as u64 + 10));
    }
}
