/** The places that an answer draws on: what it cites in sight, what was also found a click away; while nothing is written yet, all that was found. */

import { el, pageOf, place, setText, shownPath } from "./dom.js";
import { togglePassage } from "./passages.js";
import { say } from "./words.js";

export class Sources {
  places = new Map(); // n -> its list item

  constructor(turn) {
    this.turn = turn;
    this.cited = el("ol", { className: "sources" });
    this.others = el("ol", { className: "sources" });
    this.summary = el("summary");
    this.found = el("details", {}, this.summary, this.others);
    this.title = el("h3", { textContent: say("sources") });
    this.element = el("section", { className: "found", hidden: true, ariaLabel: say("sources") }, this.title, this.cited, this.found);
    this.summary.onclick = () => (this.chosen = true); // from here on the reader says whether it is open
  }

  draw() {
    const { turn } = this;
    this.element.hidden = !turn.sources.length;
    const focused = document.activeElement;
    const known = new Set(turn.sources.map((s) => s.n));
    for (const [n, item] of this.places) if (!known.has(n)) (item.remove(), this.places.delete(n));
    for (const source of turn.sources) {
      const list = turn.isCited(source) ? this.cited : this.others;
      const item = this.places.get(source.n) ?? this.item(source);
      item.source = source;
      if (item.parentElement !== list) insertByNumber(list, item);
    }
    if (focused !== document.activeElement && this.element.contains(focused)) focused.focus({ preventScroll: true });
    this.drawTitles();
  }

  drawTitles() {
    const { turn } = this;
    const others = this.others.childElementCount;
    const any = this.cited.childElementCount > 0;
    this.title.hidden = this.cited.hidden = !any;
    this.found.hidden = !others;
    setText(this.summary, any ? say("alsoFound", others) : say(turn.done?.abstained ? "nearest" : "found", others));
    const open = turn.done ? Boolean(turn.done.abstained) : !turn.text; // they are all there is to go by
    if (!this.chosen && this.found.open !== open) this.found.open = open;
  }

  item(source) {
    const item = el("li");
    const where = [shownPath(source.path), pageOf(source)].filter(Boolean).join(", ");
    const opener = el("button", { type: "button", className: "place", ariaLabel: say("source", source.n, place(source)) });
    opener.append(
      el("span", { className: "n", textContent: String(source.n) }),
      el("span", { className: "heading", textContent: source.heading || shownPath(source.path) }),
      el("span", { className: "path", textContent: where }),
    );
    opener.setAttribute("aria-expanded", "false");
    opener.onclick = () => togglePassage(opener, item.source, (panel) => item.append(panel), this.turn.text);
    item.append(opener);
    item.n = source.n;
    this.places.set(source.n, item);
    return item;
  }
}

function insertByNumber(list, item) {
  const after = [...list.children].find((other) => other.n > item.n);
  list.insertBefore(item, after ?? null);
}
