"use strict";
// The page: what is chosen, and everything computed anew for it.

const TRACE = "trace.bpr";
const PANELS = 6, ROWS = 12;
const MEASURES = {
  cpu: { label: "CPU", source: "profile" }, offcpu: { label: "Off-CPU", source: "offcpu" }, memory: { label: "Memory", source: "malloc" },
};

class App {
  constructor(recording) {
    const { bins } = recording;
    Object.assign(this, { recording, from: 0, to: bins.count, cgroup: null, pid: null, tid: null });
    Object.assign(this, { by: "cgroup", sort: null, all: false, kernelThreads: false, runqBy: "all", ioBy: "all", allLeaks: false });
    this.measure = Object.keys(MEASURES).find(key => recording.has[key === "cpu" ? "profile" : key]);
    this.facts();
    this.findings();
    this.notes();
    $("main").hidden = false;
    this.timeline = new Timeline($("timeline"), recording, (from, to) => this.choose(from === null ? { from: 0, to: bins.count } : { from, to }));
    this.tools();
    this.colours();
    themeButton($("theme"), () => this.repaint());
    this.choose({});
  }

  get part() { return { mask: this.mask, from: this.from, to: this.to }; }
  get isWhole() { return this.from === 0 && this.to === this.recording.bins.count; }

  /** Chooses another part, and computes the page for it. */
  choose(changes) {
    const groups = [this.cgroup, this.pid, this.tid].join();
    Object.assign(this, changes);
    this.mask = this.recording.mask(this);
    if (!this.painted || groups !== [this.cgroup, this.pid, this.tid].join()) this.paintTime();
    this.painted = true;
    this.timeline.show(this.isWhole ? null : [this.from, this.to]);
    this.bar();
    this.who();
    this.showFlame();
    this.latencies("runq");
    this.latencies("io");
    this.leaks();
  }

  repaint() { this.paintTime(); this.timeline.show(this.isWhole ? null : [this.from, this.to]); if (this.flame) this.flame.draw(); }

  // ------------------------------------------------------------ the head

  facts() {
    const f = this.recording.head.facts, w = this.recording.head.window;
    $("host").textContent = f.host || "unknown host";
    document.title = `${f.host} · bpfrec report`;
    $("recorded").textContent = `Linux ${f.kernel} · ${f.start} · ${duration(f.duration_ns)}`;
    $("version").textContent = f.version;
    const list = $("facts"), fact = (name, text, more, bad) => list.append(el("div", { class: bad ? "bad" : "" }, el("dt", {}, name), el("dd", {}, text, more ? el("small", {}, more) : null)));
    fact("Recorded", f.asked || "–", f.command ? `while ${f.command} ran` : `${f.cpus} CPU${f.cpus === 1 ? "" : "s"}, ${f.arch}`);
    fact("Events", count(f.events), f.sources.map(s => `${s.name} ${count(s.kept)}`).join(", "));
    fact("Cost", f.cost_percent.toFixed(2) + " % of the machine", `recorder ${duration(f.recorder_cpu_ns)} CPU, probes ${duration(f.bpf_ns)}, ${bytes(f.recorder_rss_bytes)} memory`);
    const lost = f.sources.filter(s => s.lost).map(s => `${s.name} ${count(s.lost)}`).join(", ");
    fact("Lost", f.lost ? count(f.lost) + " events" : f.damaged ? "parts of the file" : "nothing", lost || (f.damaged ? "see the notes below" : "every event that happened is in the figures"), f.lost > 0 || f.damaged);
    const part = [w.from_ns !== null && `from ${seconds(w.from_ns)}`, w.to_ns !== null && `to ${seconds(w.to_ns)}`, w.pid !== null && `process ${w.pid}`, w.cgroup !== null && `cgroup ${w.cgroup}`].filter(Boolean);
    if (part.length) fact("Only", part.join(", "), "the page was made of this part");
  }

  findings() {
    const { findings } = this.recording.head;
    $("findings-box").hidden = !findings.length;
    for (const finding of findings) {
      const go = event => {
        event.preventDefault();
        const { cgroup, pid, place } = finding;
        this.choose({ from: 0, to: this.recording.bins.count, cgroup, pid, tid: null });
        if (place === "offcpu") this.setMeasure("offcpu");
        if (place === "flame") this.setMeasure("cpu");
        const target = $(place === "offcpu" ? "flame" : place);
        target.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
      };
      $("findings").append(el("li", {}, el("a", { href: "#" + (finding.place === "offcpu" ? "flame" : finding.place), onclick: go }, finding.text)));
    }
  }

  notes() {
    const { cuts, notes, bins } = this.recording.head, list = $("notes-list");
    const own = [
      `Time is cut into ${bins.count} bins of ${duration(bins.width_ns)}: brushes snap to them.`,
      "Counts, sums and maxima are exact; quantiles are the ends of steps a sixteenth of an octave wide, at most 6.3 % above the true value.",
      "The recorder itself is left out, as in all reports.",
    ];
    for (const note of [...cuts, ...own, ...notes]) list.append(el("li", {}, note));
  }

  // ------------------------------------------------------------ what is chosen

  bar() {
    const { bins } = this.recording, at = bin => (bins.origin_ns + bin * bins.width_ns) / 1e9;
    const chip = (text, clear) => el("button", { type: "button", class: "chip", title: "No longer only this", onclick: () => this.choose(clear) }, text, el("span", { "aria-hidden": "true" }, " ×"));
    const input = (label, value, set) => el("label", {}, label, el("input", {
      type: "number", step: bins.width_ns / 1e9, min: at(0), max: at(bins.count), value: +value.toFixed(9),
      onchange: event => set(Math.round((event.target.value * 1e9 - bins.origin_ns) / bins.width_ns)),
    }));
    const clamp = (bin, low, high) => Math.min(Math.max(bin, low), high);
    const parts = [
      el("span", { class: "span" }, input("From", at(this.from), bin => { const from = clamp(bin, 0, bins.count - 1); this.choose({ from, to: Math.max(this.to, from + 1) }); }),
        input("to", at(this.to), bin => { const to = clamp(bin, 1, bins.count); this.choose({ to, from: Math.min(this.from, to - 1) }); }), "s"),
    ];
    if (!this.isWhole) parts.push(chip("whole time", { from: 0, to: bins.count }));
    if (this.cgroup !== null) parts.push(chip("container " + this.cgroup, { cgroup: null }));
    if (this.pid !== null) parts.push(chip(`process ${this.nameOf(this.pid)}`, { pid: null, tid: null }));
    if (this.tid !== null) parts.push(chip(`thread ${this.tid}`, { tid: null }));
    if (this.cgroup === null && this.pid === null && this.tid === null) parts.push(el("span", { class: "hint" }, "all containers and processes"));
    const sources = this.recording.head.facts.sources.map(s => s.name), [from, to] = this.window();
    const lost = this.recording.lost(sources, from, to);
    if (lost) parts.push(el("span", { class: "lost" }, `${count(lost)} events lost here`));
    $("bar").replaceChildren(...parts);
  }

  nameOf(pid) {
    const process = this.recording.processes.find(p => p && p.pid === pid);
    return process ? `${process.comm} (${pid})` : String(pid);
  }

  /** The span in ns from the start; the end is the last moment in it. */
  window() {
    const { bins, head } = this.recording;
    return [this.from ? bins.origin_ns + this.from * bins.width_ns : 0, this.to < bins.count ? bins.origin_ns + this.to * bins.width_ns - 1 : head.facts.end_ns];
  }

  /** The command that gives the same figures. `points`: events count at one moment, so that an end is not in the span. */
  command(words, points = true) {
    const { bins, head } = this.recording, w = head.window, flags = [];
    const at = bin => bins.origin_ns + bin * bins.width_ns;
    if (this.from > 0) flags.push("--from", seconds(at(this.from)));
    else if (w.from_ns !== null) flags.push("--from", seconds(w.from_ns));
    if (this.to < bins.count) flags.push("--to", seconds(at(this.to) - (points ? 1 : 0)));
    else if (w.to_ns !== null) flags.push("--to", seconds(w.to_ns));
    const quote = text => (/^[\w@%+=:,./-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\\''") + "'");
    const cgroup = this.cgroup ?? w.cgroup, pid = this.pid ?? w.pid;
    if (pid !== null) flags.push("--pid", pid);
    if (cgroup !== null) flags.push("--cgroup", quote(cgroup));
    return ["bpfrec report", words[0], TRACE, ...words.slice(1), ...flags].join(" ");
  }

  setCommand(id, ...of) { $(id).replaceChildren("The same in a terminal: ", el("code", { tabindex: "0" }, this.command(...of))); }

  // ------------------------------------------------------------ time line

  /** The containers with the most CPU time have colours of their own. */
  colours() {
    const everybody = { mask: this.recording.groups.map(() => 1), from: 0, to: this.recording.bins.count };
    const sums = [...this.recording.cpuByBin(everybody, group => this.recording.groups[group].cgroup)]
      .map(([cgroup, values]) => [cgroup, values.reduce((a, b) => a + b, 0)]);
    sums.sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    this.colour = new Map(sums.slice(0, SERIES.length).map(([cgroup], i) => [cgroup, SERIES[i]]));
  }

  paintTime() {
    const { recording } = this, { bins } = recording, rows = [], sources = recording.head.facts.sources.map(s => s.name);
    const everything = { mask: this.mask, from: 0, to: bins.count };
    const cpu = recording.cpuByBin(everything, group => { const { cgroup } = recording.groups[group]; return this.colour.has(cgroup) ? cgroup : -1; });
    const hint = "Drag over a chart to compute the page for that span; click it to see the whole again.";
    $("time-hint").textContent = recording.head.losses.length || recording.head.damaged.length ? hint + " Hatched: events were lost there, or not recorded." : hint;
    if (cpu.size) {
      const parts = [...this.colour].filter(([cgroup]) => cpu.has(cgroup)).map(([cgroup, colour]) => [this.label(cgroup), colour, cpu.get(cgroup), cgroup]);
      if (cpu.has(-1)) parts.push(["others", REST, cpu.get(-1), null]);
      const legend = el("div", { class: "legend" }, parts.map(([name, colour, , cgroup]) => {
        const dot = el("i");
        dot.style.background = colour;
        const pick = () => this.choose({ cgroup: recording.cgroups[cgroup].path, pid: null, tid: null });
        return cgroup === null ? el("span", {}, dot, name) : el("button", { type: "button", class: "key", onclick: pick }, dot, name);
      }));
      rows.push({ title: "CPU by container", note: recording.exact ? "" : "by samples", height: 170, sources, legend, ...stacked(recording, parts, recording.head.facts.cpus) });
    }
    for (const [isRunq, title, source, there] of [[true, "Run-queue latency", "sched", recording.has.sched], [false, "Block I/O latency", "block", recording.has.block]]) {
      const cells = recording.heat(isRunq, this.mask);
      if (there) rows.push({ title, note: cells.size ? "" : "none here", height: 160, sources: [source], legend: cells.size ? heatLegend(cells) : null, ...heat(recording, cells) });
    }
    $("time").hidden = !rows.length;
    this.timeline.draw(rows);
  }

  label(cgroup) { const { name, path } = this.recording.cgroups[cgroup]; return name || path; }

  // ------------------------------------------------------------ who

  tools() {
    $("who-tools").append(choice("Rows", [["cgroup", "Containers"], ["pid", "Processes"], ["tid", "Threads"]], this.by, key => { this.by = key; this.all = false; this.who(); }));
    const measures = Object.entries(MEASURES).filter(([key]) => this.recording.has[key === "cpu" ? "profile" : key]);
    $("flame").hidden = !measures.length;
    if (measures.length) {
      $("flame-tools").append(choice("Measure", measures.map(([key, { label }]) => [key, label]), this.measure, key => this.setMeasure(key)));
      this.kernelBox = el("label", {}, el("input", { type: "checkbox", onchange: event => { this.kernelThreads = event.target.checked; this.showFlame(); } }), " threads of the kernel, too");
      $("flame-tools").append(this.kernelBox);
      const { tree } = this.recording;
      const describe = func => [["file", tree.binary[func]], [tree.kind[func] === 0 ? "offset in the function" : "address in the file", tree.places[func]], ["name from", tree.source[func]]];
      this.flame = new Flame($("flame-host"), tree, describe);
    }
    const groupings = [["all", "Together"], ["cgroup", "By container"], ["pid", "By process"]];
    $("runq").hidden = !this.recording.has.sched;
    $("io").hidden = !this.recording.has.block;
    $("leaks").hidden = !this.recording.has.memory;
    $("runq-tools").append(choice("Histograms", groupings, this.runqBy, key => { this.runqBy = key; this.latencies("runq"); }));
    $("io-tools").append(choice("Histograms", [...groupings, ["disk", "By disk"], ["op", "By operation"]], this.ioBy, key => { this.ioBy = key; this.latencies("io"); }));
  }

  /** A row for each container, process or thread of the part. */
  whoRows() {
    const { recording, part } = this, { groups } = recording;
    const key = { cgroup: g => groups[g].cgroup, pid: g => groups[g].process, tid: g => g }[this.by];
    const rows = new Map();
    const row = group => {
      const k = key(group);
      if (!rows.has(k)) rows.set(k, { key: k, group, cpu: 0, waits: 0, waited: 0, ios: 0, samples: 0, off: 0, held: 0 });
      return rows.get(k);
    };
    const add = (table, value, field, scale = 1) => recording.byGroup(table, value, part).forEach((n, group) => { if (n) row(group)[field] += n * scale; });
    add("cpu", "ns", "cpu");
    add("sample", "count", "samples");
    if (!recording.exact) add("sample", "count", "cpu", recording.sampleNs);
    add("wait", "ns", "off");
    for (const [group, one] of recording.runQueue(part, group => group)) {
      const of = row(group);
      of.waits += one.count;
      of.waited += one.ns;
    }
    for (const [group, one] of recording.io(part, group => group)) row(group).ios += one.count;
    for (const [what, one] of recording.runQueue(part, key)) if (rows.has(what)) rows.get(what).wait99 = quantile(one, 0.99);
    for (const [what, one] of recording.io(part, key)) if (rows.has(what)) rows.get(what).io99 = quantile(one, 0.99);
    return [...rows.values()];
  }

  who() {
    const { recording } = this, { has, groups } = recording, [from, to] = this.window(), span = to - Math.max(from, recording.head.facts.first_ns) + 1;
    const name = row => {
      const group = groups[row.group];
      if (this.by === "cgroup") return this.label(group.cgroup);
      if (this.by === "pid") return group.pid === null ? "other processes of " + this.label(group.cgroup) : `${recording.processes[group.process].comm} (${group.pid})`;
      if (group.tid === null) return group.pid === null ? "other processes of " + this.label(group.cgroup) : `other threads of ${this.nameOf(group.pid)}`;
      return `${group.comm} (${group.tid})`;
    };
    const pick = row => {
      const { cgroup, pid, tid } = groups[row.group], path = recording.cgroups[cgroup].path;
      if (this.by === "cgroup") return this.choose({ cgroup: this.cgroup === path ? null : path, pid: null, tid: null });
      if (pid === null) return this.choose({ cgroup: path, pid: null, tid: null });
      if (this.by === "pid" || tid === null) return this.choose({ pid: this.pid === pid ? null : pid, tid: null });
      return this.choose({ pid, tid: this.tid === tid ? null : tid });
    };
    const columns = [
      ["CPU time", r => r.cpu, duration, has.sched || has.profile], ["of machine", r => r.cpu / span / recording.head.facts.cpus, v => percent(v, 1), has.sched || has.profile],
      ["waits for CPU", r => r.waits, count, has.sched], ["waited", r => r.waited, duration, has.sched],
      ["of runnable time", r => r.waited / (r.waited + r.cpu || 1), v => percent(v, 1), has.sched && recording.exact], ["wait p99", r => r.wait99 || 0, duration, has.sched],
      ["I/Os", r => r.ios, count, has.block], ["I/O p99", r => r.io99 || 0, duration, has.block],
      ["samples", r => r.samples, count, has.profile], ["off CPU", r => r.off, duration, has.offcpu],
    ].filter(column => column[3]);
    const sort = columns.find(([title]) => title === this.sort) || columns[0];
    const rows = sort ? this.whoRows().sort((a, b) => sort[1](b) - sort[1](a) || a.key - b.key) : [];
    const shown = this.all ? rows : rows.slice(0, ROWS);
    const chosen = row => { const g = groups[row.group]; return this.by === "cgroup" ? this.cgroup === recording.cgroups[g.cgroup].path : this.by === "pid" ? this.pid !== null && this.pid === g.pid : this.tid !== null && this.tid === g.tid; };
    const head = el("tr", {}, el("th", { scope: "col" }, { cgroup: "container", pid: "process", tid: "thread" }[this.by]),
      columns.map(([title]) => el("th", { scope: "col", "aria-sort": title === (sort && sort[0]) ? "descending" : "none" }, el("button", { type: "button", onclick: () => { this.sort = title; this.who(); } }, title))));
    const line = row => el("tr", { class: chosen(row) ? "chosen" : "", "data-name": name(row) },
      el("th", { scope: "row" }, this.dot(row), el("button", { type: "button", class: "pick", title: "Compute the page for " + name(row), onclick: () => pick(row) }, name(row))),
      columns.map(([, value, text]) => { const v = value(row); return el("td", { class: v ? "" : "zero" }, v ? text(v) : "–"); }));
    const more = rows.length > ROWS && el("button", { type: "button", class: "more", onclick: () => { this.all = !this.all; this.who(); } }, this.all ? "Fewer" : `All ${count(rows.length)}`);
    $("who-table").replaceChildren(el("table", { class: "data" }, el("thead", {}, head), el("tbody", {}, shown.map(line))), more || "");
    $("who").hidden = !columns.length;
  }

  dot(row) {
    if (this.by !== "cgroup") return null;
    const dot = el("i", { class: "dot" });
    dot.style.background = this.colour.get(row.key) || REST;
    return dot;
  }

  // ------------------------------------------------------------ flamegraph

  setMeasure(key) {
    if (!this.flame) return;
    this.measure = key;
    for (const button of $("flame-tools").querySelectorAll("[data-key]")) button.setAttribute("aria-pressed", String(button.dataset.key === key));
    this.showFlame();
  }

  showFlame() {
    if (!this.flame) return;
    const { recording, part, measure } = this;
    this.kernelBox.hidden = measure !== "offcpu";
    // Kernel threads wait for work nearly all of the time, and would hide all else.
    const programs = { ...part, mask: this.kernelThreads ? part.mask : part.mask.map((on, g) => (on && !recording.groups[g].kernel ? 1 : 0)) };
    const thread = this.tid === null ? [] : ["--tid", this.tid];
    if (measure === "cpu") {
      this.flame.show(recording.byNode("sample", "count", part), n => count(n) + " samples");
      this.setCommand("flame-command", ["profile"]);
    } else if (measure === "offcpu") {
      this.flame.show(recording.byNode("wait", "ns", programs), duration);
      this.waitCount = recording.byNode("wait", "count", programs).reduce((a, b) => a + b, 0);
      this.setCommand("flame-command", ["offcputime", ...(this.tid !== null ? thread : this.kernelThreads ? [] : ["-u"])], false);
    } else {
      this.flame.show(recording.memory(part).nodes, bytes);
      this.setCommand("flame-command", ["memleak", "-o", "0"]);
    }
  }

  // ------------------------------------------------------------ latencies

  latencies(id) {
    const { recording, part } = this, isRunq = id === "runq", by = isRunq ? this.runqBy : this.ioBy;
    if (!(isRunq ? recording.has.sched : recording.has.block)) return;
    const { groups, classes } = recording;
    const keys = {
      all: () => "", cgroup: g => groups[g].cgroup, pid: g => groups[g].process, disk: (g, what) => classes[what].disk, op: (g, what) => classes[what].op,
    };
    const names = {
      all: () => (this.cgroup || this.pid !== null ? "What was chosen" : "All"), cgroup: key => this.label(key), disk: key => key, op: key => key,
      pid: key => (recording.processes[key] ? `${recording.processes[key].comm} (${recording.processes[key].pid})` : "other processes"),
    };
    const found = [...(isRunq ? recording.runQueue(part, keys[by]) : recording.io(part, keys[by])).values()].sort((a, b) => b.count - a.count);
    if (!found.length && by === "all") found.push({ key: "", steps: new Map(), count: 0, ns: 0, max: 0 });
    const shown = found.slice(0, PANELS), most = { last: Math.max(0, ...shown.map(one => buckets(one).length - 1)) };
    $(id + "-host").replaceChildren(...shown.map(one => histogram(names[by](one.key), one, most, isRunq ? "waits" : "requests")));
    $(id + "-host").classList.toggle("single", shown.length === 1);
    if (found.length > PANELS) $(id + "-host").append(el("p", { class: "hint" }, `${count(found.length - PANELS)} more with fewer`));
    const flags = { all: [], cgroup: ["--per-cgroup"], pid: [isRunq ? "-P" : "--per-process"], disk: ["-D"], op: ["-F"] }[by];
    this.setCommand(id + "-command", [isRunq ? "runqlat" : "biolatency", ...(this.tid !== null && isRunq ? ["-L"] : flags)]);
  }

  // ------------------------------------------------------------ leaks

  leaks() {
    const { recording } = this, { head, tree } = recording;
    if (!recording.has.memory) return;
    const rows = recording.memory(this.part).rows.filter(row => row.bytes > 0).sort((a, b) => b.bytes - a.bytes || a.row - b.row);
    const path = node => { const names = []; for (; node && names.length < 4; node = tree.parent[node]) if (tree.kind[tree.func[node]] < 4) names.push(tree.name[tree.func[node]]); return names.join(" < ") || "[no stack]"; };
    const process = node => { while (tree.parent[node]) node = tree.parent[node]; return tree.name[tree.func[node]]; };
    const line = row => {
      const leak = head.leaks[row.row];
      return el("tr", { "data-bytes": Math.round(row.bytes) },
        el("th", { scope: "row", class: "stack", title: path(row.node) }, path(row.node), el("small", {}, " · " + process(row.node))), el("td", {}, bytes(row.bytes) + (leak.estimate ? " ≈" : "")), el("td", {}, count(row.count)),
        el("td", {}, sparkline(row.course.slice(0, -1))), el("td", {}, bytes(leak.bytes_per_s) + "/s"), el("td", { class: leak.verdict === "grows steadily" && !leak.ended ? "grows" : "" }, leak.verdict, leak.ended && el("small", {}, " (of processes that ended)")), el("td", {}, leak.op));
    };
    const shown = this.allLeaks ? rows.slice(0, 500) : rows.slice(0, ROWS);
    const head_row = el("tr", {}, ["allocated by", "not freed", "allocations", "over the span", "growth", "verdict", "by"].map(title => el("th", { scope: "col" }, title)));
    const more = rows.length > ROWS && el("button", { type: "button", class: "more", onclick: () => { this.allLeaks = !this.allLeaks; this.leaks(); } }, this.allLeaks ? "Fewer" : `All ${count(Math.min(rows.length, 500))}`);
    const total = rows.reduce((sum, row) => sum + row.bytes, 0);
    $("leaks-table").replaceChildren(el("p", { class: "hint" }, `${bytes(total)} of ${count(rows.length)} stacks` + (head.leaks.some(l => l.estimate) ? "; ≈ is an estimate from samples" : "")),
      el("table", { class: "data" }, el("thead", {}, head_row), el("tbody", {}, shown.map(line))), more || "");
    this.setCommand("leaks-command", ["memleak", "-o", "0"]);
  }

  /** Figures of what is chosen, for tests: as `report --json` has them. */
  figures() {
    const { recording, part } = this, sum = values => values.reduce((a, b) => a + b, 0);
    const one = latencies => { const l = latencies.get(0) || { steps: new Map(), count: 0, ns: 0, max: 0 }; return { count: l.count, sum_ns: l.ns, max_ns: l.max, buckets: buckets(l), quantiles: [0.5, 0.9, 0.99, 0.999].map(q => quantile(l, q)) }; };
    const stacks = {}, samples = recording.byNode("sample", "count", part);
    samples.forEach((n, node) => { if (n) { const names = []; for (let at = node; at; at = recording.tree.parent[at]) if (recording.tree.kind[recording.tree.func[at]] < 4) names.push(recording.tree.name[recording.tree.func[at]]); const key = names.join("<"); stacks[key] = (stacks[key] || 0) + n; } });
    return {
      runqlat: one(recording.runQueue(part)), biolatency: one(recording.io(part)),
      samples: sum(samples), stacks, off: { ns: sum(recording.byNode("wait", "ns", part)), waits: sum(recording.byNode("wait", "count", part)) },
      memory: (rows => ({ bytes: sum(rows.map(r => r.bytes)), count: sum(rows.map(r => r.count)) }))(recording.memory(part).rows),
      cpu_ns: sum(recording.columns["cpu.group"].length ? recording.byGroup("cpu", "ns", part) : []),
      commands: { runqlat: this.command(["runqlat", "--json"]), biolatency: this.command(["biolatency", "--json"]), profile: this.command(["profile", "--json"]), offcputime: this.command(["offcputime", "--json"], false), memleak: this.command(["memleak", "-o", "0", "--json"]) },
    };
  }
}

unpack().then(data => { window.bpfrec = new App(new Recording(data)); document.documentElement.dataset.ready = String(Math.round(performance.now())); })
  .catch(error => { $("banner").hidden = false; $("banner").textContent = `This page could not be shown: ${error.message}. A browser of 2023 or later is needed.`; throw error; });
