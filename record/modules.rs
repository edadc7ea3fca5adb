//! Kernel modules that come and go while recording. A BPF program tells of each (`bpf/task.bpf.c`) and wakes the thread that
//! reads names at once: a module may live for a moment only. On kernels where it cannot be attached the list is looked
//! at every second.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bpfrec_format::Column::{Int, Text};
use bpfrec_format::{Table, meta};
use libbpf_rs::{MapCore, MapHandle, Object, RingBuffer, RingBufferBuilder};
use rustc_hash::FxHashMap;

use crate::clock;
use crate::kernel::{self, From, List, Positioned};
use crate::layout::ModuleRecord;

/// Time between two looks when nobody tells.
const LOOK: Duration = Duration::from_secs(1);

/// Files that are read up to the modules: a module often comes with another one that it needs.
const AHEAD: usize = 2;

/// Address and bytes of modules by name.
type Places = FxHashMap<Vec<u8>, (u64, u64)>;

/// What was loaded when it was last looked at, and what the kernel has told since.
#[derive(Default)]
pub struct Modules {
    known: Places,
    looked_ns: u64,
    ring: Option<(MapHandle, RingBuffer<'static>)>,
    told: Arc<Mutex<Vec<ModuleRecord>>>,
    core_bytes: u64,
    /// One for each of the next modules.
    functions: Vec<Positioned>,
    /// To be made such again; opened while addresses could be had.
    lists: Vec<List>,
    /// The modules, and all functions.
    loaded: Option<List>,
    all_functions: Option<List>,
    /// Addresses of sections .text by module and its place: read while they could be had.
    texts: FxHashMap<(Vec<u8>, u64), u64>,
}

impl Modules {
    /// Those that are loaded now. `tasks` has the programs that tell of the others.
    pub fn start(tasks: &Object) -> Result<Modules> {
        let told = Arc::<Mutex<Vec<ModuleRecord>>>::default();
        let mut ring = None;
        if tasks.progs().any(|p| p.name() == "module_load" && p.autoload()) {
            let map = tasks.maps().find(|m| m.name() == "modules").context("there is no map modules")?;
            let map = MapHandle::try_from(&map)?;
            let (mut builder, to) = (RingBufferBuilder::new(), Arc::clone(&told));
            builder.add(&map, move |bytes: &[u8]| {
                to.lock().unwrap_or_else(PoisonError::into_inner).extend(ModuleRecord::parse(bytes));
                0
            })?;
            let buffer = builder.build()?;
            ring = Some((map, buffer));
        }
        let mut modules = Modules { looked_ns: clock::mono_ns(), ring, told, ..Modules::default() };
        (modules.loaded, modules.all_functions) = (List::of_modules(), List::of_functions().ok());
        modules.known = modules.read();
        Ok(modules)
    }

    /// Gets ready for the next modules. `core_bytes`: see `kernel::Symbols`.
    pub fn prepare(&mut self, core_bytes: u64) {
        self.core_bytes = core_bytes;
        // Without them the whole is read, as it must be where nobody tells.
        while self.ring.is_some() && self.functions.len() < AHEAD {
            let list = self.lists.pop().map_or_else(List::of_functions, Ok);
            match list.and_then(|list| Positioned::new(list, core_bytes)) {
                Ok(file) => self.functions.push(file),
                Err(_) => break,
            }
        }
    }

    /// Can be read when the kernel has told something.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.ring.as_ref().map(|(map, _)| map.as_fd())
    }

    /// Rows of kinds `kernel_symbol_change` and `kernel_module` for what came or went since the last call. `all`: also when
    /// it is not yet time to look.
    pub fn changes(&mut self, all: bool) -> Vec<Table> {
        if let Some((_, ring)) = &self.ring {
            // What is left stays for the next time.
            let _ = ring.consume();
        }
        let told = std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
        // Asked at each mapping, where somebody tells: then without a look at the clock.
        let is_time = match self.ring {
            Some(_) => !told.is_empty(),
            None => clock::mono_ns() - self.looked_ns >= LOOK.as_nanos() as u64,
        };
        if !all && !is_time {
            return Vec::new();
        }
        let since = std::mem::replace(&mut self.looked_ns, clock::mono_ns());
        let now = self.read();
        if now == self.known && told.is_empty() {
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.known, now);
        let tables = self.compare(&before, &told, since);
        if self.core_bytes > 0 && self.functions.is_empty() {
            self.prepare(self.core_bytes);
        }
        tables
    }

    fn compare(&mut self, before: &Places, told: &[ModuleRecord], since: u64) -> Vec<Table> {
        let mut changes = Table::new(&meta::kind(meta::KERNEL_SYMBOL_CHANGE));
        // When it came or went, as far as that was told.
        let when =
            |name: &[u8], gone| told.iter().rev().find(|t| t.name == name && t.gone == gone).map_or(since, |t| t.ts_ns);
        for (name, (addr, len)) in before.iter().filter(|(name, place)| self.known.get(*name) != Some(place)) {
            let at = when(name, true);
            changes.push(&[at.into(), (*addr).into(), (*len).into(), 1u32.into(), "".into(), name[..].into()]);
        }
        let new: Vec<_> = self.known.iter().filter(|(name, place)| before.get(*name) != Some(place)).collect();
        let is_new = |name: &[u8]| new.iter().any(|(n, _)| n[..] == *name);
        // A list that cannot be read names nothing: then the modules themselves stand for their functions, below.
        let from = match (self.functions.pop().filter(|_| !new.is_empty()), &mut self.all_functions) {
            (Some(positioned), _) => Some(From::Modules(positioned, &mut self.lists)),
            (None, list) => list.as_mut().filter(|_| !new.is_empty()).map(From::All),
        };
        let symbols = from.and_then(|from| kernel::symbols_of(&is_new, from).ok());
        let mut named: Vec<&[u8]> = Vec::new();
        if let Some([Int(addrs), _, Text(names), Text(modules)]) = symbols.as_ref().map(|s| &s.columns[..]) {
            for (i, addr) in addrs.iter().enumerate().filter(|(_, addr)| **addr != 0) {
                let (name, module) = (names.get(i), modules.get(i));
                let at = when(module, false);
                changes.push(&[at.into(), (*addr).into(), 0u32.into(), 0u32.into(), name.into(), module.into()]);
                named.push(module);
            }
        }
        // What was gone before its names could be read is known by where it lay.
        for t in told.iter().filter(|t| t.addr != 0 && !named.contains(&&t.name[..]) && !before.contains_key(&t.name)) {
            let name = [b"[", &t.name[..], b"]"].concat();
            let row = [t.ts_ns.into(), t.addr.into(), t.len.into(), u32::from(t.gone).into()];
            changes.push(&[&row[..], &[name[..].into(), t.name[..].into()]].concat());
        }
        let is_new: Vec<Vec<u8>> = new.iter().map(|(name, _)| name.to_vec()).collect();
        let mut tables = Vec::new();
        tables.extend(Some(changes).filter(|t| t.rows() > 0));
        tables.extend(self.table(&|name| is_new.iter().any(|new| new == name)));
        tables
    }

    /// Those that are loaded.
    fn read(&mut self) -> Places {
        parse(&self.loaded.as_mut().and_then(|list| list.read().ok()).unwrap_or_default())
    }

    /// Rows of kind `kernel_module` for modules that are loaded.
    pub fn table(&mut self, wanted: &dyn Fn(&[u8]) -> bool) -> Option<Table> {
        let mut table = Table::new(&meta::kind(meta::KERNEL_MODULE));
        let now = clock::mono_ns();
        for (name, (addr, _)) in self.read().into_iter().filter(|(name, _)| wanted(name)) {
            let Ok(folder) = std::str::from_utf8(&name).map(|name| format!("/sys/module/{name}")) else { continue };
            let text = fs::read_to_string(format!("{folder}/sections/.text")).unwrap_or_default();
            let text = text.trim().strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
            let build_id = kernel::build_id(&format!("{folder}/notes/.note.gnu.build-id"));
            let known = self.texts.entry((name.clone(), addr)).or_insert(text);
            *known = if text == 0 { *known } else { text };
            table.push(&[now.into(), name[..].into(), (*known).into(), build_id[..].into()]);
        }
        Some(table).filter(|t| t.rows() > 0)
    }
}

/// Lines such as `nvme 57344 3 - Live 0xffffffffc0123000`.
fn parse(text: &[u8]) -> Places {
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

    fn told(ts_ns: u64, gone: bool) -> ModuleRecord {
        ModuleRecord { ts_ns, addr: 0x1000, len: 0x200, gone, name: b"brief".to_vec() }
    }

    #[test]
    fn a_module_that_went() {
        let before = Places::from_iter([(b"brief".to_vec(), (0x1000, 0x200))]);
        let mut modules = Modules { known: Places::default(), looked_ns: 5, ..Modules::default() };
        for (said, at) in [(vec![], 5), (vec![told(4, false), told(9, true)], 9)] {
            let tables = modules.compare(&before, &said, 5);
            assert_eq!((tables[0].rows(), tables[0].columns[0].ints()), (1, &[at][..]));
            assert_eq!(tables[0].columns[3].ints(), [1]);
        }
    }

    #[test]
    fn a_module_that_was_gone_before_it_was_looked_at() {
        let mut modules = Modules { known: Places::default(), looked_ns: 5, ..Modules::default() };
        let tables = modules.compare(&Places::default(), &[told(7, false), told(8, true)], 5);
        assert_eq!(tables[0].columns[0].ints(), [7, 8]);
        assert_eq!(tables[0].columns[3].ints(), [0, 1]);
        let Text(names) = &tables[0].columns[4] else { panic!("text") };
        assert_eq!(names.get(0), b"[brief]");
    }
}
