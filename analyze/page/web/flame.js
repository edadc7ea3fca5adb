"use strict";
// A flamegraph on a canvas. It is drawn anew from the tree each time; boxes thinner than half a pixel are left out.

const FLAME_ROW = 20;
/** Hue, saturation and lightness by kind: kernel, library, program, other, process. Far apart for all kinds of eyes. */
const FLAME_COLOURS = [[16, 82, 66], [46, 88, 66], [205, 72, 68], [220, 8, 76], [220, 14, 70]];
const FLAME_KINDS = ["kernel", "shared libraries", "the program itself", "other"];

class Flame {
  /**
   * `tree`: `parent` and `func` by node (0 is the root, parents come first), `name` and `kind` by function.
   * `describe(func)`: [label, text] pairs for the details.
   */
  constructor(host, tree, describe) {
    Object.assign(this, { tree, describe, focus: 0, at: 0, hover: -1, icicle: false, needle: null, boxes: [] });
    const n = tree.parent.length;
    // Children of each node, by name.
    const rank = Array.from(tree.name.keys()).sort((a, b) => (tree.name[a] < tree.name[b] ? -1 : 1));
    const place = new Uint32Array(tree.name.length);
    rank.forEach((func, i) => { place[func] = i; });
    const nodes = Array.from({ length: n - 1 }, (_, i) => i + 1);
    nodes.sort((a, b) => tree.parent[a] - tree.parent[b] || place[tree.func[a]] - place[tree.func[b]]);
    this.kids = Uint32Array.from(nodes);
    this.first = new Uint32Array(n + 1);
    for (const node of nodes) this.first[tree.parent[node] + 1]++;
    for (let i = 0; i < n; i++) this.first[i + 1] += this.first[i];
    this.total = new Float64Array(n);
    this.self = this.total;

    this.search = el("input", { type: "search", placeholder: "Search functions  ( / )", "aria-label": "Search functions", oninput: () => this.find(this.search.value) });
    this.matched = el("output", { class: "matched", "aria-live": "polite" });
    this.turn = el("button", { type: "button", "aria-pressed": "false", title: "Root above or below (i)", onclick: () => this.flip() }, "Icicle");
    const reset = el("button", { type: "button", title: "Whole graph, no search (Escape)", onclick: () => this.reset() }, "Reset");
    this.canvas = el("canvas", {
      tabindex: "0", role: "application",
      "aria-label": "Flamegraph. Arrow keys move, Enter zooms in, Backspace zooms out, Escape resets, slash searches, i turns it over.",
    });
    this.wrap = el("div", { class: "flame-wrap" }, this.canvas);
    this.details = el("div", { class: "flame-details", "aria-live": "polite" });
    this.legend = el("div", { class: "legend" }, FLAME_KINDS.map((name, kind) => el("span", {}, el("i", { class: "kind" + kind }), name)));
    host.replaceChildren(el("div", { class: "tools" }, this.search, this.turn, reset, this.matched), this.wrap, this.details, this.legend);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.wrap);
  }

  listen() {
    const canvas = this.canvas;
    const box = event => {
      const area = canvas.getBoundingClientRect();
      return this.boxAt(event.clientX - area.left, event.clientY - area.top);
    };
    canvas.addEventListener("pointermove", event => {
      const node = box(event);
      if (node !== this.hover) { this.hover = node; this.draw(); this.tell(node < 0 ? this.at : node); }
    });
    canvas.addEventListener("pointerleave", () => { this.hover = -1; this.draw(); this.tell(this.at); });
    canvas.addEventListener("click", event => { const node = box(event); if (node >= 0) this.zoom(node); });
    canvas.addEventListener("keydown", event => this.key(event));
    document.addEventListener("keydown", event => {
      if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
        event.preventDefault();
        this.search.focus();
      }
    });
    this.search.addEventListener("keydown", event => {
      if (event.key === "Escape") { event.preventDefault(); this.search.value = ""; this.find(""); canvas.focus(); }
    });
  }

  /** Shows `self` amounts by node. `unit`: an amount as text. */
  show(self, unit) {
    this.self = self;
    this.unit = unit;
    this.total = Float64Array.from(self);
    for (let i = this.total.length - 1; i > 0; i--) this.total[this.tree.parent[i]] += this.total[i];
    while (this.focus && !this.total[this.focus]) this.focus = this.tree.parent[this.focus];
    this.at = this.focus;
    this.find(this.search.value);
    this.tell(this.at);
  }

  zoom(node) { this.focus = this.at = node; this.draw(); this.tell(node); }
  flip() { this.icicle = !this.icicle; this.turn.setAttribute("aria-pressed", String(this.icicle)); this.draw(); this.scroll(); }
  reset() { this.search.value = ""; this.find(""); this.zoom(0); this.scroll(); }

  find(text) {
    const needle = text.trim().toLowerCase();
    this.needle = needle ? this.tree.name.map(name => name.toLowerCase().includes(needle)) : null;
    let sum = 0;
    if (needle) {
      // Of boxes on boxes only the lowest counts.
      const inside = new Uint8Array(this.total.length);
      for (let node = 1; node < inside.length; node++) {
        const over = inside[this.tree.parent[node]];
        if (!over && this.needle[this.tree.func[node]]) sum += this.total[node];
        inside[node] = over || this.needle[this.tree.func[node]] ? 1 : 0;
      }
    }
    this.matched.textContent = needle ? `${percent(sum, this.total[0])} matched` : "";
    this.matched.dataset.value = sum;
    this.draw();
  }

  key(event) {
    const { parent } = this.tree, up = this.icicle ? "ArrowUp" : "ArrowDown", down = this.icicle ? "ArrowDown" : "ArrowUp";
    const kids = node => Array.from(this.kids.subarray(this.first[node], this.first[node + 1])).filter(kid => this.total[kid]);
    const aside = step => { const all = kids(parent[this.at]); return all[all.indexOf(this.at) + step]; };
    const to = {
      [up]: () => this.at === 0 ? 0 : parent[this.at],
      [down]: () => kids(this.at).sort((a, b) => this.total[b] - this.total[a])[0],
      ArrowLeft: () => this.at && aside(-1),
      ArrowRight: () => this.at && aside(1),
    }[event.key];
    if (to) {
      const node = to();
      if (node !== undefined) { this.at = node; this.draw(); this.tell(node); this.scroll(); }
    } else if (event.key === "Enter" || event.key === " ") this.zoom(this.at);
    else if (event.key === "Backspace") this.zoom(parent[this.focus]);
    else if (event.key === "Escape") this.reset();
    else if (event.key === "i") this.flip();
    else return;
    event.preventDefault();
  }

  /** Boxes in view: [node, x, width, row]; those below the focus are as wide as all. */
  layout(width) {
    const path = [];
    for (let node = this.focus; ; node = this.tree.parent[node]) { path.unshift(node); if (!node) break; }
    const boxes = path.map((node, row) => [node, 0, width, row]);
    const scale = this.total[this.focus] ? width / this.total[this.focus] : 0;
    const stack = [[this.focus, 0, path.length]];
    while (stack.length) {
      const [node, left, row] = stack.pop();
      let x = left;
      for (let i = this.first[node]; i < this.first[node + 1]; i++) {
        const kid = this.kids[i], w = this.total[kid] * scale;
        if (w >= 0.5) { boxes.push([kid, x, w, row]); stack.push([kid, x, row + 1]); }
        x += w;
      }
    }
    return boxes;
  }

  draw() {
    const width = Math.floor(this.wrap.clientWidth), ratio = devicePixelRatio || 1;
    if (!width) return;
    this.boxes = this.layout(width);
    const rows = this.boxes.reduce((most, box) => Math.max(most, box[3]), 0) + 1, height = rows * FLAME_ROW;
    this.height = height;
    const { canvas } = this;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
      [canvas.style.width, canvas.style.height] = [width + "px", height + "px"];
    }
    const ctx = canvas.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, width, height);
    ctx.font = "12px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace";
    ctx.textBaseline = "middle";
    const letter = ctx.measureText("m").width, dark = isDark();
    for (const [node, x, w, row] of this.boxes) {
      const y = this.y(row);
      ctx.globalAlpha = row < this.depth(this.focus) ? 0.55 : 1;
      ctx.fillStyle = this.colour(node, dark);
      ctx.fillRect(x, y, Math.max(w - (w > 2 ? 1 : 0.2), 0.4), FLAME_ROW - 1);
      const room = Math.floor((w - 8) / letter);
      if (room >= 3) {
        const name = this.tree.name[this.tree.func[node]];
        ctx.fillStyle = "#101418";
        ctx.fillText(name.length > room ? name.slice(0, room - 1) + "…" : name, x + 4, y + FLAME_ROW / 2);
      }
    }
    ctx.globalAlpha = 1;
    for (const [which, style, line] of [[this.at, dark ? "#fff" : "#000", 2], [this.hover, dark ? "#fff" : "#000", 1]]) {
      const box = which > 0 && this.boxes.find(box => box[0] === which);
      if (box) {
        ctx.strokeStyle = style;
        ctx.lineWidth = line;
        ctx.strokeRect(box[1] + 0.5, this.y(box[3]) + 0.5, Math.max(box[2] - 2, 1), FLAME_ROW - 2);
      }
    }
    if (!this.drawn) { this.drawn = true; this.scroll(); }
  }

  depth(node) { let depth = 0; for (; node; node = this.tree.parent[node]) depth++; return depth; }
  y(row) { return this.icicle ? row * FLAME_ROW : this.height - (row + 1) * FLAME_ROW; }

  /** Brings the chosen box into view. */
  scroll() {
    const box = this.boxes.find(box => box[0] === this.at), { wrap } = this;
    if (!box) return;
    const y = this.y(box[3]);
    if (y < wrap.scrollTop || y + FLAME_ROW > wrap.scrollTop + wrap.clientHeight) {
      wrap.scrollTop = y - wrap.clientHeight / 2;
    }
  }

  colour(node, dark) {
    const func = this.tree.func[node], name = this.tree.name[func];
    if (this.needle && this.needle[func]) return dark ? "hsl(315 75% 62%)" : "hsl(315 80% 70%)";
    let hash = 0;
    for (let i = 0; i < name.length; i++) hash = (hash * 31 + name.charCodeAt(i)) | 0;
    const shade = ((hash >>> 8) % 11) - 5;
    const [h, s, l] = FLAME_COLOURS[this.tree.kind[func]];
    const faded = this.needle ? 12 : 0;
    return `hsl(${h + shade} ${s - (dark ? 14 : 0)}% ${Math.min(94, l + shade - (dark ? 8 : 0) + faded)}%)`;
  }

  boxAt(x, y) {
    const found = this.boxes.filter(([, left, w, row]) => x >= left && x < left + w && y >= this.y(row) && y < this.y(row) + FLAME_ROW);
    return found.length ? found[found.length - 1][0] : -1;
  }

  /** What is known of a box. */
  tell(node) {
    const func = this.tree.func[node], all = this.total[0], here = this.total[node];
    const facts = [
      ["", this.tree.name[func]],
      ["in all", `${this.unit(here)}, ${percent(here, all)}`],
      ["itself", `${this.unit(this.self[node])}, ${percent(this.self[node], all)}`],
    ];
    if (node) facts.push(...this.describe(func));
    this.details.replaceChildren(...facts.filter(([, text]) => text)
      .map(([label, text]) => el("span", { class: label ? "" : "name" }, label ? el("b", {}, label) : null, text)));
  }
}
