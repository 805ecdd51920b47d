/** Making elements, and small things that many parts of the page do with them. Text from a model or a document is only ever text. */

import { say } from "./words.js";

export function el(name, props = {}, ...children) {
  const node = Object.assign(document.createElement(name), props);
  node.append(...children);
  return node;
}

export const button = (textContent, onclick, more = {}) => el("button", { type: "button", textContent, onclick, ...more });

/** A sentence as nodes: what is in backticks is code, or what `name` says. */
export const phrase = (text, name = "code") => text.split(/`([^`]+)`/).map((part, n) => (n % 2 ? el(name, { textContent: part }) : part));

/** What happened, what to do, and the server's own words where they are not the reader's. */
export function failureNodes({ what, next, foreign }) {
  const nodes = [el("strong", {}, ...phrase(what)), ...(next ? [" ", ...phrase(next)] : [])];
  return foreign ? [...nodes, el("span", { className: "foreign", lang: "en" }, ...phrase(foreign))] : nodes;
}

/** The time left `until` trying again helps, beside a button that can be pressed all the same; what is read out is the sentence. */
export function countdown(until) {
  const node = el("span", { className: "until", ariaHidden: "true" });
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    node.textContent = left > 0 ? say("elapsed", left) : "";
    if (left > 0) setTimeout(() => node.isConnected && tick(), 1000);
  };
  tick();
  return node;
}

/** Before `element` goes: the focus that is in it moves to `home`. */
export function dropFocus(element, home) {
  if (element.contains(document.activeElement)) home.focus({ preventScroll: true });
}

/** "page 12", "slide 12" or "sheet Prices"; nothing if neither is known. */
export function pageOf({ path, page, trail, heading }) {
  if (/\.xlsx$/i.test(path)) return trail?.[0] || heading ? say("sheet", trail?.[0] ?? heading) : "";
  return page == null ? "" : say(/\.pptx$/i.test(path) ? "slide" : "page", page);
}

/** Why a document could not be read, and on which page, as a sentence. */
export function unreadWords(document) {
  const where = pageOf(document);
  return `${(document.reason ?? document.error ?? say("unread")).replace(/\.$/, "")}${where && ` (${where})`}.`;
}

/** The path with the name that an upload's sender gave it: the server adds a mark to some, as in `uploads/plan~1f3a9c02.md`. */
export const shownPath = (path) => (path.startsWith("uploads/") ? path.replace(/([^/])(?:~[0-9a-f]{8})+(?=\.[^.]*$)/, "$1") : path);

export const place = (source) => [shownPath(source.path), source.heading, pageOf(source)].filter(Boolean).join(", ");

/** Sets the text if it differs: text that is written again is read out again. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Copies, and says so on the button. Where the browser does not allow it, `fallback` is selected, and false comes back. */
export async function copyText(text, copier, fallback) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    if (fallback) getSelection().selectAllChildren(fallback);
    return false;
  }
  copier.textContent = say("copied");
  setTimeout(() => (copier.textContent = say("copy")), 1500);
  return true;
}

/** Offers `text` as a file to save. */
export function saveFile(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Loads a style sheet of the page; resolves once it applies. */
export function loadStyle(name) {
  const style = el("link", { rel: "stylesheet", href: new URL(name, import.meta.url).href });
  const loaded = new Promise((resolve, reject) => Object.assign(style, { onload: resolve, onerror: () => reject(new Error(name)) }));
  document.head.append(style);
  return loaded;
}
