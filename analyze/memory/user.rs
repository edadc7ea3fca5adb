//! Memory of processes.

use std::collections::VecDeque;

use bpfrec_format::events::call;
use rustc_hash::FxHashMap;

use super::processes::{Change, changes};
use super::ranges::{Pieces, Ranges};
use super::store::{Heap, Rec, Rest, Sites};
use super::{End, Ended, Event, Fate, Free, Life, Of};
use crate::losses::Spans;
use crate::tasks::Tasks;

const REALLOC: u8 = call::REALLOC as u8;
const REALLOCARRAY: u8 = call::REALLOCARRAY as u8;
const MMAP: u8 = call::MMAP as u8;
const MUNMAP: u8 = call::MUNMAP as u8;
const MREMAP: u8 = call::MREMAP as u8;
const FAILED: u8 = call::FAILED as u8;

/// The memory of one process.
struct Space {
    heap: Heap,
    mappings: Ranges,
    /// What is freed here without an allocation.
    strange: Of,
    /// Since when it is this process's.
    since_ns: u64,
}

/// A call that has taken memory and may still fail.
struct Pending {
    free: Free,
    one: Option<Rec>,
    pieces: Vec<Rec>,
}

/// Live memory of all processes.
pub(super) struct Processes {
    sites: Sites,
    spaces: FxHashMap<u32, Space>,
    /// The call that a thread is in. Only outermost calls are recorded, so that whatever the thread tells next is its end.
    pending: FxHashMap<u32, Pending>,
    changes: VecDeque<(u64, u32, Change)>,
    page: u64,
    /// Not all frees of parts of a mapping are told.
    heads_only: bool,
    pub(super) spans: Spans,
    rest: VecDeque<(Rest, Pieces)>,
    /// Processes that are still to be handed on, the first last.
    left: Option<Vec<(u32, Space)>>,
}

impl Processes {
    pub(super) fn new(tasks: &Tasks, spans: Spans, page: u64, heads_only: bool) -> Self {
        Processes {
            sites: Sites::default(),
            spaces: FxHashMap::default(),
            pending: FxHashMap::default(),
            changes: changes(tasks).into(),
            page,
            heads_only,
            spans,
            rest: VecDeque::new(),
            left: None,
        }
    }

    fn space(&mut self, pid: u32) -> &mut Space {
        let heads_only = self.heads_only;
        self.spaces.entry(pid).or_insert_with(|| Space::new(Of::Before, 0, heads_only))
    }

    pub(super) fn free(&mut self, e: &Event, ended: &mut Ended) {
        self.until(e.ts_ns, ended);
        self.done(e.tid, ended);
        if e.addr == 0 {
            return;
        }
        let ranges = matches!(e.call, MUNMAP | MREMAP);
        let len = e.bytes.checked_next_multiple_of(self.page).unwrap_or(u64::MAX);
        let space = self.space(e.pid);
        let (mut one, mut pieces) = (None, Vec::new());
        if ranges {
            pieces = space.mappings.free(e.addr, len);
        } else {
            one = space.heap.remove(e.addr);
        }
        let (strange, since_ns) = (space.strange, space.since_ns);
        let alloc_ns = one.as_ref().or(pieces.first()).map(|r| r.ts_ns);
        let of = match alloc_ns {
            Some(_) => Of::Known,
            None if ranges => Of::Mapping,
            None if self.spans.touch(since_ns, e.ts_ns) => Of::Lost,
            None => strange,
        };
        let pending = Pending { free: e.free(e.call, of, alloc_ns), one, pieces };
        if matches!(e.call, REALLOC | REALLOCARRAY | MUNMAP | MREMAP) {
            self.pending.insert(e.tid, pending);
        } else {
            self.over(pending, ended);
        }
    }

    pub(super) fn alloc(&mut self, e: &Event, ended: &mut Ended) {
        self.until(e.ts_ns, ended);
        if e.call == FAILED {
            return self.put_back(e, ended);
        }
        self.done(e.tid, ended);
        if e.addr == 0 {
            return;
        }
        let rec = self.sites.rec(e, e.call);
        let end = Some(e.end(Fate::Replaced));
        let page = self.page;
        self.space(e.pid);
        let Processes { sites, spaces, .. } = self;
        let Some(space) = spaces.get_mut(&e.pid) else { return };
        if matches!(e.call, MMAP | MREMAP) {
            // Mapped over something (MAP_FIXED), or its end was never told: it is gone in any case.
            let len = e.bytes.checked_next_multiple_of(page).unwrap_or(u64::MAX);
            for old in space.mappings.cut(e.addr, len) {
                let part = !space.mappings.settle(&old);
                ended.lives.push(sites.life(&old, part, end));
            }
            space.mappings.insert(rec);
        } else if let Some(old) = space.heap.insert(rec) {
            ended.lives.push(sites.life(&old, false, end));
        }
    }

    /// A call failed: all is as it was before it.
    fn put_back(&mut self, e: &Event, ended: &mut Ended) {
        if self.pending.get(&e.tid).is_none_or(|p| p.free.addr != e.addr) {
            return self.done(e.tid, ended);
        }
        let Some(Pending { mut free, one, pieces }) = self.pending.remove(&e.tid) else { return };
        free.of = Of::Nothing;
        ended.frees.push(free);
        let Processes { sites, spaces, .. } = self;
        let Some(space) = spaces.get_mut(&free.pid) else { return };
        // Where somebody was given the address meanwhile, it was free after all: what is newer stands.
        let end = Some(End { ts_ns: free.ts_ns, tid: free.tid, fate: Fate::Freed });
        let newer = one.and_then(|rec| space.heap.insert(rec));
        let gone = newer.and_then(|newer| space.heap.insert(newer));
        ended.lives.extend(gone.map(|rec| sites.life(&rec, false, end)));
        for rec in pieces.into_iter().filter_map(|rec| space.mappings.restore(rec)).collect::<Vec<_>>() {
            let part = !space.mappings.settle(&rec);
            ended.lives.push(sites.life(&rec, part, end));
        }
    }

    /// The last call of a thread cannot fail any more.
    fn done(&mut self, tid: u32, ended: &mut Ended) {
        if let Some(pending) = self.pending.remove(&tid) {
            self.over(pending, ended);
        }
    }

    /// Memory is really free.
    fn over(&mut self, pending: Pending, ended: &mut Ended) {
        let Pending { free, one, pieces } = pending;
        let end = Some(End { ts_ns: free.ts_ns, tid: free.tid, fate: Fate::Freed });
        ended.frees.push(free);
        ended.lives.extend(one.map(|rec| self.sites.life(&rec, false, end)));
        for rec in pieces {
            let over = self.spaces.get_mut(&free.pid).is_none_or(|space| space.mappings.settle(&rec));
            ended.lives.push(self.sites.life(&rec, !over, end));
        }
    }

    /// What becomes of processes up to a moment.
    fn until(&mut self, ts_ns: u64, ended: &mut Ended) {
        while let Some((at, pid, change)) = self.changes.front().copied().filter(|(at, ..)| *at <= ts_ns) {
            self.changes.pop_front();
            self.all_done(Some(pid), ended);
            let fate = if change == Change::Exec { Fate::Exec } else { Fate::Exit };
            if let Some(space) = self.spaces.remove(&pid) {
                let end = Some(End { ts_ns: at, tid: pid, fate });
                let (recs, mut pieces) = space.into_recs();
                let lives = recs.iter().map(|r| self.sites.life(r, !pieces.settle(r), end));
                ended.lives.extend(lives);
            }
            match change {
                Change::Exit => {}
                Change::Fork => drop(self.spaces.insert(pid, Space::new(Of::Inherited, at, self.heads_only))),
                Change::Exec => drop(self.spaces.insert(pid, Space::new(Of::Unknown, at, self.heads_only))),
            }
        }
    }

    fn all_done(&mut self, pid: Option<u32>, ended: &mut Ended) {
        let of_pid = |p: &Pending| pid.is_none_or(|pid| p.free.pid == pid);
        let mut tids: Vec<u32> = self.pending.iter().filter(|(_, p)| of_pid(p)).map(|(tid, _)| *tid).collect();
        tids.sort_unstable();
        tids.into_iter().for_each(|tid| self.done(tid, ended));
    }

    /// All events have gone by.
    pub(super) fn finish(&mut self, ended: &mut Ended) {
        self.until(u64::MAX, ended);
        self.all_done(None, ended);
    }

    pub(super) fn rest(&mut self) -> Vec<Life> {
        let spaces = &mut self.spaces;
        let left = self.left.get_or_insert_with(|| {
            let mut left: Vec<(u32, Space)> = std::mem::take(spaces).into_iter().collect();
            left.sort_unstable_by_key(|(pid, _)| std::cmp::Reverse(*pid));
            left
        });
        loop {
            while let Some((next, pieces)) = self.rest.front_mut() {
                let some = next.next();
                if !some.is_empty() {
                    return some.iter().map(|r| self.sites.life(r, !pieces.settle(r), None)).collect();
                }
                self.rest.pop_front();
            }
            let Some((_, space)) = left.pop() else { return Vec::new() };
            let (mappings, pieces) = space.mappings.into_parts();
            self.rest.push_back((Rest::of(space.heap), Pieces::default()));
            self.rest.push_back((Rest::Ranges(mappings), pieces));
        }
    }
}

impl Space {
    fn new(strange: Of, since_ns: u64, heads_only: bool) -> Self {
        Space { heap: Heap::default(), mappings: Ranges::new(1, heads_only), strange, since_ns }
    }

    /// All that lives here, by time.
    fn into_recs(self) -> (Vec<Rec>, Pieces) {
        let mut recs = self.heap.into_recs();
        let (mappings, pieces) = self.mappings.into_parts();
        recs.extend(mappings.into_values());
        recs.sort_unstable_by_key(|r| (r.ts_ns, r.addr, r.bytes));
        (recs, pieces)
    }
}
