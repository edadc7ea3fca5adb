/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stacks of a waiting thread, for less than the kernel's walks cost (1 to 2 us). A kernel stack is walked once for each
 * place where the thread waits: a key over all return addresses that a walk would give tells that what is remembered is
 * what a walk would find. A user stack is walked here, with one read of memory; even that costs more than all else, so
 * where the same code waited at the same depth and the walk found the same stack many times in a row, most of the next
 * ones are remembered. One in 64 of both is walked by the kernel all the same and compared. What both kinds share; the
 * rest is in recall_kernel.bpf.h and recall_user.bpf.h.
 */
#pragma once

#include "fixes.bpf.h"
#include "stack.bpf.h"

#define AUDIT_BITS 6	 /* one in 64 */
#define KEEP_BITS 3	 /* one in 8 */
#define KERNEL_FRAMES 32 /* stacks with more are walked */
#define KERNEL_WORDS 512 /* and so are deeper ones */
#define USER_BYTES 1024	 /* of a user stack, read at once: a read costs the same, whatever its size */

/* Read by the recorder: record/stats.rs. */
struct stack_counts {
	u64 walked;
	u64 remembered;
	u64 checked; /* of the walked ones: remembered as well, and compared */
	u64 wrong;   /* of those: not what was remembered */
	u64 failed;  /* could not be walked */
};

enum { SPACE_KERNEL, SPACE_USER };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct stack_counts[2]); /* by space */
} stack_counts SEC(".maps");

struct words {
	struct stack_record record;
	u64 kernel[KERNEL_WORDS];
	u8 user[USER_BYTES];
	/* Kept in memory, where the verifier does not follow their values: it would look at each loop once for each. */
	u64 base;
	u64 last;
	u32 found;
	u32 bytes;
	u32 bases;
	u32 twice;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct words);
} words SEC(".maps");

/* What walks need; NULL pointers never come, but the verifier wants to hear it. */
struct walker {
	struct stack_record *record;
	struct stack_counts *counts; /* of both spaces */
	struct words *words;
	u32 epoch;
};

static __always_inline bool find_walker(struct walker *walker)
{
	u32 zero = 0;
	u32 *now = bpf_map_lookup_elem(&epoch, &zero);

	walker->counts = bpf_map_lookup_elem(&stack_counts, &zero);
	walker->words = bpf_map_lookup_elem(&words, &zero);
	if (!now || !walker->counts || !walker->words)
		return false;
	walker->record = &walker->words->record;
	walker->epoch = *now;
	return true;
}

static __always_inline void count_walk(struct stack_counts *counts, u64 id)
{
	if (id)
		counts->walked++;
	else
		counts->failed++;
}

/* One in 2^bits, at random. */
static __always_inline bool chance(u64 key, u64 ts_ns, u32 bits)
{
	return !(mix(key, ts_ns) >> (64 - bits));
}

static __always_inline bool audited(u64 key, u64 ts_ns)
{
	return chance(key, ts_ns, AUDIT_BITS);
}
