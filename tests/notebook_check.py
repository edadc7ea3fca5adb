"""Runs the cells of a notebook in order and looks at the pictures.

usage: notebook_check.py NOTEBOOK DIR PICTURES     DIR: an analysed trace; pictures go to the folder PICTURES
"""
import json
import os
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

notebook, directory, pictures = (os.path.abspath(path) for path in sys.argv[1:])
cells = json.load(open(notebook))["cells"]
os.environ["BPFREC_OUT"] = directory
os.makedirs(pictures, exist_ok=True)
names = {}
drawn = []
for number, cell in enumerate(cells):
    if cell["cell_type"] != "code":
        continue
    # Outputs are not kept: what they show is another's host.
    assert not cell["outputs"] and cell["execution_count"] is None, f"cell {number} has outputs"
    exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    for figure in plt.get_fignums():
        axes = plt.figure(figure).axes[0]
        assert axes.has_data(), f"cell {number} draws nothing"
        drawn.append(axes.get_title())
        plt.savefig(os.path.join(pictures, f"{number}.png"), dpi=80)
    plt.close("all")

# The pictures show what is in the tables.
db, has = names["db"], names["has"]


def count(what):
    return db.execute(f"SELECT count(*) FROM {what}").fetchone()[0]


expected = has("slices") + 2 * has("waits") + has("io") + has("samples")
assert len(drawn) == expected, f"{len(drawn)} pictures instead of {expected}: {drawn}"
if has("waits"):
    assert names["waits"] == count("waits"), (names["waits"], count("waits"))
if has("slices"):
    share = names["cpus"].sum() / (db.execute("SELECT sum(dur_ns) FROM slices").fetchone()[0] / 1e8)
    assert 0.95 < share <= 1.001, share
print(f"{len(drawn)} pictures")
