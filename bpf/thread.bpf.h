/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a thread is doing in its allocator.
 */
#pragma once

#include "stack.bpf.h"

struct thread {
	/* The outermost call that has not returned; `call` is 0 when there is none. */
	u64 sp;
	u64 since_ns;
	u64 addr;  /* what it takes back */
	u64 bytes; /* what it asks for */
	u64 out;   /* where posix_memalign puts the address; where operator new returns to, 0: not known */
	u32 call;
	u32 told; /* a malloc_free was told of it */
	/* What was freed by the last call, when that was a free. */
	u64 freed;
	/* A thread's own: a program may be preempted in the middle of a walk. */
	struct stack_record stack;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} threads SEC(".maps");

/* Before bc235cdb423a and a10787e6d58c ("bpf: Enable task local storage for tracing programs"): by tid. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, u32);
	__type(value, struct thread);
} threads_by_tid SEC(".maps");

/* What a new entry there is copied from. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct thread);
} new_thread SEC(".maps");

static __always_inline struct thread *this_thread(bool create)
{
	struct thread *thread;
	u32 zero = 0, tid = bpf_get_current_pid_tgid();

	if (cfg.task_storage) {
		struct task_struct *task = bpf_get_current_task_btf();

		thread = bpf_task_storage_get(&threads, task, NULL, create ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
	} else {
		thread = bpf_map_lookup_elem(&threads_by_tid, &tid);
		if (!thread && create) {
			struct thread *empty = bpf_map_lookup_elem(&new_thread, &zero);

			if (empty)
				bpf_map_update_elem(&threads_by_tid, &tid, empty, BPF_NOEXIST);
			thread = bpf_map_lookup_elem(&threads_by_tid, &tid);
		}
	}
	if (!thread && create)
		count_lost(SOURCE_MALLOC, LOST_LIVE);
	return thread;
}
