/** A passage's text as nodes: Markdown as Markdown, other kinds as text with their tables. What an answer says word for word is marked. */

import { el } from "./dom.js";
import { furnish, settle } from "./furnish.js";
import { blocksOf, clean, newEnv } from "./markdown.js";
import { say } from "./words.js";

const SHORTEST = 12; // characters; what is shorter is found in many places
const RULE = /^\s*\|?[\s:|-]*--[\s:|-]*\|?[\s:|-]*$/;
const MARKDOWN = /\.(md|markdown)$/i;
const isRow = (line) => line?.includes("|");

/** Fills `home` with the text of a passage from the file `path`. */
export function showExcerpt(home, path, text, answer) {
  const isMarkdown = MARKDOWN.test(path);
  home.classList.toggle("plain", !isMarkdown);
  if (isMarkdown) {
    home.replaceChildren(...blocksOf(text, newEnv(() => false)).map(({ html }) => blockOf(html)));
    home.querySelectorAll(".block").forEach(settle);
  } else home.replaceChildren(...parts(text.split("\n")).flatMap((part) => (part.head ? tableOf(part) : part.lines.join("\n"))));
  markQuotes(home, quotes(answer).map(plain));
}

function blockOf(html) {
  const fragment = clean(html);
  furnish(fragment, { top: 3 });
  return el("div", { className: "block" }, fragment);
}

/** Lines and sentences of the answer, without their markers. */
function quotes(answer) {
  const lines = (answer ?? "").split(/\n|\[\d{1,4}\]/).map((line) => line.trim());
  return [...new Set(lines)].filter((line) => line.length >= SHORTEST && !RULE.test(line));
}

/** Runs of lines, and tables: a row of names, a rule, rows. Lines of a code block are none. */
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

function tableOf({ head, rows }) {
  const line = (name, row) => cells(row).map((cell) => el(name, { textContent: cell, dir: "auto" }));
  const body = rows.map((row) => el("tr", {}, ...line("td", row)));
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...line("th", head))), el("tbody", {}, ...body));
  return [el("div", { className: "scroller", tabIndex: 0, role: "region", ariaLabel: say("table") }, table)];
}

// What is quoted

/** A line of Markdown as it is read: without its signs, with the cells of a row as words, and with single spaces. */
function plain(line) {
  const cells = line.replace(/(?<!\\)\|/g, " ").trim();
  const text = blocksOf(cells, newEnv(() => false)).map(({ html }) => clean(html).textContent);
  return text.join(" ").replace(/\s+/g, " ").trim();
}

/** Marks each of `said` where it is first found, also across several elements. */
function markQuotes(home, said) {
  const { text, at } = flatten(home);
  const found = said.filter((quote) => quote.length >= SHORTEST).map((quote) => [text.indexOf(quote), quote.length]);
  const ranges = [];
  for (const [start, length] of found.filter(([from]) => from >= 0)) {
    for (let n = start; n < start + length; n++) {
      const place = at[n];
      if (!place) continue;
      const last = ranges.at(-1);
      if (last?.node === place.node && last.end === place.offset) last.end++;
      else ranges.push({ node: place.node, start: place.offset, end: place.offset + 1 });
    }
  }
  for (const range of ranges.reverse()) wrap(range);
}

/** The text below `home` with single spaces, and where each of its characters is. Blocks and cells are separate words. */
function flatten(home) {
  const walker = document.createTreeWalker(home, NodeFilter.SHOW_TEXT);
  const at = [];
  let text = "";
  let parent = null;
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest(".bar, thead")) continue;
    const block = node.parentElement.closest("p, li, td, th, h3, h4, h5, h6, pre, .text");
    if (block !== parent && text && !text.endsWith(" ")) [text, at[text.length]] = [`${text} `, null];
    parent = block;
    for (let offset = 0; offset < node.data.length; offset++) {
      const isSpace = /\s/.test(node.data[offset]);
      if (isSpace && (!text || text.endsWith(" "))) {
        if (at.length) at[at.length - 1] ??= null;
        continue;
      }
      at[text.length] = { node, offset };
      text += isSpace ? " " : node.data[offset];
    }
  }
  return { text, at };
}

function wrap({ node, start, end }) {
  if (start > node.data.length || !node.parentNode) return;
  const range = document.createRange();
  range.setStart(node, start);
  range.setEnd(node, Math.min(end, node.data.length));
  range.surroundContents(el("mark"));
}
