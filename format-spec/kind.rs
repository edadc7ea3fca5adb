//! Kinds of rows: their fields, and the registry of all kinds that a trace or this version knows.

use std::sync::{Arc, LazyLock};

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
        /// Memory that the kernel gives out.
        Kmem = 5 "kmem",
        /// Memory that allocators in processes give out.
        Malloc = 6 "malloc",
        /// Waits: why threads leave the CPU and for how long.
        Offcpu = 7 "offcpu",
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
    const NAMESPACES: [&str; 7] = ["net_ns", "uts_ns", "ipc_ns", "pid_ns", "user_ns", "mnt_ns", "cgroup_ns"];
    if NAMESPACES.contains(&name) {
        return ""; // the inode number of a namespace
    }
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
            meta::TASK | meta::TASK_NAMESPACES | events::SCHED_FORK..=events::TASK_RENAME => BlockType::Tasks,
            meta::CGROUP | events::CGROUP_MKDIR..=events::CGROUP_RMDIR => BlockType::Cgroups,
            meta::MAPPING => BlockType::Maps,
            meta::CLOCK => BlockType::Clock,
            meta::LOSS | meta::SHED => BlockType::Loss,
            meta::KERNEL_SYMBOL | meta::KERNEL_SYMBOL_CHANGE | meta::KERNEL_MODULE => BlockType::KernelSymbols,
            meta::BINARY | meta::BINARY_SEGMENT => BlockType::Binaries,
            meta::BINARY_SYMBOL => BlockType::BinarySymbols,
            meta::JIT_SYMBOL => BlockType::JitSymbols,
            meta::SOURCE_STATS | meta::RECORDER_STATS | meta::STACK_STATS => BlockType::Checkpoint,
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
        static OWN: LazyLock<Registry> = LazyLock::new(|| {
            let all = meta::kinds().into_iter().chain(events::kinds());
            Registry(all.map(|k| (k.id, Arc::new(k))).collect())
        });
        OWN.clone()
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

    /// Takes over what a SCHEMA block says; later descriptions of a kind replace earlier ones. Fields of a kind stand one
    /// after the other; those from the first one of an unknown type on are left out.
    ///
    /// # Errors
    /// When a description is over a limit, or contradicts the fields that this version knows of a kind. All others are
    /// taken over all the same, and the kind stays as it was.
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
        let own = Registry::default();
        let mut total: usize = self.0.values().map(|k| k.fields.len()).sum();
        let mut result = Ok(());
        let mut end = 0;
        for rows in ids.chunk_by(|a, b| a == b) {
            let first = end;
            end += rows.len();
            let types = types[first..end].iter().map_while(|ty| Type::from_number(u8::try_from(*ty).ok()?));
            let fields = types.enumerate().map(|(i, ty)| Field {
                name: short(fields.get(first + i)),
                ty,
                offset: narrow(offsets[first + i]),
                width: narrow(widths[first + i]),
                unit: short(units.get(first + i)),
            });
            let kind = Kind {
                id: narrow(ids[first]),
                name: short(names.get(first)),
                source: narrow(sources[first]),
                row_size: u32::from(narrow(sizes[first])),
                fields: fields.take(MAX_FIELDS).collect(),
            };
            // These two are found and read before there is a schema: they are for ever as they are.
            if ids[first] > u64::from(u16::MAX) || [meta::SCHEMA_FIELD, meta::END].contains(&kind.id) {
                continue;
            }
            let replaced = self.get(kind.id).map_or(0, |k| k.fields.len());
            let kind = match own.get(kind.id) {
                _ if total - replaced + kind.fields.len() > MAX_FIELDS => {
                    Err(Error::damaged("SCHEMA has too many fields"))
                }
                Some(own) => merge(own, kind),
                None if kind.name.is_empty() || kind.fields.is_empty() => continue,
                None => Ok(kind),
            };
            match kind {
                Ok(kind) => {
                    total = total - replaced + kind.fields.len();
                    self.0.insert(kind.id, Arc::new(kind));
                }
                Err(error) => result = Err(error),
            }
        }
        result
    }
}

/// Most fields of all kinds of a trace together.
const MAX_FIELDS: usize = 1 << 14;

/// A name of a schema: at most 255 bytes.
fn short(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(255)]).into_owned()
}

/// Offsets and widths over 64 KiB lie outside of every row, so that the field reads as 0.
fn narrow(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// A kind of this version as the trace describes it: with the fields that a newer writer appended, and with those that
/// an older one did not know, so that code may count on all of its own.
fn merge(own: &Kind, mut theirs: Kind) -> Result<Kind> {
    if let Some((own_field, field)) =
        own.fields.iter().zip(&theirs.fields).find(|(a, b)| a.name != b.name || a.ty != b.ty)
    {
        let what = format!("SCHEMA has {} as a field of {} where {} is expected", field.name, own.name, own_field.name);
        return Err(Error::damaged(what));
    }
    theirs.fields.extend(own.fields.iter().skip(theirs.fields.len()).cloned());
    theirs.name.clone_from(&own.name);
    theirs.source = own.source;
    Ok(theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_learns_itself() {
        let mine = Registry::default();
        let mut learnt = Registry(FxHashMap::default());
        learnt.learn(&mine.to_table()).unwrap();
        let fixed = [meta::SCHEMA_FIELD, meta::END];
        let mine: Vec<_> = mine.kinds().into_iter().filter(|k| !fixed.contains(&k.id)).collect();
        assert_eq!(mine, learnt.kinds());
    }

    /// The schema of sched_migrate as some other version has it.
    fn learn_migrate(change: impl FnOnce(&mut Kind)) -> (Registry, Result<()>) {
        let mut kind = (**Registry::default().get(events::SCHED_MIGRATE).unwrap()).clone();
        change(&mut kind);
        let table = Registry([(kind.id, Arc::new(kind))].into_iter().collect()).to_table();
        let mut registry = Registry::default();
        let result = registry.learn(&table);
        (registry, result)
    }

    #[test]
    fn other_versions_of_a_kind() {
        let own = Registry::default().get(events::SCHED_MIGRATE).unwrap().clone();
        let (older, result) = learn_migrate(|k| {
            k.fields.truncate(5);
            k.row_size = 32;
        });
        result.unwrap();
        assert_eq!(older.get(own.id).unwrap().fields, own.fields);
        assert_eq!(older.get(own.id).unwrap().row_size, 32);
        let (newer, result) = learn_migrate(|k| k.fields.push(Field::new("more_ns", Type::U64, 40, 8)));
        result.unwrap();
        assert_eq!(newer.get(own.id).unwrap().fields.len(), own.fields.len() + 1);
        let (wrong, result) = learn_migrate(|k| k.fields[1].ty = Type::Text);
        assert!(result.is_err());
        assert_eq!(wrong.get(own.id), Some(&own));
    }

    #[test]
    fn a_field_of_an_unknown_type_ends_the_fields() {
        let (newer, _) = learn_migrate(|k| k.fields.push(Field::new("more", Type::U64, 40, 8)));
        let mut table = newer.to_table();
        let last = table.columns[0].ints().iter().rposition(|id| *id == u64::from(events::SCHED_MIGRATE));
        let Some(Column::Int(types)) = table.columns.get_mut(5) else { unreachable!() };
        types[last.unwrap()] = 200;
        let mut registry = Registry::default();
        registry.learn(&table).unwrap();
        assert_eq!(registry.get(events::SCHED_MIGRATE), Registry::default().get(events::SCHED_MIGRATE));
    }

    #[test]
    fn numbers_and_names_are_unique() {
        let kinds: Vec<_> = meta::kinds().into_iter().chain(events::kinds()).collect();
        assert_eq!(Registry::default().kinds().len(), kinds.len());
        let names: std::collections::HashSet<_> = kinds.iter().map(|k| k.name.clone()).collect();
        assert_eq!(names.len(), kinds.len());
    }
}
