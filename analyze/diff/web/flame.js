"use strict";
// A flamegraph of two sides: boxes are as wide as one side's, or the larger of both; their colour says what changed.

const DIFF_WIDTHS = [["after", "After"], ["before", "Before"], ["larger", "Larger of both"]];

class DiffFlame extends Flame {
  /** `amounts`: self amounts by node, before and after; `unit`: an amount as text. */
  constructor(host, tree, amounts, unit) {
    super(host, tree, () => []);
    this.amounts = amounts;
    this.sums = amounts.map(self => {
      const sum = Float64Array.from(self);
      for (let i = sum.length - 1; i > 0; i--) sum[tree.parent[i]] += sum[i];
      return sum;
    });
    this.legend.replaceChildren(
      el("span", {}, "less"), el("i", { class: "ramp-key" }), el("span", {}, "more: half as much and less, twice as much and more"));
    this.turn.parentNode.prepend(choice("Width of boxes", DIFF_WIDTHS, "after", key => this.wide(key)));
    this.oneUnit = unit;
    this.wide("after");
  }

  wide(key) {
    const [before, after] = this.amounts;
    const self = key === "before" ? before : key === "after" ? after : Float64Array.from(after, (n, i) => Math.max(n, before[i]));
    this.show(self, this.oneUnit);
  }

  colour(node, dark) {
    if (this.needle && this.needle[this.tree.func[node]]) return dark ? "hsl(315 75% 62%)" : "hsl(315 80% 70%)";
    const [before, after] = this.sums.map(sum => sum[node]);
    // From -1, gone, over 0, the same, to 1, new; a half or the double is full colour.
    const change = before + after ? (after - before) / Math.max(before, after) : 0;
    const strength = Math.min(1, Math.abs(change) * 2);
    const [hue, full] = change > 0 ? [8, 64] : [212, 62];
    return `hsl(${hue} ${Math.round(8 + 72 * strength)}% ${Math.round((dark ? 76 : 86) - ((dark ? 76 : 86) - full) * strength)}%)`;
  }

  tell(node) {
    const [before, after] = this.sums || [];
    if (!before) return;
    const [self_before, self_after] = this.amounts;
    const facts = [
      ["", this.tree.name[this.tree.func[node]]],
      ["before", `${this.unit(before[node])}, ${percent(before[node], before[0])}`],
      ["after", `${this.unit(after[node])}, ${percent(after[node], after[0])}`],
      ["change", changed(before[node], after[node])],
      ["itself", `${this.unit(self_before[node])} before, ${this.unit(self_after[node])} after`],
    ];
    this.details.replaceChildren(...facts.map(([label, text]) => el("span", { class: label ? "" : "name" }, label ? el("b", {}, label) : null, text)));
  }
}

/** A change in percent, or that it is new or gone. */
function changed(before, after) {
  if (!before) return after ? "new" : "";
  if (!after) return "gone";
  const by = 100 * (after - before) / before;
  return (by < 0 ? "−" : "+") + Math.abs(by).toFixed(Math.abs(by) < 1000 ? 1 : 0) + " %";
}
