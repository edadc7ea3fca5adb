//! How a struct becomes a kind of the schema and a struct of `events.h`.

use crate::kind::Type;

/// A field's type in Rust, in C and in the schema.
pub(super) trait Cell {
    const TYPE: Type;
    const C: &'static str;
    const ARRAY: usize = 0;
}

macro_rules! cells {
    ($($rust:ty, $ty:ident, $c:literal;)*) => {
        $(impl Cell for $rust { const TYPE: Type = Type::$ty; const C: &'static str = $c; })*
    };
}
cells! { u8, U8, "__u8"; u16, U16, "__u16"; u32, U32, "__u32"; u64, U64, "__u64"; i32, I32, "__s32"; }

impl<const N: usize> Cell for [u8; N] {
    const TYPE: Type = Type::Text;
    const C: &'static str = "char";
    const ARRAY: usize = N;
}

/// Structs of events, each with its kinds.
macro_rules! events {
    ($($(#[$doc:meta])* $struct:ident $c:ident $source:ident [$($(#[$kind_doc:meta])* $name:ident $constant:ident = $id:literal,)*] {
        $($(#[$field_doc:meta])* $field:ident: $ty:ty,)*
    })*) => {
        use $crate::events::layout::Cell;
        use $crate::kind::{Field, Kind, Source, Type};

        $(
            $($(#[$kind_doc])* pub const $constant: u16 = $id;)*

            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            #[repr(C)]
            pub struct $struct {
                /// CLOCK_MONOTONIC.
                pub ts_ns: u64,
                /// Number of the kind.
                pub kind: u16,
                /// Bytes of this struct.
                pub size: u16,
                $($(#[$field_doc])* pub $field: $ty,)*
            }

            impl $struct {
                fn fields() -> Vec<Field> {
                    let mut fields = vec![Field::new("ts_ns", Type::U64, 0, 8)];
                    $(if !stringify!($field).starts_with('_') {
                        let offset = std::mem::offset_of!($struct, $field);
                        fields.push(Field::new(stringify!($field), <$ty as Cell>::TYPE, offset, size_of::<$ty>()));
                    })*
                    fields
                }
            }
        )*

        /// Kinds of this file.
        pub(super) fn kinds() -> Vec<Kind> {
            vec![$($(Kind {
                id: $id,
                name: stringify!($name).into(),
                source: Source::$source as u16,
                row_size: size_of::<$struct>() as u32,
                fields: $struct::fields(),
            },)*)*]
        }

        /// Their part of `events.h`.
        pub(super) fn header() -> String {
            let mut h = String::new();
            $(
                h.push('\n');
                $(h += &format!("#define KIND_{} {:#04x}\n", stringify!($constant), $id);)*
                h += &format!("\nstruct {} {{\n\t__u64 ts_ns;\n\t__u16 kind;\n\t__u16 size;\n", stringify!($c));
                $(
                    h += &format!("\t{} {}", <$ty as Cell>::C, stringify!($field));
                    h += &match <$ty as Cell>::ARRAY { 0 => ";\n".to_owned(), n => format!("[{n}];\n") };
                )*
                h += &format!("}};\n\n_Static_assert(sizeof(struct {}) == {}, \"events.rs\");\n",
                    stringify!($c), size_of::<$struct>());
            )*
            h
        }
    };
}
pub(super) use events;
