//! A perf event's memory-mapped ring, read record by record. Layout: perf_event_open(2), linux/perf_event.h.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use perf_event_open_sys::bindings as sys;

/// Pages of data; the control page comes before them. 256 KiB.
const PAGES: usize = 64;

/// An open event and its ring.
pub struct PerfRing {
    fd: OwnedFd,
    base: NonNull<u8>,
    page: usize,
}

// SAFETY: the mapping belongs to the ring alone and is not bound to a thread.
unsafe impl Send for PerfRing {}

impl AsFd for PerfRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PerfRing {
    /// Opens an event for all processes on `cpu` and maps its ring. The event starts disabled if `attr` says so.
    pub fn open(attr: &mut sys::perf_event_attr, cpu: u32) -> io::Result<PerfRing> {
        let flags = sys::PERF_FLAG_FD_CLOEXEC.into();
        // SAFETY: `attr` is a whole perf_event_attr and lives over the call.
        let fd = unsafe { perf_event_open_sys::perf_event_open(attr, -1, cpu as i32, -1, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was returned just now and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let page = rustix::param::page_size();
        let (prot, share) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), (PAGES + 1) * page, prot, share, fd.as_raw_fd(), 0) };
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => Ok(PerfRing { fd, base, page }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Begins to count and to record.
    pub fn enable(&self) -> io::Result<()> {
        // SAFETY: an ioctl without an argument on an open perf event.
        match unsafe { perf_event_open_sys::ioctls::ENABLE(self.fd.as_raw_fd(), 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// A field of the control page.
    fn control(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the control page is mapped as long as `self` lives, `offset` is that of an aligned u64 in
        // perf_event_mmap_page, and the kernel too accesses it as a whole word.
        unsafe { &*self.base.as_ptr().add(offset).cast::<AtomicU64>() }
    }

    /// Calls `each` with (type, misc, body) of every record since the last call. `record` is room for one.
    pub fn read(&self, record: &mut Vec<u8>, mut each: impl FnMut(u32, u16, &[u8])) {
        let head = self.control(std::mem::offset_of!(sys::perf_event_mmap_page, data_head));
        let tail = self.control(std::mem::offset_of!(sys::perf_event_mmap_page, data_tail));
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        while at < end {
            let mut header = [0u8; 8];
            self.copy(at, &mut header);
            let size = u16::from_ne_bytes([header[6], header[7]]);
            if size < 8 {
                break; // never written by a kernel; without this a loop for ever
            }
            record.resize(usize::from(size) - 8, 0);
            self.copy(at + 8, record);
            let kind = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
            each(kind, u16::from_ne_bytes([header[4], header[5]]), record);
            at += u64::from(size);
        }
        tail.store(end, Ordering::Release);
    }

    fn copy(&self, from: u64, to: &mut [u8]) {
        let len = PAGES * self.page;
        let at = from as usize % len;
        let (one, two) = to.split_at_mut(to.len().min(len - at));
        for (part, at) in [(one, at), (two, 0)] {
            // SAFETY: the part lies within the mapping, for a record is far smaller than the ring; the kernel does not write
            // between tail and head.
            unsafe { self.base.as_ptr().add(self.page + at).copy_to_nonoverlapping(part.as_mut_ptr(), part.len()) };
        }
    }
}

impl Drop for PerfRing {
    fn drop(&mut self) {
        // SAFETY: unmaps what open() mapped, once, when no reference into it is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), (PAGES + 1) * self.page) };
    }
}
