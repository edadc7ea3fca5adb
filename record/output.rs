//! Where a segment's bytes go: a file that nobody else can read, kept out of the page cache, with a reserve of disk
//! space for its end; or stdout.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, getrlimit};

use crate::behind::Behind;
use crate::storage::{Disk, Storage, Stream};

/// Writeback is begun, and the cache dropped one window behind, in steps of this size.
const WINDOW: u64 = 4 << 20;
/// Bytes of a file that stay in the page cache at most: windows on their way to the disk, and the one that fills.
pub const PAGE_CACHE: u64 = 4 * WINDOW;
/// Disk space that is reserved ahead, in steps of this size.
const RESERVE: u64 = 4 << 20;
/// Of the reserve, what INDEX and END may need.
const TAIL: u64 = 512 << 10;
/// Longest time that written bytes may stay out of reach of a power cut.
const SYNC: Duration = Duration::from_secs(5);

/// In which steps bytes go to the disk.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes of a window of writeback.
    pub window: u64,
    /// Bytes reserved at a time.
    pub reserve: u64,
    /// Time between two syncs.
    pub sync: Duration,
}

const PACE: Pace = Pace { window: WINDOW, reserve: RESERVE, sync: SYNC };

/// Where a segment's bytes go, and how far they are on their way to the disk.
pub struct Output {
    storage: Box<dyn Storage>,
    written: u64,
    windows: u64,
    /// Bytes that have room, `None` where that cannot be had.
    reserved: Option<u64>,
    /// Size that a file of this process may have at most (`ulimit -f`).
    limit: u64,
    synced: Instant,
    pace: Pace,
    /// Whether the end of the segment is being written, for which the tail is kept.
    ending: bool,
    /// Why bytes that are written cannot be brought to the disk. They count as written, and the next write fails.
    failed: Option<io::Error>,
    /// Whether all of it is written and nothing beyond is reserved.
    done: bool,
}

/// Refuses what must not be written to or replaced.
///
/// # Errors
/// When something stands at `path` that `force` does not allow to replace, or that nothing does.
pub fn check(path: &Path, force: bool) -> Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    let (path, kind) = (path.display(), meta.file_type());
    if kind.is_dir() {
        bail!("{path} is a directory: -o {path}/FILE, or segments with --rotate-size");
    }
    if !kind.is_file() && !kind.is_symlink() {
        // Nobody means to replace /dev/null.
        bail!("{path} is {}, and no file: -o - > {path} writes into it", what(kind));
    }
    if !force {
        bail!("{path} exists: --force replaces it, -o FILE writes elsewhere");
    }
    Ok(())
}

fn what(kind: FileType) -> &'static str {
    match kind {
        k if k.is_fifo() => "a pipe",
        k if k.is_socket() => "a socket",
        _ => "a device",
    }
}

/// Takes a lock that stays as long as the file is open. No lock where the file system has none.
///
/// # Errors
/// When another recording has it.
pub fn lock(file: &File, path: &Path) -> Result<()> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            bail!("another recording writes to {}: end it first, or write elsewhere with -o", path.display())
        }
        _ => Ok(()),
    }
}

/// Creates `path`, mode 0600, never through a symbolic link, never over a file unless `force`, and never over one that
/// a recording writes to. With `behind` that thread does what is slow.
///
/// # Errors
/// As [`check`], and when the file system refuses.
pub fn create(path: &Path, force: bool, behind: Option<&Behind>) -> Result<Output> {
    check(path, force)?;
    if let Ok(meta) = fs::symlink_metadata(path) {
        if meta.is_file()
            && let Ok(old) = File::open(path)
        {
            lock(&old, path)?;
        }
        // Removed, not truncated: whoever reads the old file keeps it whole, and a link's target stays as it is.
        fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.with_context(|| format!("cannot create {}", path.display()))?;
    lock(&file, path)?;
    let disk = Disk::new(file, path);
    let storage = match behind {
        Some(behind) => behind.file(Box::new(disk.again()?), Box::new(disk)),
        None => Box::new(disk),
    };
    Ok(Output::new(storage, PACE))
}

/// The standard output.
///
/// # Errors
/// When there is none.
pub fn stdout() -> Result<Output> {
    Ok(Output::new(Box::new(Stream::stdout().context("stdout is closed")?), PACE))
}

/// Whether an error says that there is no room: of the disk, a quota, or the size that a file may have.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}

/// Calls until no signal interrupts.
pub fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl Output {
    /// An empty output.
    pub fn new(storage: Box<dyn Storage>, pace: Pace) -> Output {
        let limit = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
        let (written, windows, reserved) = (0, 0, Some(0));
        let synced = Instant::now();
        Output { storage, written, windows, reserved, limit, synced, pace, ending: false, failed: None, done: false }
    }

    /// Reserves disk space ahead of the next `len` bytes, so that a full disk is known before a block is begun.
    fn reserve(&mut self, len: u64) -> io::Result<()> {
        let need = self.written + len + if self.ending { 0 } else { TAIL };
        if need > self.limit {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        while let Some(reserved) = self.reserved.filter(|r| *r < need) {
            let step = self.pace.reserve.max(need - reserved);
            match again(|| self.storage.allocate(reserved, step)) {
                Ok(()) => self.reserved = Some(reserved + step),
                Err(error) if is_full(&error) => {
                    // Less than a step may still be there.
                    again(|| self.storage.allocate(reserved, need - reserved))?;
                    self.reserved = Some(need);
                }
                // A file system without this call: a full disk shows itself in the write.
                Err(_) => self.reserved = None,
            }
        }
        Ok(())
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.storage.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => bytes = &bytes[taken..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A pipe that another process set so.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => again(|| self.storage.wait())?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_behind(&mut self) -> io::Result<()> {
        let window = self.pace.window;
        while self.written >= (self.windows + 1) * window {
            let start = self.windows * window;
            again(|| self.storage.write_back(start, window, false))?;
            if let Some(before) = start.checked_sub(window) {
                again(|| self.storage.write_back(before, window, true))?;
            }
            self.windows += 1;
        }
        if self.synced.elapsed() >= self.pace.sync {
            self.synced = Instant::now();
            again(|| self.storage.sync_soon())?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let result = again(|| self.storage.sync());
        // A slow disk is not asked again at once.
        self.synced = Instant::now();
        result
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// After a failed write: goes back to the end of the last whole block, and from now on the tail may be used.
    ///
    /// # Errors
    /// Where that cannot be: what went into a pipe is there.
    pub fn rewind(&mut self, whole: u64) -> io::Result<()> {
        again(|| self.storage.go_to(whole))?;
        self.written = whole;
        self.ending = true;
        Ok(())
    }

    /// From now on the reserve for INDEX and END may be used.
    pub fn begin_end(&mut self) {
        self.ending = true;
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.reserve(bytes.len() as u64)?;
        self.put(bytes)?;
        self.written += bytes.len() as u64;
        self.failed = self.write_behind().err();
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let before = self.failed.take().map_or(Ok(()), Err);
        again(|| self.storage.cut(self.written))?;
        self.done = true;
        self.sync().and(before)
    }
}

impl Drop for Output {
    /// Half a block, and what was reserved and not used, do not stay.
    fn drop(&mut self) {
        if !self.done {
            let _ = again(|| self.storage.cut(self.written));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn never_over_a_file_never_through_a_link() {
        let dir = std::env::temp_dir().join(format!("bpfrec-output-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let create = |path: &Path, force| create(path, force, None);
        let (file, link, nowhere) = (dir.join("a.bpr"), dir.join("b.bpr"), dir.join("c.bpr"));
        drop(create(&file, false).unwrap());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(why(create(&file, false)).contains("--force"));
        fs::write(&file, "old").unwrap();
        symlink(&file, &link).unwrap();
        symlink(dir.join("none"), &nowhere).unwrap();
        for link in [&link, &nowhere] {
            assert!(why(create(link, false)).contains("--force"));
            drop(create(link, true).unwrap());
            assert!(fs::symlink_metadata(link).unwrap().is_file());
        }
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert!(!dir.join("none").exists());
        let mut out = create(&file, true).unwrap();
        out.write_all(b"0123456789").unwrap();
        assert!(why(create(&file, true)).contains("another recording"));
        out.rewind(4).unwrap();
        out.write_all(b"ab").unwrap();
        out.flush().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"0123ab");
        drop(out);
        drop(create(&file, true).unwrap());
        for (path, word) in [("/dev/null", "device"), ("/dev/full", "-o - >"), (dir.to_str().unwrap(), "directory")] {
            assert!(why(create(Path::new(path), true)).contains(word), "{path}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    fn why(result: Result<Output>) -> String {
        format!("{:#}", result.err().expect("an error"))
    }
}
