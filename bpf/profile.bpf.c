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
#include "unwind.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("perf_event")
int cpu_sample(struct bpf_perf_event_data *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	u64 ts_ns = bpf_ktime_get_ns(), cgroup_id = current_cgroup_id();
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u64 kernel_stack_id, exec_id;
	u32 pid = pid_tgid >> 32, tid = pid_tgid, every;
	struct sample_row sample = {}, *row;
	bool user;
	void *ring;

	/* The idle task is no work. */
	if (!tid || is_shed(SOURCE_PROFILE) || !wanted(pid, cgroup_id))
		return 0;
	every = shed_every();
	/* At random: what the machine does in step with the clock would else be seen always or never. */
	if (every > 1 && bpf_get_prandom_u32() % every)
		return 0;
	exec_id = BPF_CORE_READ(task, group_leader, start_time) ^ BPF_CORE_READ(task, self_exec_id);
	kernel_stack_id = stack_id(ctx, SOURCE_PROFILE, false, pid, exec_id, ts_ns);
	user = !(BPF_CORE_READ(task, flags) & PF_KTHREAD);
	sample.ts_ns = ts_ns;
	sample.kind = KIND_CPU_SAMPLE;
	sample.size = sizeof(sample);
	sample.tid = tid;
	sample.pid = pid;
	sample.user_mode = shed.kernel_stacks ? in_user_mode(ctx) : !kernel_stack_id;
	sample.kernel_stack_id = kernel_stack_id;
	sample.cgroup_id = cgroup_id;
	sample.period = ctx->sample_period * every;
	/* Without room for the copy of the stack: by frame pointers. */
	if (cfg.unwind_bytes && user && !shed.user_stacks && send_copy(ctx, task, &sample, exec_id))
		return 0;
	if (user)
		sample.user_stack_id = stack_id(ctx, SOURCE_PROFILE, true, pid, exec_id, ts_ns);
	if (!EVENT_RESERVE(row, ring, SOURCE_PROFILE))
		return 0;
	*row = sample;
	EVENT_SUBMIT(row, ring);
	return 0;
}
