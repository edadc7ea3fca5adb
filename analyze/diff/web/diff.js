"use strict";
// Fills the page of a comparison. All figures come with it.

const DIFF_ROWS = 15;

/** With so many digits as matter. */
function figure(n) {
  return n >= 1000 ? count(n) : n >= 100 ? n.toFixed(0) : n >= 10 || !n ? n.toFixed(1) : n.toFixed(2);
}

/** An amount that was normalised: a second, or of all. */
function amount(n, unit, by) {
  if (by === "samples") return (100 * n).toFixed(2) + " %";
  return unit === "ns" ? duration(n) : figure(n);
}

function verdictText(row) {
  const p = row.p_adjusted;
  if (p === null) return row.verdict;
  return `${row.verdict} (p ${p < 0.001 ? p.toFixed(4) : p < 0.1 ? p.toFixed(3) : p.toFixed(2)})`;
}

function changeText(row) {
  return row.status || (row.percent === null ? "" : changed(row.before, row.after));
}

function leftOut(part) {
  const { before, after } = part.stretches;
  const text = [];
  if (before.left_out + after.left_out) text.push(`Left out, as events were lost in them: ${before.left_out} stretches before, ${after.left_out} after.`);
  if (part.lost_in_too_many) text.push("Events were lost in too many stretches to leave these out: there is no verdict.");
  return text.length ? el("p", { class: "hint" }, text.join(" ")) : null;
}

function row(name, before, after, change, verdict, is_change, name_class) {
  return el("tr", { class: is_change ? "change" : "" },
    el("td", {}, before), el("td", {}, after), el("td", {}, change), el("td", { class: "verdict" }, verdict),
    el("td", { class: "name " + (name_class || "") }, name));
}

function head(last, first) {
  return el("thead", {}, el("tr", {},
    first && el("th", {}, first), el("th", {}, "before"), el("th", {}, "after"), el("th", {}, "change"), el("th", { class: "left" }, "verdict"), last && el("th", { class: "left name" }, last)));
}

const isChange = row => row.verdict === "more than noise";

function section(title, ...children) {
  return el("section", {}, el("h2", {}, title), ...children);
}

function latencySection(l, by) {
  const one = (name, r, unit) => el("tr", { class: isChange(r) ? "change" : "" }, el("th", {}, name), el("td", {}, unit(r.before)),
    el("td", {}, unit(r.after)), el("td", {}, changeText(r)), el("td", { class: "verdict" }, verdictText(r)));
  const rows = [one("a second", l.rate, figure), ...l.quantiles.map(q => one(q.name, q, duration))];
  const most = Math.max(...l.buckets.flatMap(b => [b.before, b.after]), Number.MIN_VALUE);
  const bars = l.buckets.map(b => {
    const bar = side => {
      const one = el("div", { class: side });
      one.style.width = 100 * b[side] / most + "%";
      return one;
    };
    const text = n => by === "samples" ? (100 * n).toFixed(2) + " %" : figure(n);
    return el("tr", {}, el("th", {}, `${duration(b.low * 1000)} – ${duration((b.high + 1) * 1000)}`), el("td", {}, text(b.before)), el("td", {}, text(b.after)),
      el("td", { class: "bars" }, bar("before"), bar("after")));
  });
  const [first, ...rest] = l.title;
  return section(first.toUpperCase() + rest.join(""),
    el("p", { class: "hint" }, `${count(l.counts.before)} ${l.of} before, ${count(l.counts.after)} after`),
    leftOut(l),
    el("div", { class: "scroll" }, el("table", { class: "data quantiles-table" }, head(null, " "), el("tbody", {}, rows))),
    el("div", { class: "legend" }, el("span", { class: "key-before" }, el("i"), "before"), el("span", { class: "key-after" }, el("i"), "after"),
      by === "samples" ? "of all" : "a second"),
    el("div", { class: "scroll" }, el("table", { class: "buckets" }, el("tbody", {}, bars))));
}

function tableSection(t, by) {
  const body = el("tbody");
  const one = (r, name, how) => row(name, amount(r.before, t.unit, how), amount(r.after, t.unit, how), changeText(r), verdictText(r), isChange(r), r.frames ? "stack-name" : "");
  const fill = most => {
    body.replaceChildren(one(t.total, by === "time" ? "(all)" : "(all, a second)", "time"), ...t.rows.slice(0, most).map(r => one(r, r.name, by)));
    if (t.rest.rows) {
      body.append(row(`(${count(t.rest.rows)} that weigh less, together)`, amount(t.rest.before, t.unit, by), amount(t.rest.after, t.unit, by), changed(t.rest.before, t.rest.after), "", false));
    }
  };
  fill(DIFF_ROWS);
  const more = t.rows.length > DIFF_ROWS && el("button", {
    type: "button", class: "more", onclick: event => { fill(t.rows.length); event.currentTarget.remove(); },
  }, `All ${count(t.rows.length)}`);
  const what = t.what[0].toUpperCase() + t.what.slice(1);
  return section(`${what} by ${t.by}`,
    el("p", { class: "hint" }, by === "time" ? "A second of recorded time, by size of the change." : "As shares of all, by size of the change."),
    leftOut(t),
    el("div", { class: "scroll" }, el("table", { class: "data" }, head(t.by), body)), more,
    t.unchanged ? el("p", { class: "hint" }, `${count(t.unchanged)} did not change at all.`) : null);
}

function fact(label, text, more) {
  return el("div", {}, el("dt", {}, label), el("dd", {}, text, more ? el("small", {}, more) : null));
}

function fillDiff({ head: data, columns }) {
  const { diff } = data, by = diff.by;
  $("version").textContent = data.version;
  $("title").textContent = `${diff.before.trace} → ${diff.after.trace}`;
  document.title = `bpfrec diff: ${diff.before.trace} → ${diff.after.trace}`;
  const side = s => [s.trace, `${s.host} ${s.kernel}, ${duration(s.duration_ns)} from ${new Date(s.begin_unix_ns / 1e6).toISOString().slice(0, 19).replace("T", " ")} UTC`];
  $("facts").append(fact("Before", ...side(diff.before)), fact("After", ...side(diff.after)), fact("Amounts", data.amounts));
  const changes = diff.changes.map(text => el("li", {}, text));
  $("changes-list").append(...changes.slice(0, DIFF_ROWS));
  if (changes.length > DIFF_ROWS) {
    $("changes-list").after(el("button", {
      type: "button", class: "more", onclick: event => { $("changes-list").append(...changes); event.currentTarget.remove(); },
    }, `All ${changes.length}`));
  }
  if (!diff.changes.length) $("changes-list").replaceWith(el("p", {}, diff.unfit ? "No verdict." : "Nothing."));
  $("verdicts").textContent = data.verdicts;
  $("latencies").append(...diff.latencies.map(l => latencySection(l, by)));
  const flames = data.flames.map((f, n) => {
    const host = el("div", { class: "flame-host" });
    $("flames").append(section(f.title, el("p", { class: "hint" }, f.left_out.some(x => x) ? "The lightest stacks are left out: this page has no room for them." : ""), host));
    const tree = { parent: columns[`${n}.parent`], func: columns[`${n}.func`], name: f.names, kind: f.kinds };
    const unit = x => {
      const text = amount(x / f.scale, f.of, by);
      return by === "samples" ? text : text + (f.of === "ns" ? " a second" : " samples a second");
    };
    return new DiffFlame(host, tree, [columns[`${n}.before`], columns[`${n}.after`]], unit);
  });
  $("tables").append(...diff.tables.map(t => tableSection(t, by)));
  $("notes-list").append(...diff.notes.map(text => el("li", {}, text)));
  $("notes").hidden = !diff.notes.length;
  themeButton($("theme"), () => flames.forEach(flame => flame.draw()));
  $("main").hidden = false;
  flames.forEach(flame => flame.draw());
  document.documentElement.dataset.ready = "yes";
}

unpack().then(fillDiff).catch(error => {
  $("banner").hidden = false;
  $("banner").textContent = `This page cannot be drawn: ${error}`;
});
