//! Which functions of a binary go into the file: those in pages that stacks hit. A binary may have a hundred thousand others,
//! which no frame of the trace asks for.

use std::io;

use bpfrec_format::meta::symbol_source;
use bpfrec_format::reader::ReadAt;

use crate::elf::{Segment, SymbolTable};

/// Functions without a length in a table at most; of those beyond none is written.
const MOST_OPEN: usize = 1 << 20;

/// A function without a length: it reaches up to the next one, which may be in a page that was not hit.
#[derive(Debug, PartialEq, Eq)]
struct Open {
    addr: u64,
    next: Option<u64>,
    /// Another one at its address has a length.
    has_length: bool,
}

/// Chooses from one table of symbols.
#[derive(Debug, Default)]
pub struct Chosen<'a> {
    /// Pages of 4 KiB in the file, in order; `None`: everything.
    pages: Option<&'a [u64]>,
    segments: &'a [Segment],
    open: Vec<Open>,
}

impl<'a> Chosen<'a> {
    /// Those of `table` in `pages` of the file, which is loaded as `segments` say.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn new(
        pages: Option<&'a [u64]>,
        segments: &'a [Segment],
        file: &dyn ReadAt,
        table: &SymbolTable,
        source: u64,
    ) -> io::Result<Chosen<'a>> {
        let mut chosen = Chosen { pages, segments, open: Vec::new() };
        // An exported function without a length has no extent: functions.rs of the analyzer.
        if pages.is_none() || source == symbol_source::DYNSYM {
            return Ok(chosen);
        }
        table.functions(file, |_, addr, len| {
            if len == 0 {
                chosen.open.push(Open { addr, next: None, has_length: false });
            }
            Ok(chosen.open.len() < MOST_OPEN)
        })?;
        chosen.open.sort_by_key(|o| o.addr);
        chosen.open.dedup_by_key(|o| o.addr);
        for i in 1..chosen.open.len() {
            chosen.open[i - 1].next = Some(chosen.open[i].addr);
        }
        if !chosen.open.is_empty() {
            table.functions(file, |_, addr, len| {
                chosen.see(addr, len);
                Ok(true)
            })?;
        }
        Ok(chosen)
    }

    fn see(&mut self, addr: u64, len: u64) {
        let at = self.open.partition_point(|o| o.addr < addr);
        if let Some(before) = at.checked_sub(1).and_then(|i| self.open.get_mut(i)) {
            before.next = Some(before.next.map_or(addr, |next| next.min(addr)));
        }
        if let Some(same) = self.open.get_mut(at).filter(|o| o.addr == addr && len > 0) {
            same.has_length = true;
        }
    }

    /// The length with which a function is written; `None`: it is not.
    pub fn length(&self, addr: u64, len: u64) -> Option<u64> {
        let Some(pages) = self.pages else { return Some(len) };
        let segment = self.segments.iter().find(|s| addr >= s.addr && addr - s.addr < s.len)?;
        let open = (len == 0).then(|| self.open.binary_search_by_key(&addr, |o| o.addr).ok()).flatten();
        let open = open.map(|i| &self.open[i]).filter(|o| !o.has_length);
        // Without a next one the analyzer finds the end as it always does: that of the segment.
        let written = open.and_then(|o| o.next).map_or(len, |next| next.min(segment.addr + segment.len) - addr);
        let reach = if open.is_some() && written == 0 { segment.len } else { written.max(1) };
        let first = addr - segment.addr + segment.offset;
        let last = first.saturating_add(reach - 1) >> 12;
        let page = pages.get(pages.partition_point(|page| *page < first >> 12))?;
        (*page <= last).then_some(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_in_pages_that_were_hit() {
        let segments = [Segment { offset: 0x1000, len: 0x10000, addr: 0x41_1000, flags: 5 }];
        let of = |page: u64| 0x41_0000 + (page << 12);
        let pages = [3, 7];
        let mut chosen = Chosen { pages: Some(&pages), segments: &segments, open: Vec::new() };
        let length = |c: &Chosen<'_>, addr, len| c.length(addr, len);
        assert_eq!(length(&chosen, of(3), 16), Some(16));
        assert_eq!(length(&chosen, of(2) + 0xff0, 16), None);
        assert_eq!(length(&chosen, of(2) + 0xff0, 17), Some(17));
        // All over a page that was hit, and what lies in none, or in no segment.
        assert_eq!(length(&chosen, of(4), 0x4000), Some(0x4000));
        assert_eq!(length(&chosen, of(4), 0x3000), None);
        assert_eq!(length(&chosen, 0x1000, 0x3000), None);
        assert_eq!(length(&Chosen::default(), 0x1000, 5), Some(5));
        // Without a length: up to the next one, whether that is hit or not.
        chosen.open = [of(2), of(5), of(8)].map(|addr| Open { addr, next: None, has_length: false }).into();
        [(of(4), 9), (of(5), 5), (of(7) + 8, 1), (of(8), 0), (of(9), 4)].iter().for_each(|(a, l)| chosen.see(*a, *l));
        assert_eq!(length(&chosen, of(2), 0), Some(0x2000));
        assert_eq!((length(&chosen, of(5), 5), length(&chosen, of(5), 0)), (None, None));
        assert_eq!(length(&chosen, of(8), 0), None);
        // The last one reaches to the end of the segment, so it goes into the file as it is.
        chosen.open = vec![Open { addr: of(6), next: None, has_length: false }];
        assert_eq!(length(&chosen, of(6), 0), Some(0));
    }
}
