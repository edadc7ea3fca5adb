//! Structs that C and Rust share besides the events. C: `bpf/config.bpf.h` and `bpf/stack.bpf.h`.

/// `struct config`: what is decided before a program is loaded.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Config {
    /// The recorder's own process.
    pub own_pid: u32,
    /// 1: only processes in the map `pids`.
    pub filter_pid: u32,
    /// 1: only cgroups in the map `cgroups`.
    pub filter_cgroup: u32,
    /// 1: `sched_switch` has `prev_state` as its fourth argument.
    pub switch_state_arg: u32,
    /// Fill of a ring that wakes the recorder, bytes.
    pub wake_bytes: u32,
    /// Argument number of the request in `block_rq_insert`.
    pub insert_rq_arg: u32,
    /// ... in `block_rq_issue`.
    pub issue_rq_arg: u32,
    /// ... in `block_rq_requeue`.
    pub requeue_rq_arg: u32,
    /// ... in `block_rq_merge`.
    pub merge_rq_arg: u32,
    /// kmem and malloc: one address in so many; 0 or 1: all.
    pub sample_every: u32,
    /// kmem and malloc: one allocation in about so many bytes; 0: all.
    pub sample_bytes: u32,
    /// 1: kmem and malloc record a free only when its allocation was recorded.
    pub keep_live: u32,
    /// 1: malloc records only the recorder's children and theirs.
    pub family: u32,
    /// 1: the kernel has storage in tasks.
    pub task_storage: u32,
    /// CPUs that there may ever be.
    pub possible_cpus: u32,
    /// Bytes of a page.
    pub page_bytes: u32,
    /// Number of the argument of `kmalloc` that has the bytes asked for; 0: none has.
    pub kmalloc_size_arg: u32,
    /// ... of `kmem_cache_alloc`.
    pub cache_alloc_size_arg: u32,
    /// ... of `kmalloc_node`.
    pub kmalloc_node_size_arg: u32,
    /// ... of `kmem_cache_alloc_node`.
    pub cache_node_size_arg: u32,
    /// ... of `percpu_alloc_percpu`.
    pub percpu_size_arg: u32,
    /// 1: the kernel has links that hold many uprobes; read by the recorder only.
    pub uprobe_multi: u32,
    /// Waits shorter than this are summed up, ns.
    pub min_wait_ns: u32,
    /// 1: nothing is left out of what a walk of a stack reads.
    pub exact_stacks: u32,
    /// 1: stacks of wakers too.
    pub waker_stacks: u32,
    /// Bytes of user stacks to copy, a multiple of 4096; 0: walk them by frame pointers.
    pub unwind_bytes: u32,
    /// Fill of the ring of copies that wakes the recorder, bytes.
    pub copy_wake_bytes: u32,
    /// 1: the programs of offcpu write the rows of `sched_switch` too.
    pub switch_rows: u32,
    /// Number of the cgroup hierarchy whose ids are told; 0: version 2.
    pub cgroup_hierarchy: u32,
    /// 1: it is that of the memory controller.
    pub cgroup_memory: u32,
}

impl Config {
    /// Size of the ring of stack copies: four times its wake mark, a page where it is not used.
    pub fn copy_ring_bytes(self) -> u32 {
        4 * self.copy_wake_bytes.max(1024)
    }

    /// The bytes that go into the programs' read-only data.
    pub fn to_bytes(self) -> Vec<u8> {
        let words = [
            self.own_pid,
            self.filter_pid,
            self.filter_cgroup,
            self.switch_state_arg,
            self.wake_bytes,
            self.insert_rq_arg,
            self.issue_rq_arg,
            self.requeue_rq_arg,
            self.merge_rq_arg,
            self.sample_every,
            self.sample_bytes,
            self.keep_live,
            self.family,
            self.task_storage,
            self.possible_cpus,
            self.page_bytes,
            self.kmalloc_size_arg,
            self.cache_alloc_size_arg,
            self.kmalloc_node_size_arg,
            self.cache_node_size_arg,
            self.percpu_size_arg,
            self.uprobe_multi,
            self.min_wait_ns,
            self.exact_stacks,
            self.waker_stacks,
            self.unwind_bytes,
            self.copy_wake_bytes,
            self.switch_rows,
            self.cgroup_hierarchy,
            self.cgroup_memory,
        ];
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }
}

/// A stack definition as the stack ring carries it: the head of `struct stack_record`, then the frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackRecord {
    /// When the stack was first seen.
    pub ts_ns: u64,
    /// Its id.
    pub stack_id: u64,
    /// Process and exec that user addresses belong to; 0 for kernel stacks.
    pub exec_id: u64,
    /// Process; 0 for kernel stacks.
    pub pid: u32,
    /// Whether it is a user stack.
    pub user: bool,
    /// Segment for which it was sent.
    pub epoch: u32,
    /// Addresses, innermost first.
    pub frames: Vec<u64>,
}

impl StackRecord {
    /// Bytes before the frames.
    pub const HEAD: usize = 40;

    /// Reads a record. `None` when it is shorter than it says.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let frames = u32_at(36)? as usize;
        Some(StackRecord {
            ts_ns: u64_at(0)?,
            stack_id: u64_at(8)?,
            exec_id: u64_at(16)?,
            pid: u32_at(24)?,
            user: u32_at(28)? != 0,
            epoch: u32_at(32)?,
            frames: (0..frames).map(|i| u64_at(Self::HEAD + 8 * i)).collect::<Option<_>>()?,
        })
    }
}

/// A kernel module that came or went: `struct module_record` of `bpf/task.bpf.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleRecord {
    /// When.
    pub ts_ns: u64,
    /// Where its code lies.
    pub addr: u64,
    /// Bytes of that.
    pub len: u32,
    /// It went.
    pub gone: bool,
    /// Name.
    pub name: Vec<u8>,
}

impl ModuleRecord {
    /// Reads a record. `None` when it is too short.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        Some(ModuleRecord {
            ts_ns: u64_at(0)?,
            addr: u64_at(8)?,
            len: u32_at(16)?,
            gone: u32_at(20)? != 0,
            name: bytes.get(24..80)?.split(|b| *b == 0).next()?.to_vec(),
        })
    }
}

/// Length of `struct sample_row`.
pub const SAMPLE_BYTES: usize = 56;
/// Where `user_stack_id` stands in it.
pub const USER_STACK_ID: std::ops::Range<usize> = 32..40;

/// A sample with what is needed to walk its user stack: `struct copy_record` of `bpf/unwind.bpf.h`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyRecord {
    /// The event, a `struct sample_row` whose `user_stack_id` is still 0.
    pub row: Vec<u8>,
    /// When it was taken.
    pub ts_ns: u64,
    /// Process.
    pub pid: u32,
    /// Tells programs of one pid apart.
    pub exec_id: u64,
    /// Instruction pointer, stack pointer, frame pointer and, on arm64, link register of user space.
    pub registers: [u64; 4],
    /// CPU whose event it is.
    pub cpu: u32,
    /// Addresses that frame pointers lead to, innermost first.
    pub by_frame_pointers: Vec<u64>,
    /// Stack memory from the stack pointer on.
    pub stack: Box<[u8]>,
}

impl CopyRecord {
    const REGISTERS: usize = SAMPLE_BYTES + 8;
    const COUNTS: usize = Self::REGISTERS + 32;
    const FRAMES: usize = Self::COUNTS + 16;
    const CHUNKS: usize = Self::FRAMES + 8 * 128;

    /// Reads a record. `None` when it is shorter than it says.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let register = |i: usize| u64_at(Self::REGISTERS + 8 * i);
        let registers = [register(0)?, register(1)?, register(2)?, register(3)?];
        let (frames, copied) = (u32_at(Self::COUNTS + 4)? as usize, u32_at(Self::COUNTS + 8)? as usize);
        let from = Self::CHUNKS + registers[1] as usize % 4096;
        Some(CopyRecord {
            row: bytes.get(..SAMPLE_BYTES)?.to_vec(),
            ts_ns: u64_at(0)?,
            pid: u32_at(16)?,
            exec_id: u64_at(SAMPLE_BYTES)?,
            registers,
            cpu: u32_at(Self::COUNTS)?,
            by_frame_pointers: (0..frames).map(|i| u64_at(Self::FRAMES + 8 * i)).collect::<Option<_>>()?,
            stack: bytes.get(from..from + copied)?.into(),
        })
    }
}

/// Id of a user stack: the same function as `stack_id` of `bpf/stack.bpf.h`, so that a stack has one id however it was
/// walked.
pub fn user_stack_id(pid: u32, exec_id: u64, frames: &[u64]) -> u64 {
    let mix = |hash: u64, word: u64| {
        let hash = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash ^ hash >> 32
    };
    let hash = frames.iter().fold(mix(mix(2, pid.into()), exec_id), |hash, ip| mix(hash, *ip));
    mix(hash, frames.len() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_has_no_padding() {
        assert_eq!(Config::default().to_bytes().len(), size_of::<Config>());
    }

    #[test]
    fn copies_are_read_from_the_stack_pointer_on() {
        let mut bytes = vec![0u8; CopyRecord::CHUNKS + 2 * 4096];
        bytes[CopyRecord::REGISTERS + 8..][..8].copy_from_slice(&0x7fff_fff8u64.to_ne_bytes());
        bytes[CopyRecord::COUNTS + 4] = 1;
        bytes[CopyRecord::COUNTS + 8..][..4].copy_from_slice(&(8u32 + 4096).to_ne_bytes());
        bytes[CopyRecord::CHUNKS + 0xff8] = 7;
        let copy = CopyRecord::parse(&bytes).unwrap();
        assert_eq!((copy.stack.len(), copy.stack[0], copy.by_frame_pointers.len()), (8 + 4096, 7, 1));
        assert_eq!(CopyRecord::parse(&bytes[..CopyRecord::CHUNKS + 4096]), None);
        assert_eq!(CopyRecord::parse(&[]), None);
    }

    #[test]
    fn the_row_of_a_sample_is_as_long_as_its_kind() {
        let registry = bpfrec_format::Registry::default();
        let kind = registry.get(bpfrec_format::events::CPU_SAMPLE).unwrap();
        assert_eq!(kind.row_size as usize, SAMPLE_BYTES);
        let field = &kind.fields[kind.index_of("user_stack_id").unwrap()];
        assert_eq!(usize::from(field.offset), USER_STACK_ID.start);
    }

    #[test]
    fn short_stack_records_are_refused() {
        let mut bytes = vec![0u8; StackRecord::HEAD + 16];
        bytes[36] = 2;
        assert_eq!(StackRecord::parse(&bytes).unwrap().frames, [0, 0]);
        bytes[36] = 3;
        assert_eq!(StackRecord::parse(&bytes), None);
        assert_eq!(StackRecord::parse(&[]), None);
    }
}
