//! What this kernel has for each source: their programs are loaded as a recording would load them, and none is attached.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::args::RecordArgs;
use crate::bpf::SharedMaps;
use crate::cgroups::Hierarchy;
use crate::layout::Config;
use crate::limits::{self, tracepoint_args};
use crate::messages;
use crate::sideband::Sideband;
use crate::sources::{self, Context, Source, malloc};
use crate::types::Types;

/// What a source, or a part of all recordings, needs, and what it does where the kernel has less. docs/sources.md has the same.
pub const NEEDS: [(&str, &str, &str); 9] = [
    (
        "types",
        "/sys/kernel/btf/vmlinux",
        "--btf FILE, with raw tracepoints (raw_tp for tp_btf), tasks read from /proc, and no offcpu",
    ),
    (
        "sched",
        "tracepoints sched_switch, sched_wakeup, sched_wakeup_new, sched_migrate_task",
        "where sched_switch does not give prev_state, the state is read from the thread",
    ),
    (
        "offcpu",
        "tracepoints sched_switch, sched_waking, sched_process_fork; iterators over tasks; types of the kernel's own",
        "without task storage for tracing programs a table of threads; where interrupts are not told, the waker may be whom one hit",
    ),
    (
        "block",
        "tracepoints block_rq_issue, block_rq_complete",
        "the request is the first or the second argument, as the kernel has it; without the other tracepoints no such events",
    ),
    (
        "malloc",
        "uprobes; -p, --cgroup, a command or --lib",
        "without task storage a table of threads; without links for many uprobes one link each",
    ),
    (
        "kmem",
        "tracepoints kmalloc, kmem_cache_alloc, kfree, kmem_cache_free, mm_page_alloc, mm_page_free",
        "without the tracepoints of per-CPU memory no such events",
    ),
    ("profile", "perf events", "where cycles are not counted, the CPU clock"),
    ("mappings", "perf events", "where the kernel does not tell build ids, they are read from the files"),
    (
        "cgroups",
        "cgroup v2",
        "version 1, by the memory controller or systemd's name; not mounted: ids without paths, no --cgroup",
    ),
];

/// A line of the list.
struct Ability {
    name: &'static str,
    /// What it would be recorded with, or why it cannot be.
    found: Result<String, String>,
}

/// Prints the list, as text or as JSON.
///
/// # Errors
/// When the kernel's types cannot be read, or no program can be loaded at all.
pub fn print(args: &RecordArgs) -> Result<()> {
    let found = probe(args)?;
    let text = if args.json { json(&found).to_string() + "\n" } else { text(&found) };
    std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes()).context("cannot write to stdout")
}

fn probe(args: &RecordArgs) -> Result<Vec<Ability>> {
    const RING_BYTES: u32 = 1 << 16;
    let types = Types::find(args.btf.as_deref())?;
    let hierarchy = Hierarchy::find();
    let cpus = limits::present_cpus()?;
    let mut config = Config { own_pid: std::process::id(), wake_bytes: RING_BYTES / 4, ..Config::default() };
    hierarchy.configure(&mut config);
    let raw = types.are_foreign();
    let context = Context { btf: &types.btf, raw, config, args, pids: &[], cgroup: None, cpus: &cpus };
    let mut shared = SharedMaps::new(&cpus, RING_BYTES, &types)?;
    // It brings the maps that the others share.
    let _tasks = sources::task::load(config, &mut shared, &types)?;
    let mut all = vec![Ability { name: "types", found: Ok(types.said()) }];
    for source in sources::all() {
        let name = source.name();
        let found = match name {
            // Whose memory it is to be is not known: only what its programs would have is looked at.
            "malloc" => Ok(malloc::has(&context)),
            _ => source.load(&context, &mut shared).map(|_| with(source.as_ref(), &context)),
        };
        let found = found.map_err(|error| format!("{error:#}{}", messages::last()));
        all.push(Ability { name, found });
    }
    let ids = |yes| if yes { "build ids told by the kernel" } else { "build ids read from files" };
    let mappings = Sideband::open(&cpus).map(|_| ids(Sideband::tells_build_ids(&cpus)).to_owned());
    all.push(Ability { name: "mappings", found: mappings.map_err(|error| format!("{error:#}")) });
    all.push(Ability { name: "cgroups", found: hierarchy.said() });
    Ok(all)
}

/// What a source that was loaded would use.
fn with(source: &dyn Source, context: &Context<'_>) -> String {
    let args = |tracepoint: &str| tracepoint_args(context.btf, tracepoint);
    let item = |key: &str| source.items(context).into_iter().find(|(k, _)| k == key).map_or(String::new(), |(_, v)| v);
    match source.name() {
        "sched" if args("sched_switch") >= Some(4) => "prev_state is an argument".into(),
        "sched" => "prev_state is read from the thread".into(),
        "offcpu" => {
            format!("states of threads in: {}; interrupts: {}", item("offcpu_threads"), item("offcpu_interrupts"))
        }
        "block" => {
            let place = if args("block_rq_issue") == Some(2) { "second" } else { "first" };
            let error = if args("block_rq_error").is_some() { "" } else { "; no block_error" };
            format!("the request is the {place} argument of block_rq_issue{error}")
        }
        "kmem" if args("percpu_alloc_percpu").is_some() => "with per-CPU memory".into(),
        "kmem" => "without per-CPU memory".into(),
        "profile" => format!("by {}", item("sample_clock")),
        _ => String::new(),
    }
}

fn text(all: &[Ability]) -> String {
    let mut out = String::from("name      here  with\n");
    for ability in all {
        let (here, what) = match &ability.found {
            Ok(with) => ("yes", with.as_str()),
            Err(why) => ("no", why.as_str()),
        };
        let _ = writeln!(out, "{:<9} {here:<5} {what}", ability.name);
        if let Some((_, needs, otherwise)) = NEEDS.iter().find(|(name, ..)| *name == ability.name) {
            let _ = writeln!(out, "{:15} needs {needs}\n{:15} else: {otherwise}", "", "");
        }
    }
    out
}

fn json(all: &[Ability]) -> Value {
    let one = |ability: &Ability| {
        let needs = NEEDS.iter().find(|(name, ..)| *name == ability.name);
        json!({
            "name": ability.name,
            "available": ability.found.is_ok(),
            "with": ability.found.as_ref().ok(),
            "why_not": ability.found.as_ref().err(),
            "needs": needs.map(|(_, needs, _)| needs),
            "otherwise": needs.map(|(.., otherwise)| otherwise),
        })
    };
    Value::Array(all.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_a_line_here_and_in_the_docs() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sources.md");
        let docs = std::fs::read_to_string(path).unwrap();
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
        for name in sources::NAMES {
            assert!(NEEDS.iter().any(|(n, ..)| *n == name), "{name}");
        }
        for (name, needs, otherwise) in NEEDS {
            let row = format!("| `{name}` | {needs} | {otherwise} |");
            assert!(docs.contains(&row), "docs/sources.md lacks {row}");
            assert!(readme.contains(&row), "README.md lacks {row}");
        }
    }

    #[test]
    fn text_and_json_say_why_not() {
        let all = [
            Ability { name: "sched", found: Ok("prev_state is an argument".into()) },
            Ability { name: "block", found: Err("no tracepoints".into()) },
        ];
        let text = text(&all);
        assert!(text.contains("sched     yes   prev_state is an argument\n"), "{text}");
        assert!(text.contains("block     no    no tracepoints\n"), "{text}");
        let json = json(&all);
        assert_eq!((&json[0]["available"], &json[1]["why_not"]), (&true.into(), &"no tracepoints".into()));
    }
}
