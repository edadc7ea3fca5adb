//! Which stacks the current segment defines. Each segment must define all that its events refer to, and around a
//! rotation an event can come after its stack was defined in the segment before: then the definition is repeated.

use bpfrec_format::writer::Chunk;
use bpfrec_format::{Column, Kind, Registry, Table, meta};
use rustc_hash::{FxHashMap, FxHashSet};

/// Bytes of definitions that are remembered from the segment before.
const REMEMBERED: usize = 16 << 20;

/// One definition: its row, without the id.
type Row = (u64, u64, u64, u64, Box<[u64]>);

/// Definitions of the current segment and of the one before.
#[derive(Default)]
pub struct Stacks {
    defined: FxHashMap<u64, Option<Row>>,
    before: FxHashMap<u64, Row>,
    remembered: usize,
    /// Ids that events referred to before their definition came.
    awaited: FxHashMap<u64, u64>,
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
            let row = (self.remembered + size <= REMEMBERED).then(|| {
                self.remembered += size;
                (ts[i], space[i], pid[i], exec[i], frames.get(i).into())
            });
            self.defined.insert(*id, row);
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
                    if stack == 0 || self.defined.contains_key(&stack) {
                        continue;
                    }
                    if self.before.contains_key(&stack) {
                        again.insert(stack);
                    } else {
                        *self.awaited.entry(stack).or_default() += 1;
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
        self.awaited.values().sum::<u64>()
    }

    /// A new segment: nothing is defined in it yet.
    pub fn next_segment(&mut self) {
        // What was awaited was told in the loss table of the segment that ended.
        self.awaited.clear();
        let old = std::mem::take(&mut self.defined);
        self.before = old.into_iter().filter_map(|(id, row)| Some((id, row?))).collect();
        self.remembered = 0;
    }
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
}
