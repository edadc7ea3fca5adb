/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Memory of processes: calls of an allocator's functions. An allocation is told when the function returns, for then its
 * address is known; a free when it is called, before the address can be given out again.
 *
 * A call inside another one of the same thread (malloc's own mmap, calloc's malloc) does not count. Of the outermost
 * call its stack pointer is kept: calls inside it have a lower one. So a call that never returns (longjmp, the end of
 * the thread) leaves nothing wrong behind: the next call that is no deeper replaces it, and a second makes it void.
 *
 * Operator new may be left by an exception, which could not pass a return that the kernel watches. So its end is seen
 * at its own return instructions, and that it was left so by what then lies where its return address was.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "fixes.bpf.h"
#include "filter.bpf.h"
#include "stack.bpf.h"
#include "sample.bpf.h"
#include "thread.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Numbers of format-spec/events/malloc.rs, module call. */
enum {
	CALL_MALLOC = 1,
	CALL_CALLOC,
	CALL_REALLOC,
	CALL_REALLOCARRAY,
	CALL_MEMALIGN,
	CALL_ALIGNED_ALLOC,
	CALL_POSIX_MEMALIGN,
	CALL_VALLOC,
	CALL_PVALLOC,
	CALL_FREE,
	CALL_MMAP,
	CALL_MUNMAP,
	CALL_MREMAP,
	CALL_NEW,
	CALL_DELETE,
	CALL_FAILED,
};

#define MAP_ANONYMOUS 0x20
#define MAP_STACK 0x20000 /* a thread's, with a page that nobody may touch at its end */
#define SECOND_NS 1000000000ULL

/* On x86 the call pushed the return address, and the return took it off again. */
#if defined(__TARGET_ARCH_x86)
#define RETURN_POPS 8
#else
#define RETURN_POPS 0
#endif

/* With cfg.family: the recorder's children and theirs. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, u32);
	__type(value, u8);
} family SEC(".maps");

static __always_inline bool chosen(u32 pid, u64 cgroup_id)
{
	return wanted(pid, cgroup_id) && (!cfg.family || bpf_map_lookup_elem(&family, &pid));
}

/* Whether an exception has left operator new: since then another call has put its return address in the same place. */
static __always_inline bool has_thrown(struct thread *thread)
{
	u64 there = 0;

	if (thread->call != CALL_NEW || !thread->out)
		return false;
	return !bpf_probe_read_user(&there, sizeof(there), (void *)thread->sp) && there != thread->out;
}

/* The thread when this is an outermost call of a process that is recorded. It takes back what is at `addr`, if that is
 * not 0. */
static __always_inline struct thread *outermost(struct pt_regs *ctx, u32 call, u64 addr, u64 ts_ns)
{
	u64 sp = PT_REGS_SP(ctx);
	struct thread *thread;
	bool inside;

	if (!chosen(bpf_get_current_pid_tgid() >> 32, current_cgroup_id()))
		return NULL;
	thread = this_thread(true);
	if (!thread || !thread->call)
		return thread;
	/* With the same stack pointer the one has jumped to the other at its end, one delete to another, too. */
	inside = sp < thread->sp || (sp == thread->sp && (call != thread->call || (addr && addr == thread->addr)));
	if (inside && ts_ns - thread->since_ns < SECOND_NS && !has_thrown(thread)) {
		/* The other one's return is watched, with a return address of the kernel's. */
		if (sp == thread->sp && thread->call == CALL_NEW)
			thread->out = 0;
		return NULL;
	}
	/* Its return was not seen: it has jumped elsewhere, or the kernel had no room to catch the return. */
	if (thread->call != CALL_NEW)
		count_lost(SOURCE_MALLOC, LOST_CALL);
	thread->call = 0;
	return thread;
}

static __always_inline void tell_free(u32 call, u64 addr, u64 bytes, u64 ts_ns)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct malloc_free_row *row;
	void *ring;

	if (!EVENT_RESERVE(row, ring, SOURCE_MALLOC))
		return;
	row->ts_ns = ts_ns;
	row->kind = KIND_MALLOC_FREE;
	row->size = sizeof(*row);
	row->tid = pid_tgid;
	row->pid = pid_tgid >> 32;
	row->call = call;
	row->addr = addr;
	row->bytes = bytes;
	row->cgroup_id = current_cgroup_id();
	EVENT_SUBMIT(row, ring);
}

static __always_inline void tell_alloc(u32 call, u32 weight, u64 addr, u64 bytes, u64 stack, u64 ts_ns)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct malloc_alloc_row *row;
	void *ring;

	if (!EVENT_RESERVE(row, ring, SOURCE_MALLOC))
		return;
	row->ts_ns = ts_ns;
	row->kind = KIND_MALLOC_ALLOC;
	row->size = sizeof(*row);
	row->tid = pid_tgid;
	row->pid = pid_tgid >> 32;
	row->weight_milli = weight;
	row->call = call;
	row->_pad = 0;
	row->addr = addr;
	row->bytes = bytes;
	row->user_stack_id = stack;
	row->cgroup_id = current_cgroup_id();
	EVENT_SUBMIT(row, ring);
}

/* A call that gives out `bytes` and, with an address, takes that back. */
static __always_inline int begin(struct pt_regs *ctx, u32 call, u64 addr, u64 addr_bytes, u64 bytes, u64 out)
{
	u64 ts_ns = bpf_ktime_get_ns();
	struct thread *thread = outermost(ctx, call, addr, ts_ns);

	if (!thread)
		return 0;
	/* The mapping that a large piece of memory lay in goes with it: free has told it. */
	if (call == CALL_MUNMAP && thread->freed >= addr && thread->freed - addr < addr_bytes)
		return 0;
	thread->freed = 0;
	thread->sp = PT_REGS_SP(ctx);
	thread->since_ns = ts_ns;
	thread->addr = addr;
	thread->bytes = bytes;
	thread->out = out;
	thread->told = addr && sampled_free(addr, bpf_get_current_pid_tgid() >> 32, 0);
	if (thread->told)
		tell_free(call, addr, addr_bytes, ts_ns);
	barrier();
	thread->call = call;
	return 0;
}

SEC("uprobe")
int BPF_UPROBE(on_malloc, u64 bytes)
{
	return begin(ctx, CALL_MALLOC, 0, 0, bytes, 0);
}

SEC("uprobe")
int BPF_UPROBE(on_calloc, u64 count, u64 each)
{
	return begin(ctx, CALL_CALLOC, 0, 0, count * each, 0);
}

SEC("uprobe")
int BPF_UPROBE(on_realloc, u64 addr, u64 bytes)
{
	return begin(ctx, CALL_REALLOC, addr, 0, bytes, 0);
}

SEC("uprobe")
int BPF_UPROBE(on_reallocarray, u64 addr, u64 count, u64 each)
{
	/* A product that does not fit fails; it must not look like 0. */
	u64 most = each ? ~0ULL / each : ~0ULL, bytes = count * each;

	barrier_var(most); /* else the compiler makes a 128-bit product of it, which BPF has not */
	if (count > most)
		bytes = ~0ULL;
	return begin(ctx, CALL_REALLOCARRAY, addr, 0, bytes, 0);
}

SEC("uprobe")
int BPF_UPROBE(on_memalign, u64 alignment, u64 bytes)
{
	return begin(ctx, CALL_MEMALIGN, 0, 0, bytes, 0);
}

SEC("uprobe")
int BPF_UPROBE(on_aligned_alloc, u64 alignment, u64 bytes)
{
	return begin(ctx, CALL_ALIGNED_ALLOC, 0, 0, bytes, 0);
}

SEC("uprobe")
int BPF_UPROBE(on_posix_memalign, u64 out, u64 alignment, u64 bytes)
{
	return begin(ctx, CALL_POSIX_MEMALIGN, 0, 0, bytes, out);
}

SEC("uprobe")
int BPF_UPROBE(on_valloc, u64 bytes)
{
	return begin(ctx, CALL_VALLOC, 0, 0, bytes, 0);
}

SEC("uprobe")
int BPF_UPROBE(on_pvalloc, u64 bytes)
{
	return begin(ctx, CALL_PVALLOC, 0, 0, bytes, 0);
}

SEC("uprobe")
int BPF_UPROBE(on_new, u64 bytes)
{
	u64 back = 0;

	bpf_probe_read_user(&back, sizeof(back), (void *)PT_REGS_SP(ctx));
	return begin(ctx, CALL_NEW, 0, 0, bytes, back);
}

SEC("uprobe")
int BPF_UPROBE(on_mmap, u64 addr, u64 bytes, u64 prot, u64 flags)
{
	/* Pages of a file are no memory that leaks, and addresses that are only reserved are none. */
	bool memory = flags & MAP_ANONYMOUS && (prot || flags & MAP_STACK);

	return memory ? begin(ctx, CALL_MMAP, 0, 0, bytes, 0) : 0;
}

SEC("uprobe")
int BPF_UPROBE(on_munmap, u64 addr, u64 bytes)
{
	return begin(ctx, CALL_MUNMAP, addr, bytes, 0, 0);
}

SEC("uprobe")
int BPF_UPROBE(on_mremap, u64 addr, u64 old_bytes, u64 bytes)
{
	return begin(ctx, CALL_MREMAP, addr, old_bytes, bytes, 0);
}

/* No return of it is awaited: that would cost a trap more. */
SEC("uprobe")
int BPF_UPROBE(on_free, u64 addr)
{
	u64 ts_ns;
	struct thread *thread;

	if (!addr)
		return 0;
	ts_ns = bpf_ktime_get_ns();
	thread = outermost(ctx, CALL_FREE, addr, ts_ns);
	if (!thread)
		return 0;
	thread->freed = addr;
	if (sampled_free(addr, bpf_get_current_pid_tgid() >> 32, 0))
		tell_free(CALL_FREE, addr, 0, ts_ns);
	return 0;
}

/* Of these the return is awaited, for they may end in a free that has a probe, too. */
SEC("uprobe")
int BPF_UPROBE(on_delete, u64 addr)
{
	return addr ? begin(ctx, CALL_DELETE, addr, 0, 0, 0) : 0;
}

/* The call whose stack pointer was `sp` returns. */
static __always_inline int end(struct pt_regs *ctx, u64 sp)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct thread *thread = this_thread(false);
	u64 ret = PT_REGS_RC(ctx), ts_ns, exec_id, stack, addr, bytes;
	u32 call, pid = bpf_get_current_pid_tgid() >> 32, weight;
	bool failed;

	/* Whoever has a deeper stack is inside the call. */
	if (!thread || !thread->call || sp != thread->sp)
		return 0;
	call = thread->call;
	thread->call = 0;
	addr = ret;
	bytes = thread->bytes;
	switch (call) {
	case CALL_DELETE:
		return 0;
	case CALL_POSIX_MEMALIGN:
		if ((u32)ret || bpf_probe_read_user(&addr, sizeof(addr), (void *)thread->out))
			return 0;
		break;
	case CALL_MUNMAP:
		failed = (u32)ret;
		addr = 0;
		break;
	case CALL_MMAP:
	case CALL_MREMAP:
		failed = ret == ~0ULL;
		break;
	default:
		failed = !ret && bytes;
	}
	if (call == CALL_POSIX_MEMALIGN)
		failed = false;
	ts_ns = bpf_ktime_get_ns();
	if (failed) {
		if (!thread->told)
			return 0;
		/* What it was to take back is still there. */
		if (note_live(thread->addr, pid, 0, SOURCE_MALLOC))
			tell_alloc(CALL_FAILED, 1000, thread->addr, 0, 0, ts_ns);
		return 0;
	}
	if (!addr || !gate_is_open() || is_shed(SOURCE_MALLOC))
		return 0;
	weight = sample_weight(addr, bytes);
	if (!weight || !note_live(addr, pid, 0, SOURCE_MALLOC))
		return 0;
	exec_id = BPF_CORE_READ(task, group_leader, start_time) ^ BPF_CORE_READ(task, self_exec_id);
	stack = stack_id_in(&thread->stack, ctx, SOURCE_MALLOC, true, pid, exec_id, ts_ns);
	tell_alloc(call, weight, addr, bytes, stack, ts_ns);
	return 0;
}

/* Any of the functions above, but free and operator new, has returned. */
SEC("uprobe")
int returned(struct pt_regs *ctx)
{
	return end(ctx, PT_REGS_SP(ctx) - RETURN_POPS);
}

/* At a return instruction of operator new, or of what it jumps to at its end. */
SEC("uprobe")
int returns_here(struct pt_regs *ctx)
{
	return end(ctx, PT_REGS_SP(ctx));
}

TRACEPOINT(sched_process_fork)
int BPF_PROG(family_grows, struct task_struct *parent, struct task_struct *child)
{
	u32 pid = LOAD(parent, tgid), child_pid = LOAD(child, tgid);
	u8 one = 1;

	if (pid == child_pid || (pid != cfg.own_pid && !bpf_map_lookup_elem(&family, &pid)))
		return 0;
	if (bpf_map_update_elem(&family, &child_pid, &one, BPF_ANY))
		count_lost(SOURCE_MALLOC, LOST_LIVE);
	return 0;
}

TRACEPOINT(sched_process_exit)
int BPF_PROG(thread_ends, struct task_struct *task)
{
	u32 tid = LOAD(task, pid), pid = LOAD(task, tgid);

	if (!cfg.task_storage)
		bpf_map_delete_elem(&threads_by_tid, &tid);
	if (cfg.family && LOAD(task, signal, live.counter) == 0)
		bpf_map_delete_elem(&family, &pid);
	return 0;
}
