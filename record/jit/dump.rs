//! Jitdump files: binary records in which a runtime tells what it has compiled and moved, each with its time.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};

use linux_perf_data::jitdump::{JitDumpReader, JitDumpRecord, JitDumpRecordHeader, JitDumpRecordType};
use rustc_hash::FxHashMap;

use super::{Budget, Rows, Seen};
use crate::clock;

/// A header longer than this is none; the reader wants it in one piece.
const MAX_HEADER: u32 = 1024;
/// A record longer than this is none.
const MAX_RECORD: u32 = 16 << 20;
/// Functions that are remembered for the case that they move.
const REMEMBERED: usize = 1 << 16;
/// The flag that times are of the CPU's own counter.
const CPU_CLOCK: u64 = 1;
/// Times may be so far ahead of this moment before they are of another clock.
const AHEAD_NS: u64 = 1_000_000_000;

/// A file with a place of its own, so that it can be read twice at the same time.
struct At(File, u64);

impl Read for At {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read_at(buf, self.1)?;
        self.1 += n as u64;
        Ok(n)
    }
}

impl Seek for At {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.1 = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.1.saturating_add_signed(by),
            SeekFrom::End(by) => self.0.metadata()?.size().saturating_add_signed(by),
        };
        Ok(self.1)
    }
}

/// A jitdump file that is read while it grows.
pub struct Dump {
    file: File,
    /// Device and inode.
    pub identity: (u64, u64),
    reader: Option<JitDumpReader<At>>,
    by_index: FxHashMap<u64, (u64, Vec<u8>)>,
    broken: bool,
    over: bool,
}

impl Dump {
    /// A file that nothing was read of.
    pub fn new(file: File) -> Option<Dump> {
        let meta = file.metadata().ok().filter(|m| m.is_file())?;
        let identity = (meta.dev(), meta.ino());
        Some(Dump { file, identity, reader: None, by_index: FxHashMap::default(), broken: false, over: false })
    }

    /// Whether it is a jitdump file as far as can be seen.
    pub fn is_good(&self) -> bool {
        self.reader.is_some() && !self.broken
    }

    /// Reads what is new, about `at_most` bytes.
    pub fn read(&mut self, pid: u32, at_most: usize, budget: &mut Budget, rows: &mut Rows, seen: &mut Seen) {
        let Ok(size) = self.file.metadata().map(|m| m.size()) else { return };
        if self.reader.is_none() && !self.broken {
            self.open(size, seen);
        }
        let Some(from) = self.reader.as_ref().map(JitDumpReader::next_record_offset) else { return };
        while !self.broken && !self.over {
            let Some(reader) = &mut self.reader else { return };
            if reader.next_record_offset() - from >= at_most as u64 {
                return;
            }
            // Only records that are there as a whole: the reader would take all of the file into memory for half a one.
            let at = reader.next_record_offset();
            let header =
                if at + JitDumpRecordHeader::SIZE as u64 <= size { reader.next_record_header() } else { Ok(None) };
            let Ok(Some(header)) = header else { return };
            if !(JitDumpRecordHeader::SIZE as u32..=MAX_RECORD).contains(&header.total_size) {
                self.broken = true;
                seen.bad_lines += 1;
                return;
            }
            if at + u64::from(header.total_size) > size {
                return;
            }
            let wanted = [JitDumpRecordType::JIT_CODE_LOAD, JitDumpRecordType::JIT_CODE_MOVE];
            if !wanted.contains(&header.record_type) {
                self.broken |= reader.skip_next_record().is_err();
                continue;
            }
            if !budget.take(u64::from(header.total_size)) {
                self.over = true;
                return;
            }
            self.record(pid, rows, seen);
        }
    }

    fn record(&mut self, pid: u32, rows: &mut Rows, seen: &mut Seen) {
        let Some(reader) = &mut self.reader else { return };
        let other_clock = reader.header().flags & CPU_CLOCK != 0;
        let Ok(Some(raw)) = reader.next_record() else {
            self.broken = true;
            return;
        };
        let now = clock::mono_ns();
        let ts_ns = if other_clock || raw.timestamp == 0 || raw.timestamp > now + AHEAD_NS {
            seen.other_clock += 1;
            now
        } else {
            raw.timestamp
        };
        match raw.parse() {
            Ok(JitDumpRecord::CodeLoad(load)) => {
                let name = load.function_name.as_slice().into_owned();
                let len = load.code_bytes.len() as u64;
                rows.jitdump(ts_ns, pid, load.code_addr, len, &name);
                if self.by_index.len() < REMEMBERED {
                    self.by_index.insert(load.code_index, (len, name));
                }
            }
            Ok(JitDumpRecord::CodeMove(moved)) => match self.by_index.get(&moved.code_index) {
                Some((len, name)) => rows.jitdump(ts_ns, pid, moved.new_code_addr, *len, name),
                None => seen.bad_lines += 1,
            },
            _ => seen.bad_lines += 1,
        }
    }

    /// Makes the reader once the header is there, and is one that the reader can be given.
    fn open(&mut self, size: u64, seen: &mut Seen) {
        let mut head = [0u8; 40];
        if size < head.len() as u64 || self.file.read_exact_at(&mut head, 0).is_err() {
            return;
        }
        let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        let total = match &head[..4] {
            b"DTiJ" => u32::from_le_bytes(word(8)),
            b"JiTD" => u32::from_be_bytes(word(8)),
            _ => 0,
        };
        let reader =
            (40..=MAX_HEADER).contains(&total).then(|| JitDumpReader::new(At(self.file.try_clone().ok()?, 0)).ok());
        self.reader = reader.flatten();
        // A header that is still being written is short, and not wrong.
        if self.reader.is_none() && size >= u64::from(MAX_HEADER) {
            (self.broken, seen.refused) = (true, seen.refused + 1);
        }
    }

    /// All that was read, again: a new segment is to have it too.
    pub fn again(&self, pid: u32, rows: &mut Rows) {
        let (Some(reader), Ok(file)) = (&self.reader, self.file.try_clone()) else { return };
        let Some(mut copy) = Dump::new(file) else { return };
        let bytes = reader.next_record_offset() as usize;
        copy.read(pid, bytes, &mut Budget { left: u64::MAX }, rows, &mut Seen::default());
    }

    /// Bytes that were not read.
    pub fn left(&self) -> u64 {
        let size = self.file.metadata().map_or(0, |m| m.size());
        let at = self.reader.as_ref().map_or(0, JitDumpReader::next_record_offset);
        if self.over { size.saturating_sub(at) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn header(flags: u64) -> Vec<u8> {
        let mut out = b"DTiJ".to_vec();
        for word in [1u32, 40, 62, 0, 7] {
            out.extend(word.to_le_bytes());
        }
        out.extend(5u64.to_le_bytes());
        out.extend(flags.to_le_bytes());
        out
    }

    fn record(kind: u32, ts_ns: u64, words: &[u64], rest: &[u8]) -> Vec<u8> {
        let mut out = kind.to_le_bytes().to_vec();
        out.extend((16 + 8 * words.len() as u32 + rest.len() as u32).to_le_bytes());
        out.extend(ts_ns.to_le_bytes());
        words.iter().for_each(|word| out.extend(word.to_le_bytes()));
        out.extend(rest);
        out
    }

    fn load(ts_ns: u64, addr: u64, index: u64, name: &str) -> Vec<u8> {
        let code = [0x90u8; 16];
        let mut rest = name.as_bytes().to_vec();
        rest.push(0);
        rest.extend(code);
        // pid and tid share the first word.
        record(0, ts_ns, &[7 | 7 << 32, addr, addr, code.len() as u64, index], &rest)
    }

    fn rows_of(rows: &mut Rows) -> Vec<(u64, u64, u64, String)> {
        let table = rows.take();
        let bpfrec_format::Column::Text(names) = &table.columns[5] else { panic!("names are text") };
        let int = |column: usize, row: usize| table.columns[column].ints()[row];
        let row = |i| (int(0, i), int(2, i), int(3, i), String::from_utf8_lossy(names.get(i)).into_owned());
        (0..table.rows()).map(row).collect()
    }

    #[test]
    fn loads_and_moves_come_with_their_times_as_the_file_grows() {
        let path = std::env::temp_dir().join(format!("bpfrec-dump-{}", std::process::id()));
        let mut out = File::create(&path).unwrap();
        let mut dump = Dump::new(File::open(&path).unwrap()).unwrap();
        let (mut budget, mut rows, mut seen) = (Budget::default(), Rows::default(), Seen::default());
        let mut read = |dump: &mut Dump| {
            dump.read(7, usize::MAX, &mut budget, &mut rows, &mut seen);
            rows_of(&mut rows)
        };
        assert!(read(&mut dump).is_empty());
        out.write_all(&header(0)).unwrap();
        let second = load(20, 0x2000, 2, "two");
        out.write_all(&load(10, 0x1000, 1, "one")).unwrap();
        out.write_all(&second[..30]).unwrap();
        assert_eq!(read(&mut dump), [(10, 0x1000, 16, "one".into())]);
        assert!(dump.is_good());
        out.write_all(&second[30..]).unwrap();
        out.write_all(&record(2, 25, &[0x1000, 0], &[])).unwrap();
        out.write_all(&record(1, 30, &[7, 0x3000, 0x1000, 0x3000, 16, 1], &[])).unwrap();
        assert_eq!(read(&mut dump), [(20, 0x2000, 16, "two".into()), (30, 0x3000, 16, "one".into())]);
        let mut again = Rows::default();
        dump.again(7, &mut again);
        assert_eq!(rows_of(&mut again).len(), 3);
        // A record that says that it is shorter than its own head ends the reading.
        out.write_all(&[0u8; 16]).unwrap();
        assert!(read(&mut dump).is_empty());
        assert!(!dump.is_good());
        assert_eq!((seen.bad_lines, seen.other_clock), (1, 0));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn times_of_another_clock_are_not_believed() {
        let path = std::env::temp_dir().join(format!("bpfrec-dump-tsc-{}", std::process::id()));
        let ahead = clock::mono_ns() + 3600 * 1_000_000_000;
        for (flags, ts_ns) in [(CPU_CLOCK, 10), (0, ahead)] {
            std::fs::write(&path, [header(flags), load(ts_ns, 0x1000, 1, "one")].concat()).unwrap();
            let mut dump = Dump::new(File::open(&path).unwrap()).unwrap();
            let (mut rows, mut seen) = (Rows::default(), Seen::default());
            dump.read(7, usize::MAX, &mut Budget::default(), &mut rows, &mut seen);
            let ts = rows_of(&mut rows)[0].0;
            assert!(ts > 10 && ts < ahead, "{ts}");
            assert_eq!(seen.other_clock, 1);
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_no_jitdump_is_refused() {
        let path = std::env::temp_dir().join(format!("bpfrec-dump-no-{}", std::process::id()));
        let mut long = header(0);
        long[8..12].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
        long.resize(4096, 0);
        for bytes in [vec![7u8; 4096], long] {
            std::fs::write(&path, bytes).unwrap();
            let mut dump = Dump::new(File::open(&path).unwrap()).unwrap();
            let mut rows = Rows::default();
            dump.read(7, usize::MAX, &mut Budget::default(), &mut rows, &mut Seen::default());
            assert!(!dump.is_good() && rows_of(&mut rows).is_empty());
        }
        std::fs::remove_file(&path).unwrap();
    }
}
