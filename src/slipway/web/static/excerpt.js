/** A passage's text as nodes: its tables as tables, and what an answer says word for word marked. All of it is only ever text. */

import { el } from "./dom.js";
import { say } from "./words.js";

const SHORTEST = 12; // what is shorter stands in many places
const RULE = /^\s*\|?[\s:|-]*--[\s:|-]*\|?[\s:|-]*$/;
const isRow = (line) => line?.includes("|");

export function excerpt(text, answer) {
  const said = quotes(answer);
  return parts(text.split("\n")).flatMap((part) => (part.head ? tableOf(part, said) : marked(part.lines.join("\n"), said)));
}

/** Lines and sentences of the answer, without their markers. */
function quotes(answer) {
  const lines = (answer ?? "").split(/\n|\[\d{1,4}\]/).map((line) => line.trim());
  return [...new Set(lines)].filter((line) => line.length >= SHORTEST && !RULE.test(line));
}

/** Runs of lines, and tables: a row of names, a rule, rows. What stands in a code block is none. */
function parts(lines) {
  const found = [];
  let fenced = false;
  for (let at = 0; at < lines.length; at++) {
    if (/^\s*(```|~~~)/.test(lines[at])) fenced = !fenced;
    if (!fenced && isRow(lines[at]) && isRow(lines[at + 1]) && RULE.test(lines[at + 1])) {
      const part = { head: lines[at], rows: [] };
      for (at += 2; isRow(lines[at]); at++) part.rows.push(lines[at]);
      at--;
      found.push(part);
    } else if (found.at(-1)?.lines) found.at(-1).lines.push(lines[at]);
    else found.push({ lines: [lines[at]] });
  }
  return found;
}

const cells = (line) => line.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));

function tableOf({ head, rows }, said) {
  const line = (name, row) => cells(row).map((cell) => el(name, { textContent: cell, dir: "auto" }));
  const body = rows.map((row) => {
    const shown = el("tr", {}, ...line("td", row));
    if (said.includes(row.trim())) shown.classList.add("said-row");
    return shown;
  });
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...line("th", head))), el("tbody", {}, ...body));
  return [el("div", { className: "scroller", tabIndex: 0, role: "region", ariaLabel: say("table") }, table)];
}

/** The text with the places that are quoted, in their order; those that overlap count once. */
function marked(text, said) {
  const places = said.map((quote) => [text.indexOf(quote), quote.length]).filter(([start]) => start >= 0);
  const nodes = [];
  let at = 0;
  for (const [start, length] of places.sort((a, b) => a[0] - b[0])) {
    if (start < at) continue;
    nodes.push(text.slice(at, start), el("mark", { textContent: text.slice(start, start + length) }));
    at = start + length;
  }
  return [...nodes, text.slice(at)].filter((node) => node !== "");
}
