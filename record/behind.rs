//! The thread that brings written bytes to the disk and out of the page cache: a disk that takes seconds for that, as one does
//! when others write too, must not hold up who writes.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::output::again;
use crate::storage::Storage;

/// Calls that may wait for the disk; then who writes waits too. Of a window of writeback there are two.
const AHEAD: usize = 6;

/// What is to be done with a file.
enum Call {
    WriteBack(u64, u64, bool),
    Sync,
}

struct Job {
    file: Arc<Late>,
    call: Call,
}

/// The thread. It begins with its first job, when the recorder has given up its rights, and ends with the last handle.
#[derive(Clone, Default)]
pub struct Behind(Arc<Mutex<Option<Sender<Job>>>>);

/// What the thread has not yet done with a file.
struct Late {
    /// The same file.
    storage: Mutex<Box<dyn Storage>>,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    calls: usize,
    error: Option<io::Error>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Behind {
    fn send(&self, job: Job) -> io::Result<()> {
        let mut jobs = lock(&self.0);
        if jobs.is_none() {
            let (sender, queue) = channel();
            std::thread::Builder::new().name("bpfrec-disk".into()).spawn(move || run(&queue))?;
            *jobs = Some(sender);
        }
        let sent = jobs.as_ref().map(|jobs| jobs.send(job));
        sent.and_then(Result::ok).ok_or_else(|| io::Error::other("the thread bpfrec-disk has ended"))
    }

    /// A file whose slow calls the thread does. `here` and `there` are the same file, for who writes and for the thread.
    pub fn file(&self, here: Box<dyn Storage>, there: Box<dyn Storage>) -> Box<dyn Storage> {
        let late = Late { storage: Mutex::new(there), waiting: Mutex::default(), changed: Condvar::new() };
        Box::new(Deferred { storage: here, late: Arc::new(late), behind: self.clone() })
    }
}

fn run(queue: &Receiver<Job>) {
    for Job { file, call } in queue {
        let mut storage = lock(&file.storage);
        let result = match call {
            Call::WriteBack(from, len, wait) => again(|| storage.write_back(from, len, wait)),
            Call::Sync => again(|| storage.sync()),
        };
        drop(storage);
        let mut waiting = lock(&file.waiting);
        waiting.calls -= 1;
        if let Err(error) = result {
            waiting.error.get_or_insert(error);
        }
        file.changed.notify_all();
    }
}

impl Late {
    /// Waits until at most so many calls are not done.
    ///
    /// # Errors
    /// What the disk said to an earlier one.
    fn wait(&self, at_most: usize) -> io::Result<()> {
        let mut waiting = lock(&self.waiting);
        while waiting.calls > at_most && waiting.error.is_none() {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.error.take().map_or(Ok(()), Err)
    }
}

/// A file that is written here and brought to the disk there.
struct Deferred {
    storage: Box<dyn Storage>,
    late: Arc<Late>,
    behind: Behind,
}

impl Deferred {
    fn defer(&self, call: Call) -> io::Result<()> {
        self.late.wait(AHEAD - 1)?;
        lock(&self.late.waiting).calls += 1;
        let job = Job { file: Arc::clone(&self.late), call };
        self.behind.send(job)
    }
}

impl Storage for Deferred {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.storage.write(bytes)
    }

    fn wait(&mut self) -> io::Result<()> {
        self.storage.wait()
    }

    fn allocate(&mut self, from: u64, len: u64) -> io::Result<()> {
        self.storage.allocate(from, len)
    }

    fn write_back(&mut self, from: u64, len: u64, wait: bool) -> io::Result<()> {
        self.defer(Call::WriteBack(from, len, wait))
    }

    fn go_to(&mut self, at: u64) -> io::Result<()> {
        self.storage.go_to(at)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.storage.cut(len)
    }

    fn sync_soon(&mut self) -> io::Result<()> {
        // A disk that has not done the last call is not asked for more.
        let idle = lock(&self.late.waiting).calls == 0;
        if idle { self.defer(Call::Sync) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let before = self.late.wait(0);
        lock(&self.late.storage).sync().and(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says no to every call, once the test lets it.
    struct Broken(Arc<Mutex<()>>);

    impl Storage for Broken {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn wait(&mut self) -> io::Result<()> {
            Ok(())
        }
        fn allocate(&mut self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn write_back(&mut self, from: u64, _: u64, _: bool) -> io::Result<()> {
            drop(lock(&self.0));
            if from < 3 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EIO)) }
        }
        fn go_to(&mut self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn cut(&mut self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A file on a disk that does nothing while the gate is locked.
    fn file(gate: &Arc<Mutex<()>>) -> Box<dyn Storage> {
        let broken = || Box::new(Broken(Arc::clone(gate)));
        Behind::default().file(broken(), broken())
    }

    #[test]
    fn who_writes_does_not_wait_for_the_disk_and_hears_of_its_errors() {
        let gate = Arc::new(Mutex::new(()));
        let mut file = file(&gate);
        let closed = lock(&gate);
        // The disk does nothing, and nobody waits.
        (0..AHEAD as u64).for_each(|i| file.write_back(i, 1, false).unwrap());
        assert_eq!(file.write(b"abc").unwrap(), 3);
        file.sync_soon().unwrap();
        drop(closed);
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(libc::EIO));
        file.sync().unwrap();
        file.write_back(0, 1, false).unwrap();
        file.sync_soon().unwrap();
        file.sync().unwrap();
    }

    #[test]
    fn beyond_what_may_wait_it_waits() {
        let gate = Arc::new(Mutex::new(()));
        let mut file = file(&gate);
        let closed = lock(&gate);
        (0..AHEAD).for_each(|_| file.write_back(0, 1, false).unwrap());
        let (done, is_done) = channel();
        let writer = std::thread::spawn(move || {
            file.write_back(0, 1, false).unwrap();
            done.send(()).unwrap();
            file.sync().unwrap();
        });
        assert!(is_done.recv_timeout(std::time::Duration::from_millis(50)).is_err());
        drop(closed);
        is_done.recv().unwrap();
        writer.join().unwrap();
    }
}
