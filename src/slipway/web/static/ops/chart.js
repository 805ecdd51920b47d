/** Line charts as SVG: a summary for screen readers, the values under the pointer, and all values as a table behind a disclosure. */

import { el } from "../dom.js";
import { NONE, timeIn } from "./format.js";
import { say } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 150;
const EDGE = { top: 8, right: 12, bottom: 22, left: 52 };
const TICKS = 3;
const STEPS = [1, 2, 2.5, 5, 10];

function draw(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

let charts = 0;

export class Chart {
  /** `lines` are [{name, className, area}], the same number as `draw` gets lists of values; `format` writes a value. */
  constructor(title, unit, lines, format) {
    Object.assign(this, { lines, format, data: null, shown: "" });
    const id = `chart-${++charts}`;
    this.title = title;
    this.latest = lines.map(() => el("b"));
    const legend = el("p", { className: "legend" });
    lines.forEach(({ name, className }, n) => legend.append(el("span", { className }, el("i", { ariaHidden: "true" }), `${name} `, this.latest[n])));
    this.when = el("span", { className: "when" });
    legend.append(this.when);
    this.svg = draw("svg", { class: "plot", role: "img", height: HEIGHT, "aria-labelledby": `${id}-summary` });
    this.summary = el("p", { id: `${id}-summary`, className: "unseen" });
    this.values = el("details", { className: "values" }, el("summary", { textContent: say("values") }));
    this.values.firstChild.append(el("span", { className: "unseen", textContent: `: ${title}` }));
    this.values.ontoggle = () => this.fillTable();
    const heading = el("h3", {}, title, " ", el("small", { textContent: unit }));
    this.element = el("figure", { className: "card chart" }, heading, legend, this.svg, this.summary, this.values);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.paint()).observe(this.element);
  }

  /** `goal` is a value that should not be exceeded; null if there is none. */
  draw(times, lists, span_s, goal = null) {
    const shown = JSON.stringify([times, lists, goal]);
    if (shown === this.shown) return;
    Object.assign(this, { data: { times, lists, span_s, goal }, shown });
    this.paint();
    this.fillTable();
  }

  paint() {
    const width = Math.floor(this.svg.getBoundingClientRect().width);
    if (!this.data || !width) return;
    const { times, lists, span_s, goal } = this.data;
    const known = lists.flat().filter((value) => value != null);
    const top = scale(Math.max(...known, goal !== null && known.length ? goal : 0, 0));
    const [from, to] = [times[0], times.at(-1)];
    const x = (at) => EDGE.left + ((at - from) / (to - from || 1)) * (width - EDGE.left - EDGE.right);
    const y = (value) => HEIGHT - EDGE.bottom - (value / top) * (HEIGHT - EDGE.top - EDGE.bottom);
    Object.assign(this, { x, y, width });
    this.cursor = draw("line", { class: "cursor", y1: EDGE.top, y2: HEIGHT - EDGE.bottom, visibility: "hidden" });
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren(
      ...(known.length ? [...Array(TICKS + 1).keys()].map((n) => this.gridLine((top * n) / TICKS)) : [this.gridLine(0), this.nothing()]),
      ...this.timeTicks(from, to, span_s),
      ...(goal !== null && goal <= top ? [draw("line", { class: "goal", x1: EDGE.left, x2: width - EDGE.right, y1: y(goal), y2: y(goal) })] : []),
      ...this.lines.flatMap((line, n) => paths(line, times, lists[n], x, y)),
      this.cursor,
    );
    this.tell(null);
    this.summary.textContent = this.words();
  }

  gridLine(value) {
    const [left, right, at] = [EDGE.left, this.width - EDGE.right, this.y(value)];
    const text = draw("text", { x: left - 8, y: at + 4, "text-anchor": "end" });
    text.textContent = value === 0 ? "0" : this.format(value);
    return draw("g", {}, draw("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }), text);
  }

  nothing() {
    const text = draw("text", { x: (this.width + EDGE.left) / 2, y: HEIGHT / 2, "text-anchor": "middle" });
    text.textContent = say("nothing");
    return text;
  }

  timeTicks(from, to, span_s) {
    const number = this.width < 420 ? 3 : 5;
    return [...Array(number).keys()].map((n) => {
      const at = from + ((to - from) * n) / (number - 1);
      const text = draw("text", { x: this.x(at), y: HEIGHT - 5, "text-anchor": n === 0 ? "start" : n === number - 1 ? "end" : "middle" });
      text.textContent = timeIn(at, span_s);
      return text;
    });
  }

  /** Shows the values below the pointer in the legend; the latest ones if it has left. */
  point(event) {
    if (!this.data || !this.x) return;
    const { times } = this.data;
    if (!event) return this.tell(null);
    const at = event.clientX - this.svg.getBoundingClientRect().left;
    const n = times.reduce((best, each, i) => (Math.abs(this.x(each) - at) < Math.abs(this.x(times[best]) - at) ? i : best), 0);
    this.tell(n);
  }

  tell(n) {
    const { times, lists, span_s } = this.data;
    this.latest.forEach((node, line) => (node.textContent = textOf(n === null ? lastOf(lists[line]) : lists[line][n], this.format)));
    this.when.textContent = n === null ? "" : timeIn(times[n], span_s);
    this.cursor.setAttribute("visibility", n === null ? "hidden" : "visible");
    if (n === null) return;
    this.cursor.setAttribute("x1", this.x(times[n]));
    this.cursor.setAttribute("x2", this.x(times[n]));
  }

  /** What the chart shows, in a sentence for each line. */
  words() {
    const sentences = this.lines.map(({ name }, n) => {
      const known = this.data.lists[n].filter((value) => value != null);
      if (!known.length) return say("lineEmpty", name);
      return say("lineWords", name, ...[known.at(-1), Math.min(...known), Math.max(...known)].map(this.format));
    });
    return `${this.title}. ${sentences.join(" ")}`;
  }

  fillTable() {
    if (!this.values.open || !this.data) return;
    const { times, lists, span_s } = this.data;
    const heads = [say("time"), ...this.lines.map(({ name }) => name)].map((textContent) => el("th", { scope: "col", textContent }));
    const rows = times.map((at, n) => {
      const cells = lists.map((list) => el("td", { className: "number", textContent: textOf(list[n], this.format) }));
      return el("tr", {}, el("th", { scope: "row", textContent: timeIn(at, span_s) }), ...cells);
    });
    const table = el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows.reverse()));
    this.box ??= el("div", { className: "scroller", tabIndex: 0, role: "region", ariaLabel: this.title });
    this.box.replaceChildren(table);
    if (!this.box.isConnected) this.values.append(this.box);
  }
}

const textOf = (value, format) => (value == null ? NONE : format(value));
const lastOf = (list) => list.findLast((value) => value != null);

/** The end of the axis: the next round number. */
function scale(most) {
  if (!(most > 0)) return 1;
  const size = 10 ** Math.floor(Math.log10(most / TICKS));
  return TICKS * size * STEPS.find((step) => step * size * TICKS >= most * 0.9999);
}

/** A line, with a gap where there is no value, and a dot where a value has none beside it. */
function paths({ className, area }, times, list, x, y) {
  const runs = [];
  list.forEach((value, n) => {
    if (value == null) return;
    if (n === 0 || list[n - 1] == null) runs.push([]);
    runs.at(-1).push([x(times[n]).toFixed(1), y(value).toFixed(1)]);
  });
  return runs.flatMap((run) => {
    if (run.length === 1) return [draw("circle", { class: `dot ${className}`, cx: run[0][0], cy: run[0][1], r: 2 })];
    const line = `M${run.map((point) => point.join(",")).join("L")}`;
    const found = [draw("path", { class: `line ${className}`, d: line })];
    if (area) found.unshift(draw("path", { class: `area ${className}`, d: `${line}L${run.at(-1)[0]},${y(0)}L${run[0][0]},${y(0)}Z` }));
    return found;
  });
}
