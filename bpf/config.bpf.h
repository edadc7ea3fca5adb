/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the recorder decides before a program is loaded. The verifier sees constants and drops what they rule out.
 * record/layout.rs has the same struct.
 */
#pragma once

#include "kernel.h"
#include <bpf/bpf_helpers.h>

struct config {
	u32 own_pid;	      /* the recorder */
	u32 filter_pid;	      /* only processes in `pids` */
	u32 filter_cgroup;    /* only cgroups in `cgroups` */
	u32 switch_state_arg; /* sched_switch has prev_state as its fourth argument */
	u32 wake_bytes;	      /* fill of a ring that wakes the recorder */
	u32 insert_rq_arg;    /* argument number of the request in block_rq_insert, */
	u32 issue_rq_arg;     /* ... in block_rq_issue, */
	u32 requeue_rq_arg;   /* ... in block_rq_requeue, */
	u32 merge_rq_arg;     /* ... in block_rq_merge */
	u32 sample_every;     /* kmem, malloc: one address in so many; 0, 1: all */
	u32 sample_bytes;     /* kmem, malloc: one allocation in about so many bytes; 0: all */
	u32 keep_live;	      /* kmem, malloc: a free counts only when its allocation was recorded */
	u32 family;	      /* malloc: only the recorder's children and theirs */
	u32 task_storage;     /* malloc, offcpu: the kernel has storage in tasks */
	u32 possible_cpus;
	u32 page_bytes;
	u32 kmalloc_size_arg;	   /* kmem: number of the argument with the bytes asked for, 2 or 3, */
	u32 cache_alloc_size_arg;  /* ... 0: the cache is number 2 and knows, */
	u32 kmalloc_node_size_arg; /* ... */
	u32 cache_node_size_arg;   /* ... */
	u32 percpu_size_arg;	   /* ... 2 or 3 */
	u32 uprobe_multi;	   /* malloc: one link holds many probes; for the recorder */
	u32 min_wait_ns;	   /* offcpu: shorter waits are summed up */
	u32 exact_stacks;	   /* offcpu: nothing is left out of what a walk reads */
	u32 waker_stacks;	   /* offcpu: stacks of wakers too */
	u32 unwind_bytes;	   /* of user stacks to copy, a multiple of 4096; 0: walk them by frame pointers */
	u32 copy_wake_bytes;	   /* fill of the ring of copies that wakes the recorder */
	u32 switch_rows;	   /* offcpu: writes the rows of sched_switch too */
	u32 cgroup_hierarchy;	   /* number of the cgroup hierarchy whose ids are told; 0: version 2 */
	u32 cgroup_memory;	   /* it is that of the memory controller */
};

const volatile struct config cfg SEC(".rodata.cfg");

/* Numbers of kind.rs and meta.rs. */
enum {
	SOURCE_TASK = 1,
	SOURCE_SCHED = 2,
	SOURCE_BLOCK = 3,
	SOURCE_PROFILE = 4,
	SOURCE_KMEM = 5,
	SOURCE_MALLOC = 6,
	SOURCE_OFFCPU = 7,
	SOURCES = 16
};
enum {
	LOST_RING = 1,
	LOST_STACK_RING = 2,
	LOST_TASK_RING = 3,
	LOST_STACK = 6,
	LOST_TABLE = 7,
	LOST_LIVE = 10,
	LOST_CALL = 11,
	LOST_THREAD = 12,
	LOST_COPY_RING = 13,
	REASONS = 14
};
