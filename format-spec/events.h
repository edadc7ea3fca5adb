/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Made from events.rs: BPFREC_UPDATE=1 cargo test -p bpfrec-format events_h */
#pragma once

#define KIND_SCHED_FORK 0x20
#define KIND_SCHED_EXIT 0x22
#define KIND_TASK_RENAME 0x23

struct task_row {
	__u64 ts_ns;
	__u16 kind;
	__u16 size;
	__u32 tid;
	__u32 pid;
	__u32 ppid;
	__u32 parent_tid;
	__u32 uid;
	__u32 ns_pid;
	__u32 pid_ns;
	__u32 cpu;
	__u32 exit_code;
	__u64 start_ns;
	__u64 cgroup_id;
	char comm[16];
	__u32 mnt_ns;
	__u32 _pad;
};

_Static_assert(sizeof(struct task_row) == 88, "events.rs");

#define KIND_SCHED_EXEC 0x21

struct exec_row {
	__u64 ts_ns;
	__u16 kind;
	__u16 size;
	__u32 tid;
	__u32 pid;
	__u32 ppid;
	__u32 parent_tid;
	__u32 uid;
	__u32 ns_pid;
	__u32 pid_ns;
	__u32 cpu;
	__u32 exit_code;
	__u64 start_ns;
	__u64 cgroup_id;
	char comm[16];
	char exe[256];
	__u32 mnt_ns;
	__u32 _pad;
};

_Static_assert(sizeof(struct exec_row) == 344, "events.rs");

#define KIND_CGROUP_MKDIR 0x28
#define KIND_CGROUP_RENAME 0x29
#define KIND_CGROUP_RMDIR 0x2a

struct cgroup_row {
	__u64 ts_ns;
	__u16 kind;
	__u16 size;
	__u32 level;
	__u64 cgroup_id;
	__u64 parent_id;
	char path[512];
};

_Static_assert(sizeof(struct cgroup_row) == 544, "events.rs");

#define KIND_SCHED_SWITCH 0x30

struct switch_row {
	__u64 ts_ns;
	__u16 kind;
	__u16 size;
	__u32 prev_tid;
	__u32 prev_pid;
	__u32 next_tid;
	__u32 next_pid;
	__u32 prev_state;
	__u16 prev_prio;
	__u16 next_prio;
	__u32 preempt;
	__u64 prev_cgroup_id;
	__u64 next_cgroup_id;
};

_Static_assert(sizeof(struct switch_row) == 56, "events.rs");

#define KIND_SCHED_WAKEUP 0x31
#define KIND_SCHED_WAKEUP_NEW 0x32

struct wakeup_row {
	__u64 ts_ns;
	__u16 kind;
	__u16 size;
	__u32 tid;
	__u32 pid;
	__u32 target_cpu;
	__u16 prio;
	__u16 _pad;
	__u32 waker_tid;
	__u64 cgroup_id;
};

_Static_assert(sizeof(struct wakeup_row) == 40, "events.rs");

#define KIND_SCHED_MIGRATE 0x33

struct migrate_row {
	__u64 ts_ns;
	__u16 kind;
	__u16 size;
	__u32 tid;
	__u32 pid;
	__u32 orig_cpu;
	__u32 dest_cpu;
	__u32 prio;
	__u64 cgroup_id;
};

_Static_assert(sizeof(struct migrate_row) == 40, "events.rs");

#define KIND_BLOCK_INSERT 0x40
#define KIND_BLOCK_ISSUE 0x41
#define KIND_BLOCK_COMPLETE 0x42
#define KIND_BLOCK_MERGE 0x43
#define KIND_BLOCK_REQUEUE 0x44
#define KIND_BLOCK_ERROR 0x45

struct block_row {
	__u64 ts_ns;
	__u16 kind;
	__u16 size;
	__u32 tid;
	__u32 pid;
	__u32 dev;
	__u32 bytes;
	__u32 cmd_flags;
	__s32 error;
	__u32 _pad;
	__u64 cgroup_id;
	__u64 rq;
	__u64 sector;
};

_Static_assert(sizeof(struct block_row) == 64, "events.rs");

#define KIND_CPU_SAMPLE 0x50

struct sample_row {
	__u64 ts_ns;
	__u16 kind;
	__u16 size;
	__u32 tid;
	__u32 pid;
	__u32 user_mode;
	__u64 kernel_stack_id;
	__u64 user_stack_id;
	__u64 cgroup_id;
	__u64 period;
};

_Static_assert(sizeof(struct sample_row) == 56, "events.rs");

#define KIND_KMEM_ALLOC 0x60
#define KIND_PAGE_ALLOC 0x61
#define KIND_PERCPU_ALLOC 0x62

struct kmem_alloc_row {
	__u64 ts_ns;
	__u16 kind;
	__u16 size;
	__u32 tid;
	__u32 pid;
	__u32 weight_milli;
	__u64 addr;
	__u64 bytes;
	__u64 kernel_stack_id;
	__u64 cgroup_id;
};

_Static_assert(sizeof(struct kmem_alloc_row) == 56, "events.rs");

#define KIND_KMEM_FREE 0x68
#define KIND_PAGE_FREE 0x69
#define KIND_PERCPU_FREE 0x6a

struct kmem_free_row {
	__u64 ts_ns;
	__u16 kind;
	__u16 size;
	__u32 tid;
	__u32 pid;
	__u32 _pad;
	__u64 addr;
	__u64 bytes;
	__u64 cgroup_id;
};

_Static_assert(sizeof(struct kmem_free_row) == 48, "events.rs");

#define KIND_MALLOC_ALLOC 0x70

struct malloc_alloc_row {
	__u64 ts_ns;
	__u16 kind;
	__u16 size;
	__u32 tid;
	__u32 pid;
	__u32 weight_milli;
	__u32 call;
	__u32 _pad;
	__u64 addr;
	__u64 bytes;
	__u64 user_stack_id;
	__u64 cgroup_id;
};

_Static_assert(sizeof(struct malloc_alloc_row) == 64, "events.rs");

#define KIND_MALLOC_FREE 0x71

struct malloc_free_row {
	__u64 ts_ns;
	__u16 kind;
	__u16 size;
	__u32 tid;
	__u32 pid;
	__u32 call;
	__u64 addr;
	__u64 bytes;
	__u64 cgroup_id;
};

_Static_assert(sizeof(struct malloc_free_row) == 48, "events.rs");

#define KIND_OFFCPU_WAIT 0x80
#define KIND_OFFCPU_OPEN 0x81
#define KIND_OFFCPU_SHORT 0x82

struct offcpu_row {
	__u64 ts_ns;
	__u16 kind;
	__u16 size;
	__u32 tid;
	__u32 pid;
	__u32 prev_state;
	__u32 flags;
	__u32 count;
	__u32 waker_tid;
	__u32 waker_pid;
	__u64 wait_ns;
	__u64 queued_ns;
	__u64 kernel_stack_id;
	__u64 user_stack_id;
	__u64 waker_kernel_stack_id;
	__u64 waker_user_stack_id;
	__u64 cgroup_id;
};

_Static_assert(sizeof(struct offcpu_row) == 96, "events.rs");
