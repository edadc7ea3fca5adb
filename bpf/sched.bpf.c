/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The scheduler: who runs where, who wakes, who is moved. Cgroup ids are of the task that an event is about.
 * All hooks hold a run queue's or a task's lock, so interrupts are off and rows go into batches.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "sched.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

TRACEPOINT(sched_switch)
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	write_switch(preempt, prev, next, switch_state(ctx, prev), bpf_ktime_get_ns());
	return 0;
}

static __always_inline int wakeup(struct task_struct *task, u16 kind, u32 slot, u32 target_cpu)
{
	u64 cgroup_id = task_cgroup_id(task);
	u32 pid = LOAD(task, tgid);
	struct wakeup_row *row;
	u64 ts_ns;

	if (is_shed(SOURCE_SCHED) || !wanted(pid, cgroup_id))
		return 0;
	ts_ns = bpf_ktime_get_ns();
	row = batch_room(sizeof(*row), slot, SOURCE_SCHED);
	if (!row)
		return 0;
	row->ts_ns = ts_ns;
	row->kind = kind;
	row->size = sizeof(*row);
	row->tid = LOAD(task, pid);
	row->pid = pid;
	row->target_cpu = target_cpu;
	row->prio = LOAD(task, prio);
	row->_pad = 0;
	row->waker_tid = bpf_get_current_pid_tgid();
	row->cgroup_id = cgroup_id;
	return 0;
}

TRACEPOINT(sched_wakeup)
int BPF_PROG(sched_wakeup, struct task_struct *task)
{
	return wakeup(task, KIND_SCHED_WAKEUP, BATCH_WAKEUP, task_cpu(task));
}

TRACEPOINT(sched_wakeup_new)
int BPF_PROG(sched_wakeup_new, struct task_struct *task)
{
	return wakeup(task, KIND_SCHED_WAKEUP_NEW, BATCH_SCHED, task_cpu(task));
}

TRACEPOINT(sched_migrate_task)
int BPF_PROG(sched_migrate_task, struct task_struct *task, int dest_cpu)
{
	u64 cgroup_id = task_cgroup_id(task);
	u32 pid = LOAD(task, tgid);
	struct migrate_row *row;
	u64 ts_ns;

	if (is_shed(SOURCE_SCHED) || !wanted(pid, cgroup_id))
		return 0;
	ts_ns = bpf_ktime_get_ns();
	row = batch_room(sizeof(*row), BATCH_SCHED, SOURCE_SCHED);
	if (!row)
		return 0;
	row->ts_ns = ts_ns;
	row->kind = KIND_SCHED_MIGRATE;
	row->size = sizeof(*row);
	row->tid = LOAD(task, pid);
	row->pid = pid;
	row->orig_cpu = task_cpu(task);
	row->dest_cpu = dest_cpu;
	row->prio = LOAD(task, prio);
	row->cgroup_id = cgroup_id;
	return 0;
}
