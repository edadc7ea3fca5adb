//! `views.sql`: the Parquet tables with times, names and paths that a person can read.

use std::fmt::Write;

/// (tables that it needs, the view).
const VIEWS: &[(&[&str], &str)] = &[
    (&["cgroup"], "CREATE OR REPLACE VIEW cgroups AS
SELECT *, coalesce(container_id, unit, path) AS name FROM cgroup;"),
    (&["task"], "CREATE OR REPLACE VIEW tasks AS
SELECT t.*, make_timestamp_ns(start_ts) AS started, make_timestamp_ns(end_ts) AS ended, c.path AS cgroup
FROM task t LEFT JOIN cgroup c USING (trace_id, cgroup_id);"),
    (&["sched_slice"], "-- Who was on a CPU.
CREATE OR REPLACE VIEW slices AS
SELECT make_timestamp_ns(s.ts) AS time, s.*, t.comm, p.comm AS process, c.path AS cgroup
FROM sched_slice s LEFT JOIN task t USING (trace_id, task_id) LEFT JOIN cgroup c ON c.trace_id = s.trace_id AND c.cgroup_id = s.cgroup_id
LEFT JOIN (SELECT trace_id, pid, last(comm ORDER BY start_ts) AS comm FROM task WHERE tid = pid GROUP BY trace_id, pid) p
ON p.trace_id = s.trace_id AND p.pid = s.pid;"),
    (&["runq_wait"], "-- Who waited for a CPU, by the moment in which the wait ended.
CREATE OR REPLACE VIEW waits AS
SELECT make_timestamp_ns(w.ts) AS time, w.*, t.comm, c.path AS cgroup
FROM runq_wait w LEFT JOIN task t USING (trace_id, task_id) LEFT JOIN cgroup c ON c.trace_id = w.trace_id AND c.cgroup_id = w.cgroup_id;"),
    (&["runq_wait"], "-- The histogram of `bpfrec report runqlat`.
CREATE OR REPLACE VIEW runqlat AS
SELECT CASE WHEN b = 0 THEN 0 ELSE 1::BIGINT << b END AS low_us, (2::BIGINT << b) - 1 AS high_us, count(*) AS count
FROM (SELECT CASE WHEN dur_ns < 2000 THEN 0 ELSE floor(log2(dur_ns // 1000))::INT END AS b
      FROM runq_wait w LEFT JOIN trace r USING (trace_id) WHERE w.pid IS DISTINCT FROM r.recorder_pid) GROUP BY b ORDER BY b;"),
    (&["block_io"], "CREATE OR REPLACE VIEW io AS
SELECT make_timestamp_ns(i.ts) AS time, i.*, t.comm, c.path AS cgroup, device_ns + coalesce(queue_ns, 0) AS total_ns
FROM block_io i LEFT JOIN task t USING (trace_id, task_id) LEFT JOIN cgroup c ON c.trace_id = i.trace_id AND c.cgroup_id = i.cgroup_id;"),
    (&["stack", "frame"], "-- Stacks in the form of flamegraph tools, the root first.
CREATE OR REPLACE VIEW folded AS
SELECT stack_id, any_value(space) AS space, string_agg(func, ';' ORDER BY depth_from_leaf DESC) AS frames, trace_id
FROM (SELECT trace_id, stack_id, space, unnest(frame_ids) AS frame_id, generate_subscripts(frame_ids, 1) AS depth_from_leaf FROM stack)
JOIN frame USING (trace_id, frame_id) GROUP BY trace_id, stack_id;"),
    (&["alloc", "stack", "frame"], "-- Memory that was not freed, by stack, as in `bpfrec report memleak -o 0`.
CREATE OR REPLACE VIEW leaks AS
SELECT a.pid, p.comm AS process, a.op, round(sum(bytes * weight))::BIGINT AS bytes,
       round(sum(weight) FILTER (part = 0))::BIGINT AS allocations, count(*) FILTER (fate = 'exit') > 0 AS ended,
       make_timestamp_ns(min(ts)) AS first, make_timestamp_ns(max(ts)) AS last, any_value(f.frames) AS stack, a.trace_id
FROM alloc a LEFT JOIN folded f USING (trace_id, stack_id) LEFT JOIN trace r USING (trace_id)
LEFT JOIN (SELECT trace_id, pid, last(comm ORDER BY start_ts) AS comm FROM task WHERE tid = pid GROUP BY trace_id, pid) p USING (trace_id, pid)
WHERE fate IN ('live', 'exit') AND a.pid IS DISTINCT FROM r.recorder_pid
GROUP BY a.trace_id, a.pid, p.comm, a.op, a.stack_id ORDER BY bytes DESC;"),
    (&["cpu_sample"], "CREATE OR REPLACE VIEW samples AS
SELECT make_timestamp_ns(s.ts) AS time, s.*, t.comm, c.path AS cgroup, u.frames AS user_stack, k.frames AS kernel_stack
FROM cpu_sample s LEFT JOIN task t USING (trace_id, task_id) LEFT JOIN cgroup c ON c.trace_id = s.trace_id AND c.cgroup_id = s.cgroup_id
LEFT JOIN folded u ON u.trace_id = s.trace_id AND u.stack_id = s.user_stack_id
LEFT JOIN folded k ON k.trace_id = s.trace_id AND k.stack_id = s.kernel_stack_id;"),
    (&["offcpu"], "-- Who was off the CPU, why and until when. Short waits are sums without a begin.
CREATE OR REPLACE VIEW offcpu_waits AS
SELECT CASE WHEN o.kind <> 'short' THEN make_timestamp_ns(o.ts - o.wait_ns) END AS since, make_timestamp_ns(o.ts) AS time, o.*,
       t.comm, c.path AS cgroup, w.comm AS waker, u.frames AS user_stack, k.frames AS kernel_stack
FROM offcpu o LEFT JOIN task t USING (trace_id, task_id) LEFT JOIN task w ON w.trace_id = o.trace_id AND w.task_id = o.waker_task_id
LEFT JOIN cgroup c ON c.trace_id = o.trace_id AND c.cgroup_id = o.cgroup_id
LEFT JOIN folded u ON u.trace_id = o.trace_id AND u.stack_id = o.user_stack_id
LEFT JOIN folded k ON k.trace_id = o.trace_id AND k.stack_id = o.kernel_stack_id;"),
    (&["offcpu"], "-- Time off the CPU by process and stack, as `bpfrec report offcputime -P`.
CREATE OR REPLACE VIEW offcputime AS
SELECT p.comm, o.pid, o.kind, u.frames AS user_stack, k.frames AS kernel_stack,
       sum(o.count)::BIGINT AS waits, sum(o.wait_ns)::BIGINT AS wait_ns, sum(o.queued_ns)::BIGINT AS queued_ns, o.trace_id
FROM offcpu o LEFT JOIN (SELECT trace_id, pid, last(comm ORDER BY start_ts) AS comm FROM task WHERE tid = pid GROUP BY trace_id, pid) p
ON p.trace_id = o.trace_id AND p.pid = o.pid
LEFT JOIN folded u ON u.trace_id = o.trace_id AND u.stack_id = o.user_stack_id
LEFT JOIN folded k ON k.trace_id = o.trace_id AND k.stack_id = o.kernel_stack_id
GROUP BY ALL ORDER BY wait_ns DESC;"),
    (&["loss"], "CREATE OR REPLACE VIEW losses AS
SELECT make_timestamp_ns(ts_from) AS since, make_timestamp_ns(ts_to) AS until, * FROM loss;"),
];

/// The script for these tables. Paths are relative: run it in the folder.
pub fn sql(tables: &[String]) -> String {
    script(tables, "'parquet/", "'")
}

/// The script for the tables of several traces, each in a folder of its own below this one. A trace that lacks a column has NULL
/// there; ids are those of a trace: `trace_id` tells which, `host_id` whose.
pub fn sql_of_several(tables: &[String]) -> String {
    script(tables, "'*/parquet/", "', union_by_name = true")
}

fn script(tables: &[String], before: &str, after: &str) -> String {
    let mut out = String::from(
        "-- Run in this folder: duckdb -init views.sql\n-- Times: ts is Unix ns, ts_mono is CLOCK_MONOTONIC ns. Durations end in _ns.\n",
    );
    for table in tables {
        let _ = writeln!(
            out,
            "CREATE OR REPLACE VIEW \"{table}\" AS SELECT * FROM read_parquet({before}{table}.parquet{after});"
        );
    }
    for (needs, view) in VIEWS {
        if needs.iter().all(|need| tables.iter().any(|t| t == need)) {
            let _ = writeln!(out, "\n{view}");
        }
    }
    out
}
