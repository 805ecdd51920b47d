/** What a turn looks like. `draw()` may be called as often as anything changes. */

import { Suggestions, Versions, againButton, beQuiet, canSpeak, copyQuietly, isSpeaking, plainText, readAloud } from "./actions.js";
import { button, copyText, countdown, el, failureNodes } from "./dom.js";
import { Facts } from "./facts.js";
import { icon } from "./icons.js";
import { menuButton } from "./menu.js";
import { speak } from "./notices.js";
import { Outline } from "./outline.js";
import { Part } from "./part.js";
import { ProgressLine } from "./progress.js";
import { Sources } from "./sources.js";
import { toast } from "./toast.js";
import { failureWords, noticeWords, say } from "./words.js";

export class TurnView {
  parts = [];

  /** `hooks`: what the conversation does for a turn: again, keep, regenerate, edit, show, suggest, isLast, names, turns. */
  constructor(turn, hooks) {
    Object.assign(this, { turn, hooks, retry: hooks.again });
    this.heading = el("h2", { className: "question", textContent: turn.question, dir: "auto", tabIndex: -1 });
    this.editor = button("", () => this.edit(), { className: "quiet symbol", ariaLabel: say("editQuestion"), title: say("editQuestion") });
    this.editor.append(icon("edit"));
    this.asked = el("div", { className: "asked" }, this.heading, this.editor);
    this.files = el("p", { className: "attached", hidden: !turn.files.length }, ...turn.files.map(({ name }) => el("span", { textContent: name })));
    this.notices = el("div");
    this.outline = new Outline((index) => this.goTo(index));
    this.body = el("div", { className: "answer", hidden: true });
    this.failure = el("div");
    this.progress = new ProgressLine();
    this.sources = new Sources(turn);
    this.facts = new Facts();
    this.asks = el("span"); // for the votes, which are loaded when the first answer has ended
    this.box = el("div");
    this.versions = new Versions(turn, hooks.show);
    this.suggestions = new Suggestions(turn, hooks);
    this.copy = button(say("copy"), () => this.copyAnswer(), { className: "quiet", ariaLabel: say("copyAnswer") });
    this.regenerate = againButton(turn, hooks);
    this.more = menuButton("more", say("answerMenu"), () => this.items());
    const acts = el("span", { className: "acts" }, this.versions.element, this.copy, this.regenerate, this.asks, this.more);
    this.after = el("div", { className: "facts", hidden: true }, this.facts.element, acts);
    this.again = button(say("again"), hooks.again);
    this.element = el("li", { className: "turn" });
    this.element.append(this.asked, this.files, this.notices, this.outline.element, this.body, this.failure, this.progress.element);
    this.element.append(this.sources.element, this.after, this.box, this.suggestions.element);
  }

  draw() {
    const { turn } = this;
    this.element.ariaBusy = String(turn.state === "running");
    this.editor.hidden = turn.state === "running";
    this.outline.draw(turn);
    this.drawParts();
    this.progress.draw(turn);
    this.drawNotices();
    this.sources.draw();
    this.drawFailure();
    this.drawAfter();
  }

  /** Puts the question into a form in its own place. */
  edit() {
    const text = el("textarea", { value: this.turn.question, ariaLabel: say("yourQuestion"), dir: "auto", rows: 2 });
    const buttons = el("div", { className: "row" }, el("button", { type: "submit", className: "primary", textContent: say("ask") }), button(say("cancel"), () => leave()));
    const form = el("form", { className: "editing" }, text, buttons);
    const leave = () => {
      form.replaceWith(this.asked);
      this.editor.focus({ preventScroll: true });
    };
    form.onsubmit = (event) => {
      event.preventDefault();
      const question = text.value.trim();
      if (!question || question === this.turn.question) return leave();
      const undo = this.hooks.edit(question);
      toast(say("questionEdited"), undo);
    };
    form.onkeydown = (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter" && !event.shiftKey && event.target === text) {
        event.preventDefault();
        form.requestSubmit();
      } else if (event.key === "Escape") {
        event.preventDefault(); // it stops no answer
        leave();
      }
    };
    this.asked.replaceWith(form);
    text.focus();
    text.setSelectionRange(text.value.length, text.value.length);
  }

  items() {
    const { turn } = this;
    const found = [];
    if (turn.text) found.push({ label: say("copyText"), act: () => copyQuietly(plainText(this.body)) });
    if (turn.text) found.push({ label: say("copyMarkdown"), act: () => copyQuietly(turn.markdown) });
    if (turn.text && canSpeak()) {
      if (isSpeaking()) found.push({ label: say("beQuiet"), act: beQuiet });
      else found.push({ label: say("readAloud"), act: () => readAloud(plainText(this.body, { citations: false })) });
    }
    if (turn.done) found.push({ label: say("share"), act: () => import("./share.js").then(({ share }) => share(this.hooks.turns(), this.more)) });
    if (this.opinion) found.push({ label: say("report"), act: () => this.opinion.openReport(this.more) });
    return found;
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

  /** What went wrong with all of it; what went wrong with one of several sections is said there. */
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
    this.versions.draw();
    this.drawOpinion();
    this.suggestions.draw();
  }

  async drawOpinion() {
    if (this.opinion) return this.opinion.draw();
    if (this.turn.state === "running" || !this.turn.id || this.opinion === null) return;
    this.opinion = null; // on its way
    try {
      const { Opinion } = await import("./opinion.js");
      this.opinion = new Opinion(this.turn, this.hooks.keep);
    } catch {
      return (this.opinion = undefined); // the next drawing tries again
    }
    this.asks.replaceWith(this.opinion.element);
    this.box.replaceWith(this.opinion.box);
    this.opinion.draw();
  }

  async copyAnswer() {
    const copied = await copyText(this.turn.markdown, this.copy, this.body);
    if (!copied) toast(say("copyFailed"));
    else speak(say("copied"));
  }

  /** The buttons that ask the server for an answer: only one is written at a time. */
  get retries() {
    return [this.again, this.regenerate, this.editor, ...this.parts.map((part) => part.again)];
  }
}
