/** A dialog in the middle of the page, made when it is needed. */

import { button, el, loadStyle } from "./dom.js";
import { say } from "./words.js";

await loadStyle("sheet.css");

let count = 0;

/** Returns the dialog; it is removed when it is closed. The focus goes back to where it was. */
export function openSheet(title, ...content) {
  const before = document.activeElement;
  const heading = el("h2", { textContent: title, id: `sheet-${++count}`, tabIndex: -1 });
  const close = button(say("close"), () => dialog.close(), { className: "quiet" });
  const body = el("div", { className: "body" }, ...content);
  const dialog = el("dialog", { className: "sheet" }, el("div", { className: "head" }, heading, close), body);
  dialog.setAttribute("aria-labelledby", heading.id);
  dialog.onclick = ({ target }) => void (target === dialog && dialog.close()); // beside it
  dialog.onclose = () => {
    dialog.remove();
    before?.focus?.({ preventScroll: true });
  };
  dialog.append(el("p", { className: "unseen", role: "status" }));
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
