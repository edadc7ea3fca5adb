//! Kinds that are not events: facts about the recording, definitions of ids, totals, the index.

use crate::kind::{Field, Kind, Source, Type};

/// Keys and values about the recording.
pub const HEADER_ITEM: u16 = 1;
/// Fields of all kinds.
pub const SCHEMA_FIELD: u16 = 2;
/// What a stack id stands for.
pub const STACK: u16 = 3;
/// A task that was there when the segment began.
pub const TASK: u16 = 4;
/// A cgroup that was there when the segment began.
pub const CGROUP: u16 = 5;
/// An executable mapping.
pub const MAPPING: u16 = 6;
/// A function of the kernel, a module or a BPF program.
pub const KERNEL_SYMBOL: u16 = 7;
/// One moment on three clocks.
pub const CLOCK: u16 = 8;
/// Events lost in a span of time.
pub const LOSS: u16 = 9;
/// Totals of a source so far.
pub const SOURCE_STATS: u16 = 10;
/// Totals of the recorder so far.
pub const RECORDER_STATS: u16 = 11;
/// A block's header.
pub const INDEX_ENTRY: u16 = 12;
/// End of the segment.
pub const END: u16 = 13;
/// A binary that is mapped.
pub const BINARY: u16 = 14;
/// What is loaded of a binary, and where to.
pub const BINARY_SEGMENT: u16 = 15;
/// A function of a binary.
pub const BINARY_SYMBOL: u16 = 16;
/// A function that a runtime compiled while it ran.
pub const JIT_SYMBOL: u16 = 17;
/// A function of the kernel, a module or a BPF program that came or went.
pub const KERNEL_SYMBOL_CHANGE: u16 = 18;
/// Stacks that a source took so far.
pub const STACK_STATS: u16 = 19;
/// A task went to other namespaces.
pub const TASK_NAMESPACES: u16 = 20;
/// A module of the kernel.
pub const KERNEL_MODULE: u16 = 21;
/// The recorder gave something up to stay within its budget, or took it up again.
pub const SHED: u16 = 22;

/// Where the name of a function comes from: `source` of [`BINARY_SYMBOL`] and [`JIT_SYMBOL`].
pub mod symbol_source {
    /// The symbol table of the binary.
    pub const SYMTAB: u64 = 1;
    /// Its exported symbols only.
    pub const DYNSYM: u64 = 2;
    /// Its compressed `.gnu_debugdata`.
    pub const GNU_DEBUGDATA: u64 = 3;
    /// A perf map.
    pub const PERF_MAP: u64 = 4;
    /// A jitdump file.
    pub const JITDUMP: u64 = 5;
    /// A file with the binary's build id, added after the recording.
    pub const ADDED: u64 = 6;

    /// In words.
    pub fn text(source: u64) -> &'static str {
        match source {
            SYMTAB => "symtab",
            DYNSYM => "dynsym",
            GNU_DEBUGDATA => "gnu_debugdata",
            PERF_MAP => "perf map",
            JITDUMP => "jitdump",
            ADDED => "added",
            _ => "?",
        }
    }
}

/// Why events were lost: `reason` of [`LOSS`].
pub mod reason {
    /// A CPU's ring was full.
    pub const RING_FULL: u64 = 1;
    /// The ring of stack definitions was full; the definition is sent again with the next event.
    pub const STACK_RING_FULL: u64 = 2;
    /// The ring of tasks and cgroups was full.
    pub const TASK_RING_FULL: u64 = 3;
    /// The kernel's perf ring of mappings was full.
    pub const MAPPINGS_LOST: u64 = 4;
    /// The writer could not keep up and the recorder's queue was full.
    pub const QUEUE_FULL: u64 = 5;
    /// Events whose stack could not be walked or whose definition never came.
    pub const STACK_UNDEFINED: u64 = 6;
    /// Requests whose issuer could not be kept in the table of requests in flight.
    pub const TABLE_FULL: u64 = 7;

    /// `recover` left a damaged block out.
    pub const DAMAGED: u64 = 8;

    /// The kernel left a probe out, as it was already running on that CPU: an interrupt came in its middle.
    pub const PROBE_BUSY: u64 = 9;

    /// Allocations or threads for which the table that pairs need had no room.
    pub const LIVE_FULL: u64 = 10;
    /// Calls of an allocator whose return was not seen.
    pub const CALL_UNFINISHED: u64 = 11;
    /// There was no room for what a source must know of a thread.
    pub const THREAD_TABLE_FULL: u64 = 12;
    /// The ring of copied user stacks was full; the stack was walked by frame pointers.
    pub const COPY_RING_FULL: u64 = 13;
    /// `redact` left out what it did not understand.
    pub const NOT_UNDERSTOOD: u64 = 14;

    /// Whether an event itself is gone, not only what it refers to.
    pub fn loses_events(reason: u64) -> bool {
        !matches!(reason, STACK_RING_FULL | MAPPINGS_LOST | STACK_UNDEFINED | TABLE_FULL | COPY_RING_FULL)
    }

    /// In words, for reports.
    pub fn text(reason: u64) -> &'static str {
        match reason {
            RING_FULL => "ring full",
            STACK_RING_FULL => "stack ring full",
            TASK_RING_FULL => "task ring full",
            MAPPINGS_LOST => "mapping ring full",
            QUEUE_FULL => "writer too slow",
            STACK_UNDEFINED => "stack not defined",
            TABLE_FULL => "request table full",
            DAMAGED => "block damaged",
            PROBE_BUSY => "probe was running already",
            LIVE_FULL => "table of live memory full",
            CALL_UNFINISHED => "call without its return",
            THREAD_TABLE_FULL => "thread table full",
            COPY_RING_FULL => "stack copy ring full",
            NOT_UNDERSTOOD => "not understood",
            _ => "unknown reason",
        }
    }
}

/// Where the addresses of a stack lie: `space` of [`STACK`].
pub mod space {
    /// Kernel.
    pub const KERNEL: u64 = 0;
    /// User.
    pub const USER: u64 = 1;
}

/// What a recorder gives up to stay within its budget: `step` and `cause` of [`SHED`].
pub mod shed {
    /// User stacks.
    pub const USER_STACKS: u64 = 1;
    /// Kernel stacks.
    pub const KERNEL_STACKS: u64 = 2;
    /// Most samples of the profile, most allocations.
    pub const SAMPLING: u64 = 3;
    /// A source.
    pub const SOURCE: u64 = 4;

    /// A step in words.
    pub fn step(step: u64) -> &'static str {
        match step {
            USER_STACKS => "user stacks",
            KERNEL_STACKS => "kernel stacks",
            SAMPLING => "sampling rate",
            SOURCE => "source",
            _ => "unknown step",
        }
    }

    /// CPU time of the recorder and its programs.
    pub const CPU: u64 = 1;
    /// Its memory.
    pub const RSS: u64 = 2;
    /// The file nears its largest size.
    pub const SIZE: u64 = 3;
    /// The file system fills.
    pub const FREE: u64 = 4;

    /// A cause in words.
    pub fn cause(cause: u64) -> &'static str {
        match cause {
            CPU => "cpu",
            RSS => "rss",
            SIZE => "size",
            FREE => "free",
            _ => "unknown cause",
        }
    }
}

fn columns(id: u16, name: &str, fields: &[(&str, Type)]) -> Kind {
    let fields = fields.iter().map(|(name, ty)| Field::new(name, *ty, 0, 0)).collect();
    Kind { id, name: name.into(), source: Source::Recorder as u16, row_size: 0, fields }
}

/// The kind with number `id`.
///
/// # Panics
/// When `id` is none of this module's.
pub fn kind(id: u16) -> Kind {
    use Type::*;
    match id {
        HEADER_ITEM => columns(id, "header_item", &[("key", Text), ("value", Text)]),
        SCHEMA_FIELD => columns(
            id,
            "schema_field",
            &[
                ("kind", U16),
                ("kind_name", Text),
                ("source", U16),
                ("row_bytes", U32),
                ("name", Text),
                ("type", U8),
                ("offset_bytes", U16),
                ("width_bytes", U16),
                ("unit", Text),
            ],
        ),
        STACK => columns(
            id,
            "stack",
            &[("ts_ns", U64), ("stack_id", U64), ("space", U8), ("pid", U32), ("exec_id", U64), ("frames", List)],
        ),
        TASK => columns(
            id,
            "task",
            &[
                ("ts_ns", U64),
                ("tid", U32),
                ("pid", U32),
                ("ppid", U32),
                ("uid", U32),
                ("ns_pid", U32),
                ("pid_ns", U32),
                ("start_ns", U64),
                ("cgroup_id", U64),
                ("comm", Text),
                ("exe", Text),
                ("mnt_ns", U32),
            ],
        ),
        CGROUP => columns(
            id,
            "cgroup",
            &[
                ("ts_ns", U64),
                ("cgroup_id", U64),
                ("parent_id", U64),
                ("path", Text),
                ("runtime", Text),
                ("container_id", Text),
                ("pod_uid", Text),
                ("unit", Text),
            ],
        ),
        MAPPING => columns(
            id,
            "mapping",
            &[
                ("ts_ns", U64),
                ("pid", U32),
                ("start_addr", U64),
                ("len_bytes", U64),
                ("offset_bytes", U64),
                ("dev_major", U32),
                ("dev_minor", U32),
                ("inode", U64),
                ("build_id", Text),
                ("path", Text),
            ],
        ),
        KERNEL_SYMBOL => columns(id, "kernel_symbol", &[("addr", U64), ("type", U8), ("name", Text), ("module", Text)]),
        CLOCK => columns(id, "clock", &[("mono_ns", U64), ("boot_ns", U64), ("realtime_ns", I64)]),
        LOSS => columns(
            id,
            "loss",
            &[("source", U16), ("cpu", U32), ("ts_from_ns", U64), ("ts_to_ns", U64), ("reason", U8), ("lost", U64)],
        ),
        SOURCE_STATS => columns(
            id,
            "source_stats",
            &[("ts_ns", U64), ("source", U16), ("kept", U64), ("lost", U64), ("bpf_ns", U64), ("bpf_runs", U64)],
        ),
        RECORDER_STATS => columns(
            id,
            "recorder_stats",
            &[
                ("ts_ns", U64),
                ("cpu_ns", U64),
                ("max_rss_bytes", U64),
                ("file_bytes", U64),
                ("wakeups", U64),
                ("bpf_ns", U64),
                ("bpf_measured_ns", U64),
                ("start_ns", U64),
                ("drain_ns", U64),
                ("encode_ns", U64),
                ("compress_ns", U64),
                ("write_ns", U64),
                ("tables_ns", U64),
                ("names_ns", U64),
                ("rss_bytes", U64),
            ],
        ),
        INDEX_ENTRY => columns(id, "index_entry", &[("offset_bytes", U64), ("header", Text)]),
        STACK_STATS => columns(
            id,
            "stack_stats",
            &[
                ("ts_ns", U64),
                ("source", U16),
                ("space", U8),
                ("walked", U64),
                ("remembered", U64),
                ("checked", U64),
                ("wrong", U64),
                ("failed", U64),
            ],
        ),
        END => {
            let mut kind = columns(
                id,
                "end",
                &[
                    ("index_offset_bytes", U64),
                    ("offset_bytes", U64),
                    ("blocks", U64),
                    ("events", U64),
                    ("lost", U64),
                    ("ts_ns", U64),
                    ("reason", U32),
                ],
            );
            // The one kind here that is stored raw: END has a fixed length, so that it is found from the tail.
            for (i, field) in kind.fields.iter_mut().enumerate() {
                (field.offset, field.width) = (8 * i as u16, if field.ty == U32 { 4 } else { 8 });
            }
            kind.row_size = 52;
            kind
        }
        BINARY => columns(
            id,
            "binary",
            &[
                ("ts_ns", U64),
                ("binary_id", U64),
                ("build_id", Text),
                ("content_id", Text),
                ("path", Text),
                ("dev_major", U32),
                ("dev_minor", U32),
                ("inode", U64),
                ("size_bytes", U64),
                ("elf_type", U16),
                ("machine", U16),
                ("debug_link", Text),
                ("debug_link_crc", U32),
                ("symbols", U32),
                ("missing", Text),
            ],
        ),
        BINARY_SEGMENT => columns(
            id,
            "binary_segment",
            &[("binary_id", U64), ("offset_bytes", U64), ("len_bytes", U64), ("addr", U64), ("flags", U32)],
        ),
        BINARY_SYMBOL => columns(
            id,
            "binary_symbol",
            &[("binary_id", U64), ("addr", U64), ("len_bytes", U64), ("source", U8), ("name", Text)],
        ),
        JIT_SYMBOL => columns(
            id,
            "jit_symbol",
            &[("ts_ns", U64), ("pid", U32), ("addr", U64), ("len_bytes", U64), ("source", U8), ("name", Text)],
        ),
        KERNEL_SYMBOL_CHANGE => columns(
            id,
            "kernel_symbol_change",
            &[("ts_ns", U64), ("addr", U64), ("len_bytes", U64), ("gone", U8), ("name", Text), ("module", Text)],
        ),
        TASK_NAMESPACES => columns(
            id,
            "task_namespaces",
            &[
                ("ts_ns", U64),
                ("tid", U32),
                ("pid", U32),
                ("net_ns", U32),
                ("uts_ns", U32),
                ("ipc_ns", U32),
                ("pid_ns", U32),
                ("user_ns", U32),
                ("mnt_ns", U32),
                ("cgroup_ns", U32),
            ],
        ),
        KERNEL_MODULE => {
            columns(id, "kernel_module", &[("ts_ns", U64), ("name", Text), ("text_addr", U64), ("build_id", Text)])
        }
        SHED => columns(
            id,
            "shed",
            &[
                ("ts_ns", U64),
                ("step", U8),
                ("source", U16),
                ("cause", U8),
                ("value", U64),
                ("limit", U64),
                ("restored", U8),
                ("every", U32),
            ],
        ),
        _ => panic!("kind {id} is not a meta kind"),
    }
}

/// All kinds of this module.
pub fn kinds() -> Vec<Kind> {
    (HEADER_ITEM..=SHED).map(kind).collect()
}
