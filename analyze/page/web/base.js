"use strict";
// Elements, numbers with units, unpacking of data, light and dark.

const $ = id => document.getElementById(id);

/** An element. Texts become text nodes, never markup: names come from the recorded host. */
function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "class") node.className = value;
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter(child => child != null && child !== false));
  return node;
}

const count = n => Math.round(n).toLocaleString("en-US");
const percent = (part, whole, digits = 1) => (whole ? (100 * part / whole).toFixed(digits) : "0") + " %";

/** Nanoseconds in the unit in which they read best. */
function duration(ns) {
  if (ns < 1e3) return Math.round(ns) + " ns";
  const [scale, unit] = ns < 1e6 ? [1e3, "µs"] : ns < 1e9 ? [1e6, "ms"] : [1e9, "s"];
  const value = ns / scale;
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0) + " " + unit;
}

/** Bytes in the unit in which they read best. */
function bytes(n) {
  const sign = n < 0 ? "−" : "";
  n = Math.abs(n);
  for (const [scale, unit] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (n >= scale) return sign + (n / scale).toFixed(n < 10 * scale ? 2 : 1) + " " + unit;
  }
  return sign + Math.round(n) + " B";
}

/** Nanoseconds as seconds without rounding, as the command takes them. */
function seconds(ns) {
  const text = String(Math.floor(ns / 1e9));
  const rest = String(Math.round(ns % 1e9)).padStart(9, "0").replace(/0+$/, "");
  return text + (rest ? "." + rest : "") + "s";
}

/** A column of LEB128 bytes: as it is, or zigzag differences. */
function column(from, [at, rows, differences]) {
  const out = new Float64Array(rows);
  let last = 0;
  for (let i = 0; i < rows; i++) {
    let value = 0, scale = 1, byte;
    do {
      byte = from[at++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    if (differences) value = last += value % 2 ? -(value + 1) / 2 : value / 2;
    out[i] = value;
  }
  return out;
}

/** What stands in the element `data`: its head, and its columns by name. */
async function unpack() {
  const text = atob($("data").textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const all = new Uint8Array(await new Response(stream).arrayBuffer());
  const length = new DataView(all.buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(all.subarray(4, 4 + length)));
  const body = all.subarray(4 + length);
  const columns = {};
  for (const [name, place] of Object.entries(head.columns)) columns[name] = column(body, place);
  return { head, columns };
}

/** A row of buttons of which one is pressed. `choices`: [key, label]. */
function choice(label, choices, chosen, onchoice) {
  const group = el("div", { class: "choice", role: "group", "aria-label": label });
  for (const [key, text] of choices) {
    group.append(el("button", {
      type: "button", "data-key": key, "aria-pressed": String(key === chosen),
      onclick: event => {
        for (const other of group.children) other.setAttribute("aria-pressed", String(other === event.currentTarget));
        onchoice(key);
      },
    }, text));
  }
  return group;
}

const isDark = () => document.documentElement.dataset.theme === "dark";

/** The button between light and dark. At first as the system has it. */
function themeButton(button, changed) {
  const set = dark => {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    button.textContent = dark ? "Light" : "Dark";
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  set(system.matches);
  system.addEventListener("change", () => { if (chosen === null) { set(system.matches); changed(); } });
  button.addEventListener("click", () => { chosen = !isDark(); set(chosen); changed(); });
}
