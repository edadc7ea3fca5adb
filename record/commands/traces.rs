//! Several traces at once: files of the same recording are one trace, and each trace has a name of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use bpfrec_format::Trace;

use super::analyze::open;

/// A trace and the name of its folder.
pub struct NamedTrace {
    pub name: String,
    pub trace: Trace,
}

/// Opens all, in the order of their begins. Segments of one recording, given file by file, become one trace.
pub fn open_all(paths: &[PathBuf]) -> Result<Vec<NamedTrace>> {
    let mut by_id: BTreeMap<u64, Vec<(&Path, Trace)>> = BTreeMap::new();
    for path in paths {
        let trace = open(path)?;
        by_id.entry(id(&trace)).or_default().push((path, trace));
    }
    let mut traces = Vec::new();
    for (id, parts) in by_id {
        let first = parts[0].0;
        // A directory's segments stand for the directory.
        let whole = if parts.len() > 1 { first.parent().filter(|dir| dir.file_name().is_some()) } else { None };
        let name = stem(whole.unwrap_or(first));
        traces.push((id, NamedTrace { name, trace: joined(parts)? }));
    }
    traces.sort_by_key(|(_, named)| begin(&named.trace));
    let names: Vec<String> = traces.iter().map(|(_, named)| named.name.clone()).collect();
    let mut seen = BTreeSet::new();
    for (id, named) in &mut traces {
        let alike = names.iter().filter(|name| **name == named.name).count();
        if alike > 1 {
            named.name = format!("{}-{id:016x}", named.name);
        }
        seen.insert(named.name.clone());
    }
    if seen.len() < traces.len() {
        bail!("two traces would be written into the same folder: rename one of the files");
    }
    Ok(traces.into_iter().map(|(_, named)| named).collect())
}

fn id(trace: &Trace) -> u64 {
    trace.segments[0].1.blocks[0].header.trace_id
}

/// When it began, as its header says: the files may be of hosts whose clocks run otherwise, it is only an order.
fn begin(trace: &Trace) -> (u64, u64) {
    let items = &trace.segments[0].1.items;
    let number = |key: &str| items.iter().find(|(name, _)| name == key).and_then(|(_, v)| v.parse().ok()).unwrap_or(0);
    (number("start_realtime_ns"), number("start_mono_ns"))
}

fn stem(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.strip_suffix(".part").unwrap_or(&name);
    let name = name.strip_suffix(".bpr").unwrap_or(name);
    if name.is_empty() || name == "parquet" { format!("trace-{name}") } else { name.to_owned() }
}

/// Segments of one trace in their order; none may be there twice.
fn joined(parts: Vec<(&Path, Trace)>) -> Result<Trace> {
    let mut all = Trace { segments: Vec::new(), refused: Vec::new() };
    for (_, trace) in parts {
        all.segments.extend(trace.segments);
        all.refused.extend(trace.refused);
    }
    let number = |i: usize, all: &Trace| all.segments[i].1.blocks[0].header.segment;
    all.segments.sort_by_key(|(_, s)| s.blocks[0].header.segment);
    if let Some(i) = (1..all.segments.len()).find(|i| number(*i, &all) == number(i - 1, &all)) {
        let [one, other] = [i - 1, i].map(|i| all.segments[i].0.display().to_string());
        bail!("{one} and {other} are the same part of the same recording: give one of them");
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::stem;
    use std::path::Path;

    #[test]
    fn names_of_folders() {
        let names = ["/a/host1.bpr", "b.bpr.part", "dir/", "x.y", "parquet"].map(|path| stem(Path::new(path)));
        assert_eq!(names, ["host1", "b", "dir", "x.y", "trace-parquet"]);
    }
}
