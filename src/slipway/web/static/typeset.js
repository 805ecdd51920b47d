/** Sets maths. The library and its fonts are loaded when the first formula is seen; until then its source is shown. */

import { el, loadStyle } from "./dom.js";

const OPTIONS = { throwOnError: true, trust: false, strict: "ignore", maxSize: 20, maxExpand: 200 };
const MOST = 500; // formulas that are kept set

let katex = null;
let loading = null;
const done = new Map(); // source -> its nodes, to be cloned

/** `node` holds the source as text, and as its `data-tex`. */
export function typeset(node) {
  const { tex } = node.dataset;
  if (!katex) return void load();
  const display = node.classList.contains("display");
  const key = `${display}${tex}`;
  if (!done.has(key)) {
    const set = draw(tex, display);
    if (done.size >= MOST) done.clear();
    done.set(key, set);
  }
  node.replaceChildren(...done.get(key).cloneNode(true).childNodes);
}

/** A formula that cannot be set is shown as its source. */
function draw(tex, displayMode) {
  const set = el("span");
  try {
    katex.render(tex, set, { ...OPTIONS, displayMode });
  } catch {
    set.replaceChildren(el("code", { textContent: tex }));
  }
  return set;
}

function load() {
  loading ??= begin().catch(() => (loading = null)); // the next formula tries again
}

async function begin() {
  await Promise.all([import("./vendor/katex/katex.js"), loadStyle("vendor/katex/katex.css")]);
  katex = globalThis.katex;
  for (const node of document.querySelectorAll(".maths[data-tex]")) typeset(node);
}
