//! Stack ids and their frames, as recorded: absolute addresses, the leaf first.

use rustc_hash::FxHashMap;

use crate::view::View;

/// A stack as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Moment of its definition, CLOCK_MONOTONIC.
    pub ts_ns: u64,
    /// Whether addresses lie in user space.
    pub user: bool,
    /// Process.
    pub pid: u32,
    start: usize,
    end: usize,
}

/// All stacks of a trace. Memory: 8 bytes a frame.
#[derive(Debug, Default)]
pub struct Stacks {
    by_id: FxHashMap<u64, Stack>,
    frames: Vec<u64>,
}

impl Stacks {
    /// Takes over STACK rows. A stack that is defined again, in another segment, is the same.
    pub(crate) fn add(&mut self, view: View<'_>) {
        let (ts, id, space, pid) = (view.ints("ts_ns"), view.ints("stack_id"), view.ints("space"), view.ints("pid"));
        let Some(frames) = view.lists("frames") else { return };
        for row in 0..view.rows() {
            let Stacks { by_id, frames: all } = self;
            by_id.entry(id.get(row)).or_insert_with(|| {
                let start = all.len();
                all.extend_from_slice(frames.get(row));
                let user = space.get(row) == bpfrec_format::meta::space::USER;
                Stack { ts_ns: ts.get(row), user, pid: pid.get32(row), start, end: all.len() }
            });
        }
    }

    /// The same addresses as `stack`, from another moment on.
    pub(crate) fn add_version(&mut self, id: u64, stack: &Stack, ts_ns: u64) {
        self.by_id.insert(id, Stack { ts_ns, ..*stack });
    }

    /// The stack with this id.
    pub fn get(&self, id: u64) -> Option<&Stack> {
        self.by_id.get(&id)
    }

    /// Its addresses, the leaf first.
    pub fn frames(&self, stack: &Stack) -> &[u64] {
        &self.frames[stack.start..stack.end]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// All of them by id.
    pub fn sorted(&self) -> Vec<(u64, Stack)> {
        let mut all: Vec<_> = self.by_id.iter().map(|(id, stack)| (*id, *stack)).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }
}
