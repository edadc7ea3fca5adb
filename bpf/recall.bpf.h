/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stacks of a waiting thread, for less than the kernel's walks cost (1 to 2 us). The user stack is walked here, with
 * one read of memory. A kernel stack is walked once for each place where the thread waits: a key over all return
 * addresses that a walk would give tells that what is remembered is what a walk would find. One in 64 of both is walked
 * by the kernel all the same and compared.
 */
#pragma once

#include "fixes.bpf.h"
#include "stack.bpf.h"

#define MEMOS 8		 /* kept a thread, in pairs of which the newer stands first */
#define KNOWN 8		 /* ids kept a thread */
#define AUDIT_BITS 6	 /* one in 64 */
#define KERNEL_FRAMES 32 /* stacks with more are walked */
#define KERNEL_WORDS 512 /* and so are deeper ones */
#define USER_FRAMES 64	 /* the kernel walks longer chains of user frames */
#define USER_BYTES 1024	 /* of a user stack, read at once: a read costs the same, whatever its size */

/* Ids of a thread's user stacks, which the segment has. */
struct user_known {
	u32 epoch; /* of all */
	u32 bytes; /* of the stack that hold its frames */
	u64 id[KNOWN];
};

struct kernel_memo {
	u64 place;
	u64 key;
	u64 id;
	u32 epoch;
	u16 bytes;		 /* from the stack pointer on, that hold all return addresses but the outermost one */
	u16 frames;		 /* so many; 0: nothing is kept here */
	u16 from_top;		 /* bytes from the top of the stack down to the outermost one */
	u16 word[KERNEL_FRAMES]; /* where each of the others stands */
};

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
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, struct stack_counts);
} stack_counts SEC(".maps");

struct words {
	struct stack_record record;
	u64 kernel[KERNEL_WORDS];
	u8 user[USER_BYTES];
	/* Kept in memory, where the verifier does not follow their values: it would look at each loop once for each. */
	u64 key;
	u64 base;
	u32 found;
	u32 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct words);
} words SEC(".maps");

/* What a walk needs; NULL pointers never come, but the verifier wants to hear it. */
struct walker {
	struct stack_record *record;
	struct stack_counts *counts;
	struct words *words;
	u32 epoch;
};

static __always_inline bool find_walker(struct walker *walker, u32 space)
{
	u32 zero = 0;
	u32 *now = bpf_map_lookup_elem(&epoch, &zero);

	walker->counts = bpf_map_lookup_elem(&stack_counts, &space);
	walker->words = bpf_map_lookup_elem(&words, &zero);
	if (!now || !walker->counts || !walker->words)
		return false;
	walker->record = &walker->words->record;
	walker->epoch = *now;
	return true;
}

static __always_inline void count_walk(struct walker *walker, u64 id)
{
	if (id)
		walker->counts->walked++;
	else
		walker->counts->failed++;
}

/* The memo of `place` among `memos`; if there is none, the older one of the two that may be it is given up. */
#define FIND_MEMO(memos, place, field)                                                                                 \
	({                                                                                                             \
		typeof(&(memos)[0]) memo_ = &(memos)[(place) >> 61 & (MEMOS - 2)];                                     \
		if (memo_->field != (place)) {                                                                         \
			if (memo_[1].field == (place)) {                                                               \
				memo_++;                                                                               \
			} else {                                                                                       \
				memo_[1] = memo_[0];                                                                   \
				__builtin_memset(memo_, 0, sizeof(*memo_));                                            \
				memo_->field = (place);                                                                \
			}                                                                                              \
		}                                                                                                      \
		memo_;                                                                                                 \
	})

/* Takes a word into a key. Weaker than mix() and faster; keys are compared as a whole. */
static __always_inline u64 fold(u64 key, u64 word)
{
	return (key ^ word) * 0x9E3779B97F4A7C15ULL;
}

static __always_inline bool audited(u64 key, u64 ts_ns)
{
	return !(mix(key, ts_ns) >> (64 - AUDIT_BITS));
}

#if defined(__TARGET_ARCH_x86)

#define ENTRY_BYTES 256	      /* at the top of a stack: registers, and the frame of what entered the kernel */
#define THREAD_BYTES 16384ULL /* twice that with KASAN; only the remainder is used */
#define USER_CS 0x33

/*
 * A key over the return addresses that `memo` knows of on the stack of a task that is off the CPU. The place of a
 * return address follows from those before it, so that a walk gives the same frames when they are all the same. The
 * outermost one is at the kernel's entry: its place is fixed from the top, for each system call leaves a gap of another
 * size.
 */
static __always_inline u64 kernel_key(struct words *w, struct kernel_memo *memo, struct task_struct *task)
{
	u64 sp = task->thread.sp, key = 1;
	u64 top = (sp & ~(THREAD_BYTES - 1)) + THREAD_BYTES, outermost;
	u32 i, bytes = memo->bytes, frames = memo->frames;

	if (!frames || sp + bytes > top)
		return 0;
	if (HAS_KERNEL_WORD) {
		for (i = 0; i < KERNEL_FRAMES; i++) {
			if (i >= frames)
				break;
			key = fold(key, kernel_word(sp + memo->word[i] * 8));
		}
		return fold(key, kernel_word(top - memo->from_top));
	}
	if (bytes > sizeof(w->kernel) || bpf_probe_read_kernel(w->kernel, bytes, (void *)sp))
		return 0;
	if (bpf_probe_read_kernel(&outermost, 8, (void *)(top - memo->from_top)))
		return 0;
	for (i = 0; i < KERNEL_FRAMES; i++) {
		if (i >= frames)
			break;
		key = fold(key, w->kernel[memo->word[i] & (KERNEL_WORDS - 1)]);
	}
	return fold(key, outermost);
}

/*
 * Keeps a stack that was walked just now: looks up where its return addresses stand. A walk that did not get as far as
 * the kernel's entry is not kept: nothing vouches for where it ended.
 */
static __always_inline void keep_kernel_stack(struct walker *walker, struct kernel_memo *memo, struct task_struct *task)
{
	struct stack_record *s = walker->record;
	struct words *w = walker->words;
	u64 sp = task->thread.sp, bytes = THREAD_BYTES - (sp & (THREAD_BYTES - 1));
	u32 i, f, frames = s->frames;

	barrier_var(bytes);
	if (frames < 2 || frames > KERNEL_FRAMES || bytes > sizeof(w->kernel))
		return;
	if (bpf_probe_read_kernel(w->kernel, bytes, (void *)sp))
		return;
	w->key = 1;
	w->found = 0;
	w->bytes = bytes;
	for (i = 0; i < KERNEL_WORDS; i++) {
		f = *(volatile u32 *)&w->found;
		if (i * 8 >= *(volatile u32 *)&w->bytes || f >= KERNEL_FRAMES)
			break;
		if (w->kernel[i] != s->ip[f])
			continue;
		frames = *(volatile u32 *)&s->frames;
		if (f + 1 < frames) {
			memo->word[f] = i;
			memo->bytes = i * 8 + 8;
			w->key = fold(w->key, s->ip[f]);
			w->found = f + 1;
		} else if (f + 1 == frames && i * 8 + ENTRY_BYTES >= *(volatile u32 *)&w->bytes) {
			memo->from_top = *(volatile u32 *)&w->bytes - i * 8;
			w->key = fold(w->key, s->ip[f]);
			w->found = frames;
		}
	}
	frames = *(volatile u32 *)&s->frames;
	if (*(volatile u32 *)&w->found != frames)
		return;
	memo->key = w->key;
	memo->frames = frames - 1;
}

/*
 * Walks the user stack of the running task along the chain of its frame pointers, as the kernel would
 * (perf_callchain_user in arch/x86/events/core.c). Returns the number of frames in w->record, with their hash in *id; 0
 * when the kernel must walk: not a 64-bit program, or a longer chain. `*bytes` of the stack are read at once: what the
 * chain took the last time, for most threads wait at the same depth again, and reading is most of the cost.
 */
static __always_inline u32 walk_user(struct words *w, struct task_struct *task, u32 *bytes, u64 *id)
{
	struct stack_record *s = &w->record;
	struct user_regs regs;
	u64 base, at, want, ret, hash;
	u32 i;

	if (!read_user_regs(task, &regs) || (u16)regs.cs != USER_CS)
		return 0;
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

static __always_inline u64 kernel_key(struct words *w, struct kernel_memo *memo, struct task_struct *task)
{
	return 0;
}

static __always_inline void keep_kernel_stack(struct walker *walker, struct kernel_memo *memo, struct task_struct *task)
{
}

static __always_inline u32 walk_user(struct words *w, struct task_struct *task, u32 *bytes, u64 *id)
{
	return 0;
}

#endif

/*
 * Id of the kernel stack of a task that is off the CPU, 0 for none. `place` tells by what it may be known. Sets
 * *remembered when it was not walked.
 */
static __always_inline u64 kernel_stack(struct kernel_memo *memos, u64 place, struct task_struct *task, u64 ts_ns,
					bool *remembered)
{
	struct kernel_memo *memo = NULL;
	struct walker walker;
	bool known = false;
	u64 key, id;
	long n;

	*remembered = false;
	if (shed.kernel_stacks || !find_walker(&walker, SPACE_KERNEL))
		return 0;
	if (memos)
		memo = FIND_MEMO(memos, place, place);
	if (memo && !cfg.exact_stacks) {
		key = kernel_key(walker.words, memo, task);
		known = key && key == memo->key && memo->epoch == walker.epoch;
		if (known && !audited(key, ts_ns)) {
			walker.counts->remembered++;
			*remembered = true;
			return memo->id;
		}
	}
	n = bpf_get_task_stack(task, walker.record->ip, MAX_FRAMES * sizeof(u64), 0);
	id = identify_stack(walker.record, n, false, 0, 0);
	count_walk(&walker, id);
	if (known) {
		walker.counts->checked++;
		if (id != memo->id)
			walker.counts->wrong++;
	}
	if (!id || (memo && memo->id == id && memo->epoch == walker.epoch))
		return id;
	if (send_stack(walker.record, id, walker.epoch, SOURCE_OFFCPU, ts_ns) && memo) {
		memo->id = id;
		memo->epoch = walker.epoch;
		memo->frames = 0;
		if (!cfg.exact_stacks)
			keep_kernel_stack(&walker, memo, task);
	}
	return id;
}

/* Id of the user stack of the running task, 0 for none. */
static __always_inline u64 user_stack(void *ctx, struct user_known *known, struct task_struct *task, u64 ts_ns)
{
	u64 exec_id = task->group_leader->start_time ^ task->self_exec_id, id = begin_id(true, task->tgid, exec_id),
	    ours = 0;
	struct walker walker;
	u32 frames;
	long n;

	if (shed.user_stacks || !find_walker(&walker, SPACE_USER))
		return 0;
	frames = walk_user(walker.words, task, &known->bytes, &id);
	if (frames)
		ours = end_id(id, frames);
	if (ours && !audited(ours, ts_ns)) {
		walker.counts->walked++;
		id = ours;
		if (known->id[id >> 61] == id && known->epoch == walker.epoch)
			return id;
		describe_stack(walker.record, frames, true, task->tgid, exec_id);
	} else {
		n = bpf_get_stack(ctx, walker.record->ip, MAX_FRAMES * sizeof(u64), BPF_F_USER_STACK);
		id = identify_stack(walker.record, n, true, task->tgid, exec_id);
		count_walk(&walker, id);
		if (ours) {
			walker.counts->checked++;
			if (id != ours)
				walker.counts->wrong++;
		}
		if (!id)
			return 0;
	}
	if (known->epoch != walker.epoch) {
		known->epoch = walker.epoch;
		__builtin_memset(known->id, 0, sizeof(known->id));
	}
	if (send_stack(walker.record, id, walker.epoch, SOURCE_OFFCPU, ts_ns))
		known->id[id >> 61] = id;
	return id;
}
