//! The thread that brings written bytes to the disk and out of the page cache: a disk that takes seconds for that, as one does
//! when others write too, must not hold up who writes.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise};

use crate::rights::Kept;

/// Writeback is begun, and the cache dropped one window behind, in steps of this size.
pub const WINDOW: u64 = 4 << 20;
/// Windows that may wait for the disk; then who writes waits too.
const AHEAD: u64 = 3;
/// Bytes of a file that stay in the page cache at most: windows that wait, and the one that fills.
pub const PAGE_CACHE: u64 = (AHEAD + 1) * WINDOW;

enum Job {
    /// Begins to write a window back, and drops the one before it from the cache.
    Window(Arc<OnDisk>, u64),
    /// fdatasync(2).
    Sync(Arc<OnDisk>),
}

/// The thread; it ends with the last handle.
#[derive(Clone)]
pub struct Disk(Sender<Job>);

/// A file, and what of it the thread has done.
pub struct OnDisk {
    file: Arc<File>,
    done: Mutex<Done>,
    changed: Condvar,
}

#[derive(Default)]
struct Done {
    /// Jobs that are not done.
    waiting: u64,
    error: Option<io::Error>,
}

impl Disk {
    /// Starts it.
    pub fn start() -> Result<Disk> {
        let (jobs, queue) = channel();
        let work = move || {
            // It begins before the recorder gives up its rights, and needs none. Who looks whether that went well is `confine.rs`.
            let _ = Kept::none().give_up();
            run(&queue)
        };
        std::thread::Builder::new().name("bpfrec-disk".into()).spawn(work).context("a thread")?;
        Ok(Disk(jobs))
    }

    /// A file that is written from its beginning.
    pub fn file(&self, file: Arc<File>) -> Arc<OnDisk> {
        Arc::new(OnDisk { file, done: Mutex::default(), changed: Condvar::new() })
    }

    /// Window `number` of the file is full. Waits while too many wait already.
    ///
    /// # Errors
    /// What the disk said to an earlier one.
    pub fn window(&self, file: &Arc<OnDisk>, number: u64) -> io::Result<()> {
        file.wait(AHEAD - 1)?;
        self.send(file, Job::Window(Arc::clone(file), number))
    }

    /// All that was written is to reach the disk soon. Does not wait, and does nothing while that was asked for already.
    pub fn sync(&self, file: &Arc<OnDisk>) -> io::Result<()> {
        self.send(file, Job::Sync(Arc::clone(file)))
    }

    fn send(&self, file: &OnDisk, job: Job) -> io::Result<()> {
        file.lock().waiting += 1;
        self.0.send(job).map_err(|_| io::Error::other("the thread bpfrec-disk has ended"))
    }
}

impl OnDisk {
    fn lock(&self) -> std::sync::MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until at most so many jobs are not done.
    ///
    /// # Errors
    /// What the disk said to one of them.
    pub fn wait(&self, at_most: u64) -> io::Result<()> {
        let mut done = self.lock();
        while done.waiting > at_most && done.error.is_none() {
            done = self.changed.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
        done.error.take().map_or(Ok(()), Err)
    }

    /// Whether nothing waits.
    pub fn is_idle(&self) -> bool {
        self.lock().waiting == 0
    }

    fn finish(&self, result: io::Result<()>) {
        let mut done = self.lock();
        done.waiting -= 1;
        if let Err(error) = result {
            done.error.get_or_insert(error);
        }
        self.changed.notify_all();
    }
}

fn run(queue: &Receiver<Job>) {
    for job in queue {
        match job {
            Job::Window(on, number) => on.finish(write_behind(&on.file, number)),
            Job::Sync(on) => on.finish(on.file.sync_data()),
        }
    }
}

fn write_behind(file: &File, number: u64) -> io::Result<()> {
    let start = number * WINDOW;
    sync_range(file, start, false)?;
    if let Some(before) = start.checked_sub(WINDOW) {
        sync_range(file, before, true)?;
        let _ = fadvise(file.as_fd(), before, NonZeroU64::new(WINDOW), Advice::DontNeed);
    }
    Ok(())
}

/// sync_file_range(2): begins writing a window back; waits for it with `wait`. Where it does not exist, nothing is lost
/// but the bound on the page cache.
fn sync_range(file: &File, start: u64, wait: bool) -> io::Result<()> {
    let mut flags = libc::SYNC_FILE_RANGE_WRITE;
    if wait {
        flags |= libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    }
    // SAFETY: a plain system call on an open descriptor; no memory is passed.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), start as i64, WINDOW as i64, flags) };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            e if matches!(e.raw_os_error(), Some(libc::EIO | libc::ENOSPC)) => Err(e),
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_waits_only_when_too_much_waits_and_hears_of_errors() {
        // Nobody takes the jobs.
        let (jobs, queue) = channel();
        let disk = Disk(jobs);
        let file = disk.file(Arc::new(File::open("/dev/null").unwrap()));
        (0..AHEAD).for_each(|number| disk.window(&file, number).unwrap());
        assert_eq!((file.lock().waiting, file.is_idle()), (AHEAD, false));
        file.finish(Err(io::Error::from_raw_os_error(libc::EIO)));
        assert_eq!(disk.window(&file, AHEAD).unwrap_err().raw_os_error(), Some(libc::EIO));
        assert_eq!(queue.try_iter().count() as u64, AHEAD);
        drop(queue);
        assert!(disk.sync(&file).unwrap_err().to_string().contains("bpfrec-disk"));
    }

    #[test]
    fn jobs_are_done() {
        let disk = Disk::start().unwrap();
        let path = std::env::temp_dir().join(format!("bpfrec-disk-{}", std::process::id()));
        let on = disk.file(Arc::new(File::create(&path).unwrap()));
        std::fs::remove_file(&path).unwrap();
        on.file.set_len(2 * WINDOW).unwrap();
        disk.window(&on, 0).unwrap();
        disk.window(&on, 1).unwrap();
        disk.sync(&on).unwrap();
        on.wait(0).unwrap();
        assert!(on.is_idle());
    }
}
