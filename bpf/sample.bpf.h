/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which allocations are recorded. An address's hash decides, so that an allocation and its free are both seen or both
 * unseen. By bytes the size has a say, too, and a free does not know it: then the addresses that live are kept.
 */
#pragma once

#include "ring.bpf.h"
#include "shed.bpf.h"

struct live_key {
	u64 addr;
	u32 pid; /* 0 for the kernel's memory */
	u32 kind;
};

/* Allocations that were recorded and not yet freed. Made only when cfg.keep_live; full -> counted, not recorded. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 19);
	__type(key, struct live_key);
	__type(value, u8);
} live SEC(".maps");

/*
 * 1 while allocations are recorded. Probes come and go one by one; frees are seen before the first allocation and after
 * the last one, or what was freed in between would look like a leak.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} gate SEC(".maps");

static __always_inline bool gate_is_open(void)
{
	u32 zero = 0, *open = bpf_map_lookup_elem(&gate, &zero);

	return open && *open;
}

/* 32 bits that an address always gets; allocators give out multiples of 16 and pages. */
static __always_inline u64 address_hash(u64 addr)
{
	addr *= 0x9E3779B97F4A7C15ULL;
	addr ^= addr >> 29;
	addr *= 0xBF58476D1CE4E5B9ULL;
	return addr >> 32;
}

/*
 * 1 - exp(-bytes / mean) as a share of 2^32: the probability that a sample every `mean` bytes, at random, hits. At
 * least 1001 / 2^32, so that the weight fits its field.
 */
static __always_inline u64 hit_probability(u64 bytes, u64 mean)
{
	/* exp(-2^i / 16) * 2^32 */
	const u64 factor[8] = {4034748382ULL, 3790295335ULL, 3344923893ULL, 2605029347ULL,
			       1580030169ULL, 581260615ULL,  78665070ULL,   1440801ULL};
	u64 steps, rest, p, all = 1ULL << 32;
	u32 i;

	if (bytes >= 16 * mean)
		return all;
	steps = bytes * 16 / mean;
	rest = ((bytes * 16 - steps * mean) << 28) / mean; /* below 1/16 of 2^32 */
	p = rest - (rest * rest >> 33) + (rest * rest >> 32) * rest / 6 / all;
	if (steps) {
		u64 left = all - p;

#pragma unroll
		for (i = 0; i < 8; i++)
			if (steps & 1 << i)
				left = (left * factor[i]) >> 32;
		p = all - left;
	}
	return p < 1001 ? 1001 : p;
}

/*
 * How many allocations this one stands for, in thousandths; 0 when it is not to be recorded. While the rate is shed
 * frees are still told for all addresses that the rate before it takes.
 */
static __always_inline u32 sample_weight(u64 addr, u64 bytes)
{
	u64 p, every = shed_every(), each = cfg.sample_every > 1 ? cfg.sample_every : 1;

	if (cfg.sample_bytes) {
		p = hit_probability(bytes, cfg.sample_bytes) / every;
		if (p < 1001)
			p = 1001;
		return address_hash(addr) < p ? (1000ULL << 32) / p : 0;
	}
	/* So that the weight fits its field. */
	if (each * every <= 4000000)
		each *= every;
	if (each > 1)
		return address_hash(addr) % each == 0 ? each * 1000 : 0;
	return 1000;
}

/* An allocation is about to be recorded; false, and counted, when its free could not be told from others. */
static __always_inline bool note_live(u64 addr, u32 pid, u32 kind, u32 source)
{
	struct live_key key = {.addr = addr, .pid = pid, .kind = kind};
	u8 one = 1;

	if (!cfg.keep_live)
		return true;
	if (!bpf_map_update_elem(&live, &key, &one, BPF_ANY))
		return true;
	count_lost(source, LOST_LIVE);
	return false;
}

/* Whether the free of an address is to be recorded. */
static __always_inline bool sampled_free(u64 addr, u32 pid, u32 kind)
{
	struct live_key key = {.addr = addr, .pid = pid, .kind = kind};

	if (cfg.keep_live && bpf_map_delete_elem(&live, &key))
		return false;
	return cfg.sample_bytes || cfg.sample_every <= 1 || address_hash(addr) % cfg.sample_every == 0;
}
