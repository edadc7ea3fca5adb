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
	u32 unwind_bytes;     /* of user stacks to copy, a multiple of 4096; 0: walk them by frame pointers */
	u32 copy_wake_bytes;  /* fill of the ring of copies that wakes the recorder */
	u32 pad;
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
	LOST_COPY_RING = 10,
	REASONS = 11
};
