/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which tasks are recorded.
 */
#pragma once

#include "config.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u8);
} pids SEC(".maps");

/* The chosen cgroups and all below them; task.bpf.c adds those that are made later. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, u8);
} cgroups SEC(".maps");

static __always_inline bool wanted(u32 pid, u64 cgroup_id)
{
	if (pid == cfg.own_pid)
		return false;
	if (cfg.filter_pid && !bpf_map_lookup_elem(&pids, &pid))
		return false;
	if (cfg.filter_cgroup && !bpf_map_lookup_elem(&cgroups, &cgroup_id))
		return false;
	return true;
}
