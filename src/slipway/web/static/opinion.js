/** "Was this helpful?" below an answer, and reporting a problem. A vote is sent at once; reasons and a comment go after it, in its place. */

import { button, dropFocus, el, failureNodes } from "./dom.js";
import { speak } from "./notices.js";
import { at, call } from "./server.js";
import { among, failureWords, say } from "./words.js";

const REASONS = ["wrong", "incomplete", "outdated", "wrong_source", "unclear", "too_long", "slow", "harmful", "other"];
const LONGEST = 4000;
let count = 0;

export class Opinion {
  constructor(turn, keep) {
    Object.assign(this, { turn, keep });
    this.yes = button(say("yes"), () => this.vote(true), { className: "quiet" });
    this.no = button(say("no"), () => this.vote(false), { className: "quiet" });
    this.question = el("span", { textContent: say("helpful"), id: `helpful-${++count}` });
    this.votes = el("span", { className: "votes", role: "group" }, this.question, this.yes, this.no);
    this.votes.setAttribute("aria-labelledby", this.question.id);
    this.element = el("span", { className: "asks", hidden: true }, this.votes);
    this.box = el("div", { className: "opinion" }); // the form, and what became of what was sent
  }

  draw() {
    const { turn } = this;
    const over = turn.state !== "running" && Boolean(turn.id);
    if (!over) this.leave();
    this.element.hidden = !over;
    this.votes.hidden = turn.state !== "done";
    const helpful = turn.opinion?.helpful ?? null;
    this.yes.ariaPressed = String(helpful === true);
    this.no.ariaPressed = String(helpful === false);
  }

  // votes

  /** Pressing what is pressed takes the vote back. */
  async vote(helpful) {
    const presser = helpful ? this.yes : this.no;
    if ((this.turn.opinion?.helpful ?? null) === helpful) return this.takeBack(presser);
    const gone = await this.send({ helpful }, presser, () => this.vote(helpful));
    if (!gone) return;
    this.turn.opinion = { ...this.turn.opinion, helpful };
    this.said(say("thanks"));
    if (!helpful) this.openReasons();
  }

  async takeBack(presser) {
    const gone = await this.attempt(() => call(at`v1/feedback/${this.turn.id}`, { method: "DELETE" }), presser, () => this.takeBack(presser));
    if (!gone) return;
    this.turn.opinion = { ...this.turn.opinion, helpful: null };
    this.said(say("takenBack"));
  }

  openReasons() {
    const boxes = REASONS.map((value) => el("input", { type: "checkbox", value }));
    const labels = boxes.map((box) => el("label", {}, box, among("reasons", box.value)));
    const choices = el("fieldset", {}, el("legend", { textContent: say("why") }), ...labels);
    const send = async (comment) => {
      const reasons = boxes.filter((box) => box.checked).map((box) => box.value);
      return (await this.send({ helpful: false, reasons, comment }, this.no, null)) && say("thanks");
    };
    this.openForm(this.no, [choices], say("comment"), send, false);
  }

  // a problem

  openReport(opener) {
    const send = async (comment) => {
      const gone = await this.send({ kind: "report", comment }, opener, null);
      if (gone) this.turn.opinion = { ...this.turn.opinion, reported: true };
      return gone && say("reported");
    };
    this.openForm(opener, [], say("reportWhat"), send, true);
  }

  // the form

  /** `send(comment)` gives what to say then, false where it could not be sent. The focus goes into the form, and back to `opener`. */
  openForm(opener, choices, label, send, needed) {
    const note = this.box.querySelector(".said");
    this.text = el("textarea", { rows: 3, maxLength: LONGEST, id: `comment-${++count}`, required: needed, dir: "auto" });
    const buttons = el("div", { className: "row" }, el("button", { type: "submit", className: "primary", textContent: say("send") }), button(say("cancel"), () => this.leave(opener)));
    const form = el("form", {}, ...choices, el("label", { htmlFor: this.text.id, textContent: label }), this.text, buttons);
    form.noValidate = true;
    form.onsubmit = async (event) => {
      event.preventDefault();
      const comment = this.text.value.trim();
      if (needed && !comment) return this.demand();
      const words = await send(comment);
      if (words) this.said(words, opener);
    };
    form.onkeydown = (event) => {
      if (event.key !== "Escape" || event.isComposing) return;
      event.preventDefault(); // it stops no answer
      this.leave(opener);
    };
    this.box.replaceChildren(...(note ? [note] : []), form);
    form.querySelector("input, textarea").focus({ preventScroll: true });
    form.scrollIntoView({ block: "nearest" });
  }

  demand() {
    this.text.ariaInvalid = "true";
    this.text.focus();
    this.note(say("reportWords"));
  }

  /** Closes the form, unsent. */
  leave(opener) {
    const form = this.box.querySelector("form");
    if (form && opener) dropFocus(form, opener);
    form?.remove();
  }

  said(words, opener) {
    this.leave(opener);
    this.note(words);
    speak(words);
    this.draw();
    this.keep();
  }

  note(words) {
    const form = this.box.querySelector("form");
    this.box.replaceChildren(el("p", { className: "said", textContent: words }), ...(form ? [form] : []));
  }

  // sending

  send(said, home, again) {
    return this.attempt(() => call("v1/feedback", { body: { answer: this.turn.id, ...said } }), home, again);
  }

  /** True where it was kept. Else it says why not; `again` tries once more, where the form has no button that does. */
  async attempt(act, home, again) {
    try {
      await act();
      this.box.querySelector(".failure")?.remove();
      return true;
    } catch (error) {
      const failure = el("div", { className: "failure", role: "alert" }, el("p", {}, ...failureNodes(failureWords(error.failure))));
      if (again) failure.append(button(say("again"), () => (dropFocus(failure, home), failure.remove(), again())));
      for (const old of this.box.querySelectorAll(".failure, .said")) old.remove();
      this.box.prepend(failure);
      return false;
    }
  }
}
