//! Which binary lies where in which process now: to know which binaries the stacks hit, and which processes share a
//! mount namespace. The file has its own, exact account of that; this one only chooses.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::processes::Mapping;

/// Processes at most; of more the hits are not known, which is counted.
const MOST: usize = 65_536;
/// Executable mappings of a process at most.
const MOST_RANGES: usize = 8192;
/// What has ended is kept for so many rounds of [`Images::round`]: its last stacks come after it.
const ROUNDS: u64 = 3;

#[derive(Clone, Copy, Debug)]
struct Range {
    start: u64,
    end: u64,
    offset: u64,
    binary: Option<u32>,
    /// Round in which something else was mapped over it: its last stacks may come later.
    replaced: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Image {
    /// When the process began or ran another program.
    ts_ns: u64,
    ranges: Arc<Vec<Range>>,
    /// Those of the program before, as its last stacks may come later.
    before: Arc<Vec<Range>>,
    mount_ns: u64,
    parent: u32,
    gone: Option<u64>,
}

/// Processes and what they map.
#[derive(Debug, Default)]
pub struct Images {
    processes: FxHashMap<u32, Image>,
    round: u64,
    /// Processes beyond [`MOST`].
    pub over: u64,
}

impl Images {
    fn of(&mut self, pid: u32) -> Option<&mut Image> {
        if self.processes.len() >= MOST && !self.processes.contains_key(&pid) {
            self.over += 1;
            return None;
        }
        Some(self.processes.entry(pid).or_default())
    }

    /// A mapping, of a binary or of something else.
    pub fn map(&mut self, m: &Mapping, binary: Option<u32>) {
        let new =
            Range { start: m.start, end: m.start.saturating_add(m.len), offset: m.offset, binary, replaced: None };
        let round = self.round;
        let Some(image) = self.of(m.pid) else { return };
        let ranges = Arc::make_mut(&mut image.ranges);
        for old in ranges.iter_mut().filter(|r| r.start >= new.start && r.end <= new.end) {
            old.replaced.get_or_insert(round);
        }
        // The same again, as when a segment's snapshot is taken.
        ranges.retain(|r| (r.start, r.end, r.binary) != (new.start, new.end, new.binary));
        if ranges.len() < MOST_RANGES {
            ranges.push(new);
        }
    }

    /// A child begins with what its parent has.
    pub fn fork(&mut self, pid: u32, parent: u32, ts_ns: u64) {
        let (ranges, mount_ns) =
            self.processes.get(&parent).map_or_else(Default::default, |p| (Arc::clone(&p.ranges), p.mount_ns));
        let Some(image) = self.of(pid) else { return };
        // Records of different CPUs come nearly in order: it may have run a program already.
        if image.ts_ns < ts_ns {
            *image = Image { ts_ns, ranges, before: Arc::default(), mount_ns, parent, gone: None };
        }
    }

    /// A process runs another program now.
    pub fn exec(&mut self, pid: u32, ts_ns: u64) {
        let Some(image) = self.of(pid) else { return };
        image.ts_ns = ts_ns;
        image.before = std::mem::take(&mut image.ranges);
    }

    /// A process has ended.
    pub fn exit(&mut self, pid: u32) {
        let round = self.round;
        if let Some(image) = self.processes.get_mut(&pid) {
            image.gone = Some(round);
        }
    }

    /// A process is in this mount namespace.
    pub fn enter(&mut self, pid: u32, mount_ns: u64) {
        if let Some(image) = self.of(pid) {
            image.mount_ns = mount_ns;
        }
    }

    /// Processes that are likely to see the same files as `pid`: its parent, then a few of the same mount namespace.
    pub fn neighbours(&self, pid: u32) -> Vec<u32> {
        const FEW: usize = 8;
        let Some(image) = self.processes.get(&pid) else { return Vec::new() };
        let alive = |(other, i): &(&u32, &Image)| i.gone.is_none() && **other != pid && image.mount_ns != 0;
        let same = self.processes.iter().filter(alive).filter(|(_, i)| i.mount_ns == image.mount_ns);
        let parent = Some(image.parent).filter(|p| *p != 0);
        parent.into_iter().chain(same.map(|(pid, _)| *pid).take(FEW)).collect()
    }

    /// The binaries that may lie at an address of a process, with the offset in their files: what is mapped there now, and what
    /// was a moment ago.
    pub fn at(&self, pid: u32, addr: u64) -> impl Iterator<Item = (u32, u64)> {
        let image = self.processes.get(&pid);
        let ranges = image.into_iter().flat_map(|image| image.ranges.iter().chain(image.before.iter()));
        let there = ranges.filter(move |r| (r.start..r.end).contains(&addr));
        there.filter_map(move |r| Some((r.binary?, (addr - r.start).wrapping_add(r.offset))))
    }

    /// Forgets what ended some rounds ago. To be called after all stacks so far were looked up.
    pub fn round(&mut self) {
        self.round += 1;
        let round = self.round;
        let is_kept = |ended: Option<u64>| ended.is_none_or(|ended| ended + ROUNDS > round);
        self.processes.retain(|_, image| is_kept(image.gone));
        for image in self.processes.values_mut().filter(|i| i.ranges.iter().any(|r| !is_kept(r.replaced))) {
            Arc::make_mut(&mut image.ranges).retain(|r| is_kept(r.replaced));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(pid: u32, start: u64) -> Mapping {
        Mapping { pid, start, len: 0x1000, ..Mapping::default() }
    }

    #[test]
    fn forks_execs_and_ends() {
        let mut images = Images::default();
        let at = |images: &Images, pid, addr| images.at(pid, addr).map(|(binary, _)| binary).collect::<Vec<_>>();
        images.map(&mapping(1, 0x1000), Some(7));
        images.enter(1, 99);
        images.fork(2, 1, 10);
        assert_eq!(at(&images, 2, 0x1800), [7]);
        assert_eq!(images.at(1, 0x1800).collect::<Vec<_>>(), [(7, 0x800)]);
        images.exec(2, 20);
        images.map(&mapping(2, 0x5000), Some(8));
        // A fork that is told too late changes nothing.
        images.fork(2, 1, 10);
        assert_eq!((at(&images, 2, 0x5000), at(&images, 2, 0x1000)), (vec![8], vec![7]));
        assert!(at(&images, 1, 0x5000).is_empty());
        // A newer mapping replaces what it covers, but not at once.
        images.map(&mapping(2, 0x5000), Some(9));
        images.map(&mapping(2, 0x5000), Some(9));
        assert_eq!(at(&images, 2, 0x5000), [8, 9]);
        (0..ROUNDS).for_each(|_| images.round());
        assert_eq!(at(&images, 2, 0x5000), [9]);
        assert_eq!(images.neighbours(2), [1, 1]);
        images.exit(2);
        images.round();
        assert_eq!(at(&images, 2, 0x5000), [9]);
        (0..ROUNDS).for_each(|_| images.round());
        assert!(at(&images, 2, 0x5000).is_empty());
        // The pid anew.
        images.fork(2, 1, 30);
        assert_eq!(at(&images, 2, 0x1000), [7]);
    }
}
