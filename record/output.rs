//! Where a segment's bytes go: a file that nobody else can read, kept out of the page cache, with a reserve of disk
//! space for its end; or stdout.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

use crate::disk::{Disk, OnDisk, WINDOW};

/// Disk space that is reserved ahead, in steps of this size.
const RESERVE: u64 = 4 << 20;
/// Of the reserve, what INDEX and END may need.
const TAIL: u64 = 512 << 10;
/// Longest time that written bytes may stay out of reach of a power cut.
const SYNC: Duration = Duration::from_secs(5);

/// Where a segment's bytes go.
pub enum Output {
    /// A file.
    File(FileOutput),
    /// The standard output, and the bytes that went there.
    Stdout(io::Stdout, u64),
}

/// A file and how far its bytes are on their way to the disk.
pub struct FileOutput {
    file: Arc<File>,
    disk: Disk,
    on_disk: Arc<OnDisk>,
    written: u64,
    windows: u64,
    reserved: Option<u64>,
    synced: Instant,
    /// Whether the end of the segment is being written, for which the tail is kept.
    ending: bool,
}

/// Creates `path`, mode 0600, never through a symbolic link and never over a file unless `force`.
pub fn create(path: &Path, force: bool, disk: &Disk) -> Result<FileOutput> {
    if force {
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => bail!("{} is a directory", path.display()),
            // Removed, not truncated: whoever reads the old file keeps it whole, and a link's target stays as it is.
            Ok(_) => fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?,
            Err(_) => {}
        }
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = match file {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{} exists: --force replaces it, -o FILE writes elsewhere", path.display())
        }
        other => other.with_context(|| format!("cannot create {}", path.display()))?,
    };
    let file = Arc::new(file);
    let (disk, on_disk) = (disk.clone(), disk.file(Arc::clone(&file)));
    Ok(FileOutput {
        file,
        disk,
        on_disk,
        written: 0,
        windows: 0,
        reserved: Some(0),
        synced: Instant::now(),
        ending: false,
    })
}

impl FileOutput {
    /// Reserves disk space ahead of the next `len` bytes, so that a full disk is known before a block is begun.
    fn reserve(&mut self, len: u64) -> io::Result<()> {
        let need = self.written + len + if self.ending { 0 } else { TAIL };
        while let Some(reserved) = self.reserved.filter(|r| *r < need) {
            let step = RESERVE.max(need - reserved);
            match fallocate(self.file.as_fd(), FallocateFlags::KEEP_SIZE, reserved, step) {
                Ok(()) => self.reserved = Some(reserved + step),
                Err(rustix::io::Errno::NOSPC) => {
                    // Less than a step may still be there.
                    fallocate(self.file.as_fd(), FallocateFlags::KEEP_SIZE, reserved, need - reserved)?;
                    self.reserved = Some(need);
                }
                // A file system without this call: a full disk shows itself in the write.
                Err(_) => self.reserved = None,
            }
        }
        Ok(())
    }

    fn write_behind(&mut self) -> io::Result<()> {
        while self.written >= (self.windows + 1) * WINDOW {
            self.disk.window(&self.on_disk, self.windows)?;
            self.windows += 1;
        }
        if self.synced.elapsed() >= SYNC && self.on_disk.is_idle() {
            self.synced = Instant::now();
            self.disk.sync(&self.on_disk)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.on_disk.wait(0)?;
        self.file.sync_data()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Output::File(f) => {
                f.reserve(bytes.len() as u64)?;
                (&*f.file).write_all(bytes)?;
                f.written += bytes.len() as u64;
                f.write_behind()
            }
            Output::Stdout(out, written) => {
                out.write_all(bytes)?;
                *written += bytes.len() as u64;
                out.flush()
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::File(f) => {
                // Gives back what was reserved and not used.
                f.file.set_len(f.written)?;
                f.sync()
            }
            Output::Stdout(out, _) => out.flush(),
        }
    }
}

impl Output {
    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        match self {
            Output::File(f) => f.written,
            Output::Stdout(_, written) => *written,
        }
    }

    /// After a failed write: goes back to the end of the last whole block, and from now on the tail may be used.
    pub fn rewind(&mut self, whole: u64) -> io::Result<()> {
        if let Output::File(f) = self {
            seek(f.file.as_fd(), SeekFrom::Start(whole))?;
            f.written = whole;
            f.ending = true;
        }
        Ok(())
    }

    /// From now on the reserve for INDEX and END may be used.
    pub fn begin_end(&mut self) {
        if let Output::File(f) = self {
            f.ending = true;
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
        let (file, link) = (dir.join("a.bpr"), dir.join("b.bpr"));
        let disk = Disk::start().unwrap();
        let create = |path: &Path, force| create(path, force, &disk);
        drop(create(&file, false).unwrap());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(create(&file, false).unwrap_err_text().contains("--force"));
        fs::write(&file, "old").unwrap();
        symlink(&file, &link).unwrap();
        assert!(create(&link, false).is_err());
        drop(create(&link, true).unwrap());
        assert_eq!(fs::read(&file).unwrap(), b"old");
        let mut out = Output::File(create(&file, true).unwrap());
        out.write_all(b"0123456789").unwrap();
        out.rewind(4).unwrap();
        out.write_all(b"ab").unwrap();
        out.flush().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"0123ab");
        fs::remove_dir_all(&dir).unwrap();
    }

    trait ErrText {
        fn unwrap_err_text(self) -> String;
    }
    impl ErrText for Result<FileOutput> {
        fn unwrap_err_text(self) -> String {
            format!("{:#}", self.err().expect("an error"))
        }
    }
}
