/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Rows collected on their CPU and sent to its ring many at a time, which costs less than a reserve and submit for each.
 * Each kind of rows that is frequent has a batch of its own, so that the recorder moves whole runs of them at once.
 * For hooks that run with interrupts off, and never in an NMI, so that on a CPU none comes in the midst of another.
 * What lies here when the recorder drains is sent by `flush`, which it runs on the CPUs that have something.
 */
#pragma once

#include "ring.bpf.h"

#define BATCH_BYTES 2048

/* record/batches.rs has the same number. */
enum batch_slot { BATCH_SWITCH, BATCH_WAKEUP, BATCH_SCHED, BATCH_OFFCPU, BATCHES };

/* Two halves, so that what an interrupt adds while `flush` sends one of them goes into the other. record/batches.rs
 * has the same struct. */
struct batch {
	u32 current;
	u32 source;
	u32 len[2];
	u32 rows[2];
	u8 data[2 * BATCH_BYTES];
};

/* By CPU and slot; not a per-CPU map, so that the recorder can look at one without reading all. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BATCHES);
	__type(key, u32);
	__type(value, struct batch);
} batches SEC(".maps");

static __always_inline struct batch *batch_of(u32 cpu, u32 slot)
{
	u32 key = cpu * BATCHES + slot;

	return bpf_map_lookup_elem(&batches, &key);
}

/* Sends a half. Rows for which the ring has no room are counted. */
static __always_inline void send_half(struct batch *batch, u32 half, u32 cpu)
{
	void *ring = bpf_map_lookup_elem(&rings, &cpu);
	u64 len = batch->len[half & 1];

	barrier_var(len); /* the verifier must see the bound on the register that is passed */
	if (!len || len > BATCH_BYTES)
		return;
	if (!ring ||
	    bpf_ringbuf_output(ring, batch->data + (half & 1) * BATCH_BYTES, len, wake_flags(ring_fill(ring), len)))
		add_lost(batch->source, LOST_RING, batch->rows[half & 1]);
	batch->len[half & 1] = 0;
	batch->rows[half & 1] = 0;
}

/* Room for a row of `size` bytes in this CPU's batch; it counts as written at once, so fill it whole. */
static __always_inline void *batch_room(u32 size, u32 slot, u32 source)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct batch *batch = batch_of(cpu, slot);
	u64 half, at;

	if (!batch)
		return NULL;
	half = batch->current & 1;
	if (batch->len[half] > BATCH_BYTES - size)
		send_half(batch, half, cpu);
	at = batch->len[half];
	barrier_var(at); /* the verifier must see the bound on the register that is added */
	if (at > BATCH_BYTES - size)
		return NULL;
	batch->source = source;
	batch->len[half] = at + size;
	batch->rows[half]++;
	at += half * BATCH_BYTES;
	barrier_var(at);
	if (at > 2 * BATCH_BYTES - size)
		return NULL;
	return batch->data + at;
}

/* Sends what this CPU has. */
SEC("raw_tp/sched_switch") /* never attached: the recorder runs it */
int flush(void *ctx)
{
	u32 cpu = bpf_get_smp_processor_id(), slot, half;
	struct batch *batch;

	for (slot = 0; slot < BATCHES; slot++) {
		batch = batch_of(cpu, slot);
		if (!batch)
			continue;
		half = batch->current & 1;
		batch->current = half ^ 1;
		barrier();
		send_half(batch, half, cpu);
	}
	return 0;
}
