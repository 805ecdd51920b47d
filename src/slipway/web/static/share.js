/** Sharing a conversation by a link. Who opens it needs a key or a login that may read what its answers cite. */

import { copyText, button, el, failureNodes } from "./dom.js";
import { call } from "./server.js";
import { openSheet } from "./sheet.js";
import { failureWords, say } from "./words.js";

export async function share(turns) {
  const link = el("input", { readOnly: true, ariaLabel: say("shareLink"), value: "…" });
  const copy = button(say("copy"), () => copyText(link.value, copy), { className: "primary", disabled: true });
  const why = el("p", { textContent: say("shareWhy") });
  const dialog = openSheet(say("shareTitle"), why, el("div", { className: "row" }, link, copy));
  try {
    const done = turns.filter((turn) => turn.done).map((turn) => ({ ...turn.fields, files: [] }));
    const { id } = await (await call("v1/shares", { body: { turns: done } })).json();
    link.value = `${location.origin}${location.pathname}?share=${id}`;
    copy.disabled = false;
    copy.focus();
    link.onfocus = () => link.select();
  } catch (error) {
    why.replaceWith(el("div", { className: "failure", role: "alert" }, el("p", {}, ...failureNodes(failureWords(error.failure)))));
    dialog.querySelector(".row").remove();
  }
}
