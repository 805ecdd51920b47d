/** The sections of a long answer, with what became of each: pressing one goes there. */

import { button, el, setText } from "./dom.js";
import { among, say } from "./words.js";

export class Outline {
  constructor(go) {
    this.go = go;
    this.items = []; // {element, title, state}
    this.list = el("ol");
    this.element = el("nav", { className: "outline", hidden: true, ariaLabel: say("sections") }, this.list);
  }

  draw(turn) {
    this.element.hidden = !turn.many;
    if (!turn.many) return;
    while (this.items.length > turn.sections.length) this.items.pop().element.remove();
    while (this.items.length < turn.sections.length) this.items.push(this.item(this.items.length));
    this.items.forEach((item, index) => drawItem(item, turn, index));
  }

  item(index) {
    const title = el("span", { className: "title", dir: "auto" });
    const state = el("span", { className: "state" });
    const opener = button("", () => this.go(index), { className: "quiet" });
    opener.append(title, state);
    const element = el("li", {}, opener);
    this.list.append(element);
    return { element, title, state };
  }
}

function drawItem({ element, title, state }, turn, index) {
  const now = stateOf(turn, index);
  setText(title, turn.section(index).title || say("untitled", index + 1));
  setText(state, among("states", now));
  if (element.className !== now) element.className = now;
}

/** Of an answer that has ended, what is not done has failed; of one under way, the first that is not done is being written. */
function stateOf(turn, index) {
  const { state } = turn.section(index);
  if (state === "done" || state === "failed") return state;
  if (turn.state === "running") return index === turn.sections.findIndex((each) => !["done", "failed"].includes(each?.state)) ? "writing" : "waiting";
  return turn.state === "failed" ? "failed" : "waiting";
}
