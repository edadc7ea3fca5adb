//! Events: one `repr(C)` struct a kind, the single place where their layout is written down. `events.h`, which the
//! BPF programs include, is made from it (`BPFREC_UPDATE=1 cargo test -p bpfrec-format events_h`), and a test holds
//! the two against each other. Structs only ever grow at the end.

use crate::kind::{Field, Kind, Source, Type};

/// A field's type in Rust, in C and in the schema.
trait Cell {
    const TYPE: Type;
    const C: &'static str;
    const ARRAY: usize = 0;
}

macro_rules! cells {
    ($($rust:ty, $ty:ident, $c:literal;)*) => {
        $(impl Cell for $rust { const TYPE: Type = Type::$ty; const C: &'static str = $c; })*
    };
}
cells! { u8, U8, "__u8"; u16, U16, "__u16"; u32, U32, "__u32"; u64, U64, "__u64"; i32, I32, "__s32"; }

impl<const N: usize> Cell for [u8; N] {
    const TYPE: Type = Type::Text;
    const C: &'static str = "char";
    const ARRAY: usize = N;
}

macro_rules! events {
    ($($(#[$doc:meta])* $struct:ident $c:ident $source:ident [$($(#[$kind_doc:meta])* $name:ident $constant:ident = $id:literal,)*] {
        $($(#[$field_doc:meta])* $field:ident: $ty:ty,)*
    })*) => {
        $(
            $($(#[$kind_doc])* pub const $constant: u16 = $id;)*

            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            #[repr(C)]
            pub struct $struct {
                /// CLOCK_MONOTONIC.
                pub ts_ns: u64,
                /// Number of the kind.
                pub kind: u16,
                /// Bytes of this struct.
                pub size: u16,
                $($(#[$field_doc])* pub $field: $ty,)*
            }

            impl $struct {
                fn fields() -> Vec<Field> {
                    let mut fields = vec![Field::new("ts_ns", Type::U64, 0, 8)];
                    $(if !stringify!($field).starts_with('_') {
                        let offset = std::mem::offset_of!($struct, $field);
                        fields.push(Field::new(stringify!($field), <$ty as Cell>::TYPE, offset, size_of::<$ty>()));
                    })*
                    fields
                }
            }
        )*

        /// All kinds of events.
        pub fn kinds() -> Vec<Kind> {
            vec![$($(Kind {
                id: $id,
                name: stringify!($name).into(),
                source: Source::$source as u16,
                row_size: size_of::<$struct>() as u32,
                fields: $struct::fields(),
            },)*)*]
        }

        /// The text of `events.h`.
        pub fn header() -> String {
            let mut h = String::from(HEADER_TOP);
            $(
                h.push('\n');
                $(h += &format!("#define KIND_{} {:#04x}\n", stringify!($constant), $id);)*
                h += &format!("\nstruct {} {{\n\t__u64 ts_ns;\n\t__u16 kind;\n\t__u16 size;\n", stringify!($c));
                $(
                    h += &format!("\t{} {}", <$ty as Cell>::C, stringify!($field));
                    h += &match <$ty as Cell>::ARRAY { 0 => ";\n".to_owned(), n => format!("[{n}];\n") };
                )*
                h += &format!("}};\n\n_Static_assert(sizeof(struct {}) == {}, \"events.rs\");\n",
                    stringify!($c), size_of::<$struct>());
            )*
            h
        }
    };
}

const HEADER_TOP: &str = "/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Made from events.rs: BPFREC_UPDATE=1 cargo test -p bpfrec-format events_h */
#pragma once
";

events! {
    /// A task, at the moment of the event.
    TaskRow task_row Task [
        /// A thread was forked.
        sched_fork SCHED_FORK = 0x20,
        /// A thread ended.
        sched_exit SCHED_EXIT = 0x22,
        /// A thread has a new name.
        task_rename TASK_RENAME = 0x23,
    ] {
        /// The thread (the new one of a fork).
        tid: u32,
        /// Its process.
        pid: u32,
        /// Parent process.
        ppid: u32,
        /// Thread that forked; 0 but for forks.
        parent_tid: u32,
        /// Real user id.
        uid: u32,
        /// The process's pid in its own pid namespace.
        ns_pid: u32,
        /// Inode number of that namespace.
        pid_ns: u32,
        /// CPU of the event.
        cpu: u32,
        /// Wait status; 0 but for exits.
        exit_code: u32,
        /// Start of the thread, CLOCK_MONOTONIC.
        start_ns: u64,
        /// Cgroup (v2) of the thread.
        cgroup_id: u64,
        /// Name of the thread.
        comm: [u8; 16],
        /// Inode number of the mount namespace; 0 when it has none any more.
        mnt_ns: u32,
        /// 0.
        _pad: u32,
    }

    /// A process that runs another program now. The fields of [`TaskRow`], with `exe` before those that came later.
    ExecRow exec_row Task [
        /// A process runs another program now.
        sched_exec SCHED_EXEC = 0x21,
    ] {
        /// As in [`TaskRow`].
        tid: u32,
        /// As in [`TaskRow`].
        pid: u32,
        /// As in [`TaskRow`].
        ppid: u32,
        /// The thread's tid before the exec.
        parent_tid: u32,
        /// As in [`TaskRow`].
        uid: u32,
        /// As in [`TaskRow`].
        ns_pid: u32,
        /// As in [`TaskRow`].
        pid_ns: u32,
        /// As in [`TaskRow`].
        cpu: u32,
        /// 0.
        exit_code: u32,
        /// As in [`TaskRow`].
        start_ns: u64,
        /// As in [`TaskRow`].
        cgroup_id: u64,
        /// The new name.
        comm: [u8; 16],
        /// Path of the program as given to exec (of the interpreter for a script), cut at 255 bytes.
        exe: [u8; 256],
        /// As in [`TaskRow`].
        mnt_ns: u32,
        /// 0.
        _pad: u32,
    }

    /// A cgroup (v2).
    CgroupRow cgroup_row Task [
        /// A cgroup was made.
        cgroup_mkdir CGROUP_MKDIR = 0x28,
        /// A cgroup has a new path.
        cgroup_rename CGROUP_RENAME = 0x29,
        /// A cgroup was removed.
        cgroup_rmdir CGROUP_RMDIR = 0x2a,
    ] {
        /// Depth; the root has 0.
        level: u32,
        /// The cgroup.
        cgroup_id: u64,
        /// The one above.
        parent_id: u64,
        /// Path from the hierarchy's root, cut at 511 bytes.
        path: [u8; 512],
    }

    /// A CPU goes from one thread to another.
    SwitchRow switch_row Sched [
        /// A CPU goes from one thread to another.
        sched_switch SCHED_SWITCH = 0x30,
    ] {
        /// Thread that leaves.
        prev_tid: u32,
        /// Its process.
        prev_pid: u32,
        /// Thread that comes.
        next_tid: u32,
        /// Its process.
        next_pid: u32,
        /// Kernel task state of the one that leaves; 0: still runnable.
        prev_state: u32,
        /// Kernel priority, 0 to 139.
        prev_prio: u16,
        /// Kernel priority, 0 to 139.
        next_prio: u16,
        /// 1: preempted, so runnable whatever its state.
        preempt: u32,
        /// Cgroup of the one that leaves.
        prev_cgroup_id: u64,
        /// Cgroup of the one that comes.
        next_cgroup_id: u64,
    }

    /// A thread that is runnable from now on.
    WakeupRow wakeup_row Sched [
        /// A thread is runnable again.
        sched_wakeup SCHED_WAKEUP = 0x31,
        /// A new thread is runnable for the first time.
        sched_wakeup_new SCHED_WAKEUP_NEW = 0x32,
    ] {
        /// Thread that wakes.
        tid: u32,
        /// Its process.
        pid: u32,
        /// CPU that it will run on.
        target_cpu: u32,
        /// Its kernel priority.
        prio: u16,
        /// Padding.
        _pad: u16,
        /// Thread that was running on the CPU of the event: the waker, or whom an interrupt hit.
        waker_tid: u32,
        /// Cgroup of the thread that wakes.
        cgroup_id: u64,
    }

    /// A thread that is moved to another CPU's queue.
    MigrateRow migrate_row Sched [
        /// A thread is moved to another CPU's queue.
        sched_migrate SCHED_MIGRATE = 0x33,
    ] {
        /// The thread.
        tid: u32,
        /// Its process.
        pid: u32,
        /// From this CPU.
        orig_cpu: u32,
        /// To this CPU.
        dest_cpu: u32,
        /// Its kernel priority.
        prio: u32,
        /// Its cgroup.
        cgroup_id: u64,
    }

    /// A block request.
    BlockRow block_row Block [
        /// A request was queued in the I/O scheduler.
        block_insert BLOCK_INSERT = 0x40,
        /// A request was given to the device.
        block_issue BLOCK_ISSUE = 0x41,
        /// A request, or part of it, is done. `bytes` is what is done now.
        block_complete BLOCK_COMPLETE = 0x42,
        /// Two requests became one; this one is gone.
        block_merge BLOCK_MERGE = 0x43,
        /// The device gave a request back; it will be issued again.
        block_requeue BLOCK_REQUEUE = 0x44,
        /// A request, or part of it, failed.
        block_error BLOCK_ERROR = 0x45,
    ] {
        /// Thread that issues the request: the one that was running when it was first seen.
        tid: u32,
        /// Its process.
        pid: u32,
        /// Device, kernel dev_t: major << 20 | minor.
        dev: u32,
        /// Size.
        bytes: u32,
        /// `cmd_flags`: operation in the low 8 bits, flags above.
        cmd_flags: u32,
        /// The kernel's block status or negative errno; 0 but for completions and errors.
        error: i32,
        /// Padding.
        _pad: u32,
        /// Cgroup of the issuer.
        cgroup_id: u64,
        /// Address of the request: the same from insert to completion.
        rq: u64,
        /// First sector, 512 bytes each.
        sector: u64,
    }

    /// What a CPU was doing.
    SampleRow sample_row Profile [
        /// What a CPU was doing.
        cpu_sample CPU_SAMPLE = 0x50,
    ] {
        /// Thread.
        tid: u32,
        /// Its process.
        pid: u32,
        /// 1: the CPU was in user code.
        user_mode: u32,
        /// Kernel stack; 0: none.
        kernel_stack_id: u64,
        /// User stack; 0: none.
        user_stack_id: u64,
        /// Cgroup of the thread.
        cgroup_id: u64,
        /// Nanoseconds (cpu-clock) or cycles that the sample stands for.
        period: u64,
    }
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

    /// A wait of a thread, written when it is over: `ts_ns` is when the thread has a CPU again.
    OffcpuRow offcpu_row Offcpu [
        /// A thread was off the CPU.
        offcpu_wait OFFCPU_WAIT = 0x80,
        /// A thread is still off the CPU at the end of the recording; `wait_ns` is how long so far.
        offcpu_open OFFCPU_OPEN = 0x81,
        /// `count` waits of a thread, each too short to be told apart; `wait_ns` is their sum.
        offcpu_short OFFCPU_SHORT = 0x82,
    ] {
        /// Thread that waited.
        tid: u32,
        /// Its process.
        pid: u32,
        /// Kernel task state when it left; 0: preempted.
        prev_state: u32,
        /// Bits of [`offcpu_flag`].
        flags: u32,
        /// Waits in this row; 1 but for `offcpu_short`.
        count: u32,
        /// Thread that was running where it was woken: the waker, or whom an interrupt hit (a flag tells); 0: not seen.
        waker_tid: u32,
        /// Its process.
        waker_pid: u32,
        /// Time off the CPU.
        wait_ns: u64,
        /// Of that, time from the wakeup (or preemption) on: waiting for a CPU only.
        queued_ns: u64,
        /// Kernel stack of the wait; 0: none.
        kernel_stack_id: u64,
        /// User stack of the wait; 0: none.
        user_stack_id: u64,
        /// Kernel stack of the waker; 0: none.
        waker_kernel_stack_id: u64,
        /// User stack of the waker; 0: none.
        waker_user_stack_id: u64,
        /// Cgroup of the thread that waited.
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

/// Bits of `flags` of the kinds of source `offcpu`.
pub mod offcpu_flag {
    /// The kernel stack was remembered from an earlier wait of the thread, not walked.
    pub const KERNEL_REMEMBERED: u32 = 1;
    /// The user stack was remembered from an earlier wait of the thread, not walked.
    pub const USER_REMEMBERED: u32 = 2;
    /// The wait began before the recording; `wait_ns` counts from the recording's start.
    pub const BEGAN_BEFORE: u32 = 4;
    /// The waker's stacks were remembered.
    pub const WAKER_REMEMBERED: u32 = 8;
    /// The thread was not seen to come back: the end of the wait follows from its CPU time. It has no kernel stack.
    pub const END_UNSEEN: u32 = 16;
    /// It was woken by an interrupt; the waker is the thread that the interrupt hit. Never set where the kernel does not
    /// tell: header item `offcpu_interrupts`.
    pub const WAKER_INTERRUPT: u32 = 32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_h() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/events.h");
        if std::env::var_os("BPFREC_UPDATE").is_some() {
            std::fs::write(path, header()).unwrap();
        }
        let file = std::fs::read_to_string(path).unwrap();
        assert_eq!(file, header(), "run BPFREC_UPDATE=1 cargo test -p bpfrec-format events_h");
    }

    #[test]
    fn no_hidden_padding() {
        for kind in kinds() {
            assert_eq!(kind.row_size % 8, 0, "{}", kind.name);
            assert!(kind.row_size <= 1024);
        }
    }
}
