/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * User stacks of waiting threads: walked here, and remembered where walks found the same one many times. recall.bpf.h.
 */
#pragma once

#include "recall.bpf.h"

#define KNOWN 8	       /* ids kept a thread */
#define USER_FRAMES 64 /* the kernel walks longer chains of user frames */
#define SURE 32	       /* walks in a row that find the same user stack, before it is remembered */
#define DIFFERS 255    /* another one was found */
#define VERIFY_BITS 4  /* one in 16 of what is remembered is walked all the same */

/*
 * A thread's user stacks, which the segment has. A place is what the registers tell: two that differ only in a caller
 * further up have the same one. Where that was seen, all are walked.
 */
struct user_known {
	u32 epoch; /* of all */
	u32 bytes; /* of the stack that hold its frames */
	u64 id[KNOWN];
	u64 place[KNOWN];
	u64 found[KNOWN]; /* there, the last time */
	u8 same[KNOWN];	  /* so many times in a row; at most SURE, or DIFFERS */
};

#if defined(__TARGET_ARCH_x86)

#define USER_CS 0x33

/* Whether the registers with which the task entered the kernel are those of a 64-bit program. */
static __always_inline bool of_user(struct task_struct *task, struct user_regs *regs)
{
	return read_user_regs(task, regs) && (u16)regs->cs == USER_CS;
}

/*
 * Walks the user stack of the running task along the chain of its frame pointers, as the kernel would
 * (perf_callchain_user in arch/x86/events/core.c). Returns the number of frames in w->record, with their hash in *id; 0
 * when the kernel must walk: a longer chain. `*bytes` of the stack are read at once: what the chain took the last time,
 * for most threads wait at the same depth again, and reading is most of the cost.
 */
static __always_inline u32 walk_user(struct words *w, struct user_regs regs, u32 *bytes, u64 *id)
{
	struct stack_record *s = &w->record;
	u64 base, at, want, ret, hash;
	u32 i;

	s->ip[0] = regs.ip;
	hash = mix(*id, regs.ip);
	want = *bytes;
	barrier_var(want);
	if (want < 64 || want > USER_BYTES)
		want = USER_BYTES;
	w->base = base = regs.bp;
	w->bytes = 0;
	w->found = 0;
	for (i = 1; i < USER_FRAMES; i++) {
		at = regs.bp - *(volatile u64 *)&w->base;
		if (at >= *(volatile u32 *)&w->bytes) {
			/* The usual end of a chain. Nothing is mapped there, and a fault would cost more than all else
			 * here. */
			if (regs.bp < 4096)
				break;
			at = 0;
			w->base = regs.bp;
			w->bytes = want - 15;
			/* Far from the stack it is no frame pointer, and a large read would only fault. */
			if (regs.bp - regs.sp > 1 << 20 || bpf_probe_read_user(w->user, want, (void *)regs.bp)) {
				w->bytes = 1;
				if (bpf_probe_read_user(w->user, 16, (void *)regs.bp))
					break;
			}
		}
		barrier_var(at);
		if (at > USER_BYTES - 16)
			return 0;
		regs.bp = *(u64 *)(w->user + at);
		ret = *(u64 *)(w->user + at + 8);
		s->ip[i] = ret;
		hash = mix(hash, ret);
		w->found = at + 16;
	}
	*bytes = w->base == base ? (w->found + 63) & ~63 : USER_BYTES;
	*id = hash;
	w->found = i;
	i = *(volatile u32 *)&w->found;
	return i < USER_FRAMES ? i : 0;
}

#else /* always walked: nobody has measured it there yet */

struct user_regs {
	u64 bp;
	u64 ip;
	u64 sp;
};

static __always_inline bool of_user(struct task_struct *task, struct user_regs *regs)
{
	return false;
}

static __always_inline u32 walk_user(struct words *w, struct user_regs regs, u32 *bytes, u64 *id)
{
	return 0;
}

#endif

/* Whether walks at this place have found the same often enough. */
static __always_inline bool is_sure(struct user_known *known, u64 place)
{
	u32 slot = place >> 61;

	if (known->place[slot] == place)
		return known->same[slot] == SURE;
	known->place[slot] = place;
	known->same[slot] = 0;
	return false;
}

/* Takes note of what a walk found there. */
static __always_inline void found_at(struct user_known *known, u32 slot, u64 id)
{
	if (known->found[slot] != id && known->same[slot])
		known->same[slot] = DIFFERS;
	else if (known->same[slot] < SURE)
		known->same[slot]++;
	known->found[slot] = id;
}

/* Id of the user stack of the running task, 0 for none. Sets *remembered when it was not walked. */
static __always_inline u64 user_stack(struct walker *walker, void *ctx, struct user_known *known,
				      struct task_struct *task, u64 ts_ns, bool *remembered)
{
	u64 exec_id = task->group_leader->start_time ^ task->self_exec_id, id = begin_id(true, task->tgid, exec_id);
	struct stack_counts *counts = &walker->counts[SPACE_USER];
	u64 place = 0, ours = 0, expected;
	struct user_regs regs;
	u32 frames = 0;
	bool sure = false;
	long n;

	*remembered = false;
	if (shed.user_stacks)
		return 0;
	if (known->epoch != walker->epoch) {
		__builtin_memset(known->id, 0, sizeof(*known) - offsetof(struct user_known, id));
		known->epoch = walker->epoch;
	}
	if (of_user(task, &regs)) {
		if (!cfg.exact_stacks) {
			place = mix(mix(mix(id, regs.ip), regs.sp), regs.bp);
			sure = is_sure(known, place);
		}
		if (sure && !chance(place, ts_ns, VERIFY_BITS)) {
			counts->remembered++;
			*remembered = true;
			return known->found[place >> 61];
		}
		frames = walk_user(walker->words, regs, &known->bytes, &id);
	}
	if (frames)
		ours = end_id(id, frames);
	expected = sure ? known->found[place >> 61] : ours;
	if (ours && !audited(ours, ts_ns)) {
		counts->walked++;
		id = ours;
		describe_stack(walker->record, frames, true, task->tgid, exec_id);
	} else {
		n = bpf_get_stack(ctx, walker->record->ip, MAX_FRAMES * sizeof(u64), BPF_F_USER_STACK);
		id = identify_stack(walker->record, n, true, task->tgid, exec_id);
		count_walk(counts, id);
		sure = expected;
	}
	if (sure) {
		counts->checked++;
		if (id != expected)
			counts->wrong++;
	}
	if (id && known->id[id >> 61] != id) {
		if (send_stack(walker->record, id, walker->epoch, SOURCE_OFFCPU, ts_ns))
			known->id[id >> 61] = id;
		else
			place = 0; /* not to be remembered: the segment does not have it */
	}
	if (id && place)
		found_at(known, place >> 61, id);
	return id;
}
