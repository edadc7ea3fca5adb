//! The kernel's memory: objects and per-CPU memory by address, pages by page frame.

use std::collections::VecDeque;

use super::ranges::{Pieces, Ranges};
use super::store::{Heap, Rec, Rest, Sites};
use super::{Ended, Event, Fate, KERNEL, Life, Of, op};
use crate::losses::Spans;

/// `kmalloc(0)` and below: no memory at all.
const NOTHING: u64 = 16;

/// Live memory of the kernel.
pub(super) struct Kernel {
    sites: Sites,
    objects: Heap,
    percpu: Heap,
    pages: Ranges,
    page: u64,
    pub(super) spans: Spans,
    rest: Option<VecDeque<Rest>>,
    pieces: Pieces,
}

impl Kernel {
    pub(super) fn new(spans: Spans, page: u64, heads_only: bool) -> Self {
        let pages = Ranges::new(page, heads_only);
        let (sites, objects, percpu) = (Sites::default(), Heap::default(), Heap::default());
        Kernel { sites, objects, percpu, pages, page, spans, rest: None, pieces: Pieces::default() }
    }

    pub(super) fn event(&mut self, kind: usize, e: &Event, ended: &mut Ended) {
        match KERNEL[kind] {
            "page_alloc" => {
                let old = self.pages.cut(e.addr, e.bytes.div_ceil(self.page));
                self.end_pages(old, e, Fate::Replaced, ended);
                let rec = self.sites.rec(e, op::PAGES);
                self.pages.insert(rec);
            }
            "page_free" => {
                // Pages may come back in other portions than they went: what is told now is what counts.
                let len = if e.bytes > 0 { e.bytes } else { self.pages.bytes_at(e.addr) }.div_ceil(self.page);
                let old = self.pages.free(e.addr, len);
                let found: u64 = old.iter().map(|r| r.bytes.div_ceil(self.page)).sum();
                let of = if found == 0 || found >= len { self.known(old.first(), e.ts_ns) } else { Of::Partly };
                ended.frees.push(e.free(op::PAGES, of, old.first().map(|r| r.ts_ns)));
                self.end_pages(old, e, Fate::Freed, ended);
            }
            _ if e.addr <= NOTHING => {}
            name => {
                let percpu = name.starts_with("percpu");
                let op = if percpu { op::PERCPU } else { op::SLAB };
                let heap = if percpu { &mut self.percpu } else { &mut self.objects };
                if name.ends_with("alloc") {
                    if let Some(old) = heap.insert(self.sites.rec(e, op)) {
                        ended.lives.push(self.sites.life(&old, false, Some(e.end(Fate::Replaced))));
                    }
                    return;
                }
                let old = heap.remove(e.addr);
                ended.frees.push(e.free(op, self.known(old.as_ref(), e.ts_ns), old.map(|r| r.ts_ns)));
                ended.lives.extend(old.map(|r| self.sites.life(&r, false, Some(e.end(Fate::Freed)))));
            }
        }
    }

    fn known(&self, old: Option<&Rec>, ts_ns: u64) -> Of {
        match old {
            Some(_) => Of::Known,
            None if self.spans.touch(0, ts_ns) => Of::Lost,
            None => Of::Before,
        }
    }

    fn end_pages(&mut self, old: Vec<Rec>, e: &Event, fate: Fate, ended: &mut Ended) {
        for rec in old {
            let part = !self.pages.settle(&rec);
            ended.lives.push(self.sites.life(&rec, part, Some(e.end(fate))));
        }
    }

    pub(super) fn rest(&mut self) -> Vec<Life> {
        if self.rest.is_none() {
            let (pages, pieces) = std::mem::replace(&mut self.pages, Ranges::new(self.page, false)).into_parts();
            self.pieces = pieces;
            let (objects, percpu) = (std::mem::take(&mut self.objects), std::mem::take(&mut self.percpu));
            self.rest = Some([Rest::of(objects), Rest::Ranges(pages), Rest::of(percpu)].into());
        }
        let Some(rest) = &mut self.rest else { return Vec::new() };
        while let Some(next) = rest.front_mut() {
            let some = next.next();
            if !some.is_empty() {
                return some.iter().map(|r| self.sites.life(r, !self.pieces.settle(r), None)).collect();
            }
            rest.pop_front();
        }
        Vec::new()
    }
}
