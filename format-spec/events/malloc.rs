//! Memory of processes: events of source `malloc`.

use super::layout::events;

events! {
    /// Memory that an allocator of a process gave out.
    MallocAllocRow malloc_alloc_row Malloc [
        /// Memory that an allocator of a process gave out, or a mapping without a file.
        malloc_alloc MALLOC_ALLOC = 0x70,
    ] {
        /// Thread that asked.
        tid: u32,
        /// Its process.
        pid: u32,
        /// How many allocations this one stands for, in thousandths; 1000 when all are recorded.
        weight_milli: u32,
        /// Function that was called, a number of [`call`].
        call: u32,
        /// Padding.
        _pad: u32,
        /// Address.
        addr: u64,
        /// Bytes that were asked for.
        bytes: u64,
        /// User stack; 0: none.
        user_stack_id: u64,
        /// Cgroup of the thread.
        cgroup_id: u64,
    }

    /// Memory that an allocator of a process is given back. Seen before the allocator may give it out again.
    MallocFreeRow malloc_free_row Malloc [
        /// Memory that an allocator of a process is given back.
        malloc_free MALLOC_FREE = 0x71,
    ] {
        /// Thread that frees.
        tid: u32,
        /// Its process.
        pid: u32,
        /// Function that was called, a number of [`call`].
        call: u32,
        /// Address.
        addr: u64,
        /// Bytes of `munmap` and `mremap`; else 0.
        bytes: u64,
        /// Cgroup of the thread.
        cgroup_id: u64,
    }
}

/// Functions that give memory out or take it back: `call` of `malloc_alloc` and `malloc_free`.
pub mod call {
    macro_rules! calls {
        ($($constant:ident = $id:literal $name:literal,)*) => {
            $(#[doc = concat!("`", $name, "`.")] pub const $constant: u32 = $id;)*
            /// Name of a number; `?` for one of a later version.
            pub fn name(call: u32) -> &'static str {
                match call { $($id => $name,)* _ => "?" }
            }
            /// All, by number.
            pub const ALL: &[(u32, &str)] = &[$(($id, $name),)*];
        };
    }
    calls! {
        MALLOC = 1 "malloc", CALLOC = 2 "calloc", REALLOC = 3 "realloc", REALLOCARRAY = 4 "reallocarray",
        MEMALIGN = 5 "memalign", ALIGNED_ALLOC = 6 "aligned_alloc", POSIX_MEMALIGN = 7 "posix_memalign",
        VALLOC = 8 "valloc", PVALLOC = 9 "pvalloc", FREE = 10 "free", MMAP = 11 "mmap", MUNMAP = 12 "munmap",
        MREMAP = 13 "mremap", NEW = 14 "operator new", DELETE = 15 "operator delete",
        FAILED = 16 "not done", // a realloc, munmap or mremap failed: what was at `addr` is still there
    }
}
