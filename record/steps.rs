//! CPU time of the recorder's threads, by what they do.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// CPU time of this thread, ns.
pub fn thread_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// CPU time of the writer thread, ns, as it tells it itself.
#[derive(Debug, Default)]
pub struct WriterSteps {
    /// Events into columns.
    pub encode_ns: AtomicU64,
    /// Columns compressed, and their checksums.
    pub compress_ns: AtomicU64,
    /// Blocks of events written.
    pub write_ns: AtomicU64,
    /// All that it did.
    pub all_ns: AtomicU64,
}

/// CPU time of the thread that drains, ns.
#[derive(Clone, Copy, Debug, Default)]
pub struct DrainSteps {
    /// When the recording began.
    begin_ns: u64,
    /// When functions began to be read.
    names_from_ns: Option<u64>,
    /// When that ended.
    names_to_ns: u64,
}

impl DrainSteps {
    /// What this thread did until now was the start.
    pub fn begin() -> DrainSteps {
        DrainSteps { begin_ns: thread_ns(), ..DrainSteps::default() }
    }

    /// From now on functions are read.
    pub fn begin_names(&mut self) {
        self.names_from_ns = Some(thread_ns());
    }

    /// They have been read.
    pub fn end_names(&mut self) {
        self.names_to_ns = thread_ns();
    }

    /// Start, drain, encode, compress, write, tables, names: the fields of `recorder_stats`. To be called on this thread.
    pub fn all(&self, writer: &WriterSteps) -> [u64; 7] {
        let names = self.names_from_ns.map_or(0, |from| self.names_to_ns.saturating_sub(from));
        let drain = thread_ns().saturating_sub(self.begin_ns + names);
        let [encode, compress, write, all] = [&writer.encode_ns, &writer.compress_ns, &writer.write_ns, &writer.all_ns]
            .map(|n| n.load(Ordering::Relaxed));
        [self.begin_ns, drain, encode, compress, write, all.saturating_sub(encode + compress + write), names]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up_to_what_the_threads_used() {
        let mut drain = DrainSteps::begin();
        drain.begin_names();
        let until = thread_ns() + 2_000_000;
        while thread_ns() < until {}
        drain.end_names();
        let writer = WriterSteps::default();
        writer.encode_ns.store(30, Ordering::Relaxed);
        writer.write_ns.store(20, Ordering::Relaxed);
        writer.all_ns.store(100, Ordering::Relaxed);
        let [start, rest, encode, compress, write, tables, names] = drain.all(&writer);
        assert!(names >= 2_000_000 && start + rest + names <= thread_ns());
        assert_eq!((encode, compress, write, tables), (30, 0, 20, 50));
    }
}
