/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * For --unwind dwarf: a sample with the user's registers and a copy of the top of its stack, through a ring of its own.
 * The recorder walks the copy and throws it away; it never goes into the file.
 */
#pragma once

#include "stack.bpf.h"

#define CHUNK 4096
/* The reserved room has to be a constant of at most this many chunks. */
#define MAX_CHUNKS 15

/* What the ring carries, then `chunks + 1` chunks; record/layout.rs has the same struct. */
struct copy_record {
	struct sample_row row;
	u64 exec_id;
	u64 ip;
	u64 sp;
	u64 fp;
	u64 lr;
	u32 cpu;
	u32 frames; /* that frame pointers lead to, in `ips` */
	u32 bytes;  /* copied from `sp` on; they begin at offset `sp % CHUNK` of the chunks */
	u32 pad;
	u64 ips[MAX_FRAMES + 1];
	u8 stack[];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 12);
} copy_ring SEC(".maps");

/* The registers with which the task last was, or is, in user space; false where this kernel does not tell. */
static __always_inline bool user_registers(struct bpf_perf_event_data *ctx, struct task_struct *task,
					   struct copy_record *copy)
{
	if (in_user_mode(ctx)) {
		copy->ip = CTX_IP(ctx);
		copy->sp = CTX_SP(ctx);
		copy->fp = CTX_FP(ctx);
		copy->lr = CTX_LR(ctx);
		return true;
	}
	return saved_registers(task, &copy->ip, &copy->sp, &copy->fp, &copy->lr);
}

/*
 * Copies the stack from copy->sp on, a chunk at a time: a page is there as a whole or not at all, and the stack ends
 * with one. The first chunk holds what lies in the page of the stack pointer.
 */
static __always_inline void copy_stack(struct copy_record *copy)
{
	u64 at = copy->sp & (CHUNK - 1), size = CHUNK - at;
	u32 i;

	copy->bytes = 0;
	barrier_var(at);
	barrier_var(size);
	if (at >= CHUNK || size > CHUNK)
		return;
	if (bpf_probe_read_user(copy->stack + at, size, (void *)copy->sp))
		return;
	copy->bytes = size;
#pragma unroll
	for (i = 1; i <= MAX_CHUNKS; i++) {
		if (i * CHUNK > cfg.unwind_bytes)
			return;
		if (bpf_probe_read_user(copy->stack + i * CHUNK, CHUNK, (void *)(copy->sp - at + i * CHUNK)))
			return;
		copy->bytes += CHUNK;
	}
}

/* Sends a sample with what is needed to walk its user stack. False, and counted, when there is no room. */
static __always_inline bool send_copy(struct bpf_perf_event_data *ctx, struct task_struct *task, struct sample_row *row,
				      u64 exec_id)
{
	u64 size = sizeof(struct copy_record) + cfg.unwind_bytes + CHUNK, fill;
	struct copy_record *copy = bpf_ringbuf_reserve(&copy_ring, size, 0);
	long n;

	if (!copy) {
		count_lost(SOURCE_PROFILE, LOST_COPY_RING);
		return false;
	}
	copy->row = *row;
	copy->exec_id = exec_id;
	copy->cpu = bpf_get_smp_processor_id();
	n = bpf_get_stack(ctx, copy->ips, MAX_FRAMES * sizeof(u64), BPF_F_USER_STACK);
	copy->frames = n > 0 ? (u32)n / 8 : 0;
	if (user_registers(ctx, task, copy)) {
		copy_stack(copy);
	} else {
		copy->bytes = 0;
	}
	fill = bpf_ringbuf_query(&copy_ring, BPF_RB_AVAIL_DATA);
	bpf_ringbuf_submit(copy, fill >= cfg.copy_wake_bytes && fill - size - 8 < cfg.copy_wake_bytes
				     ? BPF_RB_FORCE_WAKEUP
				     : BPF_RB_NO_WAKEUP);
	return true;
}
