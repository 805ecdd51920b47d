/** One section of an answer: its text as it arrives, its citations, and what is missing of it. */

import { button, copyText, countdown, el, failureNodes, place } from "./dom.js";
import { colour, furnish, settle } from "./furnish.js";
import { togglePassage } from "./passages.js";
import { Stream } from "./stream.js";
import { failureWords, noticeWords, say } from "./words.js";

let count = 0;

export class Part {
  constructor(turn, index, again) {
    Object.assign(this, { turn, index });
    this.heading = el("h3", { tabIndex: -1, id: `section-${++count}`, hidden: true, dir: "auto" });
    this.text = el("div", { className: "text" });
    this.notes = el("div");
    this.lack = el("div");
    this.again = button(say("again"), again);
    this.element = el("section", { className: "part" }, this.heading, this.text, this.notes, this.lack);
    this.text.onclick = (event) => this.pressed(event.target);
    this.stream = new Stream(this.text, {
      isSource: (n) => Boolean(this.source(n)),
      furnish: (fragment, node) => this.furnish(fragment, node),
      settled: settle,
    });
  }

  get section() {
    return this.turn.sections[this.index] ?? { title: "", text: "", state: "waiting" };
  }

  source(n) {
    return this.turn.sources.find((source) => source.n === n);
  }

  /** `many`: it is one of several, and says by its title and in its place what became of it. */
  draw(many) {
    const { section, turn } = this;
    if (this.drawn !== section) this.stream.clear(); // a section that was begun again starts empty
    this.drawn = section;
    const title = many ? section.title || say("untitled", this.index + 1) : "";
    if (this.heading.textContent !== title) this.heading.textContent = title;
    this.heading.hidden = !many;
    if (many) this.element.setAttribute("aria-labelledby", this.heading.id);
    const ended = turn.state !== "running" || ["done", "failed"].includes(section.state);
    this.stream.update(section.text, ended);
    for (const code of ended ? [] : this.text.querySelectorAll(".block:last-child pre > code")) colour(code, false);
    this.element.classList.toggle("waiting", !section.text);
    this.drawFlags();
    this.drawNotes(many);
    this.drawLack(many);
  }

  furnish(fragment, node) {
    const top = this.heading.hidden ? 2 : 3;
    const before = [...this.text.querySelectorAll("h3, h4, h5, h6")].filter((each) => each.compareDocumentPosition(node) & Node.DOCUMENT_POSITION_FOLLOWING);
    const above = before.filter((each) => !node.contains(each)).at(-1);
    furnish(fragment, { top, level: above ? Number(above.tagName[1]) : top });
    for (const mark of fragment.querySelectorAll(".mark")) {
      mark.ariaLabel = say("source", mark.value, place(this.source(Number(mark.value))));
      mark.setAttribute("aria-expanded", "false");
    }
  }

  pressed(target) {
    const mark = target.closest(".mark");
    const copier = target.closest(".copy");
    if (mark) togglePassage(mark, this.source(Number(mark.value)), (panel) => mark.closest(".block").after(panel), this.turn.text);
    if (!copier) return;
    const code = copier.closest(".code").querySelector("code");
    copyText(code.textContent, copier, code);
  }

  /** A citation with flags, words that its source lacks, looks doubtful and says which. A source's citations come in the order of its markers. */
  drawFlags() {
    const marks = this.text.querySelectorAll(".mark");
    const mine = this.turn.citations.filter((citation) => citation.section === this.index);
    const seen = new Map();
    for (const mark of marks) {
      const n = Number(mark.value);
      const nth = seen.get(n) ?? 0;
      seen.set(n, nth + 1);
      const flags = mine.filter((citation) => citation.n === n)[nth]?.flags ?? [];
      if (flags.length && !mark.classList.contains("doubtful")) doubt(mark, flags);
    }
  }

  /** What a reader should know of this section alone. */
  drawNotes(many) {
    const texts = many ? this.turn.notices.filter(({ section }) => section === this.index).map(noticeWords) : [];
    if (texts.join("") === this.notes.textContent) return;
    this.notes.replaceChildren(...texts.map((textContent) => el("p", { className: "notice", textContent })));
  }

  /** What is missing of it, in its place, with the way to get it. */
  drawLack(many) {
    const { turn } = this;
    const { state } = this.section;
    const failed = many && turn.state !== "running" && (state === "failed" || (turn.state === "failed" && state !== "done"));
    const about = failed && turn.failure?.section === this.index ? turn.failure : null;
    const key = JSON.stringify([failed, about]);
    if (key === this.shownLack) return;
    this.shownLack = key;
    this.lack.replaceChildren();
    if (!failed) return;
    const box = el("div", { className: "failure" }, el("p", {}, ...failureNodes(about ? failureWords(about) : { what: say("sectionFailed") })));
    if (turn.failure?.retryable !== false) box.append(el("span", { className: "again" }, this.again, countdown(about?.until)));
    if (about?.ref) box.append(el("p", { className: "ref" }, `${say("reference")} `, el("code", { textContent: about.ref })));
    if (about) box.role = "alert";
    this.lack.append(box);
  }
}

function doubt(mark, flags) {
  mark.classList.add("doubtful");
  mark.title = say("notInSource", flags);
  mark.ariaLabel += `. ${mark.title}`;
}
