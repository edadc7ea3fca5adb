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
    /// 1: stacks of waits are never remembered.
    pub exact_stacks: u32,
    /// 1: stacks of wakers too.
    pub waker_stacks: u32,
}

impl Config {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_has_no_padding() {
        assert_eq!(Config::default().to_bytes().len(), size_of::<Config>());
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
