"""Reads an export with programs of others and compares it with the reports: export_check.py BPFREC TRACE FORMAT FILE NODE_MODULES [OPTION...]

The options are those of the part that was exported (--from, --pid, ...). Ends with a line `N checks done`.
Readers: folded, csv: Python, DuckDB, speedscope; pprof: pprof-format (Datadog's, in JavaScript) and speedscope; chrome: json and speedscope;
perfetto: the published message types (package perfetto); speedscope: its schema and its importer; firefox: the types of its
documentation, as rules here, and the profiler itself (package @firefox-devtools/profiler-cli).
"""

import base64, collections, csv, gzip, json, os, re, subprocess, sys, tempfile, time

BPFREC, TRACE, FORMAT, FILE, NODE = sys.argv[1:6]
OPTIONS = sys.argv[6:]
done = 0


def check(what, got, expected):
    global done
    if got != expected:
        sys.exit(f"{FORMAT}: {what}: {got!r}, expected {expected!r}")
    done += 1


def skip(what, why):
    print(f"SKIPPED: {FORMAT}: {what}: {why}")


def report(name, *flags):
    """A report as JSON; None where the trace has nothing of it."""
    run = subprocess.run([BPFREC, "report", name, TRACE, "--json", *NAMES, *flags, *PART], capture_output=True)
    return json.loads(run.stdout) if run.returncode in (0, 3) else None


def split(options):
    """Options of a report, and those of the format alone."""
    part, own = [], []
    at = iter(options)
    for option in at:
        if option == "--of":
            own += [option, next(at)]
        else:
            part.append(option)
    return [o for o in part if o != "--trace-only"], own


PART, OWN = split(OPTIONS)
NAMES = ["--trace-only"]
WINDOWED = "--from" in PART or "--to" in PART


class Truth:
    """What the reports say of the same part."""

    def __init__(self):
        profile = report("profile")
        self.samples = profile["samples"] if profile else 0
        self.hz = (profile or {}).get("sample_hz") or 99
        self.stacks = profile["stacks"] if profile else []
        self.samples_lost = profile["lost"] if profile else 0
        runqlat = report("runqlat")
        self.waits = totals(runqlat)
        self.ios = totals(report("biolatency", "-Q"))
        off = report("offcputime")
        self.off = off and {"waits": off["total"]["waits"] - off["short"]["waits"], "ns": off["total"]["ns"] - off["short"]["ns"]}
        self.off_all = off and off["total"]
        heap = report("memleak", "--combined-only", "-T", "1000000")
        self.heap = [s for g in heap["groups"] for s in g["stacks"]] if heap else None
        # A summary of all processes has the CPU time of each.
        summary = report("summary", "--top", "1000000")
        self.cpus, self.unseen_ns = 2, 0
        if "--to" in PART:
            # Time from the last switch within the window on.
            end = PART[PART.index("--to") + 1]
            replay = subprocess.run([BPFREC, "replay", TRACE, "--json", "--kind", "sched_switch", "--to", end], capture_output=True)
            lines = replay.stdout.splitlines()
            info = json.loads(subprocess.run([BPFREC, "info", TRACE, "--json"], capture_output=True).stdout)
            scale = {"ms": 10**6, "s": 10**9}[re.sub(r"[0-9]", "", end)]
            start_ns = int(info["header"]["start_mono_ns"])
            if lines:
                self.unseen_ns = start_ns + int(re.sub(r"[a-z]", "", end)) * scale - json.loads(lines[-1])["ts_ns"]
        self.cpu_ns = {p["pid"]: p["cpu_ns"] for p in summary["processes"]} if runqlat else None


def check_cpu(truth, cpu_ns):
    got, expected = ({p: n for p, n in all_.items() if n} for all_ in (cpu_ns, truth.cpu_ns))
    if "--to" not in PART:
        return check("CPU time by process", got, expected)
    # What still runs at the end of a window the summary knows only up to the last switch before it.
    check("processes", got.keys(), expected.keys())
    more = {p: n - expected[p] for p, n in got.items() if n != expected[p]}
    check("CPU time by process", all(0 < n <= truth.unseen_ns for n in more.values()), True)
    check("processes that still run", len(more) <= truth.cpus, True)


def totals(histograms):
    if histograms is None:
        return None
    return sum(g["count"] for g in histograms["groups"]), sum(g["sum_ns"] for g in histograms["groups"])


def live(heap):
    return {"count": sum(s["count"] for s in heap), "bytes": sum(s["bytes"] for s in heap)}


def allocated(heap):
    return {"count": sum(s["allocated_count"] for s in heap), "bytes": sum(s["allocated_bytes"] for s in heap)}


SPEEDSCOPE_READS = r"""
async ([name, data]) => {
    const group = await window.__import(name, data);
    if (!group) return null;
    return group.profiles.map(p => {
        const frames = [];
        p.forEachFrame(f => frames.push([f.name, f.getTotalWeight()]));
        return {name: p.getName(), total: p.getTotalWeight(), samples: p.samples ? p.samples.length : null, frames};
    });
}
"""


def speedscope(path, name):
    """What speedscope itself makes of a file: its importer, run in Chromium. None where that is not to be had."""
    dist = os.path.join(NODE, "speedscope", "dist", "release")
    if not os.path.isdir(dist):
        return skip("speedscope's importer", "no npm package speedscope (scripts/deps test)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return skip("speedscope's importer", "no Python package playwright here")
    chromium = next((p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome") if os.path.exists(p)), None)
    if chromium is None:
        return skip("speedscope's importer", "no Chromium here")

    def serve(route):
        file = os.path.join(dist, os.path.basename(route.request.url.split("?")[0].split("#")[0]) or "index.html")
        if not os.path.exists(file):
            return route.fulfill(status=404)
        body = open(file, "rb").read()
        if file.endswith(".js"):
            # The importer has no name outside; here it gets one.
            text = body.decode()
            text, n = re.subn(r"loadFileFromBase64:\((\w+),(\w+)\)=>\{this\.loadProfile\(\(\)=>(\w+)\(\1,\2\)\)\}",
                              r"loadFileFromBase64:(window.__import=\3,(\1,\2)=>{})", text)
            if "loadFileFromBase64" in text:
                assert n == 1, "this version of speedscope has its importer elsewhere"
            body = text.encode()
        types = {".js": "text/javascript", ".html": "text/html", ".css": "text/css", ".wasm": "application/wasm"}
        route.fulfill(body=body, content_type=types.get(os.path.splitext(file)[1], "application/octet-stream"))

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.route("**/*", serve)
        page.goto("http://speedscope.test/index.html#localProfilePath=none.js")
        page.wait_for_function("() => !!window.__import")
        profiles = page.evaluate(SPEEDSCOPE_READS, [name, base64.b64encode(open(path, "rb").read()).decode()])
        browser.close()
    return profiles


def folded(truth):
    of = OWN[1] if OWN else "cpu"
    total = 0
    for line in open(FILE, encoding="utf-8"):
        stack, weight = line.rstrip("\n").rsplit(" ", 1)
        total += int(weight)
        assert stack, line
    expected = {
        "cpu": lambda: truth.samples,
        "offcpu": lambda: truth.off_all["ns"] // 1000,
        "live": lambda: live(truth.heap)["bytes"],
        "allocated": lambda: allocated(truth.heap)["bytes"],
    }[of]()
    if of == "offcpu":
        # Each line is cut to whole microseconds.
        check("microseconds", 0 <= expected - total <= sum(1 for _ in open(FILE, encoding="utf-8")), True)
    else:
        check(of, total, expected)
    profiles = speedscope(FILE, "x.folded")
    if profiles is not None:
        check("total in speedscope", sum(p["total"] for p in profiles), total)


def csv_(truth):
    csv.field_size_limit(1 << 24)
    count, ns, bytes_, rows = collections.Counter(), collections.Counter(), collections.Counter(), collections.Counter()
    cpu_ns = collections.Counter()
    with open(FILE, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            assert None not in row and None not in row.values(), row
            what = row["what"]
            rows[what] += 1
            count[what] += float(row["count"] or 0)
            ns[what] += int(row["dur_ns"] or 0)
            bytes_[what] += int(row["bytes"] or 0)
            if what == "running":
                cpu_ns[int(row["pid"])] += int(row["dur_ns"])
    check("samples", rows["sample"], truth.samples)
    if truth.waits is not None:
        check("waits for a CPU", (rows["runnable"], ns["runnable"]), truth.waits)
        check_cpu(truth, cpu_ns)
    if truth.ios is not None:
        check("requests", (rows["io"], ns["io"]), truth.ios)
    if truth.off is not None:
        check("time off the CPU", ns["off"], truth.off["ns"])
        # What ended before the recording began has no time in it, and no line.
        check("waits", 0 < count["off"] <= truth.off["waits"], True)
    if truth.heap is not None:
        check("allocations", round(count["memory"]), allocated(truth.heap)["count"])
        check("bytes", bytes_["memory"], allocated(truth.heap)["bytes"])
    import duckdb
    # Types are found out by DuckDB itself; a file without lines has none.
    length = "sum(dur_ns)::BIGINT" if rows else "0"
    query = f"SELECT what, count(*), {length} FROM read_csv(?, header = true, sample_size = -1) GROUP BY what"
    found = {what: (n, total or 0) for what, n, total in duckdb.execute(query, [FILE]).fetchall()}
    check("DuckDB", found, {what: (rows[what], ns[what]) for what in rows})


PPROF_READS = r"""
const {Profile} = require('pprof-format');
const p = Profile.decode(require('zlib').gunzipSync(require('fs').readFileSync(process.argv[1])));
const s = n => p.stringTable.strings[Number(n)];
const types = p.sampleType.map(t => [s(t.type), s(t.unit)]);
const sums = types.map(() => 0n);
const by = {locations: new Map(), functions: new Map()};
p.location.forEach(l => by.locations.set(Number(l.id), l));
p.function.forEach(f => by.functions.set(Number(f.id), f));
const stacks = {};
for (const sample of p.sample) {
    if (sample.value.length != types.length) throw 'values';
    sample.value.forEach((v, i) => sums[i] += BigInt(v));
    const names = sample.locationId.flatMap(id => by.locations.get(Number(id)).line.map(l => s(by.functions.get(Number(l.functionId)).name)));
    const label = Object.fromEntries(sample.label.map(l => [s(l.key), Number(l.str) ? s(l.str) : Number(l.num)]));
    const key = JSON.stringify([label.pid, label.thread, names]);
    stacks[key] = (stacks[key] || 0) + Number(sample.value[0]);
}
const mappings = p.mapping.map(m => [s(m.filename), s(m.buildId)]);
for (const l of p.location) if (Number(l.mappingId) > mappings.length) throw 'mapping';
console.log(JSON.stringify({types, sums: sums.map(String), samples: p.sample.length, stacks, mappings, first: p.stringTable.strings[0],
    period: [Number(p.period), p.periodType ? s(p.periodType.type) : null], duration: String(p.durationNanos), comments: p.comment.map(s)}));
"""


def pprof(truth):
    data = open(FILE, "rb").read()
    check("gzip", data[:2], b"\x1f\x8b")
    gzip.decompress(data)
    expected = {}
    if truth.stacks or truth.samples:
        expected["samples"] = truth.samples
    if truth.off_all:
        expected["waits"], expected["offcpu"] = truth.off_all["waits"], truth.off_all["ns"]
    if truth.heap is not None:
        for name, amount in (("alloc", allocated(truth.heap)), ("inuse", live(truth.heap))):
            expected[f"{name}_objects"], expected[f"{name}_space"] = amount["count"], amount["bytes"]
    if not os.path.isdir(os.path.join(NODE, "pprof-format")):
        skip("pprof-format", "no npm package pprof-format (scripts/deps test)")
    else:
        run = subprocess.run(["node", "-e", PPROF_READS, FILE], env={**os.environ, "NODE_PATH": NODE}, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        got = json.loads(run.stdout)
        sums = {name: int(value) for (name, _), value in zip(got["types"], got["sums"])}
        check("first string", got["first"], "")
        if truth.samples_lost:
            check("comments", any("events of profile" in c for c in got["comments"]), True)
        for name, value in expected.items():
            check(name, sums[name], value)
        if truth.samples:
            check("CPU time", abs(sums["cpu"] - truth.samples * 1_000_000_000 // truth.hz) <= got["samples"], True)
            stacks = collections.Counter()
            for s in truth.stacks:
                kernel, user = (["[Missed Kernel Stack]"] if s["kernel"] is None else s["kernel"]), (["[Missed User Stack]"] if s["user"] is None else s["user"])
                stacks[json.dumps([s["pid"], s["comm"], kernel + user], ensure_ascii=False, separators=(",", ":"))] += s["count"]
            own = {json.dumps(json.loads(k), ensure_ascii=False, separators=(",", ":")): v for k, v in got["stacks"].items() if v}
            if len(got["types"]) == 2:
                check("stacks", own, dict(stacks))
    profiles = speedscope(FILE, "x.pb.gz")
    if profiles is not None:
        check("profiles in speedscope", len(profiles), 1)
        check("total in speedscope", profiles[0]["total"] > 0, True)


def chrome(truth):
    data = json.load(open(FILE, encoding="utf-8"))
    events = data["traceEvents"]
    by = collections.Counter(e["ph"] for e in events)
    ns = lambda text: round(text * 1000)
    running = [e for e in events if e["ph"] == "X" and e["cat"] == "sched"]
    cpu = [e for e in events if e["ph"] == "X" and e["cat"] == "cpu"]
    cpu_ns = collections.Counter()
    for e in running:
        cpu_ns[e["pid"]] += ns(e["dur"])
    check("slices by thread and CPU", len(running), len(cpu))
    open_ = {}
    spans = collections.defaultdict(lambda: [0, 0])
    for e in events:
        if e["ph"] == "b":
            open_[e["id"]] = e
        elif e["ph"] == "e":
            begin = open_.pop(e["id"])
            assert begin["cat"] == e["cat"] and begin["pid"] == e["pid"] and begin["ts"] <= e["ts"], (begin, e)
            spans[e["cat"]][0] += 1
            spans[e["cat"]][1] += ns(e["ts"]) - ns(begin["ts"])
    check("open events", open_, {})
    flows = [{e["id"]: e for e in events if e["ph"] == ph} for ph in "sf"]
    check("flows", flows[0].keys(), flows[1].keys())
    for number, start in flows[0].items():
        assert start["ts"] <= flows[1][number]["ts"], start
    named = {(e["pid"], e["tid"]) for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    check("unnamed threads", {(e["pid"], e["tid"]) for e in events} - named, set())
    samples = data.get("samples", [])
    check("samples", len(samples), truth.samples)
    for s in samples:
        frame = data["stackFrames"][str(s["sf"])]
        while "parent" in frame:
            frame = data["stackFrames"][str(frame["parent"])]
    if truth.waits is not None:
        check("waits for a CPU", tuple(spans["runq"]), truth.waits)
        check_cpu(truth, cpu_ns)
    if truth.ios is not None:
        check("requests", tuple(spans["block"]), truth.ios)
    if truth.off is not None:
        check("time off the CPU", spans["offcpu"][1], truth.off["ns"])
    counters = collections.defaultdict(list)
    for e in events:
        if e["ph"] == "C":
            counters[e["name"]].append((e["ts"], *e["args"].values()))
    check_counters(truth, {name: [v for _, v in sorted(values)] for name, values in counters.items()})
    check("counts", by["X"] + by["b"] + by["e"] + by["s"] + by["f"] + by["M"] + by["C"], len(events))
    if samples:
        profiles = speedscope(FILE, "x.json")
        if profiles is not None:
            # There a sample lasts until the thread's next one.
            spans = collections.defaultdict(list)
            for s in samples:
                spans[s["pid"], s["tid"]].append(s["ts"])
            expected = sum(max(all_) - min(all_) for all_ in spans.values())
            check("threads in speedscope", len(profiles), len(spans))
            check("time in speedscope", round(sum(p["total"] for p in profiles)), round(expected))


def check_counters(truth, counters):
    """Last values: what is live at the end; nothing else is under way by then that items tell."""
    for name, values in counters.items():
        check(f"{name} is never negative", min(values) >= 0, True)
    if truth.heap is not None:
        last = sum(values[-1] for name, values in counters.items() if "memory" in name)
        # The report has what processes had when they ended, too.
        ended = sum(s["ended_bytes"] for s in truth.heap)
        check("memory at the end", last, live(truth.heap)["bytes"] - ended)


def perfetto(truth):
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto
    except ImportError:
        return skip("the published message types", "no Python package perfetto here")
    trace = proto.Trace()
    trace.ParseFromString(open(FILE, "rb").read())
    tracks, open_, slices = {}, {}, []
    frames, names, stacks, mappings, paths, texts = {}, {}, {}, {}, {}, {}
    flows, last_flows, samples, counters = {}, {}, [], collections.defaultdict(list)
    events = []
    unknown = 0
    for number, packet in enumerate(trace.packet):
        assert packet.trusted_packet_sequence_id == 1
        if packet.HasField("interned_data"):
            data = packet.interned_data
            for known, new in ((names, data.function_names), (paths, data.mapping_paths), (frames, data.frames), (stacks, data.callstacks),
                               (mappings, data.mappings), (texts, data.debug_annotation_string_values)):
                for one in new:
                    assert one.iid and one.iid not in known, one
                    known[one.iid] = one
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            assert track.uuid not in tracks and (not track.parent_uuid or track.parent_uuid in tracks), track
            tracks[track.uuid] = track
        if packet.HasField("perf_sample"):
            samples.append(packet)
            for iid in [packet.perf_sample.callstack_iid] if packet.perf_sample.callstack_iid else []:
                for frame in stacks[iid].frame_ids:
                    assert names[frames[frame].function_name_id].str and frames[frame].mapping_id in mappings
        if packet.HasField("track_event"):
            assert packet.track_event.track_uuid in tracks
            events.append((packet.timestamp, number, packet.track_event))
    # As Perfetto does: by time, and as they stand where that is the same.
    events.sort(key=lambda e: e[:2])
    for ts, _, event in events:
        if event.type == event.TYPE_SLICE_BEGIN:
            assert event.track_uuid not in open_, f"slices overlap on {tracks[event.track_uuid]}"
            open_[event.track_uuid] = (ts, event)
        elif event.type == event.TYPE_SLICE_END:
            start, begin = open_.pop(event.track_uuid)
            slices.append((list(begin.categories)[0], begin.name, start, ts, begin))
        elif event.type == event.TYPE_COUNTER:
            counters[tracks[event.track_uuid].name].append(event.counter_value)
        for flow in event.flow_ids:
            flows[flow] = ts
        for flow in event.terminating_flow_ids:
            last_flows[flow] = ts
    check("open slices", open_, {})
    check("flows", flows.keys(), last_flows.keys())
    # Both ends stand at the moment of the wakeup.
    check("times of flows", flows, last_flows)
    spans = collections.defaultdict(lambda: [0, 0])
    cpu_ns = collections.Counter()
    for category, name, start, end, begin in slices:
        spans[category][0] += 1
        spans[category][1] += end - start
        if category == "cpu":
            cpu_ns[next(a.uint_value for a in begin.debug_annotations if a.name == "pid")] += end - start
    check("slices by thread and CPU", spans["sched"], spans["cpu"])
    check("samples", len(samples), truth.samples)
    if truth.waits is not None:
        check("waits for a CPU", tuple(spans["runq"]), truth.waits)
        check_cpu(truth, cpu_ns)
    if truth.ios is not None:
        check("requests", tuple(spans["block"]), truth.ios)
    if truth.off is not None:
        check("time off the CPU", spans["offcpu"][1], truth.off["ns"])
    check_counters(truth, counters)
    snapshot = trace.packet[0].clock_snapshot
    check("clocks", [c.clock_id for c in snapshot.clocks], [3, 6, 1])
    check("primary clock", snapshot.primary_trace_clock, 3)
    check("unknown fields", unknown_fields(trace), 0)


def unknown_fields(trace):
    """Fields that the published types do not have: written anew without them, a message is shorter."""
    before = trace.ByteSize()
    trace.DiscardUnknownFields()
    return before - trace.ByteSize()


def speedscope_(truth):
    data = json.load(open(FILE, encoding="utf-8"))
    frames = data["shared"]["frames"]
    total, samples = collections.Counter(), collections.Counter()
    for p in data["profiles"]:
        kind = p["name"].split(":")[0]
        assert len(p["samples"]) == len(p["weights"]), p["name"]
        check("end", p["endValue"], sum(p["weights"]))
        total[kind] += p["endValue"]
        samples[kind] += len(p["samples"])
        assert all(0 <= f < len(frames) and frames[f]["name"] for s in p["samples"] for f in s)
    check("samples", samples["CPU"], truth.samples)
    if truth.off is not None:
        check("time off the CPU", total["off the CPU"], truth.off["ns"])
    schema = os.path.join(NODE, "speedscope", "dist", "release", "file-format-schema.json")
    try:
        import jsonschema
        if os.path.exists(schema):
            jsonschema.validate(data, json.load(open(schema)))
            check("schema", True, True)
        else:
            skip("the schema", "no npm package speedscope (scripts/deps test)")
    except ImportError:
        skip("the schema", "no Python package jsonschema here")
    profiles = speedscope(FILE, "x.speedscope.json")
    if profiles is not None:
        check("profiles in speedscope", [p["name"] for p in profiles], [p["name"] for p in data["profiles"]])
        check("total in speedscope", sum(p["total"] for p in profiles), sum(total.values()))


def firefox(truth):
    data = json.load(open(FILE, encoding="utf-8"))
    shared, meta = data["shared"], data["meta"]
    check("version", (meta["preprocessedProfileVersion"], meta["version"]), (60, 30))
    strings, categories = shared["stringArray"], meta["categories"]
    tables = {
        "stackTable": ["frame", "prefix"],
        "frameTable": ["address", "inlineDepth", "category", "subcategory", "func", "nativeSymbol", "innerWindowID", "line", "column"],
        "funcTable": ["name", "isJS", "relevantForJS", "resource", "source", "lineNumber", "columnNumber"],
        "resourceTable": ["lib", "name", "host", "type"],
        "nativeSymbols": ["libIndex", "address", "name", "functionSize"],
        "sources": ["uuid", "filename"],
    }

    def columns(name, table, wanted):
        for column in wanted:
            check(f"{name}.{column}", len(table[column]), table["length"])

    def indices(name, values, length, also=()):
        check(f"indices of {name}", [v for v in values if v not in also and not (type(v) is int and 0 <= v < length)], [])

    for name, wanted in tables.items():
        columns(name, shared[name], wanted)
    stack, frame, func, resource = (shared[t] for t in ("stackTable", "frameTable", "funcTable", "resourceTable"))
    indices("stack.frame", stack["frame"], frame["length"])
    # Callers stand before callees.
    check("callers", all(p is None or 0 <= p < i for i, p in enumerate(stack["prefix"])), True)
    indices("frame.func", frame["func"], func["length"])
    indices("frame.category", frame["category"], len(categories))
    indices("func.name", func["name"], len(strings))
    indices("func.resource", func["resource"], resource["length"], (-1,))
    indices("func.source", func["source"], shared["sources"]["length"], (None,))
    indices("resource.lib", resource["lib"], len(data["libs"]), (None,))
    indices("resource.name", resource["name"], len(strings))
    schemas = {s["name"]: {f["key"] for f in s["fields"]} for s in meta["markerSchema"]}
    samples, spans, cpu_ns = 0, collections.defaultdict(lambda: [0, 0]), collections.Counter()
    seen = set()
    for thread in data["threads"]:
        assert type(thread["pid"]) is str and (thread["pid"], thread["tid"], thread["registerTime"]) not in seen, thread["name"]
        seen.add((thread["pid"], thread["tid"], thread["registerTime"]))
        columns("samples", thread["samples"], ["stack", "time"])
        indices("samples.stack", thread["samples"]["stack"], stack["length"])
        check("order of samples", thread["samples"]["time"], sorted(thread["samples"]["time"]))
        samples += thread["samples"]["length"]
        markers = thread["markers"]
        columns("markers", markers, ["data", "name", "startTime", "endTime", "phase", "category"])
        indices("markers.name", markers["name"], len(strings))
        for payload, start, end, phase in zip(markers["data"], markers["startTime"], markers["endTime"], markers["phase"]):
            keys = payload.keys() - {"type", "cause"}
            assert phase == 1 and start <= end and keys <= schemas[payload["type"]], payload
            if "cause" in payload:
                assert 0 <= payload["cause"]["stack"] < stack["length"], payload
            span = round(end * 1e6) - round(start * 1e6)
            spans[payload["type"]][0] += 1
            spans[payload["type"]][1] += span
            if payload["type"] == "running":
                cpu_ns[int(thread["pid"].split(".")[0])] += span
    check("samples", samples, truth.samples)
    if truth.waits is not None:
        check("waits for a CPU", tuple(spans["runnable"]), truth.waits)
        check_cpu(truth, cpu_ns)
    if truth.ios is not None:
        check("requests", tuple(spans["io"]), truth.ios)
    if truth.off is not None:
        check("time off the CPU", spans["offcpu"][1], truth.off["ns"])
    with tempfile.TemporaryDirectory() as home:
        firefox_itself(data, spans, home)


def firefox_itself(data, spans, home):
    """What the Firefox profiler makes of the file: all threads with their names, all samples, all markers with their lengths."""
    program = os.path.join(NODE, ".bin", "profiler-cli")
    # Its sessions are files below HOME.
    environment = {**os.environ, "HOME": home}

    def ask(*words):
        return subprocess.run([program, *words], env=environment, capture_output=True, text=True, timeout=120)

    try:
        version = ask("--version")
    except FileNotFoundError:
        return skip("the profiler itself", "no npm package @firefox-devtools/profiler-cli (scripts/deps test)")
    if version.returncode != 0:
        return skip("the profiler itself", f"profiler-cli does not run here: {version.stderr.strip()[-200:]}")
    # It takes no profile without a thread.
    if not data["threads"]:
        return
    loaded = ask("load", FILE)
    # On a busy machine its daemon is late; it says itself that a further try is the way.
    for _ in range(10):
        if "did not become ready" not in loaded.stderr:
            break
        time.sleep(1)
        loaded = ask("load", FILE)
    check("the profiler loads it", (loaded.returncode, loaded.stderr), (0, loaded.stderr))
    try:
        listed = json.loads(ask("thread", "list", "--json").stdout)["threads"]
        key = lambda name, pid, tid, markers: (name, pid, str(tid), markers)
        threads = [key(t["name"], t["pid"], t["tid"], t["markers"]["length"]) for t in data["threads"]]
        check("threads in the profiler", sorted(key(t["name"], t["pid"], t["tid"], t["markerCount"]) for t in listed), sorted(threads))
        all_of_them = ",".join(t["threadHandle"] for t in listed)
        samples = json.loads(ask("thread", "samples", "--thread", all_of_them, "--json").stdout)
        taken = sum(stack is not None for t in data["threads"] for stack in t["samples"]["stack"])
        check("samples in the profiler", samples["categoryBreakdown"]["totalSamples"], taken)
        markers = json.loads(ask("thread", "markers", "--thread", all_of_them, "--list", "--limit", "0", "--json").stdout)
        seen = collections.defaultdict(lambda: [0, 0])
        for marker in markers["flatMarkers"]:
            seen[marker["markerType"]][0] += 1
            seen[marker["markerType"]][1] += round(marker.get("duration", 0) * 1e6)
        check("markers in the profiler", {k: n for k, (n, _) in seen.items()}, {k: n for k, (n, _) in spans.items()})
        # Milliseconds as floating-point numbers: a nanosecond each may go.
        far = {k: (ns, spans[k][1]) for k, (n, ns) in seen.items() if abs(ns - spans[k][1]) > n}
        check("lengths of markers in the profiler", far, {})
    finally:
        ask("stop", "--all")


{"folded": folded, "csv": csv_, "pprof": pprof, "chrome": chrome, "perfetto": perfetto, "speedscope": speedscope_, "firefox": firefox}[FORMAT](Truth())
print(f"{done} checks done")
