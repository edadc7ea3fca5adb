//! What the page reads: a JSON head, and columns of integers behind it, packed.

use std::io::Write;

use flate2::{Compression, write::DeflateEncoder};
use serde_json::{Map, Value, json};

/// A column is written as it is, or as differences from the value before.
#[derive(Clone, Copy)]
pub(crate) enum As {
    Values,
    Differences,
}

/// Columns by name: LEB128 bytes, differences in zigzag.
#[derive(Default)]
pub(crate) struct Columns {
    bytes: Vec<u8>,
    places: Map<String, Value>,
}

impl Columns {
    /// Adds a column. Values above 2^53 are none that the page could hold.
    pub(crate) fn add(&mut self, name: &str, how: As, values: impl IntoIterator<Item = u64>) {
        let (begin, mut rows, mut last) = (self.bytes.len(), 0, 0i64);
        for value in values {
            let value = value.min(1 << 53) as i64;
            match how {
                As::Values => varint(&mut self.bytes, value as u64),
                As::Differences => {
                    let difference = value - last;
                    varint(&mut self.bytes, ((difference << 1) ^ (difference >> 63)) as u64);
                    last = value;
                }
            }
            rows += 1;
        }
        let differences = matches!(how, As::Differences);
        self.places.insert(name.into(), json!([begin, rows, u8::from(differences)]));
    }

    /// The whole: length of the head, head, columns; deflated. `columns` is added to the head.
    pub(crate) fn pack(self, mut head: Value) -> std::io::Result<Vec<u8>> {
        head["columns"] = self.places.into();
        let head = serde_json::to_vec(&head)?;
        let mut out = DeflateEncoder::new(Vec::new(), Compression::new(6));
        out.write_all(&(head.len() as u32).to_le_bytes())?;
        out.write_all(&head)?;
        out.write_all(&self.bytes)?;
        out.finish()
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
