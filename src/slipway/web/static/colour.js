/** Colours code. The library is loaded when the first block of code with a language is seen. */

import { cleanSpans } from "./markdown.js";

const LONGEST = 60_000; // characters; longer code stays plain
const PAUSE = 20; // while code is being written, colouring takes at most one part in so many of the time

let library = null;
const coloured = new WeakMap(); // code element -> {text, at, cost}

const load = () => (library ??= import("./vendor/highlight.js").then((module) => module.default));

/** `final`: no more will come. While code is being written, this does nothing if it was called a short while ago. */
export async function colour(code, final) {
  const language = /language-(\S+)/.exec(code.className)?.[1];
  const last = coloured.get(code);
  if (!language || code.textContent.length > LONGEST || last?.text === code.textContent) return;
  if (last && !final && performance.now() < last.at + PAUSE * last.cost) return;
  coloured.set(code, { text: "", at: performance.now(), cost: last?.cost ?? 20 });
  const hljs = await load().catch(() => null); // without it, code stays plain
  if (!hljs?.getLanguage(language)) return;
  const began = performance.now();
  const text = code.textContent;
  code.replaceChildren(cleanSpans(hljs.highlight(text, { language, ignoreIllegals: true }).value));
  coloured.set(code, { text, at: began, cost: performance.now() - began });
}
