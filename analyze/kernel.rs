//! The kernel's symbols, as the trace holds them.

use crate::view::View;

/// Addresses past the last symbol by more than this belong to nothing.
const LAST_SYMBOL_BYTES: u64 = 4096;

#[derive(Debug)]
struct Symbol {
    addr: u64,
    name: String,
    module: String,
}

/// Symbols sorted by address.
#[derive(Debug, Default)]
pub struct KernelSymbols(Vec<Symbol>);

/// A place in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelPlace<'a> {
    /// Function.
    pub name: &'a str,
    /// Module; empty for the kernel itself.
    pub module: &'a str,
    /// Bytes into the function.
    pub offset: u64,
}

impl KernelSymbols {
    pub(crate) fn add(&mut self, view: View<'_>) {
        let (addr, ty, name, module) = (view.ints("addr"), view.ints("type"), view.texts("name"), view.texts("module"));
        for row in 0..view.rows() {
            let name = name.string(row);
            // Padding before functions folds into the function before it. Addresses are 0 without the right to see them.
            let data = matches!(ty.get(row) as u8, b'd' | b'D' | b'b' | b'B' | b'r' | b'R');
            if addr.get(row) != 0 && !data && !name.is_empty() && !name.starts_with("__pfx_") {
                self.0.push(Symbol { addr: addr.get(row), name, module: module.string(row) });
            }
        }
    }

    /// Sorts. Of several names at one address the first stands, in the kernel's own order.
    pub(crate) fn finish(&mut self) {
        self.0.sort_by_key(|s| s.addr);
        self.0.dedup_by_key(|s| s.addr);
    }

    /// The function that `addr` lies in. A symbol ends where the next one begins.
    pub fn lookup(&self, addr: u64) -> Option<KernelPlace<'_>> {
        let after = self.0.partition_point(|s| s.addr <= addr);
        let symbol = &self.0[after.checked_sub(1)?];
        let offset = addr - symbol.addr;
        // What is far past the end of a module, or of everything, is not that module's last function.
        let last_of_module = self.0.get(after).is_none_or(|next| next.module != symbol.module);
        if last_of_module && offset >= LAST_SYMBOL_BYTES {
            return None;
        }
        Some(KernelPlace { name: &symbol.name, module: &symbol.module, offset })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_at_the_next_symbol_and_not_far_after_the_last() {
        let symbol = |addr, name: &str, module: &str| Symbol { addr, name: name.into(), module: module.into() };
        let mut symbols = KernelSymbols(vec![
            symbol(0x9000, "last", ""),
            symbol(0x1000, "a", ""),
            symbol(0x1000, "alias", ""),
            symbol(0x2000, "m", "mod"),
        ]);
        symbols.finish();
        let name = |addr| symbols.lookup(addr).map(|p| (p.name, p.offset));
        assert_eq!(name(0xfff), None);
        assert_eq!(name(0x1010), Some(("a", 0x10)));
        assert_eq!(name(0x2fff), Some(("m", 0xfff)));
        assert_eq!(name(0x3000), None);
        assert_eq!(name(0x9001), Some(("last", 1)));
        assert_eq!(name(u64::MAX), None);
    }
}
