//! What an output asks of the system: the calls on a file, and those on a pipe. One place, so that a test can let any of them fail.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Advice, FallocateFlags, SeekFrom, fadvise, fallocate, seek};

/// The calls. Any may be interrupted by a signal: whoever calls tries again.
pub trait Storage: Send {
    /// Appends some of `bytes`; how many.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Waits until a write that would have had to wait can go on.
    fn wait(&mut self) -> io::Result<()>;
    /// Keeps room for bytes that are not there yet.
    fn allocate(&mut self, from: u64, len: u64) -> io::Result<()>;
    /// Begins to bring a range to the disk; with `wait` it is there, and out of the page cache, afterwards.
    fn write_back(&mut self, from: u64, len: u64, wait: bool) -> io::Result<()>;
    /// The next write goes there.
    fn go_to(&mut self, at: u64) -> io::Result<()>;
    /// Ends the file after `len` bytes; what was kept beyond is given back.
    fn cut(&mut self, len: u64) -> io::Result<()>;
    /// What was written is on the disk afterwards, also if the power goes.
    fn sync(&mut self) -> io::Result<()>;
    /// What was written is to be there soon.
    fn sync_soon(&mut self) -> io::Result<()> {
        self.sync()
    }
}

/// A file.
pub struct Disk {
    file: File,
    /// The folder, until the file's name is known to be on the disk, too.
    folder: Option<File>,
}

impl Disk {
    /// The same file, for another thread.
    ///
    /// # Errors
    /// When there can be no further descriptor.
    pub fn again(&self) -> io::Result<Disk> {
        let folder = self.folder.as_ref().map(File::try_clone).transpose()?;
        Ok(Disk { file: self.file.try_clone()?, folder })
    }

    /// Of a file that was just made at `path`.
    pub fn new(file: File, path: &Path) -> Disk {
        let folder = path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
        Disk { file, folder: folder.and_then(|folder| File::open(folder).ok()) }
    }
}

impl Storage for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn wait(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&mut self, from: u64, len: u64) -> io::Result<()> {
        Ok(fallocate(self.file.as_fd(), FallocateFlags::KEEP_SIZE, from, len)?)
    }

    /// sync_file_range(2). Where it does not exist, nothing is lost but the bound on the page cache.
    fn write_back(&mut self, from: u64, len: u64, wait: bool) -> io::Result<()> {
        let mut flags = libc::SYNC_FILE_RANGE_WRITE;
        if wait {
            flags |= libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        }
        // SAFETY: a plain system call on an open descriptor; no memory is passed.
        let result = unsafe { libc::sync_file_range(self.file.as_raw_fd(), from as i64, len as i64, flags) };
        if result != 0 {
            let error = io::Error::last_os_error();
            if matches!(error.raw_os_error(), Some(libc::EIO | libc::ENOSPC | libc::EDQUOT | libc::EINTR)) {
                return Err(error);
            }
        }
        if wait {
            let _ = fadvise(self.file.as_fd(), from, std::num::NonZeroU64::new(len), Advice::DontNeed);
        }
        Ok(())
    }

    fn go_to(&mut self, at: u64) -> io::Result<()> {
        seek(self.file.as_fd(), SeekFrom::Start(at))?;
        Ok(())
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        match self.folder.take().map(|folder| folder.sync_all()) {
            Some(Err(error)) if error.raw_os_error() == Some(libc::EIO) => Err(error),
            // Some file systems do not know this of a folder.
            _ => Ok(()),
        }
    }
}

/// A pipe, a socket, a terminal, or whatever else stdout is: bytes go one way.
pub struct Stream(File);

impl Stream {
    /// The standard output, as it was given to this process.
    pub fn stdout() -> io::Result<Stream> {
        Ok(Stream(io::stdout().as_fd().try_clone_to_owned()?.into()))
    }
}

impl Storage for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn wait(&mut self) -> io::Result<()> {
        poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
        Ok(())
    }

    fn allocate(&mut self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_back(&mut self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn go_to(&mut self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotSeekable.into())
    }

    fn cut(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
