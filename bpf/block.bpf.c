/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Block requests. Who issues a request is noted when it is first seen (insert, else issue), for later events run in
 * whatever task an interrupt hits.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "fixes.bpf.h"
#include "ring.bpf.h"
#include "filter.bpf.h"
#include "shed.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct issuer {
	u32 tid;
	u32 pid;
	u64 cgroup_id;
	u64 issued; /* to the device, and not given back */
};

/* Requests in flight. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct issuer);
} issuers SEC(".maps");

/*
 * The running task is the issuer, unless it is a kernel thread that writes on behalf of others: then the request's
 * own block cgroup says for whom, where it is one of the chosen hierarchy below the root.
 */
static __always_inline void fill_issuer(struct issuer *issuer, struct request *rq)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct cgroup *cgroup;

	issuer->tid = pid_tgid;
	issuer->pid = pid_tgid >> 32;
	issuer->cgroup_id = current_cgroup_id();
	if (!(BPF_CORE_READ(task, flags) & PF_KTHREAD) || !bpf_core_field_exists(rq->bio->bi_blkg))
		return;
	cgroup = BPF_CORE_READ(rq, bio, bi_blkg, blkcg, css.cgroup);
	if (cgroup && BPF_CORE_READ(cgroup, root, hierarchy_id) == cfg.cgroup_hierarchy &&
	    BPF_CORE_READ(cgroup, level) > 0)
		issuer->cgroup_id = BPF_CORE_READ(cgroup, kn, id);
}

static __always_inline int request_event(struct request *rq, u16 kind, u32 bytes, int error)
{
	bool first = kind == KIND_BLOCK_INSERT || kind == KIND_BLOCK_ISSUE;
	struct issuer *known, issuer = {};
	struct gendisk *disk;
	struct block_row *row;
	u64 key = (u64)rq, ts_ns = bpf_ktime_get_ns();
	void *ring;

	known = bpf_map_lookup_elem(&issuers, &key);
	/* What an insert finds, or an issue that found it issued, is of an earlier request whose end was not seen. */
	if (known && (kind == KIND_BLOCK_INSERT || (kind == KIND_BLOCK_ISSUE && known->issued)))
		known = NULL;
	if (known) {
		issuer = *known;
		if (kind == KIND_BLOCK_ISSUE)
			known->issued = 1;
		else if (kind == KIND_BLOCK_REQUEUE)
			known->issued = 0;
	} else if (first) {
		fill_issuer(&issuer, rq);
		issuer.issued = kind == KIND_BLOCK_ISSUE;
		if (bpf_map_update_elem(&issuers, &key, &issuer, BPF_ANY))
			count_lost(SOURCE_BLOCK, LOST_TABLE);
	} else if (cfg.filter_pid || cfg.filter_cgroup) {
		return 0; /* its issue was filtered out, or was before the start */
	}
	if ((known || first) && !wanted(issuer.pid, issuer.cgroup_id))
		return 0;
	if (kind == KIND_BLOCK_MERGE || (kind == KIND_BLOCK_COMPLETE && bytes >= LOAD(rq, __data_len)))
		bpf_map_delete_elem(&issuers, &key);
	/* Here, not before: who issued what is still to be known when the source is given back. */
	if (is_shed(SOURCE_BLOCK))
		return 0;
	if (!EVENT_RESERVE(row, ring, SOURCE_BLOCK))
		return 0;
	disk = request_disk(rq);
	row->ts_ns = ts_ns;
	row->kind = kind;
	row->size = sizeof(*row);
	row->tid = issuer.tid;
	row->pid = issuer.pid;
	row->dev = disk ? BPF_CORE_READ(disk, major) << 20 | BPF_CORE_READ(disk, first_minor) : 0;
	row->bytes = bytes;
	row->cmd_flags = LOAD(rq, cmd_flags);
	row->error = error;
	row->_pad = 0;
	row->cgroup_id = issuer.cgroup_id;
	row->rq = key;
	row->sector = LOAD(rq, __sector);
	EVENT_SUBMIT(row, ring);
	return 0;
}

/* Until a54895fa057c ("block: remove the request_queue to argument request based tracepoints") the queue came first. */
#define REQUEST(ctx, arg) ((struct request *)((arg) ? (ctx)[1] : (ctx)[0]))

TRACEPOINT(block_rq_insert)
int block_insert(u64 *ctx)
{
	struct request *rq = REQUEST(ctx, cfg.insert_rq_arg);

	return request_event(rq, KIND_BLOCK_INSERT, LOAD(rq, __data_len), 0);
}

TRACEPOINT(block_rq_issue)
int block_issue(u64 *ctx)
{
	struct request *rq = REQUEST(ctx, cfg.issue_rq_arg);

	return request_event(rq, KIND_BLOCK_ISSUE, LOAD(rq, __data_len), 0);
}

TRACEPOINT(block_rq_requeue)
int block_requeue(u64 *ctx)
{
	struct request *rq = REQUEST(ctx, cfg.requeue_rq_arg);

	return request_event(rq, KIND_BLOCK_REQUEUE, LOAD(rq, __data_len), 0);
}

TRACEPOINT(block_rq_merge)
int block_merge(u64 *ctx)
{
	struct request *rq = REQUEST(ctx, cfg.merge_rq_arg);

	return request_event(rq, KIND_BLOCK_MERGE, LOAD(rq, __data_len), 0);
}

TRACEPOINT(block_rq_complete)
int BPF_PROG(block_complete, struct request *rq, int error, unsigned int bytes)
{
	return request_event(rq, KIND_BLOCK_COMPLETE, bytes, error);
}

TRACEPOINT(block_rq_error)
int BPF_PROG(block_error, struct request *rq, int error, unsigned int bytes)
{
	return request_event(rq, KIND_BLOCK_ERROR, bytes, error);
}
