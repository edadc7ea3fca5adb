//! Small tables of what changes on the host, which wait for each other for a moment: a block for each would cost more than
//! its rows, in time and in bytes.

use bpfrec_format::{BlockType, Table};

/// Rows that may wait.
const MOST: usize = 1000;

/// Tables that wait, by the type of their block and by kind, in the order in which they came.
#[derive(Debug, Default)]
pub struct Held {
    tables: Vec<(BlockType, Vec<Table>)>,
    rows: usize,
}

impl Held {
    /// Whether tables of this type of block may wait. Stacks may not: a file that ends here must define what its events
    /// refer to.
    pub fn takes(block_type: BlockType) -> bool {
        matches!(block_type, BlockType::Tasks | BlockType::Cgroups | BlockType::Maps)
    }

    /// Keeps tables until [`Held::take`]; those of one type then fit into a block.
    pub fn add(&mut self, block_type: BlockType, tables: Vec<Table>) {
        self.rows += tables.iter().map(Table::rows).sum::<usize>();
        let Some((_, held)) = self.tables.iter_mut().find(|(of, _)| *of == block_type) else {
            self.tables.push((block_type, tables));
            return;
        };
        for table in tables {
            match held.iter_mut().find(|h| h.kind == table.kind) {
                Some(of) => of.append(&table),
                None => held.push(table),
            }
        }
    }

    /// No more should wait.
    pub fn is_full(&self) -> bool {
        self.rows >= MOST
    }

    /// All that waits.
    pub fn take(&mut self) -> Vec<(BlockType, Vec<Table>)> {
        std::mem::take(self).tables
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfrec_format::meta;

    #[test]
    fn tables_of_a_kind_become_one() {
        let mut held = Held::default();
        let stack = |id: u64| {
            let mut table = Table::new(&meta::kind(meta::STACK));
            table.push(&[1u64.into(), id.into(), 0u32.into(), 2u32.into(), 3u64.into(), [id, id][..].into()]);
            table
        };
        let namespaces = Table::new(&meta::kind(meta::TASK_NAMESPACES));
        held.add(BlockType::Stacks, vec![stack(5)]);
        held.add(BlockType::Tasks, vec![namespaces.clone()]);
        held.add(BlockType::Stacks, vec![stack(6), stack(7)]);
        assert!(!held.is_full());
        let taken = held.take();
        assert_eq!(taken[1], (BlockType::Tasks, vec![namespaces]));
        let [(BlockType::Stacks, stacks), _] = &taken[..] else { panic!("{taken:?}") };
        assert_eq!((stacks.len(), stacks[0].columns[1].ints()), (1, &[5, 6, 7][..]));
        let bpfrec_format::Column::List(frames) = &stacks[0].columns[5] else { panic!("{stacks:?}") };
        assert_eq!([frames.get(0), frames.get(2)], [&[5, 5], &[7, 7]]);
        (0..MOST).for_each(|i| held.add(BlockType::Stacks, vec![stack(i as u64)]));
        assert!(held.is_full() && !Held::takes(BlockType::Stacks));
        held.take();
        assert!(!held.is_full() && held.take().is_empty());
    }
}
