//! The kernel's symbols, as the trace holds them: those of the start, and what came and went since.

use rustc_hash::FxHashMap;

use crate::view::View;

/// Addresses past the last symbol by more than this belong to nothing.
const LAST_SYMBOL_BYTES: u64 = 4096;
/// Names of places where code ends, in the kernel's own list of symbols.
const ENDS: [&str; 4] = ["_etext", "_einittext", "etext", "__init_end"];

#[derive(Debug)]
struct Symbol {
    addr: u64,
    name: String,
    module: String,
}

/// A symbol that came or went.
#[derive(Debug)]
struct Change {
    addr: u64,
    ts_ns: u64,
    len: u64,
    gone: bool,
    name: String,
    module: String,
}

/// Symbols sorted by address.
#[derive(Debug, Default)]
pub struct KernelSymbols {
    symbols: Vec<Symbol>,
    /// Sorted by address and time.
    changes: Vec<Change>,
    /// Moments of changes, sorted.
    moments: Vec<u64>,
    /// The longest change.
    longest: u64,
    /// Symbols whose address was kept from the recorder.
    hidden: u64,
    /// Address of `_stext`.
    text_start: Option<u64>,
    /// By time.
    modules: Vec<Module>,
}

/// A module as it was loaded.
#[derive(Debug, Default)]
pub struct Module {
    ts_ns: u64,
    name: String,
    /// Address of its section `.text`; 0: not known.
    pub text_addr: u64,
    /// Build id in hex; empty: not known.
    pub build_id: String,
}

/// A place in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelPlace<'a> {
    /// Function.
    pub name: &'a str,
    /// Module, `bpf` for BPF programs; empty for the kernel itself.
    pub module: &'a str,
    /// Bytes into the function.
    pub offset: u64,
}

impl KernelSymbols {
    pub(crate) fn add(&mut self, view: View<'_>) {
        let (addr, ty, name, module) = (view.ints("addr"), view.ints("type"), view.texts("name"), view.texts("module"));
        for row in 0..view.rows() {
            self.hidden += u64::from(addr.get(row) == 0);
            let name = name.string(row);
            if name == "_stext" && addr.get(row) != 0 {
                self.text_start = Some(addr.get(row));
            }
            // Padding before functions folds into the function before it.
            let data = matches!(ty.get(row) as u8, b'd' | b'D' | b'b' | b'B' | b'r' | b'R');
            if addr.get(row) != 0 && !data && !name.is_empty() && !name.starts_with("__pfx_") {
                self.symbols.push(Symbol { addr: addr.get(row), name, module: module.string(row) });
            }
        }
    }

    pub(crate) fn add_changes(&mut self, view: View<'_>) {
        let (ts, addr, len, gone) = (view.ints("ts_ns"), view.ints("addr"), view.ints("len_bytes"), view.ints("gone"));
        let (name, module) = (view.texts("name"), view.texts("module"));
        for row in (0..view.rows()).filter(|row| addr.get(*row) != 0) {
            self.changes.push(Change {
                addr: addr.get(row),
                ts_ns: ts.get(row),
                len: len.get(row),
                gone: gone.get(row) != 0,
                name: name.string(row),
                module: module.string(row),
            });
        }
    }

    pub(crate) fn add_modules(&mut self, view: View<'_>) {
        let (ts, name, text, id) =
            (view.ints("ts_ns"), view.texts("name"), view.ints("text_addr"), view.texts("build_id"));
        self.modules.extend((0..view.rows()).map(|row| Module {
            ts_ns: ts.get(row),
            name: name.string(row),
            text_addr: text.get(row),
            build_id: crate::mappings::hex(id.get(row)),
        }));
    }

    /// The module of that name as it was loaded at `ts_ns`, or first.
    pub fn module(&self, name: &str, ts_ns: u64) -> Option<&Module> {
        let mut of = self.modules.iter().filter(|m| m.name == name);
        let first = of.next()?;
        Some(of.take_while(|m| m.ts_ns <= ts_ns).last().unwrap_or(first))
    }

    /// Where the kernel's code begins: `_stext`.
    pub fn text_start(&self) -> Option<u64> {
        self.text_start
    }

    /// Sorts. Of several names at one address the first stands, in the kernel's own order; but where code ends none does.
    pub(crate) fn finish(&mut self) {
        self.modules.sort_by_key(|m| m.ts_ns);
        self.symbols.sort_by_key(|s| (s.addr, !ENDS.contains(&s.name.as_str())));
        self.symbols.dedup_by_key(|s| s.addr);
        self.changes.sort_by_key(|c| (c.addr, c.ts_ns));
        // Up to the next one of the same module, where the length is not known.
        let mut next: FxHashMap<String, (u64, u64)> = FxHashMap::default();
        for change in self.changes.iter_mut().rev() {
            let (addr, after) = next.entry(change.module.clone()).or_insert((change.addr, u64::MAX));
            if change.addr < *addr {
                (*addr, *after) = (change.addr, *addr);
            }
            if change.len == 0 {
                change.len = if *after == u64::MAX { LAST_SYMBOL_BYTES } else { *after - change.addr };
            }
        }
        self.longest = self.changes.iter().map(|c| c.len).max().unwrap_or(0);
        self.moments = self.changes.iter().map(|c| c.ts_ns).collect();
        self.moments.sort_unstable();
    }

    /// Names the stretch of time in which [`KernelSymbols::lookup`] answers the same as at `ts_ns`.
    pub fn epoch(&self, ts_ns: u64) -> u32 {
        self.moments.partition_point(|ts| *ts <= ts_ns) as u32
    }

    /// The change that decides what `addr` was at `ts_ns`.
    fn last_change(&self, addr: u64, ts_ns: u64) -> Option<&Change> {
        let from = self.changes.partition_point(|c| c.addr.saturating_add(self.longest) <= addr);
        let near = self.changes[from..].iter().take_while(|c| c.addr <= addr);
        let covering = near.filter(|c| addr - c.addr < c.len);
        covering.filter(|c| c.ts_ns <= ts_ns).max_by_key(|c| (c.ts_ns, c.addr))
    }

    /// A moment at which [`KernelSymbols::lookup`] answers as at `ts_ns`, the same one for as many as possible.
    pub fn moment(&self, addr: u64, ts_ns: u64) -> u64 {
        self.last_change(addr, ts_ns).map_or(0, |c| c.ts_ns)
    }

    /// The function that `addr` lay in at `ts_ns`.
    pub fn lookup(&self, addr: u64, ts_ns: u64) -> Option<KernelPlace<'_>> {
        match self.last_change(addr, ts_ns) {
            Some(c) if c.gone => None,
            Some(c) => Some(KernelPlace { name: &c.name, module: &c.module, offset: addr - c.addr }),
            None => self.unchanged(addr, ts_ns),
        }
    }

    /// As far as nothing changed. A symbol ends where the next one begins.
    fn unchanged(&self, addr: u64, ts_ns: u64) -> Option<KernelPlace<'_>> {
        let after = self.symbols.partition_point(|s| s.addr <= addr);
        let symbol = &self.symbols[after.checked_sub(1)?];
        let offset = addr - symbol.addr;
        // What is far past the end of a module, or of everything, is not that module's last function.
        let last_of_module = self.symbols.get(after).is_none_or(|next| next.module != symbol.module);
        if last_of_module && offset >= LAST_SYMBOL_BYTES || ENDS.contains(&symbol.name.as_str()) {
            return None;
        }
        // The list was read at a time: it may know what came later than this.
        let own = self.changes.partition_point(|c| c.addr < symbol.addr);
        let mut own = self.changes[own..].iter().take_while(|c| c.addr == symbol.addr);
        if own.next().is_some_and(|first| !first.gone && first.ts_ns > ts_ns && first.name == symbol.name) {
            return None;
        }
        Some(KernelPlace { name: &symbol.name, module: &symbol.module, offset })
    }

    /// All functions as the kernel lists them, but each address once. perf wants to see `_stext`.
    pub fn kallsyms(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        let start = self.text_start.map(|addr| (addr, "_stext", ""));
        let all = self.symbols.iter().map(|s| (s.addr, s.name.as_str(), s.module.as_str()));
        for (addr, name, module) in start.into_iter().chain(all.filter(|s| Some((s.0, s.1, s.2)) != start)) {
            let module = if module.is_empty() { String::new() } else { format!("\t[{module}]") };
            let _ = writeln!(text, "{addr:016x} t {name}{module}");
        }
        text
    }

    /// Whether the kernel gave the recorder names without addresses.
    pub fn is_hidden(&self) -> bool {
        self.hidden > 0 && self.symbols.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(addr: u64, name: &str, module: &str) -> Symbol {
        Symbol { addr, name: name.into(), module: module.into() }
    }

    fn change(ts_ns: u64, addr: u64, len: u64, gone: bool, name: &str) -> Change {
        Change { addr, ts_ns, len, gone, name: name.into(), module: "bpf".into() }
    }

    #[test]
    fn ends_at_the_next_symbol_and_not_far_after_the_last() {
        let symbols = vec![
            symbol(0x9000, "last", ""),
            symbol(0x1000, "a", ""),
            symbol(0x1000, "alias", ""),
            symbol(0x2000, "m", "mod"),
            symbol(0x4000, "text", ""),
            symbol(0x4100, "ends_here", ""),
            symbol(0x4100, "_etext", ""),
            symbol(0x8000, "init", ""),
        ];
        let mut symbols = KernelSymbols { symbols, ..KernelSymbols::default() };
        symbols.finish();
        let name = |addr| symbols.lookup(addr, 0).map(|p| (p.name, p.offset));
        assert_eq!(name(0xfff), None);
        assert_eq!(name(0x1010), Some(("a", 0x10)));
        assert_eq!(name(0x2fff), Some(("m", 0xfff)));
        assert_eq!(name(0x3000), None);
        assert_eq!(name(0x40ff), Some(("text", 0xff)));
        // Past the end of the kernel's text.
        assert_eq!((name(0x4100), name(0x4101), name(0x7fff)), (None, None, None));
        assert_eq!(name(0x9001), Some(("last", 1)));
        assert_eq!(name(u64::MAX), None);
    }

    #[test]
    fn what_comes_and_goes() {
        let symbols = vec![symbol(0x1000, "early", "bpf"), symbol(0x1100, "seen_at_the_stop", "bpf")];
        let changes = vec![
            change(50, 0x1000, 0x80, true, "early"),
            change(60, 0x1020, 0x40, false, "second"),
            change(70, 0x1020, 0x40, true, "second"),
            change(80, 0x1020, 0x20, false, "third"),
            change(40, 0x1100, 0, false, "seen_at_the_stop"),
            change(10, 0x5000, 0, false, "open"),
        ];
        let mut symbols = KernelSymbols { symbols, changes, ..KernelSymbols::default() };
        symbols.finish();
        let at = |addr, ts| symbols.lookup(addr, ts).map(|p| p.name);
        let times = [49, 50, 60, 69, 70, 80].map(|ts| at(0x1030, ts));
        assert_eq!(times, [Some("early"), None, Some("second"), Some("second"), None, Some("third")]);
        assert_eq!((at(0x1050, 90), at(0x1050, 65)), (None, Some("second")));
        assert_eq!((at(0x1105, 39), at(0x1105, 40)), (None, Some("seen_at_the_stop")));
        assert_eq!((at(0x5000 + LAST_SYMBOL_BYTES - 1, 10), at(0x5000 + LAST_SYMBOL_BYTES, 10)), (Some("open"), None));
        assert!(symbols.epoch(49) != symbols.epoch(50) && symbols.epoch(50) == symbols.epoch(59));
    }
}
