/** What a turn looks like. `draw()` may be called as often as anything changes. */

import { button, copyText, countdown, el, failureNodes } from "./dom.js";
import { Facts } from "./facts.js";
import { speak } from "./notices.js";
import { Opinion } from "./opinion.js";
import { Outline } from "./outline.js";
import { Part } from "./part.js";
import { ProgressLine } from "./progress.js";
import { Sources } from "./sources.js";
import { failureWords, noticeWords, say } from "./words.js";

export class TurnView {
  parts = [];

  /** `again()` tries once more; `keep()` keeps what the reader said of the answer. */
  constructor(turn, { again, keep }) {
    Object.assign(this, { turn, retry: again });
    this.heading = el("h2", { className: "question", textContent: turn.question, dir: "auto", tabIndex: -1 });
    this.notices = el("div");
    this.outline = new Outline((index) => this.goTo(index));
    this.body = el("div", { className: "answer", hidden: true });
    this.failure = el("div");
    this.progress = new ProgressLine();
    this.sources = new Sources(turn);
    this.facts = new Facts();
    this.opinion = new Opinion(turn, keep);
    this.copy = button(say("copy"), () => this.copyAnswer(), { className: "quiet", ariaLabel: say("copyAnswer") });
    this.after = el("div", { className: "facts", hidden: true }, this.facts.element, el("span", { className: "acts" }, this.copy, this.opinion.element));
    this.again = button(say("again"), again);
    this.element = el("li", { className: "turn" });
    this.element.append(this.heading, this.notices, this.outline.element, this.body, this.failure, this.progress.element, this.sources.element, this.after, this.opinion.box);
  }

  draw() {
    const { turn } = this;
    this.element.ariaBusy = String(turn.state === "running");
    this.outline.draw(turn);
    this.drawParts();
    this.progress.draw(turn);
    this.drawNotices();
    this.sources.draw();
    this.drawFailure();
    this.drawAfter();
  }

  drawParts() {
    const { sections, many, text } = this.turn;
    while (this.parts.length > sections.length) this.parts.pop().element.remove();
    while (this.parts.length < sections.length) {
      const part = new Part(this.turn, this.parts.length, this.retry);
      this.parts.push(part);
      this.body.append(part.element);
    }
    for (const part of this.parts) part.draw(many);
    this.body.hidden = !many && !text;
  }

  goTo(index) {
    const { heading, element } = this.parts[index];
    heading.focus({ preventScroll: true });
    element.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth" });
  }

  drawNotices() {
    const texts = this.turn.notices.filter(({ section }) => !this.turn.many || section == null).map(noticeWords);
    if (texts.join() === this.shownNotices) return;
    this.shownNotices = texts.join();
    this.notices.replaceChildren(...texts.map((textContent) => el("p", { className: "notice", textContent })));
  }

  /** What went wrong with all of it; what went wrong with one of several sections is told there. */
  drawFailure() {
    const { failure, state, many } = this.turn;
    const key = JSON.stringify([failure, state, many]);
    if (key === this.shownFailure) return;
    this.shownFailure = key;
    this.failure.replaceChildren();
    if (state === "stopped") {
      this.failure.append(el("p", { className: "stopped" }, el("span", { textContent: say("stopped") }), this.again));
    } else if (state === "failed" && failure && !(many && failure.section != null)) {
      const box = el("div", { className: "failure", role: "alert" });
      this.failure.append(box);
      box.append(el("p", {}, ...failureNodes(failureWords(failure))));
      if (failure.retryable) box.append(el("span", { className: "again" }, this.again, countdown(failure.until)));
      if (failure.ref) box.append(el("p", { className: "ref" }, `${say("reference")} `, el("code", { textContent: failure.ref })));
    }
  }

  drawAfter() {
    const { turn } = this;
    this.after.hidden = turn.state === "running" || !(turn.done || turn.id);
    this.facts.draw(turn);
    this.copy.hidden = !turn.text;
    this.opinion.draw();
  }

  async copyAnswer() {
    const copied = await copyText(this.turn.markdown, this.copy, this.body);
    this.opinion.note(copied ? "" : say("copyFailed"));
    speak(copied ? say("copied") : say("copyFailed"));
  }

  /** What tries again, wherever it stands. */
  get retries() {
    return [this.again, ...this.parts.map((part) => part.again)];
  }
}
