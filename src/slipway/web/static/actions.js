/** What can be done with an answer: copy, ask again, share, listen, and the questions that may follow. */

import { button, el, setText } from "./dom.js";
import { icon } from "./icons.js";
import { menuButton } from "./menu.js";
import { speak } from "./notices.js";
import { toast } from "./toast.js";
import { say } from "./words.js";

const SUGGESTED = 3;
const CHINESE = /[\u3400-\u9fff]/;

/** "‹ 2 of 3 ›": the answers to the same question. */
export class Versions {
  constructor(turn, show) {
    Object.assign(this, { turn });
    this.before = button("", () => show(turn.version - 1), { className: "quiet symbol", ariaLabel: say("versionBefore") });
    this.after = button("", () => show(turn.version + 1), { className: "quiet symbol", ariaLabel: say("versionAfter") });
    this.before.append(icon("left"));
    this.after.append(icon("right"));
    this.label = el("span");
    this.element = el("span", { className: "versions", hidden: true }, this.before, this.label, this.after);
  }

  draw() {
    const { version, versions, state } = this.turn;
    this.element.hidden = versions.length < 2;
    setText(this.label, say("versionOf", version + 1, versions.length));
    this.before.disabled = version === 0 || state === "running";
    this.after.disabled = version === versions.length - 1 || state === "running";
  }

  focusOne() {
    (this.before.disabled ? this.after : this.before).focus({ preventScroll: true });
  }
}

/** Asks again: the same app first, then each other that the key may call. */
export function againButton(turn, { regenerate, names }) {
  const items = () => {
    const others = names().map(({ id }) => id).filter((id) => id !== turn.app);
    const first = { label: say("regenerateSame"), act: () => regenerate(turn.app) };
    return [first, ...(others.length ? [null] : []), ...others.map((id) => ({ label: say("regenerateWith", id), act: () => regenerate(id) }))];
  };
  return menuButton("again", say("regenerate"), items);
}

/** Questions that may follow, from the headings of sources that the answer does not cite. No model is called. */
export class Suggestions {
  constructor(turn, hooks) {
    Object.assign(this, { turn, hooks });
    this.list = el("ul");
    this.title = el("h3", { textContent: say("askNext") });
    this.element = el("section", { className: "suggestions", hidden: true, ariaLabel: say("askNext") }, this.title, this.list);
  }

  draw() {
    const { turn, hooks } = this;
    const shown = turn.state === "done" && hooks.isLast() ? suggested(turn) : [];
    this.element.hidden = !shown.length;
    const key = shown.join("\n");
    if (key === this.key) return;
    this.key = key;
    this.list.replaceChildren(...shown.map((question) => el("li", {}, button(question, () => hooks.suggest(question), { dir: "auto" }))));
  }
}

function suggested(turn) {
  const cited = new Set(turn.sources.filter((source) => turn.isCited(source)).map(({ heading }) => heading));
  const asked = turn.question.toLowerCase();
  const headings = turn.sources.map(({ heading }) => heading).filter((heading) => heading && !cited.has(heading) && !asked.includes(heading.toLowerCase()));
  return [...new Set(headings)].slice(0, SUGGESTED).map((heading) => say("suggestion", heading));
}

/** The answer as it is read, with `[n]` for its citations, or without them. */
export function plainText(body, { citations = true } = {}) {
  const marks = [...body.querySelectorAll(".mark")];
  const bars = [...body.querySelectorAll(".bar")];
  for (const mark of marks) mark.textContent = citations ? `[${mark.value}]` : "";
  for (const bar of bars) bar.hidden = true;
  const text = body.innerText;
  for (const mark of marks) mark.textContent = mark.value;
  for (const bar of bars) bar.hidden = false;
  return text.replace(/\n{3,}/g, "\n\n").trim();
}

// Listening

const voice = globalThis.speechSynthesis ?? null;
export const canSpeak = () => Boolean(voice);
export const isSpeaking = () => Boolean(voice?.speaking);

export function readAloud(text) {
  voice.cancel();
  const said = new SpeechSynthesisUtterance(text);
  said.lang = CHINESE.test(text) ? "zh-CN" : document.documentElement.lang;
  said.onerror = ({ error }) => ["interrupted", "canceled"].includes(error) || toast(say("cannotSpeak"));
  voice.speak(said);
}

export const beQuiet = () => voice?.cancel();

/** Copies what is not an element of the page, and says so. */
export async function copyQuietly(text) {
  const copied = await navigator.clipboard.writeText(text).then(() => true, () => false);
  toast(say(copied ? "copied" : "copyRefused"));
  speak(say(copied ? "copied" : "copyRefused"));
  return copied;
}
