//! The binaries of a trace, for deep work later: which are here and are the recorded ones, and where they go in the layout
//! of `perf archive`, which perf and `--symfs` read.
//!
//! ```text
//! usr/bin/app/BUILD-ID/elf        the binary      .build-id/XX/REST -> ../../usr/bin/app/BUILD-ID
//! usr/bin/app/BUILD-ID/debug      its debug file
//! [kernel.kallsyms]/BUILD-ID/kallsyms   the kernel's functions, as the trace has them
//! ```

use std::path::{Path, PathBuf};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::meta::Meta;
use crate::symbols::{Place, Places, Search, search};

/// A binary that can be packed.
#[derive(Clone, Debug)]
pub struct Item {
    /// Path as recorded.
    pub path: String,
    /// Build id in hex.
    pub build_id: String,
    /// The binary.
    pub elf: Option<PathBuf>,
    /// Its debug file.
    pub debug: Option<PathBuf>,
}

impl Item {
    /// The folder of its files, in the bundle.
    pub fn folder(&self) -> PathBuf {
        place(self.path.strip_suffix(" (deleted)").unwrap_or(&self.path), &self.build_id).0
    }

    /// The link by build id, in the bundle.
    pub fn link(&self) -> PathBuf {
        place(&self.path, &self.build_id).1
    }

    /// Where that points to.
    pub fn link_target(&self) -> PathBuf {
        Path::new("../..").join(self.folder())
    }

    /// Files with their names in [`Item::folder`].
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        [("elf", &self.elf), ("debug", &self.debug)].into_iter().filter_map(|(name, file)| Some((name, file.as_ref()?)))
    }
}

/// The kernel's functions as its own list has them; addresses are those of the recording.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Build id in hex.
    pub build_id: String,
    /// Lines of `kallsyms`.
    pub kallsyms: String,
}

/// Where the files of a build id go, and the link that leads there: in the bundle.
pub fn place(path: &str, build_id: &str) -> (PathBuf, PathBuf) {
    let path: PathBuf = Path::new(path).components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect();
    let (first, rest) = build_id.split_at(2);
    (path.join(build_id), Path::new(".build-id").join(first).join(rest))
}

impl Kernel {
    /// As perf calls it.
    pub const NAME: &str = "[kernel.kallsyms]";
}

/// What a bundle holds, and what it cannot.
#[derive(Debug, Default)]
pub struct Bundle {
    /// The kernel, when stacks hit it and the trace has its functions.
    pub kernel: Option<Kernel>,
    /// By path and build id.
    pub items: Vec<Item>,
    /// Binaries that stacks hit and that cannot be packed, and why.
    pub missing: Vec<String>,
    /// What was refused, and what went wrong, a sentence each.
    pub notes: Vec<String>,
}

/// Finds the binaries that stacks hit, also in containers and deleted ones whose processes still run here.
pub fn bundle(meta: &Meta) -> Bundle {
    let places = Places::of(meta);
    let mut bundle = Bundle::default();
    let searches = search(meta, &places.hits, &mut bundle.notes);
    let mut mapped: FxHashMap<u32, Vec<PathBuf>> = FxHashMap::default();
    for m in meta.mappings.rows.iter().rev() {
        let paths = mapped.entry(m.file).or_default();
        if paths.len() < 2 * PROCESSES {
            let root = format!("/proc/{}/root{}", m.pid, meta.mappings.files[m.file as usize].path);
            let mapping = format!("/proc/{}/map_files/{:x}-{:x}", m.pid, m.start, m.start.saturating_add(m.len));
            paths.extend([root.into(), mapping.into()]);
        }
    }
    if places.places.iter().any(|place| matches!(place, Place::Kernel(..))) {
        match meta.item("kernel_build_id") {
            id if id.len() < 4 => bundle.missing.push(format!("{}: the trace has no build id of it", Kernel::NAME)),
            _ if meta.kernel.is_empty() => {
                bundle.missing.push(format!("{}: the trace has no functions of it", Kernel::NAME));
            }
            id => bundle.kernel = Some(Kernel { build_id: id.into(), kallsyms: meta.kernel.kallsyms() }),
        }
    }
    let mut done = FxHashSet::default();
    for (search, hit) in searches.iter().zip(&places.hits) {
        let wanted = &search.wanted;
        if !wanted.is_file() || !done.insert((wanted.build_id, wanted.path)) {
            continue;
        }
        if wanted.build_id.len() < 4 {
            bundle.missing.push(format!("{}: no build id, which the layout goes by", wanted.path));
            continue;
        }
        let elf = search.file_with_code().map(|elf| elf.path.clone());
        let live = || mapped.get(&hit.file).and_then(|paths| paths.iter().find(|p| is_it(search, p)).cloned());
        let debug = search.files.iter().find(|f| !f.elf.has_code() && (f.elf.has_symtab || f.elf.has_lines));
        let item = Item {
            path: wanted.path.into(),
            build_id: wanted.build_id.into(),
            elf: elf.or_else(live),
            debug: debug.map(|f| f.elf.path.clone()),
        };
        if item.elf.is_none() {
            let why = "no file here has this build id";
            bundle.missing.push(format!("{} (build id {}): {why}", item.path, item.build_id));
        }
        if item.elf.is_some() || item.debug.is_some() {
            bundle.items.push(item);
        }
    }
    bundle.items.sort_by(|a, b| (&a.path, &a.build_id).cmp(&(&b.path, &b.build_id)));
    bundle.missing.sort();
    bundle
}

/// Processes whose view of a file is tried.
const PROCESSES: usize = 8;

fn is_it(search: &Search<'_>, path: &Path) -> bool {
    crate::symbols::elf::Elf::open(path).is_some_and(|elf| elf.build_id == search.wanted.build_id && elf.has_code())
}
