/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Kernel stacks of waiting threads: walked once for each place where a thread waits, and remembered. recall.bpf.h.
 */
#pragma once

#include "recall.bpf.h"

#define MEMOS 8 /* kept a thread, in pairs of which the newer stands first */
#define NO_ADDRESS (1ULL << 63 | 1)
/* Where each stack is to be exact, those with more such words are walked by the kernel. */
#define KERNEL_BASES 24

/* Where on a stack stands what a walk of it reads. */
struct kernel_layout {
	u64 key;
	u16 bytes;		 /* from the stack pointer on, that hold all return addresses but the outermost one */
	u16 frames;		 /* so many; 0: nothing is kept here */
	u16 from_top;		 /* bytes from the top of the stack down to the outermost one */
	u16 depth;		 /* bytes from the stack pointer to the top */
	u16 bases;		 /* words among the `bytes` that a walk may read, too, for exact stacks */
	u16 has_base;		 /* one of them is the frame pointer by which the outermost one is found */
	u16 word[KERNEL_FRAMES]; /* where each of the others stands */
	u16 base[KERNEL_BASES];	 /* and these */
};

struct kernel_memo {
	u64 place;
	u64 id;
	u32 epoch;
	struct kernel_layout layout;
};

/* The memo of `place`; if there is none, the older one of the two that may be it is given up. */
static __always_inline struct kernel_memo *find_memo(struct kernel_memo *memos, u64 place)
{
	u64 at = place >> 61 & (MEMOS - 2);
	struct kernel_memo *memo = &memos[at];

	if (memo->place != place) {
		if (memo[1].place == place) {
			at++;
		} else {
			memo[1] = memo[0];
			__builtin_memset(memo, 0, sizeof(*memo));
			memo->place = place;
		}
	}
	barrier_var(at); /* the verifier should look at what follows once, not once for either */
	return &memos[at & (MEMOS - 1)];
}

/* Takes a word into a key. Weaker than mix() and faster; keys are compared as a whole. */
static __always_inline u64 fold(u64 key, u64 word)
{
	return (key ^ word) * 0x9E3779B97F4A7C15ULL;
}

#if defined(__TARGET_ARCH_x86)

#define ENTRY_BYTES 256 /* at the top of a stack: registers, and the frame of what entered the kernel */
#define KERNEL_TEXT 0xffffffff80000000ULL /* the kernel's code, its modules' and more, but no stack */
#define THREAD_BYTES 16384ULL		  /* twice that with KASAN; only the remainder is used */

/* Of a task that is off the CPU. */
static __always_inline u64 stack_pointer(struct task_struct *task)
{
	return task->thread.sp;
}

/* A pointer to code, or into a stack: then by where it points to, near the kernel's entry counted from the top. */
static __always_inline u64 fold_base(u64 key, u64 base, u64 sp, u64 top)
{
	if (base >= KERNEL_TEXT)
		return fold(key, base);
	return fold(key, top - base <= ENTRY_BYTES ? base - top : base - sp);
}

/*
 * A key over the return addresses whose places are known, on the stack of a task that is off the CPU. The place of a
 * return address follows from those before it, so that a walk gives the same frames when they are all the same. The
 * outermost one is at the kernel's entry: its place is fixed from the top, for each system call leaves a gap of another
 * size.
 *
 * That is nearly so: where a function has a frame of varying size, its frame pointer tells where the next return
 * address is. So for exact stacks all words that may be frame pointers are in the key, too: what points into the stack
 * itself. And the return addresses of the scheduler, which walks leave out: all pointers to code before the first
 * one that they show. Then all is compared that a walk reads (unwind_next_frame in arch/x86/kernel/unwind_orc.c). A gap
 * that no frame pointer leads over vouches for nothing.
 */
static __always_inline u64 kernel_key(struct words *w, struct kernel_layout *at, u64 sp)
{
	u64 top = (sp & ~(THREAD_BYTES - 1)) + THREAD_BYTES, key = 1, outermost;
	u32 i, bytes = at->bytes, frames = at->frames;

	if (!frames || sp + bytes > top)
		return 0;
	if (cfg.exact_stacks && top - sp != at->depth && !at->has_base)
		return 0;
	if (HAS_KERNEL_WORD) {
		for (i = 0; i < KERNEL_FRAMES; i++) {
			if (i >= frames)
				break;
			key = fold(key, kernel_word(sp + at->word[i] * 8));
		}
		key = fold(key, kernel_word(top - at->from_top));
		for (i = 0; cfg.exact_stacks && i < KERNEL_BASES; i++) {
			if (i >= at->bases)
				break;
			key = fold_base(key, kernel_word(sp + at->base[i] * 8), sp, top);
		}
		return key;
	}
	if (bytes > sizeof(w->kernel) || bpf_probe_read_kernel(w->kernel, bytes, (void *)sp))
		return 0;
	if (bpf_probe_read_kernel(&outermost, 8, (void *)(top - at->from_top)))
		return 0;
	for (i = 0; i < KERNEL_FRAMES; i++) {
		if (i >= frames)
			break;
		key = fold(key, w->kernel[at->word[i] & (KERNEL_WORDS - 1)]);
	}
	key = fold(key, outermost);
	for (i = 0; cfg.exact_stacks && i < KERNEL_BASES; i++) {
		if (i >= at->bases)
			break;
		key = fold_base(key, w->kernel[at->base[i] & (KERNEL_WORDS - 1)], sp, top);
	}
	return key;
}

/* What find_layout() finds. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct kernel_layout);
} found_layout SEC(".maps");

/*
 * Looks up where the return addresses of the stack stand that was walked just now, and lies in `words`. Returns how
 * many; 0 when it cannot be kept. A walk that did not get as far as the kernel's entry cannot: nothing vouches for
 * where it ended. A function of its own, so that the verifier looks at it once and not for each way that leads here.
 */
__noinline int find_layout(u64 sp)
{
	u64 bytes = THREAD_BYTES - (sp & (THREAD_BYTES - 1));
	u32 i, f, b, frames, zero = 0;
	struct words *w = bpf_map_lookup_elem(&words, &zero);
	struct kernel_layout *at = bpf_map_lookup_elem(&found_layout, &zero);
	struct stack_record *s;

	if (!w || !at)
		return 0;
	s = &w->record;
	frames = s->frames;
	barrier_var(bytes);
	at->frames = 0;
	if (frames < 2 || frames >= KERNEL_FRAMES || bytes > sizeof(w->kernel))
		return 0;
	if (bpf_probe_read_kernel(w->kernel, bytes, (void *)sp))
		return 0;
	w->found = 0;
	w->bytes = bytes;
	w->bases = 0;
	w->twice = 0;
	w->last = NO_ADDRESS;
	for (i = 0; i < KERNEL_WORDS; i++) {
		f = *(volatile u32 *)&w->found;
		if (i * 8 >= *(volatile u32 *)&w->bytes || f >= KERNEL_FRAMES)
			break;
		if (cfg.exact_stacks && (w->kernel[i] - sp < *(volatile u32 *)&w->bytes ||
					 (w->kernel[i] >= KERNEL_TEXT && *(volatile u64 *)&w->last == NO_ADDRESS))) {
			b = *(volatile u32 *)&w->bases;
			if (b < KERNEL_BASES)
				at->base[b] = i;
			w->bases = b + 1;
		}
		/* An old one may lie about: the last one that was found may be it, or this. */
		if (w->kernel[i] == *(volatile u64 *)&w->last)
			w->twice = 1;
		if (w->kernel[i] != s->ip[f])
			continue;
		frames = *(volatile u32 *)&s->frames;
		if (f + 1 < frames) {
			at->word[f] = i;
			at->bytes = i * 8 + 8;
			at->bases = *(volatile u32 *)&w->bases;
			w->found = f + 1;
			w->last = s->ip[f];
		} else if (f + 1 == frames && i * 8 + ENTRY_BYTES >= *(volatile u32 *)&w->bytes) {
			at->from_top = *(volatile u32 *)&w->bytes - i * 8;
			w->found = frames;
			w->last = s->ip[f];
		}
	}
	frames = *(volatile u32 *)&s->frames;
	if (*(volatile u32 *)&w->found != frames)
		return 0;
	if (cfg.exact_stacks && (*(volatile u32 *)&w->twice || at->bases > KERNEL_BASES))
		return 0;
	at->depth = bytes;
	at->has_base = 0;
	for (i = 0; cfg.exact_stacks && i < KERNEL_BASES; i++) {
		if (i >= at->bases)
			break;
		/* push %rbp; mov %rsp,%rbp: it points to the word below the return address. */
		if (w->kernel[at->base[i] & (KERNEL_WORDS - 1)] == sp + bytes - at->from_top - 8)
			at->has_base = 1;
	}
	at->frames = frames - 1;
	at->key = kernel_key(w, at, sp);
	return frames - 1;
}

/* Keeps the stack that was walked just now. */
static __always_inline void keep_kernel_stack(struct kernel_memo *memo, struct task_struct *task)
{
	u32 zero = 0;
	struct kernel_layout *found = bpf_map_lookup_elem(&found_layout, &zero);

	memo->layout.frames = 0;
	if (find_layout(stack_pointer(task)) > 0 && found)
		memo->layout = *found;
}

#else /* always walked: nobody has measured it there yet */

static __always_inline u64 stack_pointer(struct task_struct *task)
{
	return 0;
}

static __always_inline u64 kernel_key(struct words *w, struct kernel_layout *at, u64 sp)
{
	return 0;
}

static __always_inline void keep_kernel_stack(struct kernel_memo *memo, struct task_struct *task)
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
		memo = find_memo(memos, place);
	if (memo) {
		key = kernel_key(walker->words, &memo->layout, stack_pointer(task));
		known = key && key == memo->layout.key && memo->epoch == walker->epoch;
		if (known && !audited(key, ts_ns)) {
			/* All that a walk reads was read. */
			if (cfg.exact_stacks)
				counts->walked++;
			else
				counts->remembered++;
			*remembered = !cfg.exact_stacks;
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
	if (!id)
		return id;
	if (memo && memo->id == id && memo->epoch == walker->epoch) {
		/* Pointers that are no frame pointers may lead elsewhere each time: looked at anew now and then. */
		if (!cfg.exact_stacks || known || !chance(id, ts_ns, KEEP_BITS))
			return id;
	} else {
		if (!send_stack(walker->record, id, walker->epoch, SOURCE_OFFCPU, ts_ns) || !memo)
			return id;
		memo->id = id;
		memo->epoch = walker->epoch;
	}
	keep_kernel_stack(memo, task);
	return id;
}
