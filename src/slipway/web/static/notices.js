/** What is said beside the conversation: notices above it, each once, and sentences for screen readers. */

import { button, copyText, el } from "./dom.js";
import { say } from "./words.js";

const SPEAK_MS = 2000; // screen readers get one sentence at a time

/** Shows `content` under its own `id`; `act` is what its button does. An alert is read out at once. */
export function notice(id, content, { label, act, alert = false } = {}) {
  const box = el("div", { className: alert ? "failure" : "notice", id: `notice-${id}`, role: alert ? "alert" : null }, el("p", {}, ...content));
  if (act) box.append(button(label, act));
  if (document.getElementById(box.id)?.textContent === box.textContent) return;
  withdraw(id);
  document.getElementById("notices").append(box);
}

export function command(id, text, line) {
  const code = el("code", { textContent: line });
  const copy = button(say("copy"), () => copyText(line, copy, code), { ariaLabel: say("command") });
  notice(id, [text, el("span", { className: "command" }, code, copy)]);
}

export const withdraw = (id) => document.getElementById(`notice-${id}`)?.remove();

const speech = { said: "", next: "", at: -SPEAK_MS, timer: 0 };

/** At most one sentence in two seconds; the latest counts. What is outside of an open dialog is not read out, so it has a line of its own. */
export function speak(text) {
  if (!text || text === (speech.next || speech.said)) return;
  speech.next = text;
  const later = Math.max(0, speech.at + SPEAK_MS - performance.now());
  speech.timer ||= setTimeout(() => {
    Object.assign(speech, { said: speech.next, next: "", at: performance.now(), timer: 0 });
    (document.querySelector("dialog[open] [role=status]") ?? document.getElementById("status")).textContent = speech.said;
  }, later);
}
