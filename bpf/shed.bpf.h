/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the recorder has given up to stay within its budget. All programs share this one page; looking costs a load.
 * record/shedding.rs has the same struct.
 */
#pragma once

#include "config.bpf.h"

struct shed {
	u32 user_stacks;   /* not taken */
	u32 kernel_stacks; /* not taken */
	u32 every;	   /* one sample, one allocation in so many; 0, 1: all */
	u32 sources;	   /* bit n: source n writes nothing */
	u64 since_ns;	   /* offcpu: when it was last given back; what was known before is old. 0: never shed */
};

_Static_assert(sizeof(struct shed) == 24, "shedding.rs");

volatile struct shed shed SEC(".data.shed");

static __always_inline bool is_shed(u32 source)
{
	return shed.sources & 1 << source;
}

static __always_inline u32 shed_every(void)
{
	u32 every = shed.every;

	return every > 1 ? every : 1;
}
