"""Reads every table of an analysed trace with DuckDB and counts the histograms of two reports again in SQL.

usage: duckdb_check.py DIR BPFREC TRACE SOURCES     SOURCES: the folder with README.md and docs/cookbook.md; prints one line a check; exits 1 at the first that fails
"""
import json
import os
import re
import subprocess
import sys

import duckdb

directory, bpfrec, trace, sources = sys.argv[1:]
os.chdir(directory)
db = duckdb.connect()


def check(name, ok, why=""):
    print("ok  " if ok else "BAD ", name, why)
    if not ok:
        sys.exit(1)


def report(*arguments):
    run = subprocess.run([bpfrec, "report", *arguments, trace, "--json", "--trace-only"], capture_output=True, text=True)
    return json.loads(run.stdout) if run.returncode in (0, 3) else None


# Every table is read whole, and no type is one that other engines lack.
tables = sorted(name[:-8] for name in os.listdir("parquet") if name.endswith(".parquet"))
allowed = {"BIGINT", "INTEGER", "VARCHAR", "DOUBLE", "BIGINT[]", "BOOLEAN"}
for table in tables:
    columns = db.execute(f"DESCRIBE SELECT * FROM 'parquet/{table}.parquet'").fetchall()
    types = {column[1] for column in columns}
    check(f"types of {table}", types <= allowed, str(types - allowed))
    rows = db.execute(f"SELECT * FROM 'parquet/{table}.parquet'").fetchall()
    counted = db.execute(f"SELECT count(*) FROM 'parquet/{table}.parquet'").fetchall()[0][0]
    check(f"rows of {table}", len(rows) == counted, f"{len(rows)}")

# The views can be made and read.
db.execute(open("views.sql").read())
for (view,) in db.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1").fetchall():
    db.execute(f'SELECT * FROM "{view}"').fetchall()
    check(f"view {view}", True)


def histogram(sql):
    """Buckets by their low end in us, from nanoseconds."""
    low = "CASE WHEN ns < 2000 THEN 0 ELSE 1::BIGINT << floor(log2(ns // 1000))::INT END"
    return dict(db.execute(f"SELECT {low} AS low, count(*) FROM ({sql}) GROUP BY ALL").fetchall())


def buckets(answer):
    return {b["low"]: b["count"] for g in answer["groups"] for b in g["buckets"] if b["count"]}


# Waits and I/O counted in SQL are those of the reports; waits even from the raw events alone.
answer = report("runqlat")
if answer:
    sql = "SELECT dur_ns AS ns FROM runq_wait WHERE pid IS DISTINCT FROM (SELECT recorder_pid FROM trace)"
    check("runqlat from waits", histogram(sql) == buckets(answer), f"{histogram(sql)} {buckets(answer)}")
    raw = """
      WITH e AS (
        SELECT ts_mono, tid, 'wake' AS what, 0 AS pid FROM sched_wakeup
        UNION ALL SELECT ts_mono, tid, 'wake', 0 FROM sched_wakeup_new
        UNION ALL SELECT ts_mono, prev_tid, CASE WHEN prev_state = 0 OR preempt <> 0 THEN 'wake' ELSE 'sleep' END, 0 FROM sched_switch
        UNION ALL SELECT ts_mono, next_tid, 'run', next_pid FROM sched_switch),
      o AS (SELECT *, lag(what) OVER w AS before, lag(ts_mono) OVER w AS since FROM e WHERE tid <> 0 AND what <> 'sleep'
            WINDOW w AS (PARTITION BY tid ORDER BY ts_mono, CASE what WHEN 'run' THEN 1 ELSE 0 END))
      SELECT ts_mono - since AS ns FROM o
      WHERE what = 'run' AND before = 'wake' AND pid IS DISTINCT FROM (SELECT recorder_pid FROM trace)"""
    lost = db.execute("SELECT count(*) FROM loss").fetchall()[0][0] + answer["unpaired"].get("lost", 0)
    if not lost:
        check("runqlat from raw events", histogram(raw) == buckets(answer), f"{histogram(raw)} {buckets(answer)}")
answer = report("biolatency")
if answer:
    sql = "SELECT device_ns AS ns FROM block_io WHERE device_ns IS NOT NULL AND pid IS DISTINCT FROM (SELECT recorder_pid FROM trace)"
    check("biolatency", histogram(sql) == buckets(answer), f"{histogram(sql)} {buckets(answer)}")

# Time on and off the CPU, from the raw switches.
raw = """
  WITH e AS (
    SELECT ts_mono, prev_tid AS tid, prev_pid AS pid, 'out' AS what, prev_state & 128 <> 0 AS ended FROM sched_switch
    UNION ALL SELECT ts_mono, next_tid, next_pid, 'in', false FROM sched_switch),
  o AS (SELECT *, lag(what) OVER w AS before, lag(ended) OVER w AS gone, lag(ts_mono) OVER w AS since FROM e WHERE tid <> 0
        WINDOW w AS (PARTITION BY tid ORDER BY ts_mono, CASE what WHEN 'in' THEN 1 ELSE 0 END))
  SELECT ts_mono - since AS ns FROM o WHERE what = '{}' AND before = '{}' AND NOT gone
  AND pid IS DISTINCT FROM (SELECT recorder_pid FROM trace)"""
for flags, ends in ((), ("out", "in")), (("-O",), ("in", "out")):
    answer = report("cpudist", *flags)
    if answer and not db.execute("SELECT count(*) FROM loss").fetchall()[0][0] and not answer["unpaired"]["lost"]:
        counted = histogram(raw.format(*ends))
        check(f"cpudist {flags}", counted == buckets(answer), f"{counted} {buckets(answer)}")
answer = report("offcputime")
if answer:
    sql = """
      SELECT sum(CASE o.kind WHEN 'short' THEN wait_ns ELSE o.ts_mono - greatest(o.ts_mono - wait_ns, start_mono_ns) END), sum(count)
      FROM offcpu o, trace WHERE pid IS DISTINCT FROM recorder_pid"""
    ns, waits = db.execute(sql).fetchall()[0]
    check("offcputime", [ns, waits] == [answer["total"]["ns"], answer["total"]["waits"]], f"{ns} ns, {waits} waits")



def ask(question):
    """Rows and their names, or None where this trace lacks what the question is about."""
    needs = re.findall(r"(?:FROM|JOIN)\s+(\w+)", question)
    own = re.findall(r"(\w+) AS \(", question)
    views = {name for (name,) in db.execute("SELECT view_name FROM duckdb_views()").fetchall()}
    missing = [n for n in needs if n not in views and n not in own]
    if missing:
        print("not asked of this trace:", missing)
        return None
    answer = db.execute(question)
    return [column[0] for column in answer.description], answer.fetchall()


# The questions of README.
questions = re.findall(r"```sql\n(.*?)```", open(os.path.join(sources, "README.md")).read(), re.S)
check("README has five questions", len(questions) == 5, str(len(questions)))
for question in questions:
    answer = ask(question)
    if answer:
        check(f"question {question.splitlines()[0]}", True, f"{len(answer[1])} rows")

# Those of the cookbook, with the answers that stand below them. BPFREC_UPDATE=1 writes these anew.
shown_trace = "mixed-6.18.bpr"
path = os.path.join(sources, "docs/cookbook.md")
head, *sections = re.split(r"^(?=## \d+\. )", open(path).read(), flags=re.M)
check("the cookbook has ten questions", len(sections) == 10, str(len(sections)))
for number, section in enumerate(sections):
    title, question = section.splitlines()[0], re.search(r"```sql\n(.*?)```\n", section, re.S)
    answer = ask(question[1])
    if os.path.basename(trace) != shown_trace:
        check(title, True, f"{len(answer[1])} rows" if answer else "")
        continue
    names, rows = answer
    lines = [names, ["---"] * len(names), *rows] if rows else []
    table = "".join("| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |\n" for line in lines)
    good = section[: question.end()] + "\n" + (table or "No rows: nothing is missing there.\n") + "\n"
    if number == len(sections) - 1:
        good = good[:-1]
    if os.environ.get("BPFREC_UPDATE"):
        sections[number] = good
    else:
        check(title, section == good, table)
if os.environ.get("BPFREC_UPDATE") and os.path.basename(trace) == shown_trace:
    open(path, "w").write(head + "".join(sections))
print("checks done")
