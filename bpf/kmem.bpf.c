/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's memory: slab objects, pages, per-CPU memory. Raw tracepoints, for their arguments are plain words: which
 * one is what differs between kernels, and the recorder finds it in BTF.
 *
 * Nothing here allocates: the maps are made in full when loaded, so a program does not call itself. An interrupt in its
 * middle may run another one of them, which takes another stack scratch; the same one the kernel leaves out, counted.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "fixes.bpf.h"
#include "filter.bpf.h"
#include "stack.bpf.h"
#include "sample.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* A task, a soft and a hard interrupt, an NMI. */
#define LEVELS 4

struct level {
	u64 busy;
	struct stack_record stack;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LEVELS);
	__type(key, u32);
	__type(value, struct level);
} levels SEC(".maps");

/*
 * A scratch that nobody on this CPU uses. Whoever interrupts between the look and the mark is done with it, and it is
 * free again, when the interrupted one goes on: no atomic is needed.
 */
static __always_inline struct level *take_level(void)
{
	struct level *level;
	u32 i;

	for (i = 0; i < LEVELS; i++) {
		u32 key = i;

		level = bpf_map_lookup_elem(&levels, &key);
		if (level && !level->busy) {
			level->busy = 1;
			return level;
		}
	}
	return NULL;
}

static __always_inline u64 kernel_stack(void *ctx, u64 ts_ns)
{
	struct level *level = take_level();
	u64 id;

	if (!level) {
		count_lost(SOURCE_KMEM, LOST_STACK);
		return 0;
	}
	id = stack_id_in(&level->stack, ctx, SOURCE_KMEM, false, 0, 0, ts_ns);
	barrier();
	level->busy = 0;
	return id;
}

static __always_inline int allocated(void *ctx, u16 kind, u64 addr, u64 bytes)
{
	u64 pid_tgid = bpf_get_current_pid_tgid(), cgroup_id = current_cgroup_id();
	struct kmem_alloc_row *row;
	u64 ts_ns, stack;
	u32 weight;
	void *ring;

	/* 16 is what an allocation of no bytes gets. */
	if (addr <= 16 || !gate_is_open() || is_shed(SOURCE_KMEM) || !wanted(pid_tgid >> 32, cgroup_id))
		return 0;
	weight = sample_weight(addr, bytes);
	if (!weight || !note_live(addr, 0, kind, SOURCE_KMEM))
		return 0;
	ts_ns = bpf_ktime_get_ns();
	stack = kernel_stack(ctx, ts_ns);
	if (!EVENT_RESERVE(row, ring, SOURCE_KMEM))
		return 0;
	row->ts_ns = ts_ns;
	row->kind = kind;
	row->size = sizeof(*row);
	row->tid = pid_tgid;
	row->pid = pid_tgid >> 32;
	row->weight_milli = weight;
	row->addr = addr;
	row->bytes = bytes;
	row->kernel_stack_id = stack;
	row->cgroup_id = cgroup_id;
	EVENT_SUBMIT(row, ring);
	return 0;
}

/*
 * Objects are freed by whoever comes along: another task, a kernel thread after a grace period, an interrupt. So the
 * filter has no say here. Where one is set, the frees of recorded allocations count; else all do, also the recorder's.
 */
static __always_inline int freed(u16 kind, u16 alloc_kind, u64 addr, u64 bytes)
{
	struct kmem_free_row *row;
	u64 ts_ns, pid_tgid;
	void *ring;

	if (addr <= 16 || !sampled_free(addr, 0, alloc_kind))
		return 0;
	ts_ns = bpf_ktime_get_ns();
	pid_tgid = bpf_get_current_pid_tgid();
	if (!EVENT_RESERVE(row, ring, SOURCE_KMEM))
		return 0;
	row->ts_ns = ts_ns;
	row->kind = kind;
	row->size = sizeof(*row);
	row->tid = pid_tgid;
	row->pid = pid_tgid >> 32;
	row->_pad = 0;
	row->addr = addr;
	row->bytes = bytes;
	row->cgroup_id = current_cgroup_id();
	EVENT_SUBMIT(row, ring);
	return 0;
}

/* The word that has the bytes asked for; where none has, the cache knows. */
static __always_inline u64 size_arg(u64 *ctx, u32 number)
{
	u64 second = ctx[2], third = 0;

	/* A load of its own: the context must not be read at a place that is worked out. */
	if (number == 3)
		third = *(volatile u64 *)&ctx[3];
	return number == 3 ? third : number == 2 ? second : object_size((void *)second);
}

SEC("raw_tp/kmalloc")
int kmalloc(u64 *ctx)
{
	return allocated(ctx, KIND_KMEM_ALLOC, ctx[1], size_arg(ctx, cfg.kmalloc_size_arg));
}

/* The _node forms were merged into the others by 11e9734bcb6a ("mm/slab_common: unify NUMA and UMA version ..."). */
SEC("raw_tp/kmalloc_node")
int kmalloc_node(u64 *ctx)
{
	return allocated(ctx, KIND_KMEM_ALLOC, ctx[1], size_arg(ctx, cfg.kmalloc_node_size_arg));
}

SEC("raw_tp/kmem_cache_alloc")
int kmem_cache_alloc(u64 *ctx)
{
	return allocated(ctx, KIND_KMEM_ALLOC, ctx[1], size_arg(ctx, cfg.cache_alloc_size_arg));
}

SEC("raw_tp/kmem_cache_alloc_node")
int kmem_cache_alloc_node(u64 *ctx)
{
	return allocated(ctx, KIND_KMEM_ALLOC, ctx[1], size_arg(ctx, cfg.cache_node_size_arg));
}

SEC("raw_tp/kfree")
int kfree(u64 *ctx)
{
	return freed(KIND_KMEM_FREE, KIND_KMEM_ALLOC, ctx[1], 0);
}

SEC("raw_tp/kmem_cache_free")
int kmem_cache_free(u64 *ctx)
{
	return freed(KIND_KMEM_FREE, KIND_KMEM_ALLOC, ctx[1], 0);
}

SEC("raw_tp/mm_page_alloc")
int mm_page_alloc(u64 *ctx)
{
	/* Without a page the allocation failed. */
	return ctx[0] ? allocated(ctx, KIND_PAGE_ALLOC, page_frame(ctx[0]), (u64)cfg.page_bytes << (u32)ctx[1]) : 0;
}

/* Said of every free; mm_page_free_batched only says of some of them once more how they were freed. */
SEC("raw_tp/mm_page_free")
int mm_page_free(u64 *ctx)
{
	return freed(KIND_PAGE_FREE, KIND_PAGE_ALLOC, page_frame(ctx[0]), (u64)cfg.page_bytes << (u32)ctx[1]);
}

/* (reserved, is_atomic, size, align, base_addr, off, ptr), with a call site before them in newer kernels. */
SEC("raw_tp/percpu_alloc_percpu")
int percpu_alloc(u64 *ctx)
{
	/* Not with one load at a place that is worked out: the context must not be read like that. */
	if (cfg.percpu_size_arg == 3)
		return allocated(ctx, KIND_PERCPU_ALLOC, ctx[7], ctx[3] * cfg.possible_cpus);
	return allocated(ctx, KIND_PERCPU_ALLOC, ctx[6], ctx[2] * cfg.possible_cpus);
}

SEC("raw_tp/percpu_free_percpu")
int percpu_free(u64 *ctx)
{
	return freed(KIND_PERCPU_FREE, KIND_PERCPU_ALLOC, ctx[2], 0);
}
