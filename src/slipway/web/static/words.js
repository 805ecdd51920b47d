/** The page's words, in the language of the reader: `?lang=zh`, else the one that was chosen, else the browser's first that there is, else English. */

import { stored } from "./stored.js";

/** To add a language: a file like `english.js` with the same names, and a row here. */
const LANGUAGES = { en: ["./english.js", "en", "English"], zh: ["./chinese.js", "zh-CN", "中文"] };

function wanted() {
  const asked = [new URLSearchParams(location.search).get("lang"), stored.read("language"), ...navigator.languages];
  return asked.map((each) => each?.toLowerCase().split("-")[0]).find((each) => each in LANGUAGES) ?? "en";
}

const language = wanted();
const [file, tag] = LANGUAGES[language];
const { default: words } = await import(file);

export const locale = tag;
/** [code, name] of every language there is. */
export const languages = Object.entries(LANGUAGES).map(([code, [, , name]]) => [code, name]);

/** The words called `name`; a function of them gets `about`. */
export function say(name, ...about) {
  const found = words[name];
  if (found === undefined) console.error(`there are no words for ${name}`);
  return typeof found === "function" ? found(...about) : found;
}

/** The words for `key` in the list called `name`; null where there are none. */
export const among = (name, key) => words[name][key] ?? null;

/** What happened, and what to do: the server's words for readers in their language, or the page's own for the code. */
export function failureWords({ code, reader, what = "", next = "" } = { code: "page" }) {
  const [ours, hint = ""] = among("failures", code) ?? [];
  if (reader) return { what: reader.what, next: reader.next };
  return ours ? { what: ours, next: hint } : { what, next };
}

/** The same for who looks after documents: the exact words in English, below the words in the reader's language. */
export function exactWords(failure) {
  const { reader, what, next } = failure ?? {};
  if (!reader) return failureWords(failure);
  return reader.language === "en" ? { what, next } : { ...failureWords(failure), foreign: `${what} ${next}`.trim() };
}

/** A notice's sentence; in English it is the server's own. */
export function noticeWords({ code, text }) {
  const found = among("notices", code);
  return typeof found === "function" ? found(text) : (found ?? text);
}

/** Fills in the page: the text of `data-say`, and the labels of `data-label` and `data-placeholder`. */
export function sayAll(root = document) {
  document.documentElement.lang = locale;
  for (const each of root.querySelectorAll("[data-say]")) each.textContent = say(each.dataset.say);
  for (const each of root.querySelectorAll("[data-label]")) {
    each.ariaLabel = say(each.dataset.label);
    if (each.matches(".symbol")) each.title = each.ariaLabel;
  }
  for (const each of root.querySelectorAll("[data-placeholder]")) each.placeholder = say(each.dataset.placeholder);
}
