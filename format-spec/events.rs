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
    }

    /// A process that runs another program now. The fields of [`TaskRow`], then `exe`.
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
