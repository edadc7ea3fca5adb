"""Draws the picture of a case. Python with duckdb and matplotlib.

usage: picture.py CASE ANSWERS FILE     CASE: noisy-neighbour, slow-disk, leaking-service; ANSWERS: what `analyze` wrote
"""
import os
import sys

import duckdb
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

case, answers, file = sys.argv[1], sys.argv[2], os.path.abspath(sys.argv[3])
os.chdir(answers)
db = duckdb.connect()
db.execute(open("views.sql").read())
figure, axes = plt.subplots(figsize=(9, 2.6), layout="constrained")
START = "(SELECT start_mono_ns FROM trace)"


def ask(sql):
    return db.execute(sql).fetchnumpy()


if case == "noisy-neighbour":
    # A tenth of a second of CPU 0, from the middle: who is on it, and below, when the shop waits for it.
    begin, end = db.execute("SELECT start_mono_ns + duration_ns // 2, start_mono_ns + duration_ns // 2 + 100000000 FROM trace").fetchone()
    window = f"ts_mono < {end} AND"
    for name, cgroup, row, color in (("batch", "/batch", 1, "tab:gray"), ("shop", "/shop", 1, "tab:green")):
        on = ask(f"SELECT ts_mono AS t, dur_ns AS ns FROM slices WHERE cpu = 0 AND cgroup = '{cgroup}' AND {window} end_mono > {begin}")
        axes.broken_barh(list(zip((on["t"] - begin) / 1e6, on["ns"] / 1e6)), (row, 0.8), color=color, label=f"{name} runs")
    off = ask(f"SELECT ts_mono - dur_ns AS t, dur_ns AS ns FROM waits WHERE cgroup = '/shop' AND ts_mono - dur_ns < {end} AND ts_mono > {begin}")
    axes.broken_barh(list(zip((off["t"] - begin) / 1e6, off["ns"] / 1e6)), (0, 0.8), color="tab:red", label="shop waits")
    axes.set(yticks=[1.4, 0.4], yticklabels=["on CPU 0", "waiting"], xlim=(0, 100), xlabel="milliseconds")
elif case == "slow-disk":
    for disk, color in zip(("loop0", "disk below"), ("tab:red", "tab:gray")):
        is_it = "=" if disk == "loop0" else "<>"
        loop = "(SELECT disk FROM io WHERE cgroup = '/ledger' AND disk LIKE 'loop%' LIMIT 1)"
        io = ask(f"SELECT (end_mono - {START}) / 1e9 AS t, device_ns / 1e6 AS ms FROM io WHERE disk {is_it} {loop} AND device_ns IS NOT NULL")
        axes.scatter(io["t"], io["ms"], s=7, color=color, linewidth=0, label="the volume" if disk == "loop0" else disk)
    axes.set(yscale="log", ylabel="milliseconds", xlabel="seconds")
else:
    # What was allocated and not freed, as it grew, by the function that asked for it.
    changes = ask(f"""
        WITH changes AS (
          SELECT stack_id, (ts_mono - {START}) / 1e9 AS t, bytes FROM alloc
          UNION ALL SELECT stack_id, (ts_mono - {START} + free_ts - ts) / 1e9, -bytes FROM alloc WHERE free_ts IS NOT NULL)
        SELECT leaf AS func, t, sum(bytes) OVER (PARTITION BY leaf ORDER BY t ROWS UNBOUNDED PRECEDING) / 1024 AS kib
        FROM changes JOIN stack USING (stack_id) ORDER BY func, t""")
    for func in sorted(set(changes["func"])):
        mine = changes["func"] == func
        axes.plot(changes["t"][mine], changes["kib"][mine], drawstyle="steps-post", linewidth=1, label=func)
    axes.set(ylabel="KiB not freed", xlabel="seconds")
axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
figure.savefig(file, dpi=80, metadata={"Software": None})
