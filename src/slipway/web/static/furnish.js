/** Completes the nodes of Markdown before they are shown: headings on the right level, code with its language and a Copy button, tables that scroll, maths. */

import { el } from "./dom.js";
import { say } from "./words.js";

const DIRECTED = "p, li, h1, h2, h3, h4, h5, h6, th, td, blockquote"; // each may be written from the right

/** `level`: the level of the heading before this text. */
export function furnish(fragment, { top, level = top }) {
  relevel(fragment, top, level);
  for (const each of fragment.querySelectorAll(DIRECTED)) each.dir = "auto";
  for (const table of fragment.querySelectorAll("table")) wrap(table, el("div", { className: "scroller" }));
  for (const code of fragment.querySelectorAll("pre > code")) frame(code);
  for (const box of fragment.querySelectorAll("input")) box.ariaLabel = say(box.checked ? "taskDone" : "taskOpen");
  for (const maths of fragment.querySelectorAll(".maths")) {
    maths.dataset.tex = maths.textContent;
    withModule("typeset", maths);
  }
}

/** Completes a block that is final and in the page: its colours, and scrolling by keys. */
export function settle(block) {
  for (const code of block.querySelectorAll("pre > code")) {
    // a diagram that names an image would ask another server for it, and one with event handlers
    // would try to run them: they stay shown as their source
    if (languageOf(code) === "mermaid" && !/\bimg\s*:|:\/\/|\bon[a-z]{3,}\s*=/i.test(code.textContent)) import("./diagram.js").then(({ draw }) => draw(code, code.closest(".code")));
    else colour(code, true);
  }
  for (const each of block.querySelectorAll("pre, .scroller")) widths.observe(each);
}

/** What is wider than its place can be scrolled by keys. */
const widths = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const isWide = target.scrollWidth > target.clientWidth;
    if (isWide) Object.assign(target, { tabIndex: 0, role: "region", ariaLabel: say(target.matches("pre") ? "code" : "table") });
    else for (const name of ["tabindex", "role", "aria-label"]) target.removeAttribute(name);
  }
});

/** Code and maths are drawn by modules that are loaded when the first is seen. */
const loaded = {};
const loading = {};

function withModule(name, ...about) {
  if (loaded[name]) return loaded[name](...about);
  loading[name] ??= import(`./${name}.js`).then((module) => (loaded[name] = module[name]), () => (loading[name] = null));
  loading[name].then(() => loaded[name]?.(...about));
}

export const colour = (code, final) => languageOf(code) && withModule("colour", code, final);

function wrap(node, box) {
  node.replaceWith(box);
  box.append(node);
}

/** Headings of a text are below the heading above it, and skip no level. */
function relevel(fragment, top, before) {
  let level = before;
  for (const heading of fragment.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    level = Math.min(6, Number(heading.tagName[1]) + top, level + 1);
    heading.replaceWith(el(`h${level}`, {}, ...heading.childNodes));
  }
}

export const languageOf = (code) => /language-(\S+)/.exec(code.className)?.[1] ?? "";

function frame(code) {
  const pre = code.parentElement;
  pre.dir = "ltr";
  const copy = el("button", { type: "button", className: "copy", textContent: say("copy"), ariaLabel: say("copyCode") });
  const box = el("div", { className: "code" });
  pre.replaceWith(box);
  box.append(el("div", { className: "bar" }, el("span", { textContent: languageOf(code) || say("fileText") }), copy), pre);
}
