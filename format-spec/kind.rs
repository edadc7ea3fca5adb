//! Kinds of rows: their fields, and the registry of all kinds that a trace or this version knows.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::block::{BlockType, numbers};
use crate::error::{Error, Result};
use crate::table::{Column, Table};
use crate::{events, meta};

numbers! {
    /// Type of a field. Numbers stand in SCHEMA blocks.
    Type {
        /// 8 bits.
        U8 = 1 "u8",
        /// 16 bits.
        U16 = 2 "u16",
        /// 32 bits.
        U32 = 3 "u32",
        /// 64 bits.
        U64 = 4 "u64",
        /// 32 bits, signed.
        I32 = 5 "i32",
        /// 64 bits, signed.
        I64 = 6 "i64",
        /// Bytes, mostly UTF-8; NUL-padded to the field's width in raw rows.
        Text = 7 "text",
        /// List of u64; only in columns.
        List = 8 "list",
    }
}

numbers! {
    /// What an event was recorded by. Numbers stand in SCHEMA and LOSS blocks.
    Source {
        /// No source: what the recorder itself writes.
        Recorder = 0 "recorder",
        /// Tasks and cgroups that come and go. Always on.
        Task = 1 "task",
        /// The scheduler.
        Sched = 2 "sched",
        /// Block I/O.
        Block = 3 "block",
        /// CPU samples.
        Profile = 4 "profile",
    }
}

/// A field of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name; units stand as suffix.
    pub name: String,
    /// Type.
    pub ty: Type,
    /// Offset in the raw row, bytes.
    pub offset: u16,
    /// Width in the raw row, bytes; 0 when the kind has no raw rows.
    pub width: u16,
    /// Unit in words, empty for plain numbers.
    pub unit: String,
}

impl Field {
    /// A field whose unit follows from its name's suffix.
    pub fn new(name: &str, ty: Type, offset: usize, width: usize) -> Self {
        Field { name: name.into(), ty, offset: offset as u16, width: width as u16, unit: unit_of(name).into() }
    }
}

/// The unit that a field's name says.
pub fn unit_of(name: &str) -> &'static str {
    match name.rsplit('_').next().unwrap_or_default() {
        "ns" => "ns",
        "us" => "us",
        "bytes" => "bytes",
        "pages" => "pages",
        "sector" => "512 bytes",
        _ => "",
    }
}

/// A kind of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Number in sections.
    pub id: u16,
    /// Name, also of the table.
    pub name: String,
    /// Source that records it.
    pub source: u16,
    /// Bytes of a raw row; 0 when rows are only ever stored as columns.
    pub row_size: u32,
    /// Fields in order.
    pub fields: Vec<Field>,
}

impl Kind {
    /// Position of the field called `name`.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|f| f.name == name)
    }

    /// Whether rows are events: something that happened at a moment, seen by a source.
    pub fn is_event(&self) -> bool {
        self.source != Source::Recorder as u16
    }

    /// Type of the block that rows of this kind go into.
    pub fn block_type(&self) -> BlockType {
        match self.id {
            meta::HEADER_ITEM => BlockType::Header,
            meta::SCHEMA_FIELD => BlockType::Schema,
            meta::STACK => BlockType::Stacks,
            meta::TASK | events::SCHED_FORK..=events::TASK_RENAME => BlockType::Tasks,
            meta::CGROUP | events::CGROUP_MKDIR..=events::CGROUP_RMDIR => BlockType::Cgroups,
            meta::MAPPING => BlockType::Maps,
            meta::CLOCK => BlockType::Clock,
            meta::LOSS => BlockType::Loss,
            meta::KERNEL_SYMBOL => BlockType::KernelSymbols,
            meta::SOURCE_STATS | meta::RECORDER_STATS => BlockType::Checkpoint,
            meta::INDEX_ENTRY => BlockType::Index,
            meta::END => BlockType::End,
            _ => BlockType::Events,
        }
    }
}

/// Kinds by number: those of this version, then those that the trace's own SCHEMA blocks describe.
#[derive(Clone, Debug)]
pub struct Registry(FxHashMap<u16, Arc<Kind>>);

impl Default for Registry {
    fn default() -> Self {
        let all = meta::kinds().into_iter().chain(events::kinds());
        Registry(all.map(|k| (k.id, Arc::new(k))).collect())
    }
}

impl Registry {
    /// Kind with number `id`.
    pub fn get(&self, id: u16) -> Option<&Arc<Kind>> {
        self.0.get(&id)
    }

    /// Kind called `name`.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Kind>> {
        self.0.values().find(|k| k.name == name)
    }

    /// All kinds by number.
    pub fn kinds(&self) -> Vec<Arc<Kind>> {
        let mut all: Vec<_> = self.0.values().cloned().collect();
        all.sort_by_key(|k| k.id);
        all
    }

    /// All kinds as rows of kind [`meta::SCHEMA_FIELD`].
    pub fn to_table(&self) -> Table {
        let mut table = Table::new(&meta::kind(meta::SCHEMA_FIELD));
        for kind in self.kinds() {
            for field in &kind.fields {
                table.push(&[
                    u32::from(kind.id).into(),
                    kind.name.as_str().into(),
                    u32::from(kind.source).into(),
                    kind.row_size.into(),
                    field.name.as_str().into(),
                    (field.ty as u32).into(),
                    u32::from(field.offset).into(),
                    u32::from(field.width).into(),
                    field.unit.as_str().into(),
                ]);
            }
        }
        table
    }

    /// Takes over what a SCHEMA block says. Fields of a kind stand one after the other. A kind with a field
    /// type that this version does not know is left out: its sections are skipped and counted.
    pub fn learn(&mut self, table: &Table) -> Result<()> {
        let [
            Column::Int(ids),
            Column::Text(names),
            Column::Int(sources),
            Column::Int(sizes),
            Column::Text(fields),
            Column::Int(types),
            Column::Int(offsets),
            Column::Int(widths),
            Column::Text(units),
            ..,
        ] = &table.columns[..]
        else {
            return Err(Error::damaged("SCHEMA rows have other columns than the specification"));
        };
        let mut row = 0;
        while row < table.rows() {
            let id = ids[row];
            let mut kind = Kind {
                id: id as u16,
                name: String::from_utf8_lossy(names.get(row)).into_owned(),
                source: sources[row] as u16,
                row_size: sizes[row] as u32,
                fields: Vec::new(),
            };
            let mut known = id <= u64::from(u16::MAX) && sizes[row] <= u64::from(u16::MAX) && !kind.name.is_empty();
            while row < table.rows() && ids[row] == id {
                let ty = u8::try_from(types[row]).ok().and_then(Type::from_number);
                known &= offsets[row].max(widths[row]) <= u64::from(u16::MAX);
                match ty {
                    Some(ty) => kind.fields.push(Field {
                        name: String::from_utf8_lossy(fields.get(row)).into_owned(),
                        ty,
                        offset: offsets[row] as u16,
                        width: widths[row] as u16,
                        unit: String::from_utf8_lossy(units.get(row)).into_owned(),
                    }),
                    None => known = false,
                }
                row += 1;
            }
            // The number of the schema's own kind can never be given a new meaning.
            if kind.id != meta::SCHEMA_FIELD {
                if known {
                    self.0.insert(kind.id, Arc::new(kind));
                } else if let Ok(id) = u16::try_from(id) {
                    self.0.remove(&id);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_learns_itself() {
        let mine = Registry::default();
        let mut learnt = Registry(FxHashMap::default());
        learnt.learn(&mine.to_table()).unwrap();
        let mine: Vec<_> = mine.kinds().into_iter().filter(|k| k.id != meta::SCHEMA_FIELD).collect();
        assert_eq!(mine, learnt.kinds());
    }

    #[test]
    fn numbers_and_names_are_unique() {
        let kinds: Vec<_> = meta::kinds().into_iter().chain(events::kinds()).collect();
        assert_eq!(Registry::default().kinds().len(), kinds.len());
        let names: std::collections::HashSet<_> = kinds.iter().map(|k| k.name.clone()).collect();
        assert_eq!(names.len(), kinds.len());
    }
}
