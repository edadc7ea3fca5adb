/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Rows of a switch, for the two programs that may write them: each further program on a tracepoint costs the scheduler
 * 50 to 100 ns before it has done anything, so where offcpu.bpf.c is there anyway, it writes them too.
 */
#pragma once

#include "fixes.bpf.h"
#include "batch.bpf.h"
#include "filter.bpf.h"
#include "shed.bpf.h"

/* The argument is what the scheduler acted on; the task's own field may already say that it wakes again. */
static __always_inline u32 switch_state(unsigned long long *ctx, struct task_struct *prev)
{
	return cfg.switch_state_arg ? (u32)ctx[3] : task_state(prev);
}

static __always_inline void write_switch(bool preempt, struct task_struct *prev, struct task_struct *next,
					 u32 prev_state, u64 ts_ns)
{
	u64 prev_cgroup_id = task_cgroup_id(prev), next_cgroup_id = task_cgroup_id(next);
	u32 prev_tid = LOAD(prev, pid), prev_pid = LOAD(prev, tgid);
	u32 next_tid = LOAD(next, pid), next_pid = LOAD(next, tgid);
	struct switch_row *row;

	if (is_shed(SOURCE_SCHED))
		return;
	/* A switch counts when one of its sides does; the idle task never does. */
	if (!(prev_tid && wanted(prev_pid, prev_cgroup_id)) && !(next_tid && wanted(next_pid, next_cgroup_id)))
		return;
	row = batch_room(sizeof(*row), BATCH_SWITCH, SOURCE_SCHED);
	if (!row)
		return;
	row->ts_ns = ts_ns;
	row->kind = KIND_SCHED_SWITCH;
	row->size = sizeof(*row);
	row->prev_tid = prev_tid;
	row->prev_pid = prev_pid;
	row->next_tid = next_tid;
	row->next_pid = next_pid;
	row->prev_state = prev_state;
	row->prev_prio = LOAD(prev, prio);
	row->next_prio = LOAD(next, prio);
	row->preempt = preempt;
	row->prev_cgroup_id = prev_cgroup_id;
	row->next_cgroup_id = next_cgroup_id;
}
