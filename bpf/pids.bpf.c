/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * For a recorder in a pid namespace of its own: which thread is which there. Loaded in no other case. The kernel's
 * numbers are used everywhere else in these programs and in the file.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The deepest that the kernel allows (MAX_PID_NS_LEVEL). */
#define LEVELS 32

/* By the number that the recorder's namespace has for a thread: the kernel's. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, u32);
	__type(value, u32);
} kernels_pids SEC(".maps");

/* By the kernel's number: that of the recorder's namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, u32);
	__type(value, u32);
} own_pids SEC(".maps");

/* The recorder's namespace: how deep it lies, and its inode. */
u32 own_level;
u32 own_inode;

static __always_inline void note(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	u32 level = own_level, kernels = BPF_CORE_READ(task, pid);
	struct upid upid = {};

	/* Whoever lives less deep is not seen from there. */
	if (level >= LEVELS || BPF_CORE_READ(pid, level) < level)
		return;
	bpf_core_read(&upid, sizeof(upid), &pid->numbers[level]);
	if (BPF_CORE_READ(upid.ns, ns.inum) != own_inode)
		return;
	bpf_map_update_elem(&kernels_pids, &upid.nr, &kernels, BPF_ANY);
	bpf_map_update_elem(&own_pids, &kernels, &upid.nr, BPF_ANY);
}

/* Returns the kernel's number of the process that runs it: the recorder does, and it is never attached. */
SEC("raw_tp/sched_switch")
int recorder(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	u32 level = BPF_CORE_READ(pid, level);
	struct upid upid = {};

	bpf_core_read(&upid, sizeof(upid), &pid->numbers[level]);
	own_level = level;
	own_inode = BPF_CORE_READ(upid.ns, ns.inum);
	return bpf_get_current_pid_tgid() >> 32;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(note_fork, struct task_struct *parent, struct task_struct *child)
{
	note(child);
	return 0;
}

SEC("iter/task")
int note_all(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (!task)
		return 0;
	barrier_var(task); /* or an address in it is made before it is looked at */
	note(task);
	return 0;
}
