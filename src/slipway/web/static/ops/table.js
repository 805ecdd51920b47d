/** A table that is drawn again and again: rows that stay keep their elements, so that neither the focus nor the scroll position moves. */

import { dropFocus, el } from "../dom.js";

let tables = 0;

export class Table {
  /** `columns` are {title, cell(row), number, prose}; `cell` gives text or a node, and `key(row)` tells rows apart. A cell that `stays` is never drawn again. */
  constructor(title, columns, { key, none, level = 3, hint }) {
    Object.assign(this, { columns, key, none, rows: new Map() });
    this.heading = el(`h${level}`, { textContent: title, id: `table-${++tables}`, tabIndex: -1 });
    const heads = columns.map((column) => el("th", { scope: "col", className: kindOf(column), textContent: column.title }));
    this.body = el("tbody");
    this.table = el("table", {}, el("thead", {}, el("tr", {}, ...heads)), this.body);
    this.scroller = el("div", { className: "scroller", tabIndex: 0, role: "region" }, this.table);
    this.empty = el("p", { className: "none", textContent: none });
    for (const each of [this.table, this.scroller]) each.setAttribute("aria-labelledby", this.heading.id);
    this.element = el("section", { className: "card" }, this.heading, ...(hint ? [el("p", { className: "hint", textContent: hint })] : []), this.scroller, this.empty);
  }

  draw(data) {
    this.scroller.hidden = !data.length;
    this.empty.hidden = data.length > 0;
    const wanted = new Map(data.map((row) => [this.key(row), row]));
    for (const [key, { element }] of this.rows) {
      if (wanted.has(key)) continue;
      dropFocus(element, this.heading);
      element.remove();
      this.rows.delete(key);
    }
    let next = this.body.firstElementChild;
    for (const [key, row] of wanted) {
      const element = this.drawRow(key, row);
      if (element === next) next = next.nextElementSibling;
      else this.body.insertBefore(element, next);
    }
  }

  drawRow(key, row) {
    const known = this.rows.get(key) ?? { element: el("tr", {}, ...this.columns.map((column, n) => cellOf(column, n))), shown: [] };
    this.rows.set(key, known);
    this.columns.forEach(({ cell, stays }, n) => {
      const found = stays && known.shown[n] !== undefined ? known.shown[n] : cell(row);
      const shown = typeof found === "string" ? found : (found.dataset.shown ?? found.textContent);
      if (known.shown[n] === shown || (stays && known.shown[n] !== undefined)) return;
      known.shown[n] = shown;
      known.element.children[n].replaceChildren(found);
    });
    return known.element;
  }
}

const kindOf = ({ number, prose }) => (number ? "number" : prose ? "prose" : "");

function cellOf(column, n) {
  const cell = el(n === 0 ? "th" : "td", { className: kindOf(column) });
  if (n === 0) cell.scope = "row";
  return cell;
}

/** How much of a limit is used, as a bar with words. */
export function meter(used, limit, words) {
  const part = limit > 0 ? Math.min(1, used / limit) : 1;
  const bar = el("span", { className: "bar", ariaHidden: "true" }, el("span"));
  bar.firstChild.style.width = `${Math.round(part * 100)}%`;
  const level = part >= 1 ? "bad" : part >= 0.9 ? "warn" : "good";
  const node = el("span", { className: `meter ${level}` }, bar, el("span", { textContent: words }));
  node.dataset.shown = `${words} ${level} ${Math.round(part * 100)}`;
  return node;
}

/** A word with a mark before it, whose colour and shape say how good that is. */
export function badge(level, words, why = "") {
  const node = el("span", { className: `badge ${level}` }, el("span", { className: "mark", ariaHidden: "true" }), el("span", { textContent: words }));
  if (why) node.append(el("small", { textContent: why }));
  node.dataset.shown = `${level} ${words} ${why}`;
  return node;
}
