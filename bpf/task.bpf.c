/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tasks and cgroups that come and go, and an iterator over the tasks that are there. Always on: names depend on it.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "fixes.bpf.h"
#include "ring.bpf.h"
#include "filter.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define FILL_TASK(row, task, id)                                                                                       \
	do {                                                                                                           \
		(row)->ts_ns = bpf_ktime_get_ns();                                                                     \
		(row)->kind = id;                                                                                      \
		(row)->size = sizeof(*(row));                                                                          \
		(row)->tid = LOAD(task, pid);                                                                          \
		(row)->pid = LOAD(task, tgid);                                                                         \
		(row)->ppid = LOAD(task, real_parent, tgid);                                                           \
		(row)->parent_tid = 0;                                                                                 \
		(row)->uid = LOAD(task, real_cred, uid.val);                                                           \
		fill_ns((task), &(row)->ns_pid, &(row)->pid_ns);                                                       \
		(row)->cpu = bpf_get_smp_processor_id();                                                               \
		(row)->exit_code = 0;                                                                                  \
		(row)->start_ns = LOAD(task, start_time);                                                              \
		(row)->cgroup_id = task_cgroup_id(task);                                                               \
		bpf_probe_read_kernel_str((row)->comm, sizeof((row)->comm), (task)->comm);                             \
		/* A task that ends has none any more: CO-RE reads give 0 then. */                                     \
		(row)->mnt_ns = BPF_CORE_READ((task), nsproxy, mnt_ns, ns.inum);                                       \
		(row)->_pad = 0;                                                                                       \
	} while (0)

/* The process's pid in the namespace that it lives in. */
static __always_inline void fill_ns(struct task_struct *task, u32 *ns_pid, u32 *pid_ns)
{
	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	u32 level = BPF_CORE_READ(pid, level);
	struct upid upid = {};

	bpf_core_read(&upid, sizeof(upid), &pid->numbers[level]);
	*ns_pid = upid.nr;
	*pid_ns = BPF_CORE_READ(upid.ns, ns.inum);
}

static __always_inline void *task_reserve(u64 size)
{
	void *row = bpf_ringbuf_reserve(&task_ring, size, 0);

	if (!row)
		count_lost(SOURCE_TASK, LOST_TASK_RING);
	return row;
}

#define TASK_SUBMIT(row)                                                                                               \
	bpf_ringbuf_submit(row, quarter_flags(ring_fill(&task_ring) - sizeof(*row) - 8, sizeof(*row), 1 << 18))

TRACEPOINT(sched_process_fork)
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	struct task_row *row = task_reserve(sizeof(*row));

	if (!row)
		return 0;
	FILL_TASK(row, child, KIND_SCHED_FORK);
	row->parent_tid = LOAD(parent, pid);
	TASK_SUBMIT(row);
	return 0;
}

TRACEPOINT(sched_process_exec)
int BPF_PROG(sched_process_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	struct exec_row *row = task_reserve(sizeof(*row));

	if (!row)
		return 0;
	FILL_TASK(row, task, KIND_SCHED_EXEC);
	row->parent_tid = old_pid;
	if (bpf_probe_read_kernel_str(row->exe, sizeof(row->exe), LOAD(bprm, interp)) < 0)
		row->exe[0] = 0;
	TASK_SUBMIT(row);
	return 0;
}

TRACEPOINT(sched_process_exit)
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	struct task_row *row = task_reserve(sizeof(*row));

	if (!row)
		return 0;
	FILL_TASK(row, task, KIND_SCHED_EXIT);
	row->exit_code = LOAD(task, exit_code);
	TASK_SUBMIT(row);
	return 0;
}

TRACEPOINT(task_rename)
int BPF_PROG(task_rename, struct task_struct *task, const char *comm)
{
	struct task_row *row = task_reserve(sizeof(*row));

	if (!row)
		return 0;
	FILL_TASK(row, task, KIND_TASK_RENAME);
	/* The task still has its old name here. */
	bpf_probe_read_kernel_str(row->comm, sizeof(row->comm), comm);
	TASK_SUBMIT(row);
	return 0;
}

#ifndef RAW_TP

SEC("iter/task")
int dump_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_row row = {};

	if (!task)
		return 0;
	FILL_TASK(&row, task, KIND_SCHED_FORK);
	bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
	return 0;
}

#else

/* What the recorder knows of itself by other ways. record/types.rs has the same order. */
struct known_task {
	u64 pid_ns;
	u64 mnt_ns;
	u64 start_ns;
};

#define TICKS_NS 20000000ULL /* /proc knows starts in ticks */

/*
 * Run by the recorder, never attached: whether the types of a file are those of this kernel. Reads of the running task
 * what helpers tell, too. Returns a bit for each thing that is not so.
 */
SEC("raw_tp/sched_process_exit")
int check_types(struct known_task *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	u64 pid_tgid = bpf_get_current_pid_tgid(), start_ns = LOAD(task, start_time);
	u64 name[2] = {}, comm[2] = {};
	u32 ns_pid, pid_ns;
	int wrong = 0;

	fill_ns(task, &ns_pid, &pid_ns);
	bpf_get_current_comm(name, sizeof(name));
	bpf_probe_read_kernel_str(comm, sizeof(comm), task->comm);
	wrong |= LOAD(task, pid) != (u32)pid_tgid || LOAD(task, tgid) != (u32)(pid_tgid >> 32) ? 1 : 0;
	wrong |= name[0] != comm[0] || name[1] != comm[1] ? 2 : 0;
	wrong |= start_ns + TICKS_NS - ctx->start_ns > 2 * TICKS_NS ? 4 : 0;
	wrong |= LOAD(task, cgroups, dfl_cgrp, kn, id) != bpf_get_current_cgroup_id() ? 8 : 0;
	wrong |= task_cpu(task) != bpf_get_smp_processor_id() || task_state(task) ? 16 : 0;
	wrong |= pid_ns != ctx->pid_ns || BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum) != ctx->mnt_ns ? 32 : 0;
	wrong |= LOAD(task, real_cred, uid.val) != (u32)bpf_get_current_uid_gid() ? 64 : 0;
	return wrong;
}

#endif

static __always_inline int cgroup_event(struct cgroup *cgroup, const char *path, u16 kind)
{
	struct cgroup_subsys_state *parent = LOAD(cgroup, self.parent);
	struct cgroup_row *row;
	u64 id, parent_id = 0;
	u8 one = 1;

	/* Hierarchy 0 is cgroup v2; ids of other hierarchies are of another world. */
	if (LOAD(cgroup, root, hierarchy_id) != cfg.cgroup_hierarchy)
		return 0;
	id = LOAD(cgroup, kn, id);
	if (parent)
		parent_id = LOAD(parent, cgroup, kn, id);
	if (kind == KIND_CGROUP_MKDIR && cfg.filter_cgroup && bpf_map_lookup_elem(&cgroups, &parent_id))
		bpf_map_update_elem(&cgroups, &id, &one, BPF_ANY);
	row = task_reserve(sizeof(*row));
	if (!row)
		return 0;
	row->ts_ns = bpf_ktime_get_ns();
	row->kind = kind;
	row->size = sizeof(*row);
	row->level = LOAD(cgroup, level);
	row->cgroup_id = id;
	row->parent_id = parent_id;
	if (bpf_probe_read_kernel_str(row->path, sizeof(row->path), path) < 0)
		row->path[0] = 0;
	TASK_SUBMIT(row);
	return 0;
}

TRACEPOINT(cgroup_mkdir)
int BPF_PROG(cgroup_mkdir, struct cgroup *cgroup, const char *path)
{
	return cgroup_event(cgroup, path, KIND_CGROUP_MKDIR);
}

TRACEPOINT(cgroup_rename)
int BPF_PROG(cgroup_rename, struct cgroup *cgroup, const char *path)
{
	return cgroup_event(cgroup, path, KIND_CGROUP_RENAME);
}

TRACEPOINT(cgroup_rmdir)
int BPF_PROG(cgroup_rmdir, struct cgroup *cgroup, const char *path)
{
	return cgroup_event(cgroup, path, KIND_CGROUP_RMDIR);
}

/*
 * Key 0: steps of all CPUs on their way up or down, so far; key 1 + CPU: those that it was taken down by after it had
 * stopped. It loses its perf events among these, and they do not come back with it. Read by record/hotplug.rs.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} hotplug SEC(".maps");

TRACEPOINT(cpuhp_enter)
int BPF_PROG(cpuhp_enter, unsigned int cpu, int target)
{
	u32 any = 0, own = cpu + 1;
	u64 *steps = bpf_map_lookup_elem(&hotplug, &any);
	u64 *down = bpf_map_lookup_elem(&hotplug, &own);

	/* CPUHP_OFFLINE is 0, the aim only once the CPU itself has no part in it any more. Key 0 last: it is looked at
	 * first. */
	if (down && !target)
		__sync_fetch_and_add(down, 1);
	if (steps)
		__sync_fetch_and_add(steps, 1);
	return 0;
}

/* record/layout.rs has the same struct. */
struct module_record {
	u64 ts_ns;
	u64 addr;
	u32 bytes;
	u32 gone;
	char name[56];
};

/* Read by the recorder only, which is woken at once: the module may soon be gone. 64 modules. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 13);
} modules SEC(".maps");

static __always_inline int module_event(struct module *module, bool gone)
{
	struct module_record *record = bpf_ringbuf_reserve(&modules, sizeof(*record), 0);

	if (!record) {
		count_lost(SOURCE_TASK, LOST_TASK_RING);
		return 0;
	}
	record->ts_ns = bpf_ktime_get_ns();
	module_memory(module, &record->addr, &record->bytes);
	record->gone = gone;
	bpf_probe_read_kernel_str(record->name, sizeof(record->name), module->name);
	bpf_ringbuf_submit(record, BPF_RB_FORCE_WAKEUP);
	return 0;
}

TRACEPOINT(module_load)
int BPF_PROG(module_load, struct module *module)
{
	return module_event(module, false);
}

TRACEPOINT(module_free)
int BPF_PROG(module_free, struct module *module)
{
	return module_event(module, true);
}
