//! From places in binaries to names: each binary's rungs one after the other, binaries in parallel.

use rayon::prelude::*;

use super::demangle::demangle;
use super::elf::Elf;
use super::frame::{Line, NameSource};
use super::functions::{Function, Functions};
use super::ladder::{Found, Wanted};
use super::lines;
use super::options::Options;
use super::places::Hit;
#[cfg(feature = "debuginfod")]
use crate::binaries::Binary;
use crate::binaries::{Segment, address_of};
use crate::meta::Meta;

/// What is known of a place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    /// The function; `None`: not known.
    pub name: Option<(String, NameSource)>,
    /// Where in its source.
    pub line: Option<Line>,
    /// What was inlined there, from the outermost to the innermost.
    pub inlined: Vec<(String, Option<Line>)>,
}

/// How much of a binary's functions could be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Have {
    /// None at all.
    Nothing,
    /// Those that it exports.
    Exported,
    /// All.
    All,
}

/// A binary that stacks hit, and what names it has.
#[derive(Clone, Debug)]
pub struct HitBinary {
    /// Path as recorded.
    pub path: String,
    /// Build id; empty: not known.
    pub build_id: String,
    /// What stands for it in the ids of frames: build id, content id or path.
    pub identity: String,
    /// What was there to look at.
    pub have: Have,
    /// What would give more names, as a sentence.
    pub help: Option<String>,
}

/// Names of all places in binaries.
pub(crate) struct Names {
    /// For each hit, in the order of its offsets.
    pub of: Vec<Vec<Named>>,
    pub binaries: Vec<HitBinary>,
    /// What was refused, and what went wrong, a sentence each.
    pub notes: Vec<String>,
}

/// What is known of a binary before its names are looked up.
pub(crate) struct Search<'a> {
    pub wanted: Wanted<'a>,
    /// By rung.
    pub files: Vec<Found>,
    notes: Vec<String>,
}

impl<'a> Search<'a> {
    /// Everything that is at hand.
    fn begin(meta: &'a Meta, hit: &Hit) -> Search<'a> {
        let file = &meta.mappings.files[hit.file as usize];
        let recorded = hit.binary.map(|at| &meta.binaries.all()[at as usize]);
        let wanted = Wanted { path: &file.path, build_id: &file.build_id, recorded };
        let (options, mut notes) = (&meta.names, Vec::new());
        let mut files = wanted.symfs(&options.symfs, &mut notes);
        if !options.trace_only {
            files.extend(wanted.cached(&options.caches));
            files.extend(wanted.local());
        }
        Search { wanted, files, notes }
    }

    /// What is loaded: as recorded, else as the first file says that has code.
    pub fn segments(&self) -> &[Segment] {
        match self.wanted.recorded {
            Some(binary) if !binary.segments.is_empty() => &binary.segments,
            _ => self.file_with_code().map_or(&[], |elf| &elf.segments),
        }
    }

    /// The binary itself.
    pub fn file_with_code(&self) -> Option<&Elf> {
        self.files.iter().map(|f| &f.elf).find(|elf| elf.has_code())
    }

    /// Whether the rungs above the trace, or the trace, have all functions, and lines if they are wanted.
    #[cfg(feature = "debuginfod")]
    fn lacks(&self, options: &Options) -> (bool, bool) {
        let before = || self.files.iter().filter(|f| f.rung < NameSource::Debuginfod);
        let in_trace = self.wanted.recorded.is_some_and(Binary::has_all_functions);
        let names = !in_trace && !before().any(|f| f.elf.has_symtab);
        let lines = options.wants_dwarf() && !self.files.iter().any(|f| f.elf.has_lines);
        (names || lines, self.segments().is_empty())
    }
}

/// Looks for files of all binaries, also on servers.
pub(crate) fn search<'a>(meta: &'a Meta, hits: &[Hit], notes: &mut Vec<String>) -> Vec<Search<'a>> {
    let mut searches: Vec<Search<'a>> = hits.par_iter().map(|hit| Search::begin(meta, hit)).collect();
    searches.iter_mut().for_each(|s| notes.append(&mut s.notes));
    download(&meta.names, &mut searches, notes);
    searches
}

#[cfg(not(feature = "debuginfod"))]
fn download(options: &Options, _searches: &mut [Search<'_>], notes: &mut Vec<String>) {
    if options.debuginfod.is_some() {
        notes.push("debuginfod: this bpfrec is built without it (cargo feature `debuginfod`)".into());
    }
}

#[cfg(feature = "debuginfod")]
fn download(options: &Options, searches: &mut [Search<'_>], notes: &mut Vec<String>) {
    use super::debuginfod::{Job, fetch};
    let Some(servers) = &options.debuginfod else { return };
    let (mut jobs, mut of) = (Vec::<Job>::new(), Vec::new());
    for (at, search) in searches.iter().enumerate().filter(|(_, s)| !s.wanted.build_id.is_empty()) {
        let (debuginfo, executable) = search.lacks(options);
        for kind in [(debuginfo || executable).then_some("debuginfo"), executable.then_some("executable")] {
            let Some(kind) = kind else { continue };
            let job = Job { build_id: search.wanted.build_id.into(), kind };
            // Files of the same build id at several paths are fetched once.
            let known = jobs.iter().position(|j| *j == job);
            of.push((known.unwrap_or(jobs.len()), at));
            if known.is_none() {
                jobs.push(job);
            }
        }
    }
    let fetched = fetch(servers, &jobs);
    notes.extend(fetched.notes);
    // What has no debug file may still have its symbols in the program itself.
    let again: Vec<(Job, usize)> = of
        .iter()
        .filter(|(job, _)| jobs[*job].kind == "debuginfo" && fetched.files[*job].is_none())
        .map(|(job, at)| (Job { kind: "executable", ..jobs[*job].clone() }, *at))
        .filter(|(job, _)| !jobs.contains(job))
        .collect();
    let mut more: Vec<Job> = Vec::new();
    again.iter().for_each(|(job, _)| {
        if !more.contains(job) {
            more.push(job.clone());
        }
    });
    let second = fetch(servers, &more);
    notes.extend(second.notes);
    let first = of.into_iter().filter_map(|(job, at)| Some((at, fetched.files[job].clone()?)));
    let second = again.into_iter().filter_map(|(job, at)| {
        let job = more.iter().position(|m| *m == job)?;
        Some((at, second.files[job].clone()?))
    });
    for (at, path) in first.chain(second) {
        let search = &mut searches[at];
        search.files.extend(search.wanted.fetched(&path));
        search.files.sort_by_key(|f| f.rung);
    }
}

/// Names of `offsets`, for each of `hits`.
pub(crate) fn names(meta: &Meta, hits: &[Hit], offsets: &[Vec<u64>]) -> Names {
    let mut notes = Vec::new();
    let searches = search(meta, hits, &mut notes);
    let made: Vec<_> =
        searches.par_iter().zip(offsets).map(|(s, offsets)| of_binary(&meta.names, s, offsets)).collect();
    let mut names = Names { of: Vec::new(), binaries: Vec::new(), notes: Vec::new() };
    for (of, binary, more) in made {
        names.of.push(of);
        names.binaries.push(binary);
        notes.extend(more);
    }
    // A file of the same path may be hit under several ids: each sentence stands once.
    for note in notes {
        if !names.notes.contains(&note) {
            names.notes.push(note);
        }
    }
    names
}

fn of_binary(options: &Options, search: &Search<'_>, offsets: &[u64]) -> (Vec<Named>, HitBinary, Vec<String>) {
    let (mut named, mut notes) = (vec![Named::default(); offsets.len()], Vec::new());
    let recorded = search.wanted.recorded;
    let (mut have, mut loaded) = (Have::Nothing, false);
    let segments = search.segments();
    let addresses: Vec<Option<u64>> = offsets.iter().map(|offset| address_of(segments, *offset)).collect();
    let fill = |named: &mut [Named], functions: &Functions, source: &dyn Fn(&Function<'_>) -> NameSource| {
        for (named, addr) in named.iter_mut().zip(&addresses).filter(|(named, _)| named.name.is_none()) {
            if let Some(function) = addr.and_then(|addr| functions.lookup(addr)) {
                named.name = Some((demangle(function.name), source(&function)));
            }
        }
    };
    let is_done = |named: &[Named]| named.iter().zip(&addresses).all(|(n, addr)| n.name.is_some() || addr.is_none());
    let mut files = search.files.iter().peekable();
    let mut more = |named: &mut Vec<Named>, until: NameSource, notes: &mut Vec<String>, have: &mut Have| {
        while let Some(found) = files.next_if(|f| f.rung < until) {
            *have = (*have).max(if found.elf.has_symtab { Have::All } else { Have::Exported });
            if is_done(named) {
                continue;
            }
            match found.elf.functions() {
                Ok(functions) => fill(named, &functions, &|_| found.rung),
                Err(why) => notes.push(format!("{}: its symbols cannot be read: {why}", found.elf.path.display())),
            }
        }
    };
    more(&mut named, NameSource::Trace(0), &mut notes, &mut have);
    if let Some(binary) = recorded.filter(|b| !b.functions.is_empty()) {
        have = have.max(if binary.has_all_functions() { Have::All } else { Have::Exported });
        fill(&mut named, &binary.functions, &|f| NameSource::Trace(f.source));
    }
    more(&mut named, NameSource::None, &mut notes, &mut have);

    if options.wants_dwarf()
        && let Some(found) = search.files.iter().find(|f| f.elf.has_lines)
    {
        loaded = true;
        let wanted: Vec<u64> = addresses.iter().flatten().copied().collect();
        let debug_dirs = debug_dirs(options);
        match lines::look(&found.elf.path, &wanted, options.inlines, &debug_dirs) {
            Ok(known) => {
                let places = named.iter_mut().zip(&addresses).filter(|(_, addr)| addr.is_some());
                for ((named, _), known) in places.zip(known) {
                    let Some(known) = known else { continue };
                    // The name of the symbol table stays: the same with and without debugging information.
                    named.name.get_or_insert((known.name, found.rung));
                    named.inlined = known.inlined;
                    named.line = known.line.filter(|_| options.lines);
                    if !options.lines {
                        named.inlined.iter_mut().for_each(|(_, line)| *line = None);
                    }
                }
            }
            Err(why) => notes.push(format!("{}: its lines cannot be read: {why}", found.elf.path.display())),
        }
    }
    let is_complete = named.iter().all(|n| n.name.is_some());
    let help = help(search, have, is_complete, options.wants_dwarf() && !loaded);
    let wanted = search.wanted;
    let content_id = recorded.map_or("", |b| b.content_id.as_str());
    let identity = [wanted.build_id, content_id, wanted.path].into_iter().find(|id| !id.is_empty()).unwrap_or_default();
    let binary =
        HitBinary { path: wanted.path.into(), build_id: wanted.build_id.into(), identity: identity.into(), have, help };
    (named, binary, notes)
}

/// Where debugging information that is shared between packages may stand.
fn debug_dirs(options: &Options) -> Vec<std::path::PathBuf> {
    let mut dirs: Vec<_> = options.symfs.iter().map(|dir| dir.join("usr/lib/debug")).collect();
    if !options.trace_only {
        dirs.push("/usr/lib/debug".into());
    }
    dirs
}

/// What would give more.
fn help(search: &Search<'_>, have: Have, is_complete: bool, no_lines: bool) -> Option<String> {
    let wanted = &search.wanted;
    if !wanted.is_file() || (is_complete || have == Have::All) && !no_lines {
        return None;
    }
    let name = wanted.base();
    if wanted.build_id.is_empty() && wanted.recorded.is_none_or(|b| b.content_id.is_empty()) {
        return Some(format!(
            "{name}: the trace has neither a build id nor a content id of it, so that no file can be known to be the right one"
        ));
    }
    let id = match wanted.build_id {
        "" => "no build id".to_owned(),
        id => format!("build id {id}"),
    };
    let debuginfod = if wanted.build_id.is_empty() { "" } else { ", or use --debuginfod" };
    Some(match have {
        Have::All => format!("{name} ({id}): no debugging information; put its debug file under --symfs{debuginfod}"),
        Have::Exported => format!("{name} ({id}): exported symbols only; put its debug file under --symfs{debuginfod}"),
        Have::Nothing => {
            let missing = wanted.recorded.map_or("", |b| b.missing.as_str());
            let why = if missing.is_empty() { String::new() } else { format!(" ({missing})") };
            format!("{name} ({id}): no symbols{why}; put it or its debug file under --symfs{debuginfod}")
        }
    })
}
