"use strict";
// The recording's sums, and figures of any part of it. A part is a span of bins and a container, process or thread.

const NEVER = 65535, STEPS = 16, BELOW = 10;

/** The longest time in a step, ns: the end of what it stands for. */
const longest = step => Math.max(0, Math.ceil((STEPS + step % STEPS + 1) * 2 ** Math.floor(step / STEPS) * 1000 / 2 ** 14) - 1);
/** The power-of-two bucket of the reports that a step lies in. */
const bucketOf = step => Math.max(0, Math.floor(step / STEPS) - BELOW);

class Recording {
  constructor({ head, columns }) {
    Object.assign(this, { head, columns });
    const { who, bins, functions } = head, { strings } = functions;
    this.bins = bins;
    this.cgroups = who.cgroups;
    this.processes = who.processes.map(p => p && { pid: p[0], comm: p[1] });
    const process = columns["group.process"], cgroup = columns["group.cgroup"], kernel = columns["group.kernel"];
    this.groups = who.threads.map((t, i) => ({
      tid: t && t[0], comm: t && t[1], process: process[i], cgroup: cgroup[i], kernel: !!kernel[i],
      pid: this.processes[process[i]] && this.processes[process[i]].pid,
    }));
    this.classes = head.classes;
    this.runq = this.classes.findIndex(c => !c.disk);
    this.tree = {
      parent: columns["node.parent"], func: columns["node.func"],
      name: Array.from(columns["func.name"], i => strings[i]), kind: columns["func.kind"],
      binary: Array.from(columns["func.binary"], i => strings[i]), source: Array.from(columns["func.source"], i => strings[i]),
      places: functions.places,
    };
    const names = head.facts.sources.map(source => source.name);
    this.has = {
      sched: this.runq >= 0 || this.rows("cpu") > 0, block: names.includes("block") || this.classes.some(c => c.disk),
      profile: this.rows("sample") > 0, offcpu: this.rows("wait") > 0, memory: this.rows("memory") > 0,
    };
    // CPU time is exact where switches were recorded, else it is that of samples.
    this.exact = this.rows("cpu") > 0;
    this.sampleNs = 1e9 / head.facts.sample_hz;
  }

  rows(table) { return this.columns[table + ".group"].length; }

  /** Which groups a part is of. A container includes those below it. */
  mask({ cgroup, pid, tid }) {
    const path = cgroup == null ? null : cgroup.replace(/\/+$/, "");
    const inside = this.cgroups.map(c => path === null || c.path === path || c.path.startsWith(path + "/"));
    return Uint8Array.from(this.groups, g => inside[g.cgroup] && (pid == null || g.pid === pid) && (tid == null || g.tid === tid) ? 1 : 0);
  }

  /** Calls `each(row)` for the rows of a table in a part. */
  scan(table, part, each) {
    const group = this.columns[table + ".group"], bin = this.columns[table + ".bin"], { mask, from, to } = part;
    for (let i = 0; i < group.length; i++) if (mask[group[i]] && bin[i] >= from && bin[i] < to) each(i);
  }

  /** Latencies, by a key of one's own: `key(class, group)`; null leaves a row out. */
  latencies(part, key) {
    const all = new Map(), c = this.columns;
    const of = (what, group) => {
      const k = key(what, group);
      if (k === null) return null;
      if (!all.has(k)) all.set(k, { key: k, steps: new Map(), count: 0, ns: 0, max: 0 });
      return all.get(k);
    };
    this.scan("latency", part, i => {
      const one = of(c["latency.what"][i], c["latency.group"][i]), n = c["latency.count"][i], step = c["latency.more"][i];
      if (one) { one.count += n; one.steps.set(step, (one.steps.get(step) || 0) + n); }
    });
    this.scan("length", part, i => {
      const one = of(c["length.what"][i], c["length.group"][i]);
      if (one) { one.ns += c["length.ns"][i]; one.max = Math.max(one.max, c["length.max_ns"][i]); }
    });
    return all;
  }

  runQueue(part, key = () => 0) { return this.latencies(part, (what, group) => (what === this.runq ? key(group, what) : null)); }
  io(part, key = () => 0) { return this.latencies(part, (what, group) => (what === this.runq ? null : key(group, what))); }

  /** Amounts by group. */
  byGroup(table, value, part) {
    const out = new Float64Array(this.groups.length), group = this.columns[table + ".group"], values = this.columns[table + "." + value];
    this.scan(table, part, i => { out[group[i]] += values[i]; });
    return out;
  }

  /** CPU time in ns by bin and by a key of groups. */
  cpuByBin(part, key) {
    const table = this.exact ? "cpu" : "sample", group = this.columns[table + ".group"], bin = this.columns[table + ".bin"];
    const values = this.exact ? this.columns["cpu.ns"] : this.columns["sample.count"], scale = this.exact ? 1 : this.sampleNs;
    const all = new Map();
    this.scan(table, part, i => {
      const k = key(group[i]);
      if (!all.has(k)) all.set(k, new Float64Array(this.bins.count));
      all.get(k)[bin[i]] += values[i] * scale;
    });
    return all;
  }

  /** Amounts by node of the tree. */
  byNode(table, value, part) {
    const out = new Float64Array(this.tree.parent.length), what = this.columns[table + ".what"], values = this.columns[table + "." + value];
    this.scan(table, part, i => { out[what[i]] += values[i]; });
    return out;
  }

  /** Outstanding memory by node, and by row of the report with its course over the bins of the part. */
  memory(part) {
    const c = this.columns, nodes = new Float64Array(this.tree.parent.length), rows = new Map(), n = part.to - part.from;
    this.scan("memory", part, i => {
      const item = c["memory.what"][i], freed = c["memory.more"][i], row = c["item.row"][item];
      const size = c["memory.bytes_milli"][i] / 1000, times = c["memory.count_milli"][i] / 1000;
      if (!rows.has(row)) rows.set(row, { row, node: c["item.node"][item], bytes: 0, count: 0, allocated: 0, course: new Float64Array(n + 1) });
      const one = rows.get(row);
      one.allocated += times;
      one.course[c["memory.bin"][i] - part.from] += size;
      if (freed < part.to) { one.course[freed - part.from] -= size; return; }
      nodes[c["item.node"][item]] += size;
      one.bytes += size;
      one.count += times;
    });
    for (const one of rows.values()) for (let i = 1; i < n; i++) one.course[i] += one.course[i - 1];
    return { nodes, rows: [...rows.values()] };
  }

  /** Times by bin and step: the heat map of a latency. */
  heat(isRunq, mask) {
    const c = this.columns, all = new Map();
    this.scan("latency", { mask, from: 0, to: this.bins.count }, i => {
      if ((c["latency.what"][i] === this.runq) !== isRunq) return;
      // Finer rows than the steps of a picture are ragged.
      const key = c["latency.bin"][i] * 4096 + Math.floor(c["latency.more"][i] * HEAT / STEPS);
      all.set(key, (all.get(key) || 0) + c["latency.count"][i]);
    });
    return all;
  }

  /** Events that were lost in a span, ns from the start; as the reports count them. */
  lost(sources, from, to) {
    return this.head.losses.filter(([begin, end, source]) => begin <= to && end >= from && sources.includes(source))
      .reduce((sum, loss) => sum + loss[3], 0);
  }
}

/** Power-of-two buckets as the reports have them: [low, high, count], up to the last that holds anything. */
function buckets(latency) {
  const counts = [];
  for (const [step, n] of latency.steps) {
    const at = bucketOf(step);
    while (counts.length <= at) counts.push(0);
    counts[at] += n;
  }
  return counts.map((n, i) => [i ? 2 ** i : 0, 2 ** (i + 1) - 1, n]);
}

/** The length that a share of all does not exceed: the end of its step, at most 6.3 % above it. */
function quantile(latency, share) {
  const rank = Math.min(Math.max(Math.ceil(latency.count * share), 1), latency.count);
  let seen = 0;
  for (const [step, n] of [...latency.steps].sort((a, b) => a[0] - b[0])) {
    seen += n;
    if (seen >= rank) return Math.min(longest(step), latency.max);
  }
  return 0;
}
