//! The columns of each kind that is not an event.

use super::*;
use crate::kind::{Field, Kind, Source, Type};

fn columns(id: u16, name: &str, fields: &[(&str, Type)]) -> Kind {
    let fields = fields.iter().map(|(name, ty)| Field::new(name, *ty, 0, 0)).collect();
    Kind { id, name: name.into(), source: Source::Recorder as u16, row_size: 0, fields }
}

/// The kind with number `id`.
///
/// # Panics
/// When `id` is none of [`meta`](super)'s.
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

/// All kinds of [`meta`](super).
pub fn kinds() -> Vec<Kind> {
    (HEADER_ITEM..=SHED).map(kind).collect()
}
