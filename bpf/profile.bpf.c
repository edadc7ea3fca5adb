/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What each CPU is doing, many times a second, with the kernel's and the user's stack.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "fixes.bpf.h"
#include "filter.bpf.h"
#include "stack.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("perf_event")
int cpu_sample(struct bpf_perf_event_data *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	u64 ts_ns = bpf_ktime_get_ns(), cgroup_id = bpf_get_current_cgroup_id();
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u64 kernel_stack_id, user_stack_id = 0, exec_id;
	u32 pid = pid_tgid >> 32, tid = pid_tgid;
	struct sample_row *row;
	void *ring;

	/* The idle task is no work. */
	if (!tid || !wanted(pid, cgroup_id))
		return 0;
	exec_id = BPF_CORE_READ(task, group_leader, start_time) ^ BPF_CORE_READ(task, self_exec_id);
	kernel_stack_id = stack_id(ctx, SOURCE_PROFILE, false, pid, exec_id, ts_ns);
	if (!(BPF_CORE_READ(task, flags) & PF_KTHREAD))
		user_stack_id = stack_id(ctx, SOURCE_PROFILE, true, pid, exec_id, ts_ns);
	if (!EVENT_RESERVE(row, ring, SOURCE_PROFILE))
		return 0;
	row->ts_ns = ts_ns;
	row->kind = KIND_CPU_SAMPLE;
	row->size = sizeof(*row);
	row->tid = tid;
	row->pid = pid;
	row->user_mode = !kernel_stack_id;
	row->kernel_stack_id = kernel_stack_id;
	row->user_stack_id = user_stack_id;
	row->cgroup_id = cgroup_id;
	row->period = ctx->sample_period;
	EVENT_SUBMIT(row, ring);
	return 0;
}
