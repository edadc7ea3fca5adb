//! Rows that tell of binaries.

use bpfrec_format::{BlockType, Table, meta};

use super::Binary;

/// Rows of kinds `binary` and `binary_segment`.
pub struct Rows {
    binaries: Table,
    segments: Table,
}

impl Default for Rows {
    fn default() -> Self {
        let table = |kind| Table::new(&meta::kind(kind));
        Rows { binaries: table(meta::BINARY), segments: table(meta::BINARY_SEGMENT) }
    }
}

impl Rows {
    /// Adds a binary; its device and inode are those of `file`.
    pub fn push(&mut self, b: &Binary, (major, minor, inode): (u32, u32, u64)) {
        let (elf_type, machine) = b.layout.as_ref().map_or((0, 0), |l| (l.elf_type, l.machine));
        let (link, crc) = b.layout.as_ref().map_or((&[][..], 0), |l| (&l.debug_link.0[..], l.debug_link.1));
        self.binaries.push(&[
            b.ts_ns.into(),
            b.id.into(),
            b.build_id[..].into(),
            b.content_id[..].into(),
            b.path[..].into(),
            major.into(),
            minor.into(),
            inode.into(),
            b.size.into(),
            u32::from(elf_type).into(),
            u32::from(machine).into(),
            link.into(),
            crc.into(),
            b.symbols.into(),
            b.missing.into(),
        ]);
        for s in b.layout.iter().flat_map(|l| &l.segments) {
            self.segments.push(&[b.id.into(), s.offset.into(), s.len.into(), s.addr.into(), s.flags.into()]);
        }
    }

    /// The rows so far, for a block.
    pub fn take(&mut self) -> Option<(BlockType, Vec<Table>)> {
        if self.binaries.rows() == 0 {
            return None;
        }
        let Rows { binaries, segments } = std::mem::take(self);
        Some((BlockType::Binaries, vec![binaries, segments]))
    }
}
