//! Memory of the kernel: events of source `kmem`.

use super::layout::events;

events! {
    /// Memory that the kernel gave out.
    KmemAllocRow kmem_alloc_row Kmem [
        /// An object of the slab allocator (kmalloc, kmem_cache_alloc).
        kmem_alloc KMEM_ALLOC = 0x60,
        /// Pages of the page allocator; `addr` is the number of the first page frame.
        page_alloc PAGE_ALLOC = 0x61,
        /// Memory of which each CPU has its own.
        percpu_alloc PERCPU_ALLOC = 0x62,
    ] {
        /// Thread that asked, or whom an interrupt hit.
        tid: u32,
        /// Its process.
        pid: u32,
        /// How many allocations this one stands for, in thousandths; 1000 when all are recorded.
        weight_milli: u32,
        /// Address; of pages the number of the first page frame, off by a constant where the kernel hides its start.
        addr: u64,
        /// Bytes that were asked for; of percpu memory those of all CPUs together.
        bytes: u64,
        /// Kernel stack; 0: none.
        kernel_stack_id: u64,
        /// Cgroup of the thread.
        cgroup_id: u64,
    }

    /// Memory that the kernel got back.
    KmemFreeRow kmem_free_row Kmem [
        /// The end of a `kmem_alloc`.
        kmem_free KMEM_FREE = 0x68,
        /// The end of a `page_alloc`.
        page_free PAGE_FREE = 0x69,
        /// The end of a `percpu_alloc`.
        percpu_free PERCPU_FREE = 0x6a,
    ] {
        /// Thread that frees: often another one, or whom an interrupt hit.
        tid: u32,
        /// Its process.
        pid: u32,
        /// Padding.
        _pad: u32,
        /// As in [`KmemAllocRow`].
        addr: u64,
        /// Bytes of pages; 0 where the kernel does not say.
        bytes: u64,
        /// Cgroup of the thread.
        cgroup_id: u64,
    }
}
