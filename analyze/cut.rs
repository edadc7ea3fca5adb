//! User stacks that look cut: a walk by frame pointers ends where code was built without them.

use std::collections::BTreeMap;

use crate::meta::Meta;
use crate::symbols::{Frame, NameSource, Resolved, Symbols};
use crate::text::{percent, plain};

/// With so many frames a stack is as deep as the recorder goes.
const DEEPEST: usize = 127;
/// A binary is worth a word when so many of its samples, in percent, are cut, ...
const SHARE: f64 = 20.0;
/// ... and when these are so many, in percent, of all samples in user space.
const WEIGHT: f64 = 1.0;
/// So many binaries are named.
const NAMED: usize = 3;

/// First functions of processes and threads: glibc's, musl's, Go's.
const STARTS: [&str; 16] = [
    "_start",
    "_start_c",
    "_dl_start",
    "_dl_start_user",
    "__libc_start_main",
    "__libc_start_call_main",
    "__libc_start_main_impl",
    "generic_start_main",
    "start_thread",
    "clone",
    "clone3",
    "thread_start",
    "start",
    "runtime.goexit",
    "runtime.rt0_go",
    "runtime.mstart",
];

/// A binary in which stacks end too early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Its path.
    pub binary: String,
    /// Samples whose stack ends in it, and not at a start.
    pub samples: u64,
    /// Samples in whose stack it is.
    pub of: u64,
}

/// Whether a thread or process starts with this function.
fn is_start(name: &str) -> bool {
    let name = name.split(['@', '+']).next().unwrap_or_default();
    let name = name.strip_suffix(".abi0").unwrap_or(name);
    STARTS.contains(&name) || name.strip_prefix("__").is_some_and(|bare| STARTS.contains(&bare))
}

/// Whether this is a C library or its loader: where their functions have no names, the start may be among them.
fn is_libc(path: &str) -> bool {
    let base = path.rsplit('/').next().unwrap_or_default();
    ["libc.so", "libc-", "ld-", "libpthread", "ld.so"].iter().any(|name| base.starts_with(name))
}

/// Where a stack was cut; `None` when it was not, or when nothing can be said of it.
fn end<'a>(frames: &[&'a Frame]) -> Option<&'a Frame> {
    let last = *frames.last()?;
    if frames.len() >= DEEPEST || is_start(&last.name) {
        return None;
    }
    if last.source != NameSource::None {
        return Some(last);
    }
    if last.binary.starts_with('/') {
        // It has no name: where others called it, it may well be the start.
        return (frames.len() <= 2 && !is_libc(&last.binary)).then_some(last);
    }
    // It ends in no file: the walk went astray there.
    let place = frames.iter().rev().find(|f| f.binary.starts_with('/'))?;
    Some(*place)
}

/// Binaries in which stacks end too early, the most samples first. `stacks`: each user stack with its samples.
pub fn cut<'a>(symbols: &'a Symbols, stacks: impl Iterator<Item = (&'a Resolved, u64)>) -> Vec<Cut> {
    let mut by_binary: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut all = 0;
    for (stack, samples) in stacks {
        let frames: Vec<&Frame> = symbols.frames_of(stack).collect();
        let mut binaries: Vec<&str> = frames.iter().map(|f| f.binary.as_str()).collect();
        binaries.sort_unstable();
        binaries.dedup();
        binaries.into_iter().for_each(|b| by_binary.entry(b).or_default().1 += samples);
        if let Some(frame) = end(&frames) {
            by_binary.entry(&frame.binary).or_default().0 += samples;
        }
        all += samples;
    }
    let worth = |(samples, of): (u64, u64)| percent(samples, of) >= SHARE && percent(samples, all) >= WEIGHT;
    let found = by_binary.into_iter().filter(|(_, counts)| worth(*counts));
    let mut found: Vec<Cut> =
        found.map(|(binary, (samples, of))| Cut { binary: binary.to_owned(), samples, of }).collect();
    found.sort_by_key(|cut| std::cmp::Reverse(cut.samples));
    found
}

/// What to say about them, and what would help.
pub fn note(meta: &Meta, cuts: &[Cut]) -> Option<String> {
    let name = |cut: &Cut| {
        let binary = if cut.binary.is_empty() { "compiled code" } else { &cut.binary };
        format!("{} ({:.0} % of {} samples)", plain(binary), percent(cut.samples, cut.of), cut.of)
    };
    let names: Vec<String> = cuts.iter().take(NAMED).map(name).collect();
    let help = match meta.item("unwind").split_once(',') {
        None => "they may lack frame pointers: record --unwind dwarf does without".into(),
        Some((_, bytes)) => format!("more than {bytes} bytes of stack may help: record --unwind dwarf,BYTES"),
    };
    (!names.is_empty()).then(|| format!("stacks look cut in {}; {help}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str, binary: &str, source: NameSource) -> Frame {
        let (name, binary) = (name.to_owned(), binary.to_owned());
        let build_id = String::new();
        let (inlined, line, hit) = (false, None, None);
        Frame { id: 0, name, kernel: false, inlined, binary, build_id, offset: 0, line, source, hit }
    }

    #[test]
    fn where_stacks_end() {
        let named = |name: &str| frame(name, "/bin/a", NameSource::LocalFile);
        let unnamed = |binary: &str| frame("[x+0x1]", binary, NameSource::None);
        let ends = |frames: &[Frame]| end(&frames.iter().collect::<Vec<_>>()).map(|f| f.binary.clone());
        for start in
            ["_start", "__libc_start_main@@GLIBC_2.34", "__clone3", "clone3", "runtime.goexit.abi0", "start_thread"]
        {
            assert_eq!(ends(&[named("f"), named("main"), named(start)]), None, "{start}");
        }
        assert_eq!(ends(&[named("f")]), Some("/bin/a".into()));
        assert_eq!(ends(&[named("f"), named("main")]), Some("/bin/a".into()));
        // libc without names, and a stripped program of some depth: who knows.
        assert_eq!(ends(&[named("f"), named("main"), unnamed("/lib/libc.so.6")]), None);
        assert_eq!(ends(&[unnamed("/lib/libc.so.6")]), None);
        assert_eq!(ends(&[unnamed("/bin/b"), unnamed("/bin/b"), unnamed("/bin/b")]), None);
        assert_eq!(ends(&[unnamed("/bin/b"), unnamed("/bin/b")]), Some("/bin/b".into()));
        // Astray.
        assert_eq!(ends(&[named("f"), frame("[unknown]", "", NameSource::None)]), Some("/bin/a".into()));
        assert_eq!(ends(&vec![named("f"); DEEPEST]), None);
    }
}
