/** The words of the operations page, in the reader's language; what it shares with the chat page comes from there. */

import { among as amongShared, locale, say as sayShared } from "../words.js";

const { default: words } = await import(locale.startsWith("zh") ? "./chinese.js" : "./english.js");

export { locale };

/** The words called `name`; a function of them gets `about`. */
export function say(name, ...about) {
  if (!(name in words)) return sayShared(name, ...about);
  return typeof words[name] === "function" ? words[name](...about) : words[name];
}

/** The words for `key` in the list called `name`; null if there are none. */
export const among = (name, key) => (name in words ? (words[name][key] ?? null) : amongShared(name, key));

export function sayAll(root = document) {
  document.documentElement.lang = locale;
  document.title = say("titleLong");
  for (const each of root.querySelectorAll("[data-say]")) each.textContent = say(each.dataset.say);
}
