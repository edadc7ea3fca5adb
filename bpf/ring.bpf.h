/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A ring a CPU for events, and one each for stack definitions and for tasks and cgroups, so that a flood of events
 * cannot push those out. The recorder drains by time; the kernel wakes it only when a ring is filling up.
 */
#pragma once

#include "config.bpf.h"
#include "events.h"

/* Sizes and counts are set by the recorder. */
struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 19);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct ring);
} rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} task_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 21);
} stack_ring SEC(".maps");

/* Lost so far, by source and reason; under key 0, which is neither, a sign that something was. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SOURCES *REASONS);
	__type(key, u32);
	__type(value, u64);
} lost SEC(".maps");

static __always_inline void add_lost(u32 source, u32 reason, u32 rows)
{
	u32 key = source * REASONS + reason, sign = 0;
	u64 *n = bpf_map_lookup_elem(&lost, &key);

	/* Atomic, for an interrupt may count on the same CPU at the same time. */
	if (n)
		__sync_fetch_and_add(n, rows);
	n = bpf_map_lookup_elem(&lost, &sign);
	if (n)
		__sync_fetch_and_add(n, rows);
}

static __always_inline void count_lost(u32 source, u32 reason)
{
	add_lost(source, reason, 1);
}

/* Wakes the recorder on the record that crosses the mark, not on each one after it; `fill` is what is before it. */
static __always_inline u64 wake_flags(u64 fill, u64 size)
{
	return fill < cfg.wake_bytes && fill + size + 8 >= cfg.wake_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* The same for the rings of tasks and stacks, at each quarter: a bomb of forks fills one in less time than passes
 * between two looks. `quarter` is a power of two. */
static __always_inline u64 quarter_flags(u64 fill, u64 size, u64 quarter)
{
	return (fill ^ (fill + size + 8)) & ~(quarter - 1) ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

static __always_inline u64 ring_fill(void *ring)
{
	return bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);
}

/* Room for an event in this CPU's ring; NULL, and counted, when there is none. */
#define EVENT_RESERVE(row, ring, source)                                                                               \
	({                                                                                                             \
		u32 cpu_ = bpf_get_smp_processor_id();                                                                 \
		row = NULL;                                                                                            \
		ring = bpf_map_lookup_elem(&rings, &cpu_);                                                             \
		if (ring)                                                                                              \
			row = bpf_ringbuf_reserve(ring, sizeof(*row), 0);                                              \
		if (!row)                                                                                              \
			count_lost(source, LOST_RING);                                                                 \
		row;                                                                                                   \
	})

#define EVENT_SUBMIT(row, ring) bpf_ringbuf_submit(row, wake_flags(ring_fill(ring) - sizeof(*row) - 8, sizeof(*row)))
