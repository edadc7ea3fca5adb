//! Functions that runtimes compiled while they ran: which one lay at an address of a process at a moment.

use std::collections::BTreeMap;

use bpfrec_format::meta::symbol_source;
use rustc_hash::FxHashMap;

use crate::tasks::{Image, Tasks};
use crate::view::View;

/// What was written so long before the process began is of another one with the same pid.
const BEFORE_START_NS: u64 = 1_000_000_000;
/// Forks without an exec that are followed upwards.
const GENERATIONS: usize = 16;

/// A function, from one moment until other code takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Function {
    addr: u64,
    end: u64,
    from_ns: u64,
    until_ns: u64,
    name: u32,
    jitdump: bool,
}

impl Function {
    fn covers(&self, addr: u64) -> bool {
        (self.addr..self.end).contains(&addr)
    }
}

/// A place in a compiled function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    name: u32,
    /// Bytes from the function's begin.
    pub offset: u64,
    /// Told by a jitdump file; else by a perf map.
    pub jitdump: bool,
}

/// Functions of a process by address, with the largest end of each subtree of the implicit tree over them.
#[derive(Debug, Default)]
struct Process {
    functions: Vec<Function>,
    max_end: Vec<u64>,
    /// When functions came, each moment once, in order.
    times: Vec<u64>,
}

impl Process {
    /// `rows` in order of time.
    fn new(rows: Vec<Function>) -> Process {
        let mut all: Vec<Function> = Vec::with_capacity(rows.len());
        // What is there at the moment, by address; no two overlap.
        let mut now: BTreeMap<u64, usize> = BTreeMap::new();
        for row in rows {
            let overlaps = |(_, i): &(&u64, &usize)| all[**i].end > row.addr;
            let hidden: Vec<usize> = now.range(..row.end).rev().take_while(overlaps).map(|(_, i)| *i).collect();
            if let [same] = hidden[..]
                && (all[same].addr, all[same].end, all[same].name) == (row.addr, row.end, row.name)
            {
                continue;
            }
            for i in hidden {
                all[i].until_ns = row.from_ns;
                now.remove(&all[i].addr);
            }
            now.insert(row.addr, all.len());
            all.push(row);
        }
        all.retain(|f| f.from_ns < f.until_ns);
        all.sort_by_key(|f| (f.addr, f.from_ns));
        let mut times: Vec<u64> = all.iter().map(|f| f.from_ns).collect();
        times.sort_unstable();
        times.dedup();
        let mut process = Process { max_end: vec![0; all.len()], functions: all, times };
        process.fill(0, process.functions.len());
        process
    }

    fn fill(&mut self, low: usize, high: usize) -> u64 {
        if low >= high {
            return 0;
        }
        let middle = low + (high - low) / 2;
        let below = self.fill(low, middle).max(self.fill(middle + 1, high));
        self.max_end[middle] = below.max(self.functions[middle].end);
        self.max_end[middle]
    }

    /// All that ever lay at `addr`.
    fn at(&self, addr: u64) -> Vec<&Function> {
        let (mut found, mut spans) = (Vec::new(), vec![(0, self.functions.len())]);
        while let Some((low, high)) = spans.pop() {
            let middle = low + (high - low) / 2;
            if low >= high || self.max_end[middle] <= addr {
                continue;
            }
            let function = &self.functions[middle];
            spans.push((low, middle));
            if function.addr <= addr {
                spans.push((middle + 1, high));
            }
            if function.covers(addr) {
                found.push(function);
            }
        }
        found.sort_unstable_by_key(|f| f.from_ns);
        found
    }
}

/// All compiled functions of a trace.
#[derive(Debug, Default)]
pub struct JitSymbols {
    names: Vec<String>,
    numbers: FxHashMap<String, u32>,
    rows: FxHashMap<u32, Vec<Function>>,
    processes: FxHashMap<u32, Process>,
}

impl JitSymbols {
    pub(crate) fn add(&mut self, view: View<'_>) {
        let (ts, pid, addr, len) = (view.ints("ts_ns"), view.ints("pid"), view.ints("addr"), view.ints("len_bytes"));
        let (source, name) = (view.ints("source"), view.texts("name"));
        for row in 0..view.rows() {
            let name = name.string(row);
            let next = self.names.len() as u32;
            let number = *self.numbers.entry(name).or_insert_with_key(|name| {
                self.names.push(name.clone());
                next
            });
            self.rows.entry(pid.get32(row)).or_default().push(Function {
                addr: addr.get(row),
                end: addr.get(row).saturating_add(len.get(row)),
                from_ns: ts.get(row),
                until_ns: u64::MAX,
                name: number,
                jitdump: source.get(row) == symbol_source::JITDUMP,
            });
        }
    }

    pub(crate) fn finish(&mut self) {
        self.numbers = FxHashMap::default();
        for (pid, mut rows) in std::mem::take(&mut self.rows) {
            // Stable: of the lines of one moment the later one holds.
            rows.sort_by_key(|f| f.from_ns);
            self.processes.insert(pid, Process::new(rows));
        }
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Name of a place's function.
    pub fn name(&self, place: Place) -> &str {
        &self.names[place.name as usize]
    }

    /// Names the stretch of time in which [`JitSymbols::lookup`] answers the same for `pid` as at `ts_ns`, as long as it
    /// is of the same fork or exec.
    pub(crate) fn epoch(&self, pid: u32, ts_ns: u64) -> u32 {
        let times = self.processes.get(&pid).map_or(&[][..], |p| &p.times);
        times.partition_point(|from| *from <= ts_ns) as u32
    }

    /// The function of `pid` that lay at `addr` at `ts_ns`. A child has what its parent had at the fork.
    pub fn lookup(&self, tasks: &Tasks, pid: u32, ts_ns: u64, addr: u64) -> Option<Place> {
        if self.is_empty() {
            return None;
        }
        let (mut pid, mut ts) = (pid, ts_ns);
        for _ in 0..GENERATIONS {
            let image = tasks.image(pid, ts);
            let begun = image.map_or_else(|| tasks.at(pid, ts).map_or(0, |t| t.start_ns), |(from, _)| from);
            if let Some(function) = self.at(pid, begun.saturating_sub(BEFORE_START_NS), ts, addr) {
                return Some(Place { name: function.name, offset: addr - function.addr, jitdump: function.jitdump });
            }
            match image {
                Some((forked, Image::Forked(parent))) if parent != pid => (pid, ts) = (parent, forked),
                _ => return None,
            }
        }
        None
    }

    /// What lay there at that time; where nothing was known then, what was told first after it.
    fn at(&self, pid: u32, begun_ns: u64, ts_ns: u64, addr: u64) -> Option<&Function> {
        let mut all = self.processes.get(&pid)?.at(addr);
        all.retain(|f| f.from_ns >= begun_ns);
        let known = all.iter().take_while(|f| f.from_ns <= ts_ns).count();
        match known.checked_sub(1) {
            None => all.first().copied(),
            Some(last) => Some(all[last]).filter(|f| ts_ns < f.until_ns),
        }
    }

    /// Moments after which something else, or nothing, lies at `addr` of `pid`.
    pub(crate) fn changes(&self, pid: u32, addr: u64) -> Vec<u64> {
        let Some(process) = self.processes.get(&pid) else { return Vec::new() };
        let all = process.at(addr);
        let ends = all.iter().map(|f| f.until_ns).filter(|until| *until < u64::MAX);
        ends.chain(all.iter().skip(1).map(|f| f.from_ns)).collect()
    }
}

#[cfg(test)]
mod tests {
    use bpfrec_format::{Table, meta};

    use super::*;

    fn symbols(rows: &[(u64, u64, u64, &str)]) -> JitSymbols {
        let kind = meta::kind(meta::JIT_SYMBOL);
        let mut table = Table::new(&kind);
        for (ts, addr, len, name) in rows {
            let source = symbol_source::PERF_MAP;
            table.push(&[(*ts).into(), 7u32.into(), (*addr).into(), (*len).into(), source.into(), (*name).into()]);
        }
        let mut symbols = JitSymbols::default();
        symbols.add(View::new(&kind, &table));
        symbols.finish();
        symbols
    }

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_reused_address_is_named_as_it_was() {
        let rows = [
            (10 * S, 0x1000, 0x100, "one"),
            (10 * S, 0x2000, 0x100, "other"),
            (20 * S, 0x1000, 0x80, "two"),
            (30 * S, 0x1080, 0x80, "three"),
        ];
        let tasks = Tasks::default();
        let s = symbols(&rows);
        let at = |ts, addr| s.lookup(&tasks, 7, ts, addr).map(|p| (s.name(p).to_owned(), p.offset));
        assert_eq!(at(12 * S, 0x1090), Some(("one".into(), 0x90)));
        // Told late: nothing else was there before.
        assert_eq!(at(9 * S, 0x1010), Some(("one".into(), 0x10)));
        assert_eq!(at(20 * S, 0x1010), Some(("two".into(), 0x10)));
        // What was partly overwritten is gone as a whole.
        assert_eq!(at(20 * S, 0x1090), None);
        assert_eq!(at(30 * S, 0x1090), Some(("three".into(), 0x10)));
        assert_eq!(at(99 * S, 0x20ff), Some(("other".into(), 0xff)));
        assert_eq!((at(99 * S, 0x2100), s.lookup(&tasks, 8, 99 * S, 0x2000)), (None, None));
        assert_eq!(s.changes(7, 0x1090), [20 * S, 30 * S]);
        assert!(s.changes(7, 0x2000).is_empty());
        assert_eq!([9, 10, 19, 20, 99].map(|ts| s.epoch(7, ts * S)), [0, 1, 1, 2, 3]);
    }

    #[test]
    fn of_lines_of_one_moment_the_last_holds_and_repetition_changes_nothing() {
        let lines = [(10 * S, 0x1000, 0x100, "one"), (10 * S, 0x1000, 0x100, "two")];
        let s = symbols(&[lines, lines].concat());
        let place = s.lookup(&Tasks::default(), 7, 10 * S, 0x1000).unwrap();
        assert_eq!(s.name(place), "two");
        assert!(s.changes(7, 0x1000).is_empty());
    }

    #[test]
    fn functions_around_others_are_found() {
        let mut rows: Vec<(u64, u64, u64, String)> =
            (0..1000).map(|i| (S, 0x1000 * i, 0x800, format!("f{i}"))).collect();
        rows.push((2 * S, 0x1000 * 2000, 0x10_0000, "large".into()));
        let rows: Vec<_> = rows.iter().map(|(ts, addr, len, name)| (*ts, *addr, *len, name.as_str())).collect();
        let s = symbols(&rows);
        for i in 0..1000 {
            let place = s.lookup(&Tasks::default(), 7, 3 * S, 0x1000 * i + 0x7ff).unwrap();
            assert_eq!(s.name(place), format!("f{i}"));
            assert_eq!(s.lookup(&Tasks::default(), 7, 3 * S, 0x1000 * i + 0x800), None);
        }
        assert!(s.lookup(&Tasks::default(), 7, 3 * S, 0x1000 * 2000 + 0xf_ffff).is_some());
    }
}
