/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Waits: why a thread left the CPU, for how long, and who woke it. A row is written when the thread comes back; then
 * its kernel stack is still that of the wait. The user stack is taken when it leaves, for later its memory is not at
 * hand.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "sched.bpf.h"
#include "offcpu_thread.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define TASK_DEAD 0x80
#define SHORT_SPAN_NS 1000000000ULL /* short waits of a thread are summed up for this long */
#define SPACES 2

enum { KERNEL_REMEMBERED = 1, USER_REMEMBERED = 2, BEGAN_BEFORE = 4, END_UNSEEN = 16, WAKER_INTERRUPT = 32 };

/* First and last moment of which this source knows. */
u64 begin_ns;
u64 end_ns;

/* Switches that a thread has made. */
static __always_inline u64 switches_of(struct task_struct *task)
{
	return task->nvcsw + task->nivcsw;
}

/* It left the CPU before the source was shed, or given back, and may have run since without being seen. */
static __always_inline bool is_old(struct thread *t)
{
	return t->off_ns < shed.since_ns || is_shed(SOURCE_OFFCPU);
}

/* Begin of the wait of a thread that is seen for the first time; 0 when it may have run without being seen. */
static __always_inline u64 wait_before(struct task_struct *task, u32 *flags)
{
	u64 since_ns = shed.since_ns;

	if (task->start_time < since_ns || is_shed(SOURCE_OFFCPU))
		return 0;
	if (task->start_time > begin_ns)
		return task->start_time;
	*flags |= BEGAN_BEFORE;
	return begin_ns;
}

static __always_inline void fill_row(struct offcpu_row *row, struct task_struct *task, u16 kind, u64 ts_ns)
{
	__builtin_memset(row, 0, sizeof(*row));
	row->ts_ns = ts_ns;
	row->kind = kind;
	row->size = sizeof(*row);
	row->tid = task->pid;
	row->pid = task->tgid;
	row->count = 1;
	row->cgroup_id = task_cgroup_id(task);
}

/* What is known of a wait but for its stack. `off_ns` to `ts_ns` is how long it was. */
static __always_inline void fill_wait(struct offcpu_row *row, struct thread *t, u64 off_ns, u64 ts_ns)
{
	row->prev_state = t->prev_state;
	row->flags = t->flags;
	row->wait_ns = ts_ns - off_ns;
	row->user_stack_id = t->user_stack_id;
	if (!t->prev_state) {
		row->queued_ns = row->wait_ns;
	} else if (t->woken_ns) {
		/* A waker may come between the decision to sleep and the switch, and after the end of the recording. */
		u64 from_ns = t->woken_ns > off_ns ? t->woken_ns : off_ns;

		row->queued_ns = ts_ns > from_ns ? ts_ns - from_ns : 0;
		row->flags |= t->waker_flags;
		row->waker_tid = t->waker_tid;
		row->waker_pid = t->waker_pid;
		row->waker_kernel_stack_id = t->waker_kernel_stack_id;
		row->waker_user_stack_id = t->waker_user_stack_id;
	}
}

static __always_inline void fill_short(struct offcpu_row *row, struct thread *t)
{
	row->count = t->short_count;
	row->wait_ns = t->short_ns;
	t->short_count = 0;
	t->short_ns = 0;
}

static __always_inline void send_short(struct thread *t, struct task_struct *task, u64 ts_ns)
{
	struct offcpu_row *row = batch_room(sizeof(*row), BATCH_OFFCPU, SOURCE_OFFCPU);

	if (!row)
		return; /* tried again with the next one: the sum goes on */
	fill_row(row, task, KIND_OFFCPU_SHORT, ts_ns);
	fill_short(row, t);
}

/*
 * A thread that is off the CPU as far as we know, but has run: the kernel left our program out when it came back. Its
 * CPU time tells when that was; the kernel stack is gone.
 */
static __always_inline void fill_unseen(struct offcpu_row *row, struct thread *t, struct task_struct *task, u64 ts_ns)
{
	u64 came_ns = ts_ns - (task->se.sum_exec_runtime - t->ran_ns);

	if (came_ns > ts_ns || came_ns < t->off_ns)
		came_ns = t->off_ns;
	fill_row(row, task, KIND_OFFCPU_WAIT, came_ns);
	fill_wait(row, t, t->off_ns, came_ns);
	row->flags |= END_UNSEEN;
}

static __always_inline void leave(struct walker *walker, void *ctx, struct task_struct *task, u32 state, u64 ts_ns)
{
	struct thread *t = thread_of(task);
	struct offcpu_row *row;
	u32 tid = task->pid;
	bool remembered;

	if (!t)
		return;
	if (t->off_ns && !is_old(t)) {
		row = batch_room(sizeof(*row), BATCH_OFFCPU, SOURCE_OFFCPU);
		if (row)
			fill_unseen(row, t, task, ts_ns);
	}
	if (state & TASK_DEAD) {
		if (t->short_count)
			send_short(t, task, ts_ns);
		t->off_ns = 0;
		t->seen = 1;
		bpf_map_delete_elem(&thread_table, &tid);
		return;
	}
	t->user_stack_id = 0;
	t->flags = 0;
	if (!(task->flags & PF_KTHREAD)) {
		t->user_stack_id = user_stack(walker, ctx, &t->user, task, ts_ns, &remembered);
		if (remembered)
			t->flags = USER_REMEMBERED;
	}
	t->prev_state = state;
	t->switches = switches_of(task);
	t->ran_ns = task->se.sum_exec_runtime;
	t->off_ns = ts_ns;
	t->seen = 1;
}

static __always_inline void come(struct walker *walker, struct task_struct *task, u64 ts_ns)
{
	struct thread *t = thread_of(task);
	struct offcpu_row *row;
	u64 off_ns, stack_id, place;
	bool remembered;

	if (!t)
		return;
	off_ns = t->off_ns;
	t->off_ns = 0;
	if (!t->seen) {
		t->seen = 1;
		off_ns = wait_before(task, &t->flags);
	}
	/* Has it not made a switch it has waited all along, whoever looked. */
	if (off_ns < shed.since_ns && t->switches != switches_of(task))
		off_ns = 0;
	if (!off_ns || ts_ns <= off_ns)
		return;
	if (ts_ns - off_ns < cfg.min_wait_ns) {
		if (!t->short_count++)
			t->short_from_ns = off_ns;
		t->short_ns += ts_ns - off_ns;
		t->woken_ns = 0;
		if (ts_ns - t->short_from_ns > SHORT_SPAN_NS)
			send_short(t, task, ts_ns);
		return;
	}
	place = mix(t->user_stack_id, t->prev_state);
	stack_id = kernel_stack(walker, t->kernel, place, task, ts_ns, &remembered);
	row = batch_room(sizeof(*row), BATCH_OFFCPU, SOURCE_OFFCPU);
	if (row) {
		fill_row(row, task, KIND_OFFCPU_WAIT, ts_ns);
		fill_wait(row, t, off_ns, ts_ns);
		row->kernel_stack_id = stack_id;
		if (remembered)
			row->flags |= KERNEL_REMEMBERED;
	}
	t->woken_ns = 0;
}

static __always_inline bool chosen(struct task_struct *task)
{
	return task->pid && wanted(task->tgid, cfg.filter_cgroup ? task_cgroup_id(task) : 0);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(offcpu_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	u64 ts_ns = bpf_ktime_get_ns();
	u32 state = switch_state(ctx, prev), tid;
	struct walker walker;

	if (!begin_ns)
		begin_ns = ts_ns;
	if (cfg.switch_rows)
		write_switch(preempt, prev, next, state, ts_ns);
	if (is_shed(SOURCE_OFFCPU)) {
		tid = prev->pid;
		if (state & TASK_DEAD)
			bpf_map_delete_elem(&thread_table, &tid);
		return 0;
	}
	if (!find_walker(&walker))
		return 0;
	/* A preempted thread can run, whatever it was about to do. */
	if (chosen(prev))
		leave(&walker, ctx, prev, preempt ? 0 : state, ts_ns);
	if (chosen(next))
		come(&walker, next, ts_ns);
	return 0;
}

static __always_inline int waking(void *ctx, struct task_struct *task, bool told)
{
	u64 pid_tgid, ts_ns, exec_id;
	struct task_struct *waker;
	struct thread *t;

	if (is_shed(SOURCE_OFFCPU) || !chosen(task))
		return 0;
	t = thread_of(task);
	if (!t)
		return 0;
	ts_ns = bpf_ktime_get_ns();
	pid_tgid = bpf_get_current_pid_tgid();
	if (!t->seen)
		t->prev_state = task_state(task);
	t->waker_tid = pid_tgid;
	t->waker_pid = pid_tgid >> 32;
	t->waker_flags = told && in_interrupt() ? WAKER_INTERRUPT : 0;
	t->woken_ns = ts_ns;
	if (cfg.waker_stacks) {
		waker = (void *)bpf_get_current_task();
		exec_id = BPF_CORE_READ(waker, group_leader, start_time) ^ BPF_CORE_READ(waker, self_exec_id);
		t->waker_kernel_stack_id = stack_id(ctx, SOURCE_OFFCPU, false, pid_tgid >> 32, exec_id, ts_ns);
		t->waker_user_stack_id = 0;
		if (pid_tgid && !(BPF_CORE_READ(waker, flags) & PF_KTHREAD))
			t->waker_user_stack_id = stack_id(ctx, SOURCE_OFFCPU, true, pid_tgid >> 32, exec_id, ts_ns);
	}
	return 0;
}

/* Where the wakeup is asked for: sched_wakeup may come on the CPU that it is sent to. */
SEC("tp_btf/sched_waking")
int BPF_PROG(offcpu_waking, struct task_struct *task)
{
	return waking(ctx, task, false);
}

/* In its place on kernels that tell of interrupts. */
SEC("tp_btf/sched_waking")
int BPF_PROG(offcpu_waking_told, struct task_struct *task)
{
	return waking(ctx, task, true);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(offcpu_fork, struct task_struct *parent, struct task_struct *child)
{
	bpf_task_storage_get(&thread_storage, child, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	return 0;
}

SEC("iter/task")
int offcpu_prepare(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (task)
		bpf_task_storage_get(&thread_storage, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	return 0;
}

/* At the end: threads that are still off the CPU, and sums of short waits that are not yet sent. */
SEC("iter/task")
int offcpu_rest(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct walker walker;
	struct offcpu_row row;
	struct thread *t;
	bool remembered;
	u64 off_ns = 0;

	if (!end_ns)
		end_ns = bpf_ktime_get_ns();
	if (!task || !begin_ns || !chosen(task) || task->exit_state || task->start_time >= end_ns)
		return 0;
	t = known_thread(task);
	if (t && t->short_count) {
		fill_row(&row, task, KIND_OFFCPU_SHORT, end_ns);
		fill_short(&row, t);
		bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
	}
	fill_row(&row, task, KIND_OFFCPU_OPEN, end_ns);
	if (t && t->seen) {
		if (!t->off_ns || t->off_ns >= end_ns)
			return 0;
		if (task->on_cpu || t->switches != switches_of(task)) {
			if (is_old(t))
				return 0;
			fill_unseen(&row, t, task, end_ns);
			bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
			return 0;
		}
		fill_wait(&row, t, t->off_ns, end_ns);
	} else {
		if (task->on_cpu)
			return 0;
		off_ns = wait_before(task, &row.flags);
		if (!off_ns)
			return 0;
		row.wait_ns = end_ns - off_ns;
		row.prev_state = t && t->woken_ns ? t->prev_state : task_state(task);
		if (!row.prev_state)
			row.queued_ns = row.wait_ns;
	}
	if (find_walker(&walker))
		row.kernel_stack_id = kernel_stack(&walker, NULL, 0, task, end_ns, &remembered);
	bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
	return 0;
}
