//! Source lines and inlined functions of kernel frames: from a vmlinux and from modules' debug files, which are looked for
//! on the same rungs as those of programs and count by their build ids alone.
//!
//! The kernel lies elsewhere than it was linked for: as far off as its `_stext` is. A module's debug file has its section
//! `.text` at 0.

use rustc_hash::FxHashMap;

use super::ladder::{Found, Wanted};
use super::lines::{self, Known};
use super::places::Place;
use crate::meta::Meta;

/// What debugging information says, by address and moment.
#[derive(Default)]
pub(crate) struct KernelLines {
    pub known: FxHashMap<(u64, u64), Known>,
    pub notes: Vec<String>,
}

/// A place and its address in the file that is asked.
type Asked = ((u64, u64), u64);

/// For all kernel places, if lines or inlined functions are wanted.
pub(crate) fn look(meta: &Meta, places: &[Place]) -> KernelLines {
    let mut lines = KernelLines::default();
    if !meta.names.wants_dwarf() {
        return lines;
    }
    let mut modules: FxHashMap<&str, Vec<(u64, u64)>> = FxHashMap::default();
    for place in places {
        if let Place::Kernel(addr, moment) = place
            && let Some(function) = meta.kernel.lookup(*addr, *moment)
            && function.module != "bpf"
        {
            modules.entry(function.module).or_default().push((*addr, *moment));
        }
    }
    let mut modules: Vec<_> = modules.into_iter().collect();
    modules.sort_unstable();
    for (module, places) in modules {
        if module.is_empty() { lines.of_kernel(meta, &places) } else { lines.of_module(meta, module, &places) }
    }
    lines
}

impl KernelLines {
    fn of_kernel(&mut self, meta: &Meta, places: &[(u64, u64)]) {
        let release = meta.item("kernel");
        let paths = [
            format!("/usr/lib/debug/boot/vmlinux-{release}"),
            format!("/usr/lib/debug/lib/modules/{release}/vmlinux"),
            format!("/boot/vmlinux-{release}"),
            "/vmlinux".into(),
        ];
        let Some(found) = self.find(meta, "the kernel", meta.item("kernel_build_id"), &paths) else { return };
        let Some((here, linked)) = meta.kernel.text_start().zip(found.elf.address_of("_stext")) else {
            let file = found.elf.path.display();
            self.notes.push(format!("{file}: the kernel's _stext is not in it or not in the trace: no lines"));
            return;
        };
        let shift = here.wrapping_sub(linked);
        self.ask(meta, &found, places.iter().map(|place| (*place, place.0.wrapping_sub(shift))).collect(), false);
    }

    fn of_module(&mut self, meta: &Meta, name: &str, places: &[(u64, u64)]) {
        // A module that was loaded twice may lie elsewhere, and be another build.
        let mut of: FxHashMap<(&str, u64), Vec<(u64, u64)>> = FxHashMap::default();
        for place in places {
            if let Some(module) = meta.kernel.module(name, place.1) {
                of.entry((&module.build_id, module.text_addr)).or_default().push(*place);
            }
        }
        let mut of: Vec<_> = of.into_iter().collect();
        of.sort_unstable();
        let dashed = name.replace('_', "-");
        let paths = [name, &dashed].map(|name| [format!("/{name}.ko.debug"), format!("/{name}.ko")]).concat();
        for ((build_id, text), places) in of {
            let Some(found) = self.find(meta, &format!("module {name}"), build_id, &paths) else { continue };
            // Other sections begin at 0 as well: what lies past this one is none of its functions.
            let len = found.elf.section_len(".text").filter(|_| text != 0).unwrap_or(0);
            let inside = |place: &(u64, u64)| place.0.checked_sub(text).filter(|at| *at < len);
            self.ask(meta, &found, places.iter().filter_map(|p| Some((*p, inside(p)?))).collect(), true);
        }
    }

    /// The first file with lines. What would help otherwise is said.
    fn find(&mut self, meta: &Meta, what: &str, build_id: &str, paths: &[String]) -> Option<Found> {
        let options = &meta.names;
        if build_id.is_empty() {
            self.notes.push(format!("the trace has no build id of {what}, so its frames have no lines"));
            return None;
        }
        let wanted: Vec<Wanted<'_>> = paths.iter().map(|path| Wanted { path, build_id, recorded: None }).collect();
        let mut notes = Vec::new();
        let mut files: Vec<Found> = wanted.iter().flat_map(|w| w.symfs(&options.symfs, &mut notes)).collect();
        if !options.trace_only {
            files.extend(wanted[0].cached(&options.caches));
            files.extend(wanted.iter().flat_map(Wanted::local));
        }
        notes.dedup();
        self.notes.append(&mut notes);
        let found = files.into_iter().find(|f| f.elf.has_lines).or_else(|| fetch(meta, &wanted[0], &mut self.notes));
        if found.is_none() {
            self.notes.push(format!(
                "{what} (build id {build_id}): no debugging information, so its frames have no lines; put its {} under \
                 --symfs, or use --debuginfod",
                if what == "the kernel" { "vmlinux" } else { "debug file (.ko.debug)" }
            ));
        }
        found
    }

    /// `same`: only what has the name that the kernel's own list has, as sections may lie over one another.
    fn ask(&mut self, meta: &Meta, found: &Found, mut asked: Vec<Asked>, same: bool) {
        asked.sort_unstable_by_key(|(_, addr)| *addr);
        let addresses: Vec<u64> = asked.iter().map(|(_, addr)| *addr).collect();
        let known = match lines::look(&found.elf.path, &addresses, meta.names.inlines, &[]) {
            Ok(known) => known,
            Err(why) => {
                self.notes.push(format!("{}: its lines cannot be read: {why}", found.elf.path.display()));
                return;
            }
        };
        for ((place, _), known) in asked.into_iter().zip(known) {
            let listed = meta.kernel.lookup(place.0, place.1).map_or("", |function| function.name);
            let bare = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
            if let Some(mut known) = known.filter(|known| !same || bare(&known.name) == bare(listed)) {
                if !meta.names.lines {
                    known.line = None;
                    known.inlined.iter_mut().for_each(|(_, line)| *line = None);
                }
                self.known.insert(place, known);
            }
        }
    }
}

#[cfg(feature = "debuginfod")]
fn fetch(meta: &Meta, wanted: &Wanted<'_>, notes: &mut Vec<String>) -> Option<Found> {
    use super::debuginfod::{Job, fetch};
    let servers = meta.names.debuginfod.as_ref()?;
    let mut fetched = fetch(servers, &[Job { build_id: wanted.build_id.into(), kind: "debuginfo" }]);
    notes.append(&mut fetched.notes);
    fetched.files.pop().flatten().and_then(|path| wanted.fetched(&path)).filter(|found| found.elf.has_lines)
}

#[cfg(not(feature = "debuginfod"))]
fn fetch(_: &Meta, _: &Wanted<'_>, _: &mut Vec<String>) -> Option<Found> {
    None
}
