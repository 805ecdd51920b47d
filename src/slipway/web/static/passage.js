/** A source opened in place, beneath what cites it: what is known of it at once, then its passage as the server has it now. One at a time. */

import { button, el, pageOf, place } from "./dom.js";
import { excerpt } from "./excerpt.js";
import { get } from "./server.js";
import { failureWords, say } from "./words.js";

let open = null; // {trigger, panel}
let count = 0;

/** Opens the passage of `source`, or closes it. `put(panel)` places the panel; `answer` is the text that cites it: what it says word for word is marked. */
export function togglePassage(trigger, source, put, answer) {
  const again = open?.trigger === trigger;
  closePassage();
  if (!again) show(trigger, source, put, answer);
}

/** Closes the passage that is open, and gives the focus back to what opened it. False where none is. */
export function closePassage() {
  if (!open) return false;
  const { trigger, panel } = open;
  open = null;
  const had = panel.contains(document.activeElement);
  panel.remove();
  trigger.setAttribute("aria-expanded", "false");
  trigger.removeAttribute("aria-controls");
  if (had) trigger.focus({ preventScroll: true });
  return true;
}

function show(trigger, source, put, answer) {
  const panel = el("section", { className: "passage", id: `passage-${++count}`, tabIndex: -1, ariaLabel: say("source", source.n, place(source)) });
  const parts = { head: el("div", { className: "head" }), note: el("p", { className: "notice", hidden: true }) };
  parts.text = el("div", { className: "text", tabIndex: 0, role: "region", ariaLabel: say("passageText"), dir: "auto" });
  panel.append(parts.head, parts.note, parts.text);
  put(panel);
  open = { trigger, panel };
  trigger.setAttribute("aria-expanded", "true");
  trigger.setAttribute("aria-controls", panel.id);
  fill(parts, source, answer);
  panel.focus({ preventScroll: true });
  panel.scrollIntoView({ block: "nearest" });
  toQuoted(parts.text);
  look(panel, parts, source, answer);
}

/** The passage as it is now; where it cannot be had, a note says that this is how it was. */
async function look(panel, parts, source, answer) {
  try {
    const passage = await get(`v1/passages/${encodeURIComponent(source.id)}`);
    if (panel.isConnected) fill(parts, passage, answer);
  } catch (error) {
    const note = error.status === 404 ? say("passageChanged") : say("passageAsFound", failureWords(error.failure).what);
    Object.assign(parts.note, { textContent: note, hidden: false });
  }
}

function fill(parts, { path, page, heading, title, trail, text }, answer) {
  const above = (trail ?? []).filter((step) => step !== heading);
  if (title && title !== heading && title !== above[0]) above.unshift(title);
  const closer = parts.head.querySelector("button") ?? button(say("close"), closePassage, { className: "quiet" });
  const about = el(
    "div",
    {},
    el("p", { className: "path", textContent: [path, pageOf({ path, page })].filter(Boolean).join(", ") }),
    el("p", { className: "heading", textContent: heading || title || path }),
    el("p", { className: "trail", textContent: above.join(" › "), hidden: !above.length }),
  );
  parts.head.querySelector("div")?.remove();
  parts.head.prepend(about);
  if (!closer.isConnected) parts.head.append(closer);
  if (parts.written === text) return; // it must not be drawn anew under the reader
  parts.written = text;
  parts.text.replaceChildren(...excerpt(text, answer));
}

/** What the answer says word for word comes into sight, within the panel alone. */
function toQuoted(text) {
  const said = text.querySelector("mark, .said-row");
  if (said) text.scrollTop = said.getBoundingClientRect().top - text.getBoundingClientRect().top - text.clientHeight / 3;
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]") && closePassage()) event.preventDefault(); // it stops no answer
});
