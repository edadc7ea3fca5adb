/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stacks of a waiting thread, walked once for each place where it waits. A walk costs 1 to 2 us; looking at the words
 * that decide its result costs a tenth. A thread keeps the ids of its last few stacks, each with a key over all return
 * addresses that a walk would give, so that what is remembered is what a walk would find. One in 64 is walked all the
 * same and compared.
 */
#pragma once

#include "fixes.bpf.h"
#include "stack.bpf.h"

#define MEMOS 8		 /* kept a thread and space, in pairs of which the newer stands first */
#define AUDIT_BITS 6	 /* one in 64 */
#define KERNEL_FRAMES 32 /* stacks with more are walked */
#define KERNEL_WORDS 512 /* and so are deeper ones */
#define USER_FRAMES 64	 /* and longer chains of user frames */
#define USER_BYTES 1024	 /* of a user stack, read at once: a read costs the same, whatever its size */

struct user_memo {
	u64 key;
	u64 id;
	u32 epoch; /* segment that defines it */
	u32 pad;
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
	u64 kernel[KERNEL_WORDS];
	u8 user[USER_BYTES];
	/* Kept in memory, where the verifier does not follow their values: it would look at each loop once for each. */
	u64 key;
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

	walker->record = bpf_map_lookup_elem(&scratch, &zero);
	walker->counts = bpf_map_lookup_elem(&stack_counts, &space);
	walker->words = bpf_map_lookup_elem(&words, &zero);
	if (!now || !walker->record || !walker->counts || !walker->words)
		return false;
	walker->epoch = *now;
	return true;
}

/* Id of the `n` bytes of frames that a walk gave. */
static __always_inline u64 take_walk(struct walker *walker, struct task_struct *task, long n, bool user, u64 ts_ns,
				     bool *sent)
{
	u64 exec_id = 0;

	if (n > 0)
		walker->counts->walked++;
	else
		walker->counts->failed++;
	if (user)
		exec_id = task->group_leader->start_time ^ task->self_exec_id;
	return define_stack(walker->record, walker->epoch, n, SOURCE_OFFCPU, user, task->tgid, exec_id, ts_ns, sent);
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
	if (bytes > sizeof(w->kernel) || bpf_probe_read_kernel(w->kernel, bytes, (void *)sp))
		return 0;
	if (bpf_probe_read_kernel(&outermost, 8, (void *)(top - memo->from_top)))
		return 0;
	for (i = 0; i < KERNEL_FRAMES; i++) {
		if (i >= frames)
			break;
		key = mix(key, w->kernel[memo->word[i] & (KERNEL_WORDS - 1)]);
	}
	return mix(key, outermost);
}

/*
 * Keeps a stack that was walked just now: looks up where its return addresses stand. A walk that did not get as far as
 * the kernel's entry is not kept: nothing vouches for where it ended.
 */
static __always_inline void keep_kernel_stack(struct walker *walker, struct kernel_memo *memo, struct task_struct *task,
					      u64 id)
{
	struct stack_record *s = walker->record;
	struct words *w = walker->words;
	u64 sp = task->thread.sp, bytes = THREAD_BYTES - (sp & (THREAD_BYTES - 1));
	u32 i, f, frames = s->frames;

	memo->frames = 0;
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
			w->key = mix(w->key, s->ip[f]);
			w->found = f + 1;
		} else if (f + 1 == frames && i * 8 + ENTRY_BYTES >= *(volatile u32 *)&w->bytes) {
			memo->from_top = *(volatile u32 *)&w->bytes - i * 8;
			w->key = mix(w->key, s->ip[f]);
			w->found = frames;
		}
	}
	frames = *(volatile u32 *)&s->frames;
	if (*(volatile u32 *)&w->found != frames)
		return;
	memo->key = w->key;
	memo->id = id;
	memo->epoch = walker->epoch;
	memo->frames = frames - 1;
}

/*
 * A key over the user frames of the running task: the instruction and all return addresses along the chain of frame
 * pointers, which is what the kernel's walk gives. 0: not a 64-bit program, or a longer chain.
 */
static __always_inline u64 user_key(struct words *w, struct task_struct *task)
{
	struct user_regs regs;
	u64 key, base, at, valid = 0, ret;
	int i;

	if (!read_user_regs(task, &regs) || (u16)regs.cs != USER_CS)
		return 0;
	key = mix(mix(2, task->self_exec_id), regs.ip);
	base = regs.bp;
	for (i = 0; i < USER_FRAMES; i++) {
		at = regs.bp - base;
		if (at >= valid) {
			/* The usual end of a chain. Nothing is mapped there, and a fault would cost more than all else
			 * here. */
			if (regs.bp < 4096)
				return key | 1;
			at = 0;
			base = regs.bp;
			valid = USER_BYTES - 15;
			/* Far from the stack it is no frame pointer, and a large read would only fault. */
			if (regs.bp - regs.sp > 1 << 20 || bpf_probe_read_user(w->user, USER_BYTES, (void *)base)) {
				valid = 1;
				if (bpf_probe_read_user(w->user, 16, (void *)base))
					return key | 1;
			}
		}
		barrier_var(at);
		if (at > USER_BYTES - 16)
			return 0;
		regs.bp = *(u64 *)(w->user + at);
		ret = *(u64 *)(w->user + at + 8);
		key = mix(key, ret);
	}
	return 0;
}

#else /* always walked: nobody has measured it there yet */

static __always_inline u64 kernel_key(struct words *w, struct kernel_memo *memo, struct task_struct *task)
{
	return 0;
}

static __always_inline void keep_kernel_stack(struct walker *walker, struct kernel_memo *memo, struct task_struct *task,
					      u64 id)
{
}

static __always_inline u64 user_key(struct words *w, struct task_struct *task)
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
	bool known = false, sent;
	struct walker walker;
	u64 key, id;
	long n;

	*remembered = false;
	if (!find_walker(&walker, SPACE_KERNEL))
		return 0;
	if (!cfg.exact_stacks && memos) {
		memo = FIND_MEMO(memos, place, place);
		key = kernel_key(walker.words, memo, task);
		known = key && key == memo->key && memo->epoch == walker.epoch;
		if (known && !audited(key, ts_ns)) {
			walker.counts->remembered++;
			*remembered = true;
			return memo->id;
		}
	}
	n = bpf_get_task_stack(task, walker.record->ip, MAX_FRAMES * sizeof(u64), 0);
	id = take_walk(&walker, task, n, false, ts_ns, &sent);
	if (known) {
		walker.counts->checked++;
		if (id != memo->id)
			walker.counts->wrong++;
	}
	if (memo && sent)
		keep_kernel_stack(&walker, memo, task, id);
	return id;
}

/* Id of the user stack of the running task, 0 for none. Sets *remembered when it was not walked. */
static __always_inline u64 user_stack(void *ctx, struct user_memo *memos, struct task_struct *task, u64 ts_ns,
				      bool *remembered)
{
	struct user_memo *memo = NULL;
	bool known = false, sent;
	struct walker walker;
	u64 key = 0, id;
	long n;

	*remembered = false;
	if (!find_walker(&walker, SPACE_USER))
		return 0;
	if (!cfg.exact_stacks)
		walker.words->key = user_key(walker.words, task);
	key = *(volatile u64 *)&walker.words->key;
	if (!cfg.exact_stacks && key) {
		memo = FIND_MEMO(memos, key, key);
		known = memo->id && memo->epoch == walker.epoch;
		if (known && !audited(key, ts_ns)) {
			walker.counts->remembered++;
			*remembered = true;
			return memo->id;
		}
	}
	n = bpf_get_stack(ctx, walker.record->ip, MAX_FRAMES * sizeof(u64), BPF_F_USER_STACK);
	id = take_walk(&walker, task, n, true, ts_ns, &sent);
	if (known) {
		walker.counts->checked++;
		if (id != memo->id)
			walker.counts->wrong++;
	}
	if (memo && sent) {
		memo->key = key;
		memo->id = id;
		memo->epoch = walker.epoch;
	}
	return id;
}
