//! Protobuf messages as bytes, for formats that are a sequence of messages and are written one by one.
//!
//! A crate with generated code would hold a whole profile as structs before the first byte, and bring descriptors of hundreds of
//! messages; what is needed of the encoding is this file. Readers of others check it (`tests/export_check.py`).

/// A message that is being made. Fields stand in the order in which they are added; those that repeat may be added again.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// An unsigned integer, an enum, a bool.
    pub(super) fn uint(&mut self, field: u64, value: u64) -> &mut Self {
        self.varint(field << 3 | VARINT);
        self.varint(value);
        self
    }

    /// An integer that may be negative.
    pub(super) fn int(&mut self, field: u64, value: i64) -> &mut Self {
        self.uint(field, value as u64)
    }

    /// A number of eight bytes.
    pub(super) fn fixed64(&mut self, field: u64, value: u64) -> &mut Self {
        self.varint(field << 3 | FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Bytes.
    pub(super) fn bytes(&mut self, field: u64, bytes: &[u8]) -> &mut Self {
        self.varint(field << 3 | BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// A text.
    pub(super) fn text(&mut self, field: u64, text: &str) -> &mut Self {
        self.bytes(field, text.as_bytes())
    }

    /// A message within this one.
    pub(super) fn message(&mut self, field: u64, fill: impl FnOnce(&mut Message)) -> &mut Self {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.0)
    }

    /// Integers in one field.
    pub(super) fn packed(&mut self, field: u64, values: impl IntoIterator<Item = u64>) -> &mut Self {
        self.message(field, |inner| values.into_iter().for_each(|value| inner.varint(value)))
    }

    /// The message so far.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// An empty message with the room of this one.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Message;

    #[test]
    fn bytes_as_the_documentation_of_protobuf_has_them() {
        let mut m = Message::default();
        m.uint(1, 150);
        assert_eq!(m.as_bytes(), [0x08, 0x96, 0x01]);
        m.clear();
        m.text(2, "testing");
        assert_eq!(m.as_bytes(), b"\x12\x07testing");
        m.clear();
        m.message(3, |inner| {
            inner.uint(1, 150);
        });
        assert_eq!(m.as_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        m.clear();
        m.packed(6, [3, 270, 86942]);
        assert_eq!(m.as_bytes(), [0x32, 0x06, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05]);
        m.clear();
        m.int(1, -2).fixed64(2, 1);
        let minus_two = [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(m.as_bytes(), [&minus_two[..], &[0x11, 1, 0, 0, 0, 0, 0, 0, 0]].concat());
    }
}
