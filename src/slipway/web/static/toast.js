/** A sentence at the bottom of the page that goes by itself, with a way back if there is one. */

import { button, el } from "./dom.js";
import { speak } from "./notices.js";
import { say } from "./words.js";

const SHOWN_MS = 8000;
let current = null;

/** `undo()` takes back what the sentence says. */
export function toast(text, undo) {
  dismiss();
  const box = el("div", { className: "toast" }, el("span", { textContent: text }));
  if (undo) box.append(button(say("undo"), () => (dismiss(), undo())));
  document.body.append(box);
  speak(text);
  current = { box, timer: setTimeout(dismiss, SHOWN_MS) };
  box.onpointerenter = box.onfocus = () => clearTimeout(current?.timer); // the reader is about to press
}

export function dismiss() {
  if (!current) return;
  clearTimeout(current.timer);
  current.box.remove();
  current = null;
}
