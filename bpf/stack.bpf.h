/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stack ids: a 64-bit hash over (space, process, its exec, frames), defined once a segment through a ring of its own.
 * bpf_get_stackid() would lose a third of the stacks when its table is as large as their number (its buckets hold one
 * stack each); a hash that names its stack loses none.
 */
#pragma once

#include "ring.bpf.h"
#include "shed.bpf.h"

#define MAX_FRAMES 127

/* What the stack ring carries; record/layout.rs has the same struct. */
struct stack_record {
	u64 ts_ns;
	u64 stack_id;
	u64 exec_id;
	u32 pid;
	u32 user;
	u32 epoch;
	u32 frames;
	u64 ip[MAX_FRAMES + 1];
};

/* Segment in which a stack was last defined. An entry that is evicted only makes a definition come again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, u64);
	__type(value, u32);
} defined SEC(".maps");

/* Number of the current segment; the recorder raises it when it rotates. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} epoch SEC(".maps");

static __always_inline u64 mix(u64 hash, u64 word)
{
	hash = (hash ^ word) * 0x9E3779B97F4A7C15ULL;
	return hash ^ hash >> 32;
}

/* An id is the hash of this, the frames, and their number. A kernel stack is the same for all processes. */
static __always_inline u64 begin_id(bool user, u32 pid, u64 exec_id)
{
	return mix(mix(user + 1, user ? pid : 0), user ? exec_id : 0);
}

static __always_inline u64 end_id(u64 id, u32 frames)
{
	id = mix(id, frames);
	return id ? id : 1;
}

/* Says whose the frames in `s` are. */
static __always_inline void describe_stack(struct stack_record *s, u32 frames, bool user, u32 pid, u64 exec_id)
{
	s->frames = frames;
	s->pid = user ? pid : 0;
	s->exec_id = user ? exec_id : 0;
	s->user = user;
}

/* Id of the `n` bytes of frames in `s`, 0 for none. */
static __always_inline u64 identify_stack(struct stack_record *s, long n, bool user, u32 pid, u64 exec_id)
{
	u64 id = begin_id(user, pid, exec_id);
	u32 i;

	if (n <= 0)
		return 0;
	describe_stack(s, (u32)n / 8, user, pid, exec_id);
	for (i = 0; i < MAX_FRAMES; i++) {
		/* Read each time, or the verifier would look at all that follows once for each number of frames. */
		if (i >= *(volatile u32 *)&s->frames)
			break;
		id = mix(id, s->ip[i]);
	}
	return end_id(id, s->frames);
}

/* Sends the definition of the stack in `s` unless segment `now` has it. Returns whether it has it now. */
static __always_inline bool send_stack(struct stack_record *s, u64 id, u32 now, u32 source, u64 ts_ns)
{
	u32 *when = bpf_map_lookup_elem(&defined, &id);
	u64 size, fill;

	if (when && *when == now)
		return true;
	s->ts_ns = ts_ns;
	s->stack_id = id;
	s->epoch = now;
	fill = ring_fill(&stack_ring);
	size = sizeof(*s) - sizeof(s->ip) + s->frames * 8;
	barrier_var(size); /* the verifier must see the bound on the register that is passed */
	if (size > sizeof(*s))
		return false;
	if (bpf_ringbuf_output(&stack_ring, s, size, quarter_flags(fill, size, 1 << 19))) {
		count_lost(source, LOST_STACK_RING); /* not marked as defined, so it comes again with the next event */
		return false;
	}
	bpf_map_update_elem(&defined, &id, &s->epoch, BPF_ANY);
	return true;
}

/* Id of the current stack, 0 for none. Nobody else may use `s` meanwhile. */
static __always_inline u64 stack_id_in(struct stack_record *s, void *ctx, u32 source, bool user, u32 pid, u64 exec_id,
				       u64 ts_ns)
{
	u32 zero = 0;
	u32 *now = bpf_map_lookup_elem(&epoch, &zero);
	u64 id;
	long n;

	if (!s || !now || (user ? shed.user_stacks : shed.kernel_stacks))
		return 0;
	n = bpf_get_stack(ctx, s->ip, MAX_FRAMES * sizeof(u64), user ? BPF_F_USER_STACK : 0);
	id = identify_stack(s, n, user, pid, exec_id);
	if (id)
		send_stack(s, id, *now, source, ts_ns);
	return id;
}

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct stack_record);
} scratch SEC(".maps");

/* The same for the one program of an object that takes stacks and that nothing interrupts with itself. */
static __always_inline u64 stack_id(void *ctx, u32 source, bool user, u32 pid, u64 exec_id, u64 ts_ns)
{
	u32 zero = 0;
	struct stack_record *s = bpf_map_lookup_elem(&scratch, &zero);

	return s ? stack_id_in(s, ctx, source, user, pid, exec_id, ts_ns) : 0;
}
