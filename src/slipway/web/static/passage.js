/** A source opened in place, below what cites it: what is known of it at once, then its passage as the server has it now. One at a time. */

import { button, copyText, el, pageOf, place, shownPath } from "./dom.js";
import { showExcerpt } from "./excerpt.js";
import { call, get } from "./server.js";
import { toast } from "./toast.js";
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
  parts.steps = el("div", { className: "steps", hidden: true });
  parts.text.onclick = ({ target }) => {
    const copier = target.closest(".copy");
    if (copier) copyText(copier.closest(".code").querySelector("code").textContent, copier, null);
  };
  panel.append(parts.head, parts.note, parts.text, parts.steps);
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

/** Fetches the passage as it is now; if that fails, a note says that this is how it was. */
async function look(panel, parts, source, answer) {
  try {
    const passage = await get(`v1/passages/${encodeURIComponent(source.id)}`);
    if (!panel.isConnected) return;
    fill(parts, passage, answer);
    drawSteps(panel, parts, passage, answer);
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
    el("p", { className: "path", textContent: [shownPath(path), pageOf({ path, page })].filter(Boolean).join(", ") }),
    el("p", { className: "heading", textContent: heading || title || shownPath(path) }),
    el("p", { className: "trail", textContent: above.join(" › "), hidden: !above.length }),
  );
  parts.head.querySelector("div")?.remove();
  parts.head.prepend(about);
  if (!closer.isConnected) parts.head.append(closer);
  if (parts.written === text) return; // it must not move under the reader
  parts.written = text;
  showExcerpt(parts.text, path, text, answer);
}

/** The passages before and after this one, and the file itself. */
function drawSteps(panel, parts, passage, answer) {
  const step = (name, id) => button(say(name), () => go(panel, parts, id, answer, name), { className: "quiet", disabled: !id, name });
  const file = passage.has_file ? [button(say("openFile", pageOf(passage)), () => openFile(passage), { className: "quiet" })] : [];
  parts.steps.replaceChildren(step("passageBefore", passage.before), step("passageAfter", passage.after), ...file);
  parts.steps.hidden = !(passage.before || passage.after || file.length);
}

async function go(panel, parts, id, answer, pressed) {
  try {
    const passage = await get(`v1/passages/${encodeURIComponent(id)}`);
    parts.note.hidden = true;
    fill(parts, passage, answer);
    parts.text.scrollTop = 0;
    drawSteps(panel, parts, passage, answer);
    const again = parts.steps.querySelector(`[name=${pressed}]`);
    (again.disabled ? panel : again).focus({ preventScroll: true });
  } catch (error) {
    Object.assign(parts.note, { textContent: failureWords(error.failure).what, hidden: false });
  }
}

/** Opens the file in a tab, at the passage's page. The key goes in a header, so a plain link would not do. */
async function openFile({ id, page }) {
  const opened = window.open("", "_blank");
  try {
    const reply = await call(`v1/passages/${encodeURIComponent(id)}/file`);
    const url = URL.createObjectURL(new Blob([await reply.arrayBuffer()], { type: "application/pdf" }));
    setTimeout(() => URL.revokeObjectURL(url), 600_000);
    if (opened) opened.location = page ? `${url}#page=${page}` : url;
  } catch (error) {
    opened?.close();
    toast(failureWords(error.failure).what);
  }
}

/** Scrolls the panel to what the answer says word for word. */
function toQuoted(text) {
  const said = text.querySelector("mark");
  if (said) text.scrollTop = said.getBoundingClientRect().top - text.getBoundingClientRect().top - text.clientHeight / 3;
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]") && closePassage()) event.preventDefault(); // it stops no answer
});
