/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stacks of a waiting thread, for less than the kernel's walks cost (1 to 2 us). A kernel stack is walked once for each
 * place where the thread waits: a key over all return addresses that a walk would give tells that what is remembered is
 * what a walk would find. A user stack is walked here, with one read of memory; even that costs more than all else, so
 * where the same code waited at the same depth and the walk found the same stack many times in a row, most of the next
 * ones are remembered. One in 64 of both is walked by the kernel all the same and compared.
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
#define SURE 32		 /* walks in a row that find the same user stack, before it is remembered */
#define DIFFERS 255	 /* another one was found */
#define VERIFY_BITS 4	 /* one in 16 of what is remembered is walked all the same */

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
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct stack_counts[2]); /* by space */
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

/* One in 2^bits, at random. */
static __always_inline bool chance(u64 key, u64 ts_ns, u32 bits)
{
	return !(mix(key, ts_ns) >> (64 - bits));
}

static __always_inline bool audited(u64 key, u64 ts_ns)
{
	return chance(key, ts_ns, AUDIT_BITS);
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

static __always_inline u64 kernel_key(struct words *w, struct kernel_memo *memo, struct task_struct *task)
{
	return 0;
}

static __always_inline void keep_kernel_stack(struct walker *walker, struct kernel_memo *memo, struct task_struct *task)
{
}

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
