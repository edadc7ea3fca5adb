//! Stacks of the same addresses that mean different functions at different times.
//!
//! A stack id stands for addresses, and a runtime puts other code at an address, or a library is unloaded and another one
//! loaded there. Such a stack is taken apart into one for each stretch of time in which its addresses mean the same; events
//! of a later stretch are given the id of that.

use std::collections::BTreeSet;

use bpfrec_format::Column;
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::jit::JitSymbols;
use crate::mappings::Mappings;
use crate::slab::Slab;
use crate::stacks::Stacks;

/// So many further stacks are made at the most; they take 48 bytes each.
const AT_MOST: usize = 1 << 20;

/// Later meanings of stacks.
#[derive(Debug, Default)]
pub struct Versions {
    /// (from when on, id) by the recorded id, in order of time.
    later: FxHashMap<u64, Vec<(u64, u64)>>,
    /// Stacks that change their meaning and were not taken apart, as there were too many.
    pub left_out: u64,
}

impl Versions {
    /// Takes stacks apart.
    pub(crate) fn new(stacks: &mut Stacks, jit: &JitSymbols, mappings: &Mappings) -> Versions {
        let mut versions = Versions::default();
        let replaced = mappings.replaced();
        let mut made = 0;
        for (id, stack) in stacks.sorted().into_iter().filter(|(_, s)| s.user) {
            let mut changes = BTreeSet::new();
            for (depth, addr) in stacks.frames(&stack).iter().enumerate() {
                let addr = addr.wrapping_sub(u64::from(depth > 0));
                changes.extend(jit.changes(stack.pid, addr));
                let of_pid = replaced.get(&stack.pid).map_or(&[][..], Vec::as_slice);
                changes.extend(of_pid.iter().filter(|r| addr.wrapping_sub(r.start) < r.len).map(|r| r.ts_ns));
            }
            changes.retain(|ts| *ts > stack.ts_ns);
            if changes.is_empty() {
                continue;
            }
            if made + changes.len() > AT_MOST {
                versions.left_out += 1;
                continue;
            }
            made += changes.len();
            let later = changes.into_iter().map(|from_ns| {
                let bytes: Vec<u8> = [id, from_ns].iter().flat_map(|word| word.to_le_bytes()).collect();
                (from_ns, xxh3_64(&bytes).max(1))
            });
            let later: Vec<_> = later.collect();
            later.iter().for_each(|(from_ns, other)| stacks.add_version(*other, &stack, *from_ns));
            versions.later.insert(id, later);
        }
        versions
    }

    /// The id of what the stack `id` was at `ts_ns`.
    pub fn at(&self, id: u64, ts_ns: u64) -> u64 {
        let Some(later) = self.later.get(&id) else { return id };
        let after = later.partition_point(|(from_ns, _)| *from_ns <= ts_ns);
        after.checked_sub(1).map_or(id, |i| later[i].1)
    }

    /// Gives events the ids of their time.
    pub(crate) fn apply(&self, slab: &mut Slab) {
        if self.later.is_empty() {
            return;
        }
        for table in &mut slab.tables {
            for (field, column) in table.kind.fields.iter().zip(&mut table.columns) {
                if let Column::Int(ids) = column
                    && field.name.ends_with("stack_id")
                {
                    ids.iter_mut().zip(&table.ts).for_each(|(id, ts)| *id = self.at(*id, *ts));
                }
            }
        }
    }
}
