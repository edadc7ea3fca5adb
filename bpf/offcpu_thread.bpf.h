/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is known of each thread's waits, in its task storage or, where there is none, in a table by tid.
 */
#pragma once

#include "recall_kernel.bpf.h"
#include "recall_user.bpf.h"

/* A thread, as far as its waits go. */
struct thread {
	u64 off_ns;   /* left the CPU; 0: has one, as far as we know */
	u64 woken_ns; /* 0: not since it last had one */
	u64 user_stack_id;
	u64 waker_kernel_stack_id;
	u64 waker_user_stack_id;
	u64 switches; /* that it had made when it left */
	u64 ran_ns;   /* its CPU time then */
	u64 short_ns;
	u64 short_from_ns;
	u32 short_count;
	u32 prev_state;
	u32 flags;
	u32 waker_tid;
	u32 waker_pid;
	u32 seen; /* it has left the CPU or come back since the start */
	u32 waker_flags;
	struct kernel_memo kernel[MEMOS];
	struct user_known user;
};

/* Made outside the scheduler, which may not allocate: for all threads at the start, and at each fork. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} thread_storage SEC(".maps");

/*
 * For kernels without, and for the few threads whose state could not be made in time: half forked when the recording
 * began, or not shown by the iterator. By tid.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct thread);
} thread_table SEC(".maps");

/* What a new entry is copied from. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct thread);
} no_thread SEC(".maps");

static __always_inline struct thread *known_thread(struct task_struct *task)
{
	u32 tid = task->pid;
	struct thread *t;

	if (cfg.task_storage) {
		t = bpf_task_storage_get(&thread_storage, task, NULL, 0);
		if (t)
			return t;
	}
	return bpf_map_lookup_elem(&thread_table, &tid);
}

/* NULL, and counted, when there is no room. */
static __always_inline struct thread *thread_of(struct task_struct *task)
{
	struct thread *t = known_thread(task), *none;
	u32 tid = task->pid, zero = 0;

	if (!t) {
		none = bpf_map_lookup_elem(&no_thread, &zero);
		if (none)
			bpf_map_update_elem(&thread_table, &tid, none, BPF_NOEXIST);
		t = bpf_map_lookup_elem(&thread_table, &tid);
	}
	if (!t)
		count_lost(SOURCE_OFFCPU, LOST_THREAD);
	return t;
}
