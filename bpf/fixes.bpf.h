/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where kernels differ: one accessor a difference, decided by BTF when the program is loaded.
 */
#pragma once

#include "config.bpf.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/*
 * With RAW_TP an object is for kernels without types of their own: these have raw tracepoints only, whose arguments are
 * plain words to the verifier, so that each field takes a helper. Else a field is a load.
 */
#ifdef RAW_TP
#define TRACEPOINT(name) SEC("raw_tp/" #name)
#define LOAD(object, ...) BPF_CORE_READ(object, __VA_ARGS__)
#else
#define TRACEPOINT(name) SEC("tp_btf/" #name)
#define LOAD(object, ...) ___arrow((object), __VA_ARGS__)
#endif

struct task_struct___before_5_14 {
	long state;
} __attribute__((preserve_access_index));

/* task_struct.state became __state in 2f064a59a11f ("sched: Change task_struct::state"). */
static __always_inline u32 task_state(struct task_struct *task)
{
	if (bpf_core_field_exists(task->__state))
		return LOAD(task, __state);
	return LOAD((struct task_struct___before_5_14 *)task, state);
}

struct task_struct___before_5_16 {
	unsigned int cpu;
} __attribute__((preserve_access_index));

/* task_struct.cpu moved to thread_info in bcf9033e5449 ("sched: move CPU field back into thread_info"). */
static __always_inline u32 task_cpu(struct task_struct *task)
{
	struct task_struct___before_5_16 *old = (void *)task;

	if (bpf_core_field_exists(old->cpu))
		return LOAD(old, cpu);
	return LOAD(task, thread_info.cpu);
}

struct request___before_5_17 {
	struct gendisk *rq_disk;
} __attribute__((preserve_access_index));

/* request.rq_disk went in f3fa33acca9f ("block: remove the ->rq_disk field in struct request"). */
static __always_inline struct gendisk *request_disk(struct request *rq)
{
	struct request___before_5_17 *old = (void *)rq;

	if (bpf_core_field_exists(old->rq_disk))
		return BPF_CORE_READ(old, rq_disk);
	return BPF_CORE_READ(rq, q, disk);
}

/* a35b9af4ec2c ("bpf: Add a kfunc for generic type cast"), 6.2. */
extern void *bpf_rdonly_cast(const void *object, u32 btf_id) __ksym __weak;

/* Whether kernel_word() can be used. */
#define HAS_KERNEL_WORD bpf_ksym_exists(bpf_rdonly_cast)

/* A word of kernel memory, 0 where there is none: a load, seen through a type that begins with a word. No helper. */
static __always_inline u64 kernel_word(u64 address)
{
	return bpf_core_cast((void *)address, struct timespec64)->tv_sec;
}

#define HIERARCHIES 16 /* of version 1: one a controller, and those that only have a name */

/* Cgroup of a task in the hierarchy of version 1 that the recorder has chosen: for hosts that have nothing else. */
static __always_inline u64 task_cgroup_id_v1(struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *state = NULL;
	struct list_head *at;
	struct cgroup *cgroup;
	u32 i;

	if (cfg.cgroup_memory) {
		bpf_core_read(&state, sizeof(state),
			      &set->subsys[0] + bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id));
		return BPF_CORE_READ(state, cgroup, kn, id);
	}
	/* A hierarchy without a controller is found among all that the task is in. */
	at = BPF_CORE_READ(set, cgrp_links.next);
	for (i = 0; i < HIERARCHIES; i++) {
		struct cgrp_cset_link *link = (void *)at - bpf_core_field_offset(struct cgrp_cset_link, cgrp_link);

		cgroup = BPF_CORE_READ(link, cgrp);
		if (BPF_CORE_READ(cgroup, root, hierarchy_id) == cfg.cgroup_hierarchy)
			return BPF_CORE_READ(cgroup, kn, id);
		at = BPF_CORE_READ(at, next);
	}
	return 0;
}

/* Cgroup of a task; of version 2 a chain of plain loads, for programs whose pointers BTF vouches for (tp_btf). */
static __always_inline u64 task_cgroup_id(struct task_struct *task)
{
	if (cfg.cgroup_hierarchy)
		return task_cgroup_id_v1(task);
	return LOAD(task, cgroups, dfl_cgrp, kn, id);
}

/* Cgroup of the running task, in any program. */
static __always_inline u64 current_cgroup_id(void)
{
	if (cfg.cgroup_hierarchy)
		return task_cgroup_id_v1((void *)bpf_get_current_task());
	return bpf_get_current_cgroup_id();
}

/* Size of the objects of a slab cache. */
static __always_inline u64 object_size(struct kmem_cache *cache)
{
	return BPF_CORE_READ(cache, object_size);
}

/* Where the page frames' structs begin; x86 has it in a variable. */
extern const void vmemmap_base __ksym __weak;

/*
 * Number of a page's frame. Where there is no such variable it is off by a constant, the same for allocation and free.
 */
static __always_inline u64 page_frame(u64 page)
{
	u64 base = 0;

	if (&vmemmap_base)
		bpf_probe_read_kernel(&base, sizeof(base), &vmemmap_base);
	return (page - base) / bpf_core_type_size(struct page);
}

enum bpf_func_id___regs { BPF_FUNC_task_pt_regs___regs = 175 };

/* The registers with which a task entered the kernel, as the kernel has them. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs___entry {
	unsigned long bp;
	unsigned long ip;
	unsigned short
	    cs; /* a long with the same low bytes before ee63291aa828 ("x86/ptrace: Cleanup the definition") */
	unsigned long sp;
} __attribute__((preserve_access_index));
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs___entry {
	u64 regs[31];
	u64 sp;
	u64 pc;
} __attribute__((preserve_access_index));

struct pt_regs___entry {
	struct user_pt_regs___entry user_regs;
} __attribute__((preserve_access_index));
#endif

#if defined(__TARGET_ARCH_x86)

/* Of the registers with which a task entered the kernel. */
struct user_regs {
	u64 bp;
	u64 ip;
	u64 cs;
	u64 sp;
};

/* For programs that have the task as the kernel's type, so that it is read without a helper. */
static __always_inline bool read_user_regs(struct task_struct *task, struct user_regs *regs)
{
	struct pt_regs___entry *entry;

	if (bpf_core_enum_value_exists(enum bpf_func_id___regs, BPF_FUNC_task_pt_regs___regs)) {
		entry = (void *)bpf_task_pt_regs(task);
		regs->bp = entry->bp;
		regs->ip = entry->ip;
		regs->cs = entry->cs;
		regs->sp = entry->sp;
		return true;
	}
	/* At the top of a stack of 16 KiB; with KASAN it is larger, and then what is read here has a wrong `cs`. */
	entry = (void *)((u64)task->stack + 16384 - 168);
	regs->bp = BPF_CORE_READ(entry, bp);
	regs->ip = BPF_CORE_READ(entry, ip);
	regs->cs = BPF_CORE_READ(entry, cs);
	regs->sp = BPF_CORE_READ(entry, sp);
	return true;
}

#endif

/*
 * Registers with which a task that is in the kernel came from user space. The helper is that of dd6e10fbd9fb ("bpf: Add
 * bpf_task_pt_regs() helper", 5.15). Before it they are read from where x86-64 has them, at the top of the kernel's
 * stack, and believed only if they are of user space.
 */
static __always_inline bool saved_registers(struct task_struct *task, u64 *ip, u64 *sp, u64 *fp, u64 *lr)
{
	struct pt_regs___entry *regs = NULL;

#ifndef RAW_TP /* the helper takes a task of the kernel's own types only */
	if (bpf_core_enum_value_exists(enum bpf_func_id___regs, BPF_FUNC_task_pt_regs___regs))
		regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
#endif
#if defined(__TARGET_ARCH_x86)
	if (!regs)
		regs = (void *)BPF_CORE_READ(task, stack) + 4 * 4096 - bpf_core_type_size(struct pt_regs___entry);
	if ((BPF_CORE_READ(regs, cs) & 3) != 3)
		return false;
	*ip = BPF_CORE_READ(regs, ip);
	*sp = BPF_CORE_READ(regs, sp);
	*fp = BPF_CORE_READ(regs, bp);
	*lr = 0;
#elif defined(__TARGET_ARCH_arm64)
	if (!regs)
		return false;
	*ip = BPF_CORE_READ(regs, user_regs.pc);
	*sp = BPF_CORE_READ(regs, user_regs.sp);
	*fp = BPF_CORE_READ(regs, user_regs.regs[29]);
	*lr = BPF_CORE_READ(regs, user_regs.regs[30]);
#endif
	return true;
}

struct module_memory___6_4 {
	void *base;
	u32 size;
} __attribute__((preserve_access_index));

struct module___6_4 {
	struct module_memory___6_4 mem[1];
} __attribute__((preserve_access_index));

struct module_layout___before_6_4 {
	void *base;
	u32 size;
} __attribute__((preserve_access_index));

struct module___before_6_4 {
	struct module_layout___before_6_4 core_layout;
} __attribute__((preserve_access_index));

/* Where a module's code lies; since ac3b43283923 ("module: replace module_layout with module_memory") apart from its
 * data. */
static __always_inline void module_memory(struct module *module, u64 *addr, u32 *bytes)
{
	struct module___6_4 *now = (void *)module;
	struct module___before_6_4 *old = (void *)module;

	if (bpf_core_field_exists(old->core_layout)) {
		*addr = (u64)BPF_CORE_READ(old, core_layout.base);
		*bytes = BPF_CORE_READ(old, core_layout.size);
	} else {
		*addr = (u64)BPF_CORE_READ(now, mem[0].base);
		*bytes = BPF_CORE_READ(now, mem[0].size);
	}
}

struct pcpu_hot {
	int preempt_count;
} __attribute__((preserve_access_index));

/*
 * On x86 the count is a variable of each CPU; it was a member of pcpu_hot from 64701838bf05 ("x86/percpu: Move
 * preempt_count next to current_task") until 46e8fff6d45f ("x86/preempt: Move preempt count to percpu hot section").
 */
extern const int __preempt_count __ksym __weak;
extern const struct pcpu_hot pcpu_hot __ksym __weak;

/* Whether this CPU serves an interrupt, hard or soft; false, too, where the kernel does not tell. */
static __always_inline bool in_interrupt(void)
{
	const u32 mask = 0x00ff0000 | 0x100; /* NMI and hard interrupts; a soft one that is served */
	u32 count = 0;

#if defined(__TARGET_ARCH_x86)
	if (&__preempt_count)
		count = *(const int *)bpf_this_cpu_ptr(&__preempt_count);
	else if (&pcpu_hot)
		count = ((const struct pcpu_hot *)bpf_this_cpu_ptr(&pcpu_hot))->preempt_count;
#endif
	return count & mask;
}
