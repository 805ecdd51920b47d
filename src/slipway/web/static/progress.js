/** How far an answer is: a bar with words for the eye, and now and then a sentence for the ear. */

import { el, setText } from "./dom.js";
import { say } from "./words.js";

const SHOWN_S = 3; // from here on the time that has passed is shown

/** What is being done, with true counts. */
function stageWords({ stage, label, done, total, unit }, turn) {
  if (stage === "admit") return say("waiting");
  if (stage === "plan") return say("planning");
  if (stage === "retrieve" && unit === "percent") return say("readingDocuments", say("percent", done).trim());
  if (stage === "retrieve" && !total) return say("nothingMatches");
  if (stage === "retrieve") return say("searching") + (total > 1 || done ? say("counted", done, total, unit) : "");
  if (stage !== "write") return label;
  const sections = Math.max(total, turn.sections.length);
  return sections > 1 ? say("writingSection", Math.min(done + 1, sections), sections) : say("writing");
}

/** What screen readers read too: no times, since they change all the time. */
export function progressWords(turn) {
  if (turn.waiting) return turn.waiting;
  if (!turn.progress) return say(turn.text ? "writing" : "sending");
  return turn.text && turn.progress.stage !== "write" ? say("writing") : stageWords(turn.progress, turn);
}

function leftWords({ progress, waiting }) {
  if (waiting || !progress?.eta_s) return "";
  const [low, high] = progress.eta_s;
  return say("left", Math.max(0, Math.floor(low)), Math.max(1, Math.ceil(high)));
}

export class ProgressLine {
  constructor() {
    this.bar = el("progress", { ariaLabel: say("progress") });
    this.label = el("span", { className: "stage" });
    this.time = el("span", { className: "time" });
    this.element = el("p", { className: "progress", hidden: true }, this.bar, el("span", {}, this.label, this.time));
  }

  draw(turn) {
    this.element.hidden = turn.state !== "running";
    if (this.element.hidden) return;
    const { done = 0, total = 0 } = turn.progress ?? {};
    if (total > 1) Object.assign(this.bar, { max: total, value: Math.min(done, total) });
    else this.bar.removeAttribute("value");
    setText(this.label, progressWords(turn));
    const seconds = Math.floor(turn.seconds);
    const times = [leftWords(turn), seconds >= SHOWN_S ? say("elapsed", seconds) : ""].filter(Boolean);
    setText(this.time, times.map((each) => ` · ${each}`).join(""));
  }
}

/** What is said when an answer has ended. */
export function endWords({ state, sources, done }) {
  if (state === "stopped") return say("stopped");
  if (done?.abstained) return say("saidAbstained");
  return state === "done" ? say("saidDone", sources.length) : "";
}
