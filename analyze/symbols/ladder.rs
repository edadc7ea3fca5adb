//! Files that may name a binary's functions, rung by rung. A file counts only when it is the recorded one by its build
//! id, by its content, or as the debug file that the binary itself names with a checksum.

use std::path::{Component, Path, PathBuf};

use super::elf::{Elf, content_id, crc32};
use super::frame::NameSource;
use crate::binaries::Binary;

/// A binary whose functions are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Path as recorded.
    pub path: &'a str,
    /// Build id as recorded; empty: none.
    pub build_id: &'a str,
    /// What else the trace says of it.
    pub recorded: Option<&'a Binary>,
}

/// A file that is the recorded one, or its debug file.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file.
    pub elf: Elf,
    /// Which rung it stands on.
    pub rung: NameSource,
}

/// How a path was come by, which says what makes it the right file.
enum Candidate {
    /// By a build id or path.
    File(PathBuf),
    /// As the debug file that the binary names.
    Linked(PathBuf),
}

impl<'a> Wanted<'a> {
    /// The last part of the path.
    pub fn base(&self) -> &'a str {
        let path = self.path.strip_suffix(" (deleted)").unwrap_or(self.path);
        path.rsplit('/').next().unwrap_or_default()
    }

    /// The path without its root, and without a way out of a folder that it is put into.
    fn relative(&self) -> PathBuf {
        let path = self.path.strip_suffix(" (deleted)").unwrap_or(self.path);
        Path::new(path).components().filter(|c| matches!(c, Component::Normal(_))).collect()
    }

    /// Whether it is a file, and not the vDSO or anonymous memory.
    pub fn is_file(&self) -> bool {
        crate::mappings::is_file(self.path)
    }

    /// Where debug files with a build id stand below a folder, and with what last part.
    fn build_id_paths(&self, below: &Path, names: &[&str]) -> Vec<PathBuf> {
        // Shorter ones and others than hex digits cannot be parted.
        let Some((first, rest)) = self.build_id.split_at_checked(2).filter(|(_, rest)| !rest.is_empty()) else {
            return Vec::new();
        };
        names.iter().map(|end| below.join(".build-id").join(first).join(format!("{rest}{end}"))).collect()
    }

    /// What of a `--symfs` folder may be it, the best first.
    fn in_folder(&self, dir: &Path) -> Vec<Candidate> {
        let debug = dir.join("usr/lib/debug");
        let perf = ["/debug", "/elf", ".debug", ""];
        let mut all = self.build_id_paths(dir, &perf);
        all.extend(self.build_id_paths(&debug, &[".debug"]));
        all.extend(self.build_id_paths(&dir.join(".debug"), &perf));
        let mut all: Vec<Candidate> = all.into_iter().map(Candidate::File).collect();
        if self.is_file() {
            let path = self.relative();
            all.extend(self.linked(dir));
            let mut with_debug = debug.join(&path).into_os_string();
            with_debug.push(".debug");
            all.push(Candidate::File(with_debug.into()));
            all.push(Candidate::File(dir.join(&path)));
            all.push(Candidate::File(dir.join(self.base())));
        }
        all
    }

    /// Where the debug file may stand that the binary names.
    fn linked(&self, root: &Path) -> Vec<Candidate> {
        let link = self.recorded.map_or("", |b| b.debug_link.as_str());
        if link.is_empty() || link.contains('/') || link == ".." {
            return Vec::new();
        }
        let relative = self.relative();
        let parent = relative.parent().unwrap_or(Path::new(""));
        let beside = root.join(parent);
        let places = [
            beside.join(link),
            beside.join(".debug").join(link),
            root.join("usr/lib/debug").join(parent).join(link),
            root.join(link),
        ];
        places.map(Candidate::Linked).into()
    }

    /// `Ok`: the file is the recorded one, or its debug file. `Err`: what is different.
    fn check(&self, elf: &Elf, linked: bool) -> Result<(), String> {
        if !self.build_id.is_empty() {
            return match elf.build_id.as_str() {
                own if own == self.build_id => Ok(()),
                "" => Err(format!("it has no build id, the recorded one has {}", self.build_id)),
                own => Err(format!("its build id is {own}, the recorded one is {}", self.build_id)),
            };
        }
        let Some(binary) = self.recorded else {
            return Err("the trace has no build id of the recorded file, so none can be compared".into());
        };
        if linked && binary.debug_link_crc != 0 {
            let same = crc32(&elf.path) == Some(binary.debug_link_crc);
            return if same { Ok(()) } else { Err("its checksum is not the one that the binary names".into()) };
        }
        match content_id(&elf.path) {
            _ if binary.content_id.is_empty() => {
                Err("the trace has neither a build id nor a content id of the recorded file".into())
            }
            Some(own) if own == binary.content_id => Ok(()),
            own => {
                let own = own.unwrap_or_else(|| "not readable".into());
                Err(format!("its content id is {own}, the recorded one is {}", binary.content_id))
            }
        }
    }

    fn take(&self, candidates: Vec<Candidate>, rung: NameSource, refused: &mut dyn FnMut(&Path, String)) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        let mut seen: Vec<PathBuf> = Vec::new();
        for candidate in candidates {
            let (path, linked) = match candidate {
                Candidate::File(path) => (path, false),
                Candidate::Linked(path) => (path, true),
            };
            if seen.contains(&path) {
                continue;
            }
            if let Some(elf) = Elf::open(&path) {
                match self.check(&elf, linked) {
                    Ok(()) => found.push(Found { elf, rung }),
                    Err(why) => refused(&path, why),
                }
            }
            seen.push(path);
        }
        // The one with more names goes first; a debug file has as many as its binary had.
        found.sort_by_key(|f| (!f.elf.has_symtab, !f.elf.has_lines));
        found
    }

    /// Files below the folders that were asked for. A file that is there and is another one is refused with a sentence.
    pub fn symfs(&self, dirs: &[PathBuf], notes: &mut Vec<String>) -> Vec<Found> {
        let mut found = Vec::new();
        for dir in dirs {
            let refused = &mut |path: &Path, why| {
                notes.push(format!("{} is not used for {}: {why}", path.display(), self.path));
            };
            found.extend(self.take(self.in_folder(dir), NameSource::Symfs, refused));
        }
        found
    }

    /// Files that were fetched before.
    pub fn cached(&self, dirs: &[PathBuf]) -> Vec<Found> {
        if self.build_id.len() < 4 {
            return Vec::new();
        }
        let in_dir = |dir: &PathBuf| ["debuginfo", "executable"].map(|kind| dir.join(self.build_id).join(kind));
        let candidates = dirs.iter().flat_map(in_dir).map(Candidate::File).collect();
        self.take(candidates, NameSource::Cache, &mut |_, _| {})
    }

    /// The file at the recorded path of this machine, and its debug file. What lies there is often another one: no word
    /// about that.
    pub fn local(&self) -> Vec<Found> {
        let mut candidates: Vec<Candidate> =
            self.build_id_paths(Path::new("/usr/lib/debug"), &[".debug"]).into_iter().map(Candidate::File).collect();
        if self.is_file() {
            candidates.extend(self.linked(Path::new("/")));
            candidates.push(Candidate::File(Path::new("/").join(self.relative())));
        }
        self.take(candidates, NameSource::LocalFile, &mut |_, _| {})
    }

    /// A file that a server gave: only if it is what was asked for.
    pub fn fetched(&self, path: &Path) -> Option<Found> {
        self.take(vec![Candidate::File(path.into())], NameSource::Debuginfod, &mut |_, _| {}).pop()
    }
}
