/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Kernel stacks of waiting threads: walked once for each place where a thread waits, and remembered. recall.bpf.h.
 */
#pragma once

#include "recall.bpf.h"

#define MEMOS 8 /* kept a thread, in pairs of which the newer stands first */

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

#if defined(__TARGET_ARCH_x86)

#define ENTRY_BYTES 256	      /* at the top of a stack: registers, and the frame of what entered the kernel */
#define THREAD_BYTES 16384ULL /* twice that with KASAN; only the remainder is used */

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

#else /* always walked: nobody has measured it there yet */

static __always_inline u64 kernel_key(struct words *w, struct kernel_memo *memo, struct task_struct *task)
{
	return 0;
}

static __always_inline void keep_kernel_stack(struct walker *walker, struct kernel_memo *memo, struct task_struct *task)
{
}

#endif

/*
 * Id of the kernel stack of a task that is off the CPU, 0 for none. `place` tells by what it may be known. Sets
 * *remembered when it was not walked.
 */
static __always_inline u64 kernel_stack(struct walker *walker, struct kernel_memo *memos, u64 place,
					struct task_struct *task, u64 ts_ns, bool *remembered)
{
	struct stack_counts *counts = &walker->counts[SPACE_KERNEL];
	struct kernel_memo *memo = NULL;
	bool known = false;
	u64 key, id;
	long n;

	*remembered = false;
	if (shed.kernel_stacks)
		return 0;
	if (memos)
		memo = FIND_MEMO(memos, place, place);
	if (memo && !cfg.exact_stacks) {
		key = kernel_key(walker->words, memo, task);
		known = key && key == memo->key && memo->epoch == walker->epoch;
		if (known && !audited(key, ts_ns)) {
			counts->remembered++;
			*remembered = true;
			return memo->id;
		}
	}
	/* The kernel clears all that it does not fill. */
	n = bpf_get_task_stack(task, walker->record->ip, KERNEL_FRAMES * sizeof(u64), 0);
	if (n == KERNEL_FRAMES * sizeof(u64))
		n = bpf_get_task_stack(task, walker->record->ip, MAX_FRAMES * sizeof(u64), 0);
	id = identify_stack(walker->record, n, false, 0, 0);
	count_walk(counts, id);
	if (known) {
		counts->checked++;
		if (id != memo->id)
			counts->wrong++;
	}
	if (!id || (memo && memo->id == id && memo->epoch == walker->epoch))
		return id;
	if (send_stack(walker->record, id, walker->epoch, SOURCE_OFFCPU, ts_ns) && memo) {
		memo->id = id;
		memo->epoch = walker->epoch;
		memo->frames = 0;
		if (!cfg.exact_stacks)
			keep_kernel_stack(walker, memo, task);
	}
	return id;
}
