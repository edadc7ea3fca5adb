//! Perf maps: text files in which a runtime tells, a line a function, what it has compiled: `START SIZE NAME`, in hex.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::{Budget, Rows, Seen};
use crate::clock;

/// A line longer than this is no line of a perf map.
const MAX_LINE: usize = 64 << 10;
/// A name is cut at this length.
const MAX_NAME: usize = 4096;
/// Read at once.
const PIECE: usize = 1 << 20;
/// Bytes before the place that was read up to: when they are others, the file was written anew.
const TAIL: usize = 64;

/// A function: first address, bytes, name.
pub type Line<'a> = (u64, u64, &'a [u8]);

/// Reads a line; `None` for what is none. Java puts 0x before its numbers.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let (start, rest) = word(line)?;
    let (len, name) = word(rest)?;
    let hex = |digits: &[u8]| {
        let digits = digits.strip_prefix(b"0x").or(digits.strip_prefix(b"0X")).unwrap_or(digits);
        u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (start, len, name) = (hex(start)?, hex(len)?, name.trim_ascii());
    start.checked_add(len)?;
    (!name.is_empty()).then(|| (start, len, &name[..name.len().min(MAX_NAME)]))
}

fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.trim_ascii_start();
    let end = text.iter().position(|b| b.is_ascii_whitespace())?;
    Some(text.split_at(end))
}

/// A perf map that is read while it grows.
pub struct PerfMap {
    file: File,
    /// Device and inode.
    pub identity: (u64, u64),
    /// Read up to here: whole lines.
    offset: u64,
    tail: Vec<u8>,
    /// (offset, time): what lies before the offset was there at that time.
    marks: Vec<(u64, u64)>,
    looked_ns: u64,
    /// More was written than may be read; the rest is not.
    over: bool,
}

impl PerfMap {
    /// A map that nothing was read of.
    pub fn new(file: File) -> Option<PerfMap> {
        let meta = file.metadata().ok().filter(|m| m.is_file())?;
        let identity = (meta.dev(), meta.ino());
        Some(PerfMap { file, identity, offset: 0, tail: Vec::new(), marks: Vec::new(), looked_ns: 0, over: false })
    }

    /// Reads what is new, about `at_most` bytes.
    pub fn read(&mut self, pid: u32, at_most: usize, budget: &mut Budget, rows: &mut Rows, seen: &mut Seen) {
        let Ok(meta) = self.file.metadata() else { return };
        let now = clock::mono_ns();
        if meta.size() < self.offset || (meta.size() > self.offset && !self.tail_is_same()) {
            (self.offset, self.over) = (0, false);
            self.tail.clear();
            self.marks.clear();
        }
        // What stands there was written at the last change at the latest, which is more exact than this moment.
        let changed = meta.mtime() as u64 * 1_000_000_000 + meta.mtime_nsec() as u64;
        let since = clock::realtime_ns().saturating_sub(changed);
        let ts_ns = now.saturating_sub(since).max(self.looked_ns).max(1);
        self.looked_ns = now;
        let mut left = at_most;
        while left > 0 && self.offset < meta.size() && !self.over {
            let piece = self.piece(self.offset, (meta.size() - self.offset).min(PIECE as u64) as usize);
            let Some(whole) = self.whole_lines(&piece, seen) else { break };
            if !budget.take(whole as u64) {
                self.over = true;
                break;
            }
            lines(&piece[..whole], |line| match line {
                Some((start, len, name)) => rows.perf_map(ts_ns, pid, start, len, name),
                None => seen.bad_lines += 1,
            });
            self.offset += whole as u64;
            let tail = whole.saturating_sub(TAIL);
            self.tail = piece[tail..whole].to_vec();
            left = left.saturating_sub(whole);
        }
        if self.marks.last().is_none_or(|(offset, _)| *offset < self.offset) {
            self.marks.push((self.offset, ts_ns));
        }
    }

    /// All that was read, again, with the times of then: a new segment is to have it too.
    pub fn again(&self, pid: u32, rows: &mut Rows) {
        let mut from = 0;
        for (to, ts_ns) in &self.marks {
            while from < *to {
                let piece = self.piece(from, (to - from).min(PIECE as u64) as usize);
                let Some(whole) = piece.iter().rposition(|b| *b == b'\n').map(|last| last + 1) else { return };
                lines(&piece[..whole], |line| {
                    if let Some((start, len, name)) = line {
                        rows.perf_map(*ts_ns, pid, start, len, name);
                    }
                });
                from += whole as u64;
            }
        }
    }

    /// Bytes that were not read.
    pub fn left(&self) -> u64 {
        let size = self.file.metadata().map_or(0, |m| m.size());
        if self.over { size.saturating_sub(self.offset) } else { 0 }
    }

    fn piece(&self, from: u64, len: usize) -> Vec<u8> {
        let mut piece = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match self.file.read_at(&mut piece[filled..], from + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        piece.truncate(filled);
        piece
    }

    fn tail_is_same(&self) -> bool {
        self.piece(self.offset - self.tail.len() as u64, self.tail.len()) == self.tail
    }

    /// Length of the whole lines at the begin of `piece`; the last line may still be in the making.
    fn whole_lines(&self, piece: &[u8], seen: &mut Seen) -> Option<usize> {
        match piece.iter().rposition(|b| *b == b'\n') {
            Some(last) => Some(last + 1),
            None if piece.len() > MAX_LINE => {
                seen.bad_lines += 1;
                Some(piece.len())
            }
            None => None,
        }
    }
}

fn lines(text: &[u8], mut each: impl FnMut(Option<Line<'_>>)) {
    for line in text.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        each(parse(line));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn lines_of_runtimes() {
        let node = b"7fd0c1e04a40 2c8 LazyCompile:*fib /srv/a b.js:3:13";
        assert_eq!(parse(node), Some((0x7fd0_c1e0_4a40, 0x2c8, &b"LazyCompile:*fib /srv/a b.js:3:13"[..])));
        let java = b"0x00007f1d9cfb1f80 0x0000000000000158    int[] Main.sort(int[])\r";
        assert_eq!(parse(java), Some((0x7f1d_9cfb_1f80, 0x158, &b"int[] Main.sort(int[])"[..])));
        for wrong in [&b"7fd0 2c8"[..], b"7fd0 zz name", b"", b"ffffffffffffffff 2 x", b"7f00 10 "] {
            assert_eq!(parse(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
    }

    fn names(rows: &mut Rows) -> Vec<String> {
        let tables = rows.take();
        let bpfrec_format::Column::Text(names) = &tables.columns[5] else { panic!("names are text") };
        (0..tables.rows()).map(|i| String::from_utf8_lossy(names.get(i)).into()).collect()
    }

    #[test]
    fn a_map_is_read_as_it_grows_and_from_the_begin_when_it_is_written_anew() {
        let path = std::env::temp_dir().join(format!("bpfrec-map-{}", std::process::id()));
        let mut out = File::create(&path).unwrap();
        let mut map = PerfMap::new(File::open(&path).unwrap()).unwrap();
        let (mut budget, mut rows, mut seen) = (Budget::default(), Rows::default(), Seen::default());
        let mut read = |map: &mut PerfMap| {
            map.read(1, usize::MAX, &mut budget, &mut rows, &mut seen);
            names(&mut rows)
        };
        out.write_all(b"1000 10 one\nnonsense\n2000 10 tw").unwrap();
        assert_eq!(read(&mut map), ["one"]);
        out.write_all(b"o\n").unwrap();
        assert_eq!(read(&mut map), ["two"]);
        assert!(read(&mut map).is_empty());
        // As long as before, and more, but not the same.
        out.set_len(0).unwrap();
        out.rewind().unwrap();
        out.write_all(b"3000 10 three\n4000 10 four\n5000 10 five\n").unwrap();
        assert_eq!(read(&mut map), ["three", "four", "five"]);
        let mut again = Rows::default();
        map.again(1, &mut again);
        assert_eq!(names(&mut again), ["three", "four", "five"]);
        assert_eq!((seen.bad_lines, map.left()), (1, 0));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted() {
        let path = std::env::temp_dir().join(format!("bpfrec-map-over-{}", std::process::id()));
        std::fs::write(&path, b"1000 10 one\n").unwrap();
        let mut map = PerfMap::new(File::open(&path).unwrap()).unwrap();
        let (mut budget, mut rows, mut seen) = (Budget { left: 11 }, Rows::default(), Seen::default());
        map.read(1, usize::MAX, &mut budget, &mut rows, &mut seen);
        assert!(names(&mut rows).is_empty());
        assert_eq!(map.left(), 12);
        std::fs::remove_file(&path).unwrap();
    }
}
