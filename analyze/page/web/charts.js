"use strict";
// Time lines (uPlot), heat maps in them, histograms, sparklines.

/** Colours that people with any kind of colour vision can tell apart (Okabe and Ito); grey is the rest. */
const SERIES = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442"], REST = "#8d949c";
const AXIS = 62;

const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Time lines over the bins of a recording, with one brush. `onbrush(from, to)` in bins; null clears. */
class Timeline {
  constructor(host, recording, onbrush) {
    Object.assign(this, { host, recording, onbrush, charts: [], brush: null });
    const { origin_ns, width_ns, count } = recording.bins;
    this.edges = Float64Array.from({ length: count + 1 }, (_, i) => (origin_ns + i * width_ns) / 1e9);
    new ResizeObserver(() => this.resize()).observe(host);
  }

  /** `rows`: {title, unit, sources, height, chart(width) -> uPlot options and data}. */
  draw(rows) {
    this.rows = rows;
    this.charts.forEach(chart => chart.destroy());
    this.charts = [];
    this.host.replaceChildren();
    const width = this.width = Math.floor(this.host.clientWidth);
    for (const row of rows) {
      const place = el("div", { class: "chart" });
      this.host.append(el("div", { class: "chart-head" }, el("h3", {}, row.title), el("span", { class: "hint" }, row.note || "")), place);
      if (row.legend) this.host.append(row.legend);
      this.charts.push(new uPlot(this.options(row, width), row.data, place));
    }
    this.charts.forEach(chart => this.touch(chart));
    this.show(this.brush);
  }

  options(row, width) {
    const grid = css("--grid"), ink = css("--soft"), font = "11px system-ui, sans-serif", { edges } = this;
    return {
      width, height: row.height, padding: [8, 10, 0, 0], legend: { show: false },
      cursor: { sync: { key: "time" }, drag: { x: true, y: false, setScale: false }, points: { show: false }, y: false },
      select: { show: true },
      scales: { x: { time: false, range: [edges[0], edges[edges.length - 1]] }, y: row.scale },
      axes: [
        { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid }, font, size: 34, space: 70, values: (_, v) => v.map(s => s + " s") },
        { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid }, font, size: AXIS, ...row.axis },
      ],
      series: [{}, ...row.series],
      hooks: {
        drawClear: [chart => this.losses(chart, row.sources)],
        draw: [chart => row.paint && row.paint(chart)],
        setSelect: [chart => this.selected(chart)],
        setCursor: [chart => row.tell && row.tell(chart)],
      },
    };
  }

  resize() {
    const width = Math.floor(this.host.clientWidth);
    if (this.rows && width && width !== this.width) this.draw(this.rows);
  }

  /** Where events were lost: hatched. */
  losses(chart, sources) {
    const { ctx, bbox } = chart, { head } = this.recording;
    const spans = head.losses.filter(loss => sources.includes(loss[2])).concat(head.damaged);
    if (!spans.length) return;
    ctx.save();
    ctx.beginPath();
    for (const [from, to] of spans) {
      const clamp = ns => Math.min(Math.max(chart.valToPos(ns / 1e9, "x", true), bbox.left), bbox.left + bbox.width);
      ctx.rect(clamp(from), bbox.top, Math.max(clamp(to) - clamp(from), 3 * devicePixelRatio), bbox.height);
    }
    ctx.clip();
    ctx.fillStyle = css("--loss");
    ctx.fillRect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.strokeStyle = css("--loss-line");
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    for (let x = bbox.left - bbox.height; x < bbox.left + bbox.width; x += 8 * devicePixelRatio) {
      ctx.moveTo(x, bbox.top + bbox.height);
      ctx.lineTo(x + bbox.height, bbox.top);
    }
    ctx.stroke();
    ctx.restore();
  }

  bin(chart, px) {
    const { origin_ns, width_ns, count } = this.recording.bins;
    return Math.min(Math.max((chart.posToVal(px, "x") * 1e9 - origin_ns) / width_ns, 0), count);
  }

  selected(chart) {
    if (this.showing) return;
    const { left, width } = chart.select;
    if (width < 2) return;
    const from = Math.floor(this.bin(chart, left) + 0.02), to = Math.max(from + 1, Math.ceil(this.bin(chart, left + width) - 0.02));
    this.onbrush(from, to);
  }

  /** Draws the brush, snapped to bins. */
  show(brush) {
    this.brush = brush;
    this.showing = true;
    for (const chart of this.charts) {
      const left = brush ? chart.valToPos(this.edges[brush[0]], "x") : 0, right = brush ? chart.valToPos(this.edges[brush[1]], "x") : 0;
      chart.setSelect({ left, top: 0, width: right - left, height: chart.over.clientHeight }, false);
    }
    this.showing = false;
  }

  /** A click ends the brush; a finger brushes, too. */
  touch(chart) {
    let start = 0;
    const x = event => event.clientX - chart.over.getBoundingClientRect().left;
    chart.over.addEventListener("pointerdown", event => {
      start = x(event);
      if (event.pointerType === "touch") chart.over.setPointerCapture(event.pointerId);
    });
    chart.over.addEventListener("pointerup", event => {
      const [a, b] = [start, x(event)].sort((p, q) => p - q);
      if (b - a < 4) { if (this.brush) this.onbrush(null, null); }
      else if (event.pointerType === "touch") this.onbrush(Math.floor(this.bin(chart, a)), Math.max(Math.floor(this.bin(chart, a)) + 1, Math.ceil(this.bin(chart, b))));
    });
  }
}

/** Shares of a stack of values over time. `parts`: [name, colour, values by bin]. */
function stacked(recording, parts, cpus) {
  const { edges, count } = { edges: recording.bins.count + 1, count: recording.bins.count };
  const { head: { facts }, bins } = recording, x = Float64Array.from({ length: edges }, (_, i) => (recording.bins.origin_ns + i * recording.bins.width_ns) / 1e9);
  // The recording ends within the last bin. Of a sliver no rate can be told.
  const long = i => {
    const begin = bins.origin_ns + i * bins.width_ns, inside = Math.min(begin + bins.width_ns, facts.end_ns) - Math.max(begin, facts.first_ns);
    return inside > bins.width_ns / 20 ? inside : bins.width_ns;
  };
  const sum = new Float64Array(count), lines = [];
  for (const [, , values] of parts) {
    for (let i = 0; i < count; i++) sum[i] += values[i] / long(i);
    const line = Array.from(sum);
    line.push(line[count - 1]);
    lines.push(line);
  }
  // More than all CPUs is what came before the start, which the first bin holds, too.
  const top = recording.exact ? cpus : Math.max(cpus, ...sum);
  const paths = uPlot.paths.stepped({ align: 1 });
  // The whole stack first, what lies below over it.
  const order = parts.map((_, i) => i).reverse();
  return {
    data: [x, ...order.map(i => lines[i])],
    series: order.map(i => ({ stroke: parts[i][1], fill: parts[i][1], width: 0, paths, points: { show: false } })),
    scale: { range: [0, top * 1.02] },
    axis: { values: (_, values) => values.map(v => (Number.isInteger(v) ? v + (v === 1 ? " CPU" : " CPUs") : "")), incrs: [1, 2, 4, 8, 16, 32, 64, 128, 256] },
  };
}

/** From few to many, dark on light and light on dark. */
function heatColour(share, dark) {
  const stops = dark ? [[30, 52, 84], [41, 98, 158], [86, 164, 214], [198, 229, 246]] : [[214, 230, 244], [134, 186, 220], [45, 122, 184], [8, 42, 92]];
  const at = Math.min(share, 0.9999) * (stops.length - 1), i = Math.floor(at), part = at - i;
  return `rgb(${stops[i].map((v, k) => Math.round(v + (stops[i + 1][k] - v) * part)).join(" ")})`;
}

/** Rows of a heat map an octave. */
const HEAT = 2;

/** Time by log latency. `cells`: counts by bin * 4096 + part of an octave. */
function heat(recording, cells) {
  const { bins } = recording, ns = row => 1000 * 2 ** (row / HEAT - BELOW);
  let most = 1, low = Infinity, high = 0;
  for (const [key, n] of cells) {
    most = Math.max(most, n);
    low = Math.min(low, key % 4096);
    high = Math.max(high, key % 4096 + 1);
  }
  if (!cells.size) [low, high] = [BELOW * HEAT, (BELOW + 10) * HEAT];
  const range = [Math.min(ns(low), 1e3), Math.max(ns(high), 1e6)];
  const x = Float64Array.from({ length: bins.count + 1 }, (_, i) => (bins.origin_ns + i * bins.width_ns) / 1e9);
  const decades = [1, 10, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12];
  return {
    data: [x, Array(x.length).fill(null)], series: [{ points: { show: false } }],
    scale: { distr: 3, log: 10, range },
    axis: { splits: () => decades.filter(v => v >= range[0] && v <= range[1]), filter: (_, v) => v, values: (_, v) => v.map(n => duration(n).replace(/\.0+ /, " ")) },
    paint(chart) {
      const { ctx } = chart, dark = isDark(), log = Math.log1p(most);
      for (const [key, n] of cells) {
        const bin = Math.floor(key / 4096), row = key % 4096;
        const left = chart.valToPos(x[bin], "x", true), right = chart.valToPos(x[bin + 1], "x", true);
        const up = chart.valToPos(ns(row + 1), "y", true), down = chart.valToPos(ns(row), "y", true);
        ctx.fillStyle = heatColour(Math.log1p(n) / log, dark);
        ctx.fillRect(Math.floor(left), Math.floor(up), Math.max(1, Math.floor(right) - Math.floor(left)), Math.max(1, Math.floor(down) - Math.floor(up)));
      }
    },
  };
}

/** From one to the most, in words and colours. */
function heatLegend(cells) {
  let most = 1;
  for (const n of cells.values()) most = Math.max(most, n);
  const bar = el("canvas", { width: 80, height: 10, class: "ramp", "aria-hidden": "true" }), ctx = bar.getContext("2d");
  for (let i = 0; i < 80; i++) { ctx.fillStyle = heatColour(i / 80, isDark()); ctx.fillRect(i, 0, 1, 10); }
  return el("div", { class: "legend" }, el("span", {}, "1 ", bar, ` ${count(most)} a cell (logarithmic)`));
}

/** A histogram as the text reports print it, with its quantiles. */
function histogram(title, latency, most, unit) {
  const rows = buckets(latency), first = rows.findIndex(row => row[2] > 0), biggest = Math.max(1, ...rows.map(row => row[2]));
  const shares = [[0.5, "p50"], [0.9, "p90"], [0.99, "p99"], [0.999, "p99.9"]];
  const quantiles = shares.map(([share, name]) => el("span", {}, el("b", {}, name), duration(quantile(latency, share))));
  quantiles.push(el("span", {}, el("b", {}, "max"), duration(latency.max)));
  const range = ([low, high]) => `${count(low)} → ${count(high)}`;
  const body = rows.slice(Math.max(first, 0), most.last + 1).map(row => {
    const bar = el("i");
    bar.style.width = 100 * row[2] / biggest + "%";
    return el("tr", { "data-low": row[0] }, el("td", {}, range(row)), el("td", {}, count(row[2])), el("td", { class: "bar-cell" }, bar));
  });
  return el("figure", { class: "histogram", "data-count": latency.count, "data-sum": latency.ns },
    el("figcaption", {}, title, el("small", {}, `${count(latency.count)} ${unit}`)),
    el("div", { class: "quantiles" }, quantiles),
    el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "µs"), el("th", { scope: "col" }, "count"), el("th", { scope: "col" }, "distribution"))), el("tbody", {}, body)));
}

/** A course of values as a small line. */
function sparkline(values) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), width = 120, height = 24;
  const most = Math.max(1, ...values), step = width / Math.max(values.length - 1, 1);
  const points = Array.from(values, (v, i) => `${(i * step).toFixed(1)},${(height - 1 - v / most * (height - 3)).toFixed(1)}`);
  for (const [key, value] of [["viewBox", `0 0 ${width} ${height}`], ["class", "spark"], ["role", "img"], ["aria-label", `from ${bytes(values[0] || 0)} to ${bytes(values[values.length - 1] || 0)}`]]) svg.setAttribute(key, value);
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
  shape.setAttribute("d", `M0,${height} L${points.join(" L")} L${width},${height} Z`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.join(" "));
  svg.append(shape, line);
  return svg;
}
