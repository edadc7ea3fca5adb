//! Kernel modules that come and go while recording. The kernel does not tell; its list does.

use std::fs;

use anyhow::Result;
use bpfrec_format::Column::{Int, Text};
use bpfrec_format::{Table, meta};
use rustc_hash::FxHashMap;

use crate::{clock, kernel};

/// Address and bytes of modules by name.
type List = FxHashMap<Vec<u8>, (u64, u64)>;

/// What was loaded when it was last looked at.
pub struct Modules {
    known: List,
    looked_ns: u64,
}

impl Modules {
    /// Those that are loaded now.
    pub fn new() -> Modules {
        Modules { known: read(), looked_ns: clock::mono_ns() }
    }

    /// Rows of kind `kernel_symbol_change` for modules that came or went since the last call: from that call on.
    pub fn changes(&mut self) -> Result<Option<Table>> {
        let (now, since) = (read(), std::mem::replace(&mut self.looked_ns, clock::mono_ns()));
        if now == self.known {
            return Ok(None);
        }
        let before = std::mem::replace(&mut self.known, now);
        let mut table = Table::new(&meta::kind(meta::KERNEL_SYMBOL_CHANGE));
        for (name, (addr, len)) in before.iter().filter(|(name, place)| self.known.get(*name) != Some(place)) {
            table.push(&[since.into(), (*addr).into(), (*len).into(), 1u32.into(), "".into(), name[..].into()]);
        }
        let is_new = |name: &[u8]| self.known.get(name).is_some_and(|place| before.get(name) != Some(place));
        if self.known.keys().any(|name| is_new(name)) {
            let symbols = kernel::symbols_of(&is_new)?;
            let [Int(addrs), _, Text(names), Text(modules)] = &symbols.columns[..] else { return Ok(None) };
            for (i, addr) in addrs.iter().enumerate() {
                let (name, module) = (names.get(i), modules.get(i));
                table.push(&[since.into(), (*addr).into(), 0u32.into(), 0u32.into(), name.into(), module.into()]);
            }
        }
        Ok(Some(table))
    }
}

/// A kernel without modules has no such list.
fn read() -> List {
    parse(&fs::read("/proc/modules").unwrap_or_default())
}

/// Lines such as `nvme 57344 3 - Live 0xffffffffc0123000`.
fn parse(text: &[u8]) -> List {
    let line = |line: &[u8]| {
        let text = std::str::from_utf8(line).ok()?;
        let fields: Vec<_> = text.split_ascii_whitespace().collect();
        let addr = fields.iter().find_map(|f| u64::from_str_radix(f.strip_prefix("0x")?, 16).ok())?;
        Some((fields.first()?.as_bytes().to_vec(), (addr, fields.get(1)?.parse().ok()?)))
    };
    text.split(|b| *b == b'\n').filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_modules() {
        let list =
            parse(b"nvme 57344 3 - Live 0xffffffffc0123000\ncut 12\nloop 40960 0 - Loading 0xffffffffc0000000 (E)\n");
        assert_eq!(list.len(), 2);
        assert_eq!(list[&b"nvme"[..]], (0xffff_ffff_c012_3000, 57344));
    }

    #[test]
    fn a_module_that_went() {
        let mut modules = Modules::new();
        assert_eq!(modules.changes().unwrap(), None);
        modules.known.insert(b"gone".to_vec(), (0x1000, 0x2000));
        let table = modules.changes().unwrap().unwrap();
        assert_eq!((table.columns[1].ints(), table.columns[3].ints()), (&[0x1000][..], &[1][..]));
        assert_eq!(modules.changes().unwrap(), None);
    }
}
