"""Reads the tables of several traces together in DuckDB and compares them with those of each.

usage: several_check.py DIR      the output of `bpfrec analyze` of several traces; exits 1 at the first difference
"""
import os
import pathlib
import sys

import duckdb

os.chdir(sys.argv[1])
folders = sorted(path.parent for path in pathlib.Path(".").glob("*/parquet"))
together = duckdb.connect()
together.execute(open("views.sql").read())


def rows(db, view):
    return db.execute(f'SELECT count(*) FROM "{view}"').fetchone()[0]


def check(name, got, expected):
    print("ok  " if got == expected else "BAD ", name, got, expected)
    if got != expected:
        sys.exit(1)


views = [name for (name,) in together.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1").fetchall()]
sums = dict.fromkeys(views, 0)
for folder in folders:
    alone = duckdb.connect()
    script = open(folder / "views.sql").read().replace("'parquet/", f"'{folder}/parquet/")
    alone.execute(script)
    for (view,) in alone.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall():
        sums[view] += rows(alone, view)
assert len(views) > 20, views
for view in views:
    # A histogram is one of all; rows of all else are those of each trace.
    if view != "runqlat":
        check(view, rows(together, view), sums[view])
check("traces", together.execute("SELECT count(DISTINCT trace_id) FROM sched_slice").fetchone()[0], 2)
check("hosts", together.execute("SELECT count(DISTINCT host_id) FROM trace").fetchone()[0], 3)
# Names are those of the same trace: no thread of one host bears a name of the other.
check("names", together.execute("SELECT list_sort(list(DISTINCT comm)) FROM waits WHERE trace_id IN (SELECT trace_id FROM trace WHERE host = 'other')").fetchone()[0], ["w"])
check("runqlat", together.execute("SELECT sum(count) FROM runqlat").fetchone()[0],
      together.execute("SELECT count(*) FROM waits w JOIN trace r USING (trace_id) WHERE w.pid IS DISTINCT FROM r.recorder_pid").fetchone()[0])
print("checks done")
