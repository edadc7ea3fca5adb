//! A trace that is made: a secret in every text.

use std::fs;
use std::path::PathBuf;

use bpfrec_format::{BlockType, Column, EndReason, Ragged, SegmentIds, SegmentWriter, Table, meta};

use crate::builder::{self, Random, TRACE_ID};
use crate::common::Scratch;

/// What is in a text of the made trace, so that it can be found anywhere.
pub const SECRET: &str = "q7Secret";
/// The same in what stays by default.
pub const STAYS: &str = "q7Function";

/// A trace with a secret in every text that the format has, in all the forms that hosts have.
pub fn trace(scratch: &Scratch) -> PathBuf {
    const FORMS: [&str; 10] = [
        "<script>@</script>",
        "/../../etc/@",
        "@\n\u{1b}[31m\"'\\;",
        "/system.slice/docker-@.scope",
        "a b@ (deleted)",
        "/memfd:@",
        "[anon:@]",
        "/usr/lib/@/libc.so.@",
        "JS:*f /srv/My @ App/index.js:1:2",
        "py::main:/home/@.py",
    ];
    let registry = builder::later_registry();
    let mut random = Random(3);
    let text = |form: usize, secret: &str| FORMS[form % FORMS.len()].replace('@', &format!("{secret}{form}q"));
    let mut items = builder::items();
    for key in [
        "host",
        "kernel",
        "kernel_version",
        "arch",
        "boot_id",
        "host_id",
        "kernel_build_id",
        "command",
        "filter_cgroup",
        "malloc_files",
        "disk.8:0",
        "page_size",
        "sources",
        "later",
    ] {
        items.push((key.into(), text(items.len(), SECRET)));
    }
    items.push((text(0, SECRET), "1".into()));
    let ids = SegmentIds { trace_id: TRACE_ID, segment: 0, first_seq: 0 };
    let mut writer = SegmentWriter::new(Vec::new(), ids, &registry, &items).unwrap();
    let made = [meta::HEADER_ITEM, meta::SCHEMA_FIELD, meta::INDEX_ENTRY, meta::END];
    for kind in registry.kinds().into_iter().filter(|kind| !made.contains(&kind.id)) {
        let mut table: Table = builder::table(&kind, 40, builder::START_NS, &mut random);
        for (field, column) in kind.fields.iter().zip(&mut table.columns) {
            let stays = matches!((kind.name.as_str(), field.name.as_str()), (_, "build_id" | "content_id" | "module"))
                || matches!(
                    kind.name.as_str(),
                    "kernel_symbol" | "kernel_symbol_change" | "binary_symbol" | "kernel_module"
                );
            if field.name.ends_with("_stack_id") {
                *column = Column::Int(vec![0; 40]);
            } else if let Column::Text(texts) = column {
                *texts = Ragged::default();
                // The last two forms are names of compiled code with a file in them; all else there is a function.
                let form = |row| if kind.id == meta::JIT_SYMBOL { FORMS.len() - 2 + row % 2 } else { row };
                (0..40).for_each(|row| texts.push(text(form(row), if stays { STAYS } else { SECRET }).as_bytes()));
            }
        }
        let block_type = if kind.is_event() { BlockType::Events } else { kind.block_type() };
        if kind.id == meta::LOSS {
            continue;
        }
        writer.write_tables(block_type, &[&table]).unwrap();
    }
    let path = scratch.path("hostile.bpr");
    fs::write(&path, writer.finish(EndReason::Exit).unwrap().0).unwrap();
    path
}
