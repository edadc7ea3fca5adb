//! Which code the sampled stacks hit, until it is known which binary lies there.

use bpfrec_format::Column::{Int, List};
use bpfrec_format::{Table, meta};
use rustc_hash::FxHashMap;

use crate::seen::Seen;

/// Pages that are kept at most: some 8 MiB.
const MOST: usize = 1 << 18;

/// Pages of code by process, with the number of frames.
#[derive(Default)]
pub struct Hits {
    pages: FxHashMap<(u32, u64), u32>,
    /// Frames that were not kept.
    pub over: u64,
}

impl Hits {
    /// Takes note of user stacks: rows of kind `stack`.
    pub fn add(&mut self, stacks: &Table) {
        let [_, _, Int(space), Int(pid), _, List(frames), ..] = &stacks.columns[..] else { return };
        for row in (0..stacks.rows()).filter(|row| space[*row] == meta::space::USER) {
            for (depth, addr) in frames.get(row).iter().enumerate() {
                // All but the first are return addresses: the call is the byte before.
                let key = (pid[row] as u32, addr.wrapping_sub(u64::from(depth > 0)) >> 12);
                if self.pages.len() < MOST || self.pages.contains_key(&key) {
                    *self.pages.entry(key).or_default() += 1;
                } else {
                    self.over += 1;
                }
            }
        }
    }

    /// Whether it is time for [`Hits::resolve`].
    pub fn is_full(&self) -> bool {
        self.pages.len() >= MOST / 2
    }

    /// Notes in the binaries what was hit since the last call.
    pub fn resolve(&mut self, seen: &mut Seen) {
        for ((pid, page), frames) in std::mem::take(&mut self.pages) {
            // A page may hold the end of one binary and the begin of another.
            for addr in [page << 12, page << 12 | 0xfff] {
                for (at, offset) in seen.images.at(pid, addr) {
                    let binary = &mut seen.binaries.list[at as usize];
                    binary.hits += u64::from(frames);
                    binary.pages.insert(offset >> 12);
                }
            }
        }
        seen.images.round();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::Mapping;
    use crate::seen::Shared;

    #[test]
    fn own_code_is_hit() {
        let shared = Shared::new();
        crate::processes::mappings(&shared);
        let mut seen = shared.lock();
        let pid = std::process::id();
        let here = own_code_is_hit as fn() as usize as u64;
        let mut stacks = Table::new(&meta::kind(meta::STACK));
        let frames = [here, 0x10, here + 1];
        stacks.push(&[1u64.into(), 1u64.into(), meta::space::USER.into(), pid.into(), 1u64.into(), frames[..].into()]);
        let mut hits = Hits::default();
        hits.add(&stacks);
        hits.resolve(&mut seen);
        let hit: Vec<_> = seen.binaries.list.iter().filter(|b| b.hits > 0).collect();
        let own = std::env::current_exe().unwrap();
        assert_eq!(
            hit.iter().map(|b| (b.hits, b.path.clone())).collect::<Vec<_>>(),
            [(4, own.into_os_string().into_encoded_bytes())]
        );
        assert_eq!(hit[0].pages.len(), 1);
        // Its file is known by the mapping although another process has another file of that name.
        let mut other = Mapping { pid: u32::MAX, start: 0x1000, len: 0x1000, inode: 1, ..Mapping::default() };
        other.path = b"/proc/self/exe".to_vec();
        assert_eq!(seen.binaries.see(&mut other, std::iter::empty()), None);
    }
}
