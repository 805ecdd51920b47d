/** One section of an answer: the blocks that are whole as the server's clean HTML, what is being written behind them as plain text. */

import { button, countdown, el, failureNodes, place } from "./dom.js";
import { opens } from "./passage.js";
import { failureWords, noticeWords, say } from "./words.js";

const MARKER = /\[(\d{1,4})\]([.,;:!?)”]*)/g; // with the signs that may not begin a line
const UNMARKED = "code, pre, a, button";
let count = 0;

export class Part {
  blocks = []; // {html, node}: what the server sent, and what became of it
  end = 0; // how many characters of the text they are

  constructor(turn, index, again) {
    Object.assign(this, { turn, index });
    this.heading = el("h3", { tabIndex: -1, id: `section-${++count}`, hidden: true, dir: "auto" });
    this.words = document.createTextNode("");
    this.tail = el("div", { className: "tail", hidden: true }, this.words);
    this.text = el("div", { className: "text", dir: "auto" }, this.tail);
    this.notes = el("div");
    this.lack = el("div");
    this.again = button(say("again"), again);
    this.element = el("section", { className: "part" }, this.heading, this.text, this.notes, this.lack);
  }

  get section() {
    return this.turn.sections[this.index] ?? { title: "", text: "", state: "waiting" };
  }

  /** `many`: it is one of several, and says by its title and in its place what became of it. */
  draw(many) {
    const { section } = this;
    if (this.drawn !== section) this.reset(section);
    if (section.html !== undefined && !this.end) this.show(section.html, Infinity);
    const title = many ? section.title || say("untitled", this.index + 1) : "";
    if (this.heading.textContent !== title) this.heading.textContent = title;
    this.heading.hidden = !many;
    if (many) this.element.setAttribute("aria-labelledby", this.heading.id);
    this.write(this.rest(section.text));
    this.element.classList.toggle("waiting", !section.text);
    this.drawNotes(many);
    this.drawLack(many);
  }

  /** What a reader should know of this section alone. */
  drawNotes(many) {
    const texts = many ? this.turn.notices.filter(({ section }) => section === this.index).map(noticeWords) : [];
    if (texts.join("") === this.notes.textContent) return;
    this.notes.replaceChildren(...texts.map((textContent) => el("p", { className: "notice", textContent })));
  }

  /** A section that was begun again says everything anew. */
  reset(section) {
    this.drawn = section;
    this.end = 0;
    for (const { node } of this.blocks.splice(0)) node.remove();
  }

  /** The text behind the blocks. The server counts characters, JavaScript halves of the rare ones. */
  rest(text) {
    if (this.end >= text.length) return "";
    let at = 0;
    let n = 0;
    for (const sign of text) {
      if (n++ === this.end) break;
      at += sign.length;
    }
    return text.slice(at);
  }

  write(text) {
    const { data } = this.words;
    if (data && text.startsWith(data)) this.words.appendData(text.slice(data.length)); // keeps what the reader has selected
    else if (data !== text) this.words.data = text;
    this.tail.hidden = !text.trim();
  }

  /** The first `end` characters as `html`, which was cleaned by the server: the only markup that is ever inserted. Blocks that stay the same stay. */
  show(html, end) {
    const template = document.createElement("template");
    template.innerHTML = html;
    const fresh = [...template.content.children].map((node) => ({ html: node.outerHTML, node }));
    let same = 0;
    while (same < fresh.length && this.blocks[same]?.html === fresh[same].html) same++;
    for (const { node } of this.blocks.splice(same)) node.remove();
    for (const block of fresh.slice(same)) {
      block.node = el("div", { className: "block" }, block.node);
      this.blocks.push(block);
      this.text.insertBefore(block.node, this.tail);
      this.furnish(block.node);
    }
    this.end = end;
    this.write(this.rest(this.section.text));
  }

  furnish(block) {
    this.relevel(block);
    this.mark(block);
    for (const table of block.querySelectorAll("table")) {
      const scroller = el("div", { className: "scroller" });
      table.replaceWith(scroller);
      scroller.append(table);
    }
    for (const wide of block.querySelectorAll("pre, .scroller")) {
      if (wide.scrollWidth <= wide.clientWidth) continue;
      Object.assign(wide, { tabIndex: 0, role: "region", ariaLabel: say(wide.matches("pre") ? "code" : "table") });
    }
  }

  /** Headings of a text stand below what it stands below, and skip no level. */
  relevel(block) {
    const before = [...this.text.querySelectorAll("h3, h4, h5, h6")].filter((each) => !block.contains(each)).at(-1);
    const top = this.heading.hidden ? 2 : 3;
    let level = before ? Number(before.tagName[1]) : top;
    for (const heading of block.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
      level = Math.min(6, Number(heading.tagName[1]) + top, level + 1);
      heading.replaceWith(el(`h${level}`, {}, ...heading.childNodes));
    }
  }

  /** `[n]` in the text becomes a button that opens source n; the citations of a source come in the order of its markers. */
  mark(block) {
    const walker = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
    const nodes = [];
    while (walker.nextNode()) nodes.push(walker.currentNode);
    const seen = new Map();
    for (const mark of this.text.querySelectorAll(".mark")) seen.set(mark.n, (seen.get(mark.n) ?? 0) + 1);
    for (const node of nodes) {
      if (node.parentElement.closest(UNMARKED)) continue;
      const parts = [];
      let at = 0;
      for (const found of node.data.matchAll(MARKER)) {
        const n = Number(found[1]);
        if (!this.turn.sources.some((s) => s.n === n)) continue;
        const nth = seen.get(n) ?? 0;
        seen.set(n, nth + 1);
        parts.push(node.data.slice(at, found.index), el("span", { className: "unbroken" }, this.marker(n, nth, block), found[2]));
        at = found.index + found[0].length;
      }
      if (at) node.replaceWith(...parts, node.data.slice(at));
    }
  }

  /** Where its citation has flags, words that the source lacks, it looks doubtful and says which. */
  marker(n, nth, block) {
    const source = () => this.turn.sources.find((s) => s.n === n);
    const flags = this.turn.citations.filter((c) => c.n === n && c.section === this.index)[nth]?.flags ?? [];
    const mark = el("button", { className: "mark", type: "button", textContent: String(n), ariaLabel: say("source", n, place(source())), n });
    if (flags.length) {
      mark.classList.add("doubtful");
      mark.title = say("notInSource", flags);
      mark.ariaLabel += `. ${mark.title}`;
    }
    return opens(mark, source, () => block, () => this.turn.text);
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
