//! Functions of a binary by address: from the trace or from a file, the same rules for both.
//!
//! A function ends where its length says. Where the length is not known (0) it reaches up to the next one, but not past
//! the section or segment; and between two exported functions lie others that are not known: there it has no extent.

use bpfrec_format::meta::symbol_source;

/// A span of addresses that a function without a length stays within.
pub type Range = std::ops::Range<u64>;

/// A function.
#[derive(Clone, Copy, Debug)]
struct Row {
    addr: u64,
    len: u64,
    /// First address that is no longer its own; made by `finish`.
    end: u64,
    name: usize,
    name_len: u32,
    source: u8,
}

/// A function that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function<'a> {
    /// First address.
    pub addr: u64,
    /// Bytes, as far as it was taken to reach.
    pub len: u64,
    /// Where it is from: [`symbol_source`].
    pub source: u8,
    /// As it stands there, mangled.
    pub name: &'a [u8],
}

/// Functions of one binary. Memory: 48 bytes and the name for each.
#[derive(Clone, Debug, Default)]
pub struct Functions {
    rows: Vec<Row>,
    names: Vec<u8>,
    /// The largest end of all rows up to this one.
    reach: Vec<u64>,
}

impl Functions {
    /// Adds one. [`Functions::finish`] must follow before the next lookup.
    pub fn push(&mut self, addr: u64, len: u64, source: u8, name: &[u8]) {
        if name.is_empty() || addr == 0 {
            return;
        }
        let (name_at, name_len) = (self.names.len(), name.len() as u32);
        self.names.extend_from_slice(name);
        self.rows.push(Row { addr, len, end: addr, name: name_at, name_len, source });
    }

    /// Sorts, and decides where functions without a length end: within the one of `ranges` that they begin in.
    pub fn finish(&mut self, ranges: &[Range]) {
        let names = &self.names;
        let name = |r: &Row| &names[r.name..r.name + r.name_len as usize];
        // Of several names at one address the plainest stands: `malloc`, not `__libc_malloc`.
        let rank = |r: &Row| {
            let name = name(r);
            let underscores = name.iter().take_while(|b| **b == b'_').count();
            (r.addr, std::cmp::Reverse(r.len), underscores, name.len(), name, r.source)
        };
        self.rows.sort_unstable_by(|a, b| rank(a).cmp(&rank(b)));
        self.rows.dedup_by_key(|r| r.addr);
        let mut next = u64::MAX;
        for row in self.rows.iter_mut().rev() {
            row.end = match row.len {
                0 if u64::from(row.source) == symbol_source::DYNSYM => row.addr.saturating_add(1),
                0 => {
                    let within = ranges.iter().find(|r| r.contains(&row.addr));
                    within.map_or(row.addr.saturating_add(1), |r| r.end.min(next))
                }
                len => row.addr.saturating_add(len),
            };
            next = row.addr;
        }
        let farthest = |reach: &mut u64, row: &Row| {
            *reach = row.end.max(*reach);
            Some(*reach)
        };
        self.reach = self.rows.iter().scan(0, farthest).collect();
    }

    fn function(&self, row: &Row) -> Function<'_> {
        let name = &self.names[row.name..row.name + row.name_len as usize];
        Function { addr: row.addr, len: row.end - row.addr, source: row.source, name }
    }

    /// The function that `addr` lies in: the innermost one.
    pub fn lookup(&self, addr: u64) -> Option<Function<'_>> {
        let mut at = self.rows.partition_point(|r| r.addr <= addr);
        while at > 0 && self.reach[at - 1] > addr {
            at -= 1;
            if self.rows[at].end > addr {
                return Some(self.function(&self.rows[at]));
            }
        }
        None
    }

    /// Whether a function begins there.
    pub fn begins_at(&self, addr: u64) -> bool {
        self.rows.binary_search_by_key(&addr, |r| r.addr).is_ok()
    }

    /// Where the names are from, if that is one of `sources`.
    pub fn has_source(&self, sources: &[u64]) -> bool {
        self.rows.iter().any(|r| sources.contains(&u64::from(r.source)))
    }

    /// All of them by address.
    pub fn iter(&self) -> impl Iterator<Item = Function<'_>> {
        self.rows.iter().map(|r| self.function(r))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use bpfrec_format::meta::symbol_source::{DYNSYM, SYMTAB};

    use super::*;

    fn table(rows: &[(u64, u64, u64, &str)], ranges: &[Range]) -> Functions {
        let mut f = Functions::default();
        rows.iter().for_each(|(addr, len, source, name)| f.push(*addr, *len, *source as u8, name.as_bytes()));
        f.finish(ranges);
        f
    }

    fn at(f: &Functions, addr: u64) -> Option<&str> {
        f.lookup(addr).map(|f| std::str::from_utf8(f.name).unwrap())
    }

    #[test]
    fn never_a_neighbours_name() {
        let rows = [
            (0x1000, 0x10, SYMTAB, "a"),
            (0x1020, 0, SYMTAB, "open"),
            (0x1040, 0x10, SYMTAB, "b"),
            (0x1060, 0, SYMTAB, "last"),
        ];
        let segments = [0x1000..0x1080, 0x2000..0x3000];
        let f = table(&rows, &segments);
        let names = [0xfff, 0x1000, 0x100f, 0x1010, 0x1020, 0x103f, 0x104f, 0x1050, 0x1060, 0x107f, 0x1080];
        let names = names.map(|addr| at(&f, addr));
        let (a, b, open, last) = (Some("a"), Some("b"), Some("open"), Some("last"));
        assert_eq!(names, [None, a, a, None, open, open, b, None, last, last, None]);
        // Outside of all that is loaded, and among exported functions only, a length of 0 stretches over nothing.
        assert_eq!(at(&table(&rows, &[]), 0x1021), None);
        let exported = table(&[(0x1000, 0, DYNSYM, "_init"), (0x2000, 8, DYNSYM, "f")], &segments);
        assert_eq!((at(&exported, 0x1000), at(&exported, 0x1001)), (Some("_init"), None));
    }

    #[test]
    fn aliases_and_nesting() {
        let rows = [
            (0x1000, 0x100, SYMTAB, "__libc_malloc"),
            (0x1000, 0x100, SYMTAB, "malloc"),
            (0x1000, 0, SYMTAB, "a"),
            (0x1010, 0x10, SYMTAB, "inner"),
            (0x1200, u64::MAX, SYMTAB, "endless"),
        ];
        let f = table(&rows, &[]);
        let names = [0x1005, 0x1015, 0x1020, 0x10ff, 0x1100, 0x1200, u64::MAX - 1].map(|addr| at(&f, addr));
        let malloc = Some("malloc");
        let endless = Some("endless");
        assert_eq!(names, [malloc, Some("inner"), malloc, malloc, None, endless, endless]);
        assert_eq!(f.len(), 3);
    }
}
