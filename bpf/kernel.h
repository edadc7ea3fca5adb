/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few kernel types that the programs read. Fields are found by name in the running kernel's BTF (CO-RE), so a
 * struct here lists only what is used and in any order. Numbers are the kernel's UAPI.
 */
#pragma once

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef int pid_t;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};

enum { BPF_ANY = 0, BPF_NOEXIST = 1 };
enum { BPF_F_NO_PREALLOC = 1 };
enum { BPF_F_USER_STACK = 1ULL << 8 };
enum { BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };
enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2 };
enum { BPF_RB_AVAIL_DATA = 0 };

#define PF_KTHREAD 0x00200000

enum cgroup_subsys_id { memory_cgrp_id = 0 }; /* another number on each kernel */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct module {
	char name[56];
};

struct kernfs_node {
	u64 id;
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	int level;
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

struct list_head {
	struct list_head *next;
};

struct css_set {
	struct cgroup *dfl_cgrp;
	struct cgroup_subsys_state *subsys[1];
	struct list_head cgrp_links;
};

struct cgrp_cset_link {
	struct cgroup *cgrp;
	struct list_head cgrp_link;
};

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

typedef struct {
	unsigned int val;
} kuid_t;

struct cred {
	kuid_t uid;
};

struct thread_info {
	u32 cpu;
};

struct timespec64 {
	long tv_sec;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
};

struct thread_struct {
	unsigned long sp; /* x86 */
};

struct sched_entity {
	u64 sum_exec_runtime;
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int __state;
	unsigned int flags;
	unsigned int on_cpu; /* a byte on 7.2; only loads of unsigned words shrink to that */
	int exit_state;
	unsigned long nvcsw;
	unsigned long nivcsw;
	void *stack;
	struct thread_struct thread;
	struct sched_entity se;
	int prio;
	pid_t pid;
	pid_t tgid;
	int exit_code;
	u64 start_time;
	u64 self_exec_id;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	const struct cred *real_cred;
	char comm[16];
	struct css_set *cgroups;
	struct signal_struct *signal;
	struct nsproxy *nsproxy;
};

struct linux_binprm {
	const char *interp;
};

struct gendisk {
	int major;
	int first_minor;
};

struct request_queue {
	struct gendisk *disk;
};

struct blkcg {
	struct cgroup_subsys_state css;
};

struct blkcg_gq {
	struct blkcg *blkcg;
};

struct bio {
	struct blkcg_gq *bi_blkg;
};

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int __data_len;
	u64 __sector;
	struct bio *bio;
};

struct kmem_cache {
	unsigned int object_size;
};

struct page {
	unsigned long flags;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

/* Context of perf_event programs, UAPI: fixed for good. */
struct bpf_perf_event_data {
#if defined(__TARGET_ARCH_x86)
	u64 regs[21];
#elif defined(__TARGET_ARCH_arm64)
	u64 regs[34];
#else
#error "struct bpf_perf_event_data of this architecture is not written down yet"
#endif
	u64 sample_period;
	u64 addr;
};

/* Where these registers stand in its `regs`, and whether the interrupt came in user space. */
#if defined(__TARGET_ARCH_x86)
#define CTX_FP(ctx) ((ctx)->regs[4])
#define CTX_IP(ctx) ((ctx)->regs[16])
#define CTX_SP(ctx) ((ctx)->regs[19])
#define CTX_LR(ctx) 0
#define in_user_mode(ctx) (((ctx)->regs[17] & 3) == 3)
#elif defined(__TARGET_ARCH_arm64)
#define CTX_FP(ctx) ((ctx)->regs[29])
#define CTX_LR(ctx) ((ctx)->regs[30])
#define CTX_SP(ctx) ((ctx)->regs[31])
#define CTX_IP(ctx) ((ctx)->regs[32])
#define in_user_mode(ctx) (((ctx)->regs[33] & 15) == 0)
#endif

/* Registers at a probe of user code, UAPI: fixed for good. bpf_tracing.h knows the names. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
	unsigned long orig_rax, rip, cs, eflags, rsp, ss;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	u64 regs[31], sp, pc, pstate;
};
#endif
