"""Opens report.html in a headless Chromium, chooses parts of it as a person does, and compares with `bpfrec report`.

usage: page_check.py CHROMIUM BPFREC TRACE PAGE [hostile]      prints one line a check; exits 1 at the first that fails
"""
import json
import pathlib
import random
import shlex
import subprocess
import sys

from playwright.sync_api import sync_playwright

chromium, bpfrec, trace, path = sys.argv[1:5]
hostile = "hostile" in sys.argv
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
known = {}


def check(name, ok, why=""):
    print("ok  " if ok else "BAD ", name, "" if ok else why)
    if not ok:
        sys.exit(1)


def report(command):
    """What the command that the page shows prints, as JSON; None where the source was not recorded."""
    words = shlex.split(command)
    words = [bpfrec, *(trace if word == "trace.bpr" else word for word in words[1:]), "--trace-only"]
    if "--json" not in words:
        words.append("--json")
    key = tuple(words)
    if key not in known:
        run = subprocess.run(words, capture_output=True, text=True)
        assert run.returncode in (0, 1, 3), (words, run.stderr)
        known[key] = json.loads(run.stdout) if run.returncode != 1 else None
    return known[key]


def histogram(answer):
    """Count, sum and filled buckets of all groups of a report."""
    filled = {}
    for group in answer["groups"]:
        for bucket in group["buckets"]:
            if bucket["count"]:
                filled[bucket["low"]] = filled.get(bucket["low"], 0) + bucket["count"]
    return {"count": sum(g["count"] for g in answer["groups"]), "sum_ns": sum(g["sum_ns"] for g in answer["groups"]), "buckets": filled}


def by_stack(answer):
    """Samples by stack as the page names frames: the leaf first, a run of unknown frames as one, missing stacks by their mark."""
    sums = {}
    for stack in answer["stacks"]:
        kernel = ["[Missed Kernel Stack]"] if stack["kernel"] is None else [name + "_[k]" for name in stack["kernel"]]
        user = ["[Missed User Stack]"] if stack["user"] is None else stack["user"]
        names = []
        for name in kernel + user:
            if not (names and names[-1] == name and name.startswith("[unknown]")):
                names.append(name)
        key = "<".join(names)
        sums[key] = sums.get(key, 0) + stack["count"]
    return sums


def compare(page, what):
    """Everything that the page tells now is what the reports tell."""
    figures = page.evaluate("bpfrec.figures()")
    commands = figures["commands"]
    compared = 0
    for name in ("runqlat", "biolatency"):
        answer = report(commands[name])
        if answer is None:
            continue
        expected, found = histogram(answer), figures[name]
        found_buckets = {low: n for low, _, n in found["buckets"] if n}
        found = {"count": found["count"], "sum_ns": found["sum_ns"], "buckets": found_buckets}
        check(f"{what}: {name}", found == expected, f"{commands[name]}\n{found}\n{expected}")
        compared += expected["count"]
        shown = page.evaluate("""id => [...document.querySelectorAll(`#${id} .histogram`)].map(f => [Number(f.dataset.count),
            Object.fromEntries([...f.querySelectorAll('tbody tr')].map(r => [r.dataset.low, Number(r.children[1].textContent.replaceAll(',', ''))]))])""",
                              "runq" if name == "runqlat" else "io")
        if len(shown) == 1:
            check(f"{what}: {name} as shown", shown[0][0] == expected["count"]
                  and {int(k): n for k, n in shown[0][1].items() if n} == expected["buckets"], str(shown))
    answer = report(commands["profile"])
    if answer is not None:
        check(f"{what}: profile", figures["samples"] == answer["samples"], f"{commands['profile']} {figures['samples']} {answer['samples']}")
        expected = by_stack(answer)
        check(f"{what}: profile by stack", figures["stacks"] == expected, f"{figures['stacks']}\n{expected}")
        compared += answer["samples"]
    answer = report(commands["offcputime"])
    if answer is not None:
        expected = {"ns": answer["total"]["ns"], "waits": answer["total"]["waits"]}
        check(f"{what}: offcputime", figures["off"] == expected, f"{commands['offcputime']} {figures['off']} {expected}")
    answer = report(commands["memleak"])
    if answer is not None:
        expected = {field: sum(g["outstanding"][field] for g in answer["groups"]) for field in ("bytes", "count")}
        check(f"{what}: memleak", figures["memory"] == expected, f"{commands['memleak']} {figures['memory']} {expected}")
    return compared


def choose(page, **part):
    page.evaluate("part => bpfrec.choose(part)", part)


def brush(page, chart, begin, end):
    """Drags over a chart, from and to shares of its width."""
    area = page.locator(".u-over").nth(chart)
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * begin, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * (begin + end) / 2, y, steps=4)
    page.mouse.move(box["x"] + box["width"] * end, y, steps=4)
    page.mouse.up()
    return page.evaluate("[bpfrec.from, bpfrec.to, bpfrec.recording.bins.count]")


def parts(page):
    """Brushes, clicks, and what neither of them reaches."""
    bins = page.evaluate("bpfrec.recording.bins.count")
    compared = compare(page, "whole")
    charts = page.locator(".u-over").count()
    check("there is a time line", charts > 0)
    for chart, begin, end in [(0, 0.25, 0.5), (charts - 1, 0.6, 0.9)]:
        first, last, _ = brush(page, chart, begin, end)
        check(f"brush {begin} to {end}", abs(first - begin * bins) <= 2 and abs(last - end * bins) <= 2, f"{first} {last} of {bins}")
        compared += compare(page, f"bins {first} to {last}")
    page.locator(".u-over").first.click(position={"x": 9, "y": 9})
    check("a click ends the brush", page.evaluate("bpfrec.isWhole"))
    for by in ("cgroup", "pid", "tid"):
        page.locator(f"#who-tools [data-key={by}]").click()
        for row in range(min(4, page.locator("#who-table .pick").count())):
            pick = page.locator("#who-table .pick").nth(row)
            name = pick.text_content()
            pick.click()
            if by != "tid":
                compare(page, f"click on {by} {row}")
            else:
                thread(page, name)
            page.evaluate("bpfrec.choose({ cgroup: null, pid: null, tid: null })")
    # The same with a span, and spans at random, also with the first and last bin.
    dice = random.Random(7)
    groups = page.evaluate("bpfrec.recording.groups.map(g => [bpfrec.recording.cgroups[g.cgroup].path, g.pid])")
    for turn in range(6):
        first = dice.randrange(bins)
        last = min(bins, first + 1 + dice.randrange(bins))
        cgroup, pid = dice.choice(groups)
        part = {"from": [first, 0, first][turn % 3], "to": [last, last, bins][turn % 3], "cgroup": [cgroup, None][turn // 2 % 2], "pid": [None, pid][turn % 2]}
        choose(page, **part)
        compare(page, str(list(part.values())[:2]) + f" {turn}")
    choose(page, **{"from": 0, "to": bins, "cgroup": None, "pid": None, "tid": None})
    return compared


def thread(page, name):
    """Figures of one thread, as `runqlat -L` has them among others."""
    figures, tid = page.evaluate("bpfrec.figures()"), page.evaluate("bpfrec.tid")
    if tid is None:
        return
    answer = report(figures["commands"]["runqlat"] + " -L")
    if answer is not None:
        mine = [g["count"] for g in answer["groups"] if g["key"]["tid"] == tid]
        check(f"click on thread {tid}", figures["runqlat"]["count"] == sum(mine), f"{figures['runqlat']['count']} {mine}")
    answer = report(figures["commands"]["offcputime"] + f" --tid {tid}")
    if answer is not None:
        check(f"off-CPU time of thread {tid}", figures["off"]["ns"] == answer["total"]["ns"])


def flame(page):
    """Zoom, search, keys."""
    canvas = page.locator("#flame canvas")
    if not canvas.is_visible():
        return
    answer = report("bpfrec report profile trace.bpr")
    name = lambda: page.locator(".flame-details .name").text_content()
    canvas.scroll_into_view_if_needed()
    canvas.focus()
    names = [name()]
    for key in ("ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
        names.append(name())
    check("keys move through frames", names[0] == "all" and len(set(names[:2])) == 2, str(names))
    page.keyboard.press("Enter")
    check("Enter zooms", page.evaluate("bpfrec.flame.focus === bpfrec.flame.at && bpfrec.flame.focus > 0"))
    page.keyboard.press("Escape")
    check("Escape resets", page.evaluate("bpfrec.flame.focus === 0"))
    page.keyboard.press("i")
    check("i turns it over", page.evaluate("bpfrec.flame.icicle"))
    page.keyboard.press("i")
    box = page.evaluate("""(() => { const f = bpfrec.flame, b = f.boxes.filter(b => b[3] === 2).sort((a, b) => b[2] - a[2])[0];
        f.wrap.scrollTop = f.y(b[3]) - 50; return [b[0], b[1] + b[2] / 2, f.y(b[3]) + 9]; })()""")
    canvas.click(position={"x": box[1], "y": box[2]})
    check("a click zooms", page.evaluate("bpfrec.flame.focus") == box[0])
    check("details are told", "name from" in page.locator(".flame-details").text_content() or hostile, page.locator(".flame-details").text_content())
    page.locator("#flame-host button", has_text="Reset").click()
    check("the button resets", page.evaluate("bpfrec.flame.focus === 0"))
    if answer is not None:
        # Processes are found, too: a function that no process is called like.
        called = " ".join(s["comm"] for s in answer["stacks"]).lower()
        needle = next((f for s in answer["stacks"] for f in s["kernel"] or [] if f.lower() not in called), "nothing")
        page.keyboard.press("/")
        page.keyboard.type(needle)
        hit = sum(s["count"] for s in answer["stacks"] if any(needle.lower() in f.lower() for f in (s["kernel"] or []) + (s["user"] or [])))
        found = float(page.locator(".matched").get_attribute("data-value"))
        check("search finds a share", found == hit, f"{needle}: {found} {hit}")
        page.keyboard.press("Escape")
    for key, total in (("offcpu", "figures => figures.off.ns"), ("memory", "figures => figures.memory.bytes")):
        tab = page.locator(f"#flame-tools [data-key={key}]")
        if tab.count():
            tab.click()
            drawn, told = page.evaluate(f"[bpfrec.flame.total[0], ({total})(bpfrec.figures())]")
            check(f"flamegraph of {key}", drawn == told, f"{drawn} {told}")


def nothing_runs(page, dialogs):
    """Names of the host are text."""
    page.wait_for_timeout(200)
    check("no name has run", not dialogs and page.evaluate("window.hacked === undefined"), str(dialogs))
    strange = page.evaluate("""[...document.querySelectorAll('img, iframe, object, embed, link, script:not([id]):not(:empty)')]
        .filter(e => e.tagName !== 'SCRIPT' || /hacked/.test(e.textContent) || e.src).map(e => e.outerHTML.slice(0, 80))""")
    check("no name is markup", not strange, str(strange))
    check("names are shown as they are", "</script><script>window.hacked=1;alert(1)</script>" in page.locator("#host").text_content())


page_url = pathlib.Path(path).resolve().as_uri()
size = pathlib.Path(path).stat().st_size
check("at most 10 MB", size <= 10_000_000, str(size))
with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
    for width, theme in ((1280, "light"), (400, "dark")):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        page = context.new_page()
        said, dialogs, asked = [], [], []
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_url)
        page.wait_for_function("document.documentElement.dataset.ready", timeout=60000)
        print(f"opens at {width} px in {page.evaluate('document.documentElement.dataset.ready')} ms, {size} bytes")
        check(f"{theme} as the system has it", page.evaluate("document.documentElement.dataset.theme") == theme)
        page.locator("#theme").click()
        check("the button changes that", page.evaluate("document.documentElement.dataset.theme") != theme)
        if width == 1280:
            compared = parts(page)
            check("something was compared", compared > 0)
            flame(page)
            for link in range(page.locator("#findings a").count()):
                page.locator("#findings a").nth(link).click()
                compare(page, f"finding {link}")
        for key in ("cgroup", "pid"):
            for id in ("runq", "io"):
                tab = page.locator(f"#{id}-tools [data-key={key}]")
                if tab.is_visible():
                    tab.click()
        wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        check(f"fits {width} px", wide[0] <= wide[1], str(wide))
        if hostile:
            nothing_runs(page, dialogs)
        check(f"console at {width} px", not said, str(said))
        check("no request but for the file", all(url == page_url or url.startswith("blob:") for url in asked), str(asked))
        context.close()
    browser.close()
print("checks done")
