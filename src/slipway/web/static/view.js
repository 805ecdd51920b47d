/** What a turn looks like. `draw()` may be called as often as anything changes; text that comes from a model or a document is only ever text. */

const RUNGS = {
  rule: () => "A set answer",
  cache: () => "Answered before",
  semantic: () => "Answered before, to a similar question",
  stale: () => "Answered before; it may be out of date",
  quote: () => "Quoted from the documents",
  smaller: (model) => `${model}, a smaller model`,
  model: (model) => model,
};
const MARKER = /\[(\d{1,4})\]([.,;:!?)”]*)/g; // with the signs that may not begin a line
const UNMARKED = "code, pre, a, button";

export function el(name, props = {}, ...children) {
  const node = Object.assign(document.createElement(name), props);
  node.append(...children);
  return node;
}

export const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
/** Bytes as people say them; the server counts its limits the same way. */
export const size = (bytes) => (bytes < 1024 ? plural(bytes, "byte") : bytes < 2 ** 20 ? `${Math.round(bytes / 1024)} KB` : `${(bytes / 2 ** 20).toFixed(1)} MB`);

/** "page 12" or "slide 12", put where `$` stands; nothing where no page is known. */
export const pageOf = ({ path, page }, around = "$") => (page == null ? "" : around.replace("$", `${/\.pptx$/i.test(path) ? "slide" : "page"} ${page}`));

/** Why a document could not be read, and on which page, as a sentence. */
export const failureWords = (document) => `${(document.reason ?? document.error ?? "It could not be read").replace(/\.$/, "")}${pageOf(document, " ($)")}.`;

/** A sentence of the server as nodes: what stands in backticks is code. */
export const phrase = (text) => text.split(/`([^`]+)`/).map((part, n) => (n % 2 ? el("code", { textContent: part }) : part));

/** Before `element` goes: the focus that is in it moves to `home`. */
export function dropFocus(element, home) {
  if (element.contains(document.activeElement)) home.focus({ preventScroll: true });
}

const duration = (s) => (s < 0.05 ? "under 0.1 s" : s < 59.95 ? `${s.toFixed(1)} s` : `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`);

export class TurnView {
  /** `again()` tries once more, `open(source)` shows a passage. */
  constructor(turn, { again, open }) {
    this.turn = turn;
    this.open = open;
    this.places = new Map(); // n -> its list item
    this.heading = el("h2", { className: "question", textContent: turn.question, dir: "auto", tabIndex: -1 });
    this.words = document.createTextNode("");
    this.body = el("div", { className: "answer raw", dir: "auto", hidden: true }, this.words);
    this.bar = el("progress", { ariaLabel: "Progress" });
    this.label = el("span");
    this.progress = el("p", { className: "progress", hidden: true }, this.bar, this.label);
    this.notices = el("div");
    this.failure = el("div");
    this.cited = el("ol", { className: "sources" });
    this.others = el("ol", { className: "sources" });
    this.summary = el("summary");
    this.found = el("details", {}, this.summary, this.others);
    this.citedTitle = el("h3", { textContent: "Sources" });
    this.sources = el("section", { className: "found", hidden: true, ariaLabel: "Sources" }, this.citedTitle, this.cited, this.found);
    this.copy = el("button", { className: "quiet", type: "button", textContent: "Copy", ariaLabel: "Copy the answer" });
    this.copy.onclick = () => copyText(turn.text, this.copy);
    this.facts = el("p", { className: "facts", hidden: true });
    this.again = el("button", { type: "button", textContent: "Try again", onclick: again });
    this.element = el("li", { className: "turn" }, this.heading, this.notices, this.body, this.failure, this.progress, this.sources, this.facts);
  }

  draw() {
    const { turn } = this;
    this.element.ariaBusy = String(turn.state === "running");
    if (turn.state === "running" && !this.body.classList.contains("raw")) this.showText();
    if (this.body.classList.contains("raw")) this.write(turn.text);
    this.body.hidden = !turn.text;
    this.drawProgress();
    this.drawNotices();
    this.drawSources();
    this.drawFailure();
    this.drawFacts();
  }

  write(text) {
    const { data } = this.words;
    if (text.startsWith(data)) this.words.appendData(text.slice(data.length)); // keeps what the reader has selected
    else this.words.data = text;
  }

  showText() {
    this.words.data = "";
    this.body.replaceChildren(this.words);
    this.body.classList.add("raw");
  }

  /** `html` was cleaned by the server; it is the only markup that is ever inserted. */
  showHtml(html) {
    this.body.classList.remove("raw");
    this.body.innerHTML = html;
    relevel(this.body);
    this.mark();
    for (const table of this.body.querySelectorAll("table")) {
      const scroller = el("div", { className: "scroller" });
      table.replaceWith(scroller);
      scroller.append(table);
    }
    for (const wide of this.body.querySelectorAll("pre, .scroller")) {
      if (wide.scrollWidth > wide.clientWidth) Object.assign(wide, { tabIndex: 0, role: "region", ariaLabel: wide.matches("pre") ? "Code" : "Table" });
    }
  }

  /** `[n]` in the text becomes a button that opens source n; the citations of a source come in the order of its markers. */
  mark() {
    const flags = (n, nth) => this.turn.citations.filter((c) => c.n === n)[nth]?.flags ?? [];
    const seen = new Map();
    const walker = document.createTreeWalker(this.body, NodeFilter.SHOW_TEXT);
    const nodes = [];
    while (walker.nextNode()) nodes.push(walker.currentNode);
    for (const node of nodes) {
      if (node.parentElement.closest(UNMARKED)) continue;
      const parts = [];
      let at = 0;
      for (const found of node.data.matchAll(MARKER)) {
        const source = this.turn.sources.find((s) => s.n === Number(found[1]));
        if (!source) continue;
        const nth = seen.get(source.n) ?? 0;
        seen.set(source.n, nth + 1);
        parts.push(node.data.slice(at, found.index), el("span", { className: "unbroken" }, this.marker(source, flags(source.n, nth)), found[2]));
        at = found.index + found[0].length;
      }
      if (at) node.replaceWith(...parts, node.data.slice(at));
    }
  }

  /** With `flags`, words that the source lacks, it looks doubtful and says which. */
  marker(source, flags) {
    const mark = el("button", { className: "mark", type: "button", textContent: String(source.n), ariaLabel: `Source ${source.n}: ${place(source)}` });
    if (flags.length) {
      mark.classList.add("doubtful");
      mark.title = `Not found in the cited source: ${flags.join(", ")}`;
      mark.ariaLabel += `. ${mark.title}`;
    }
    mark.onclick = () => this.open(source);
    return mark;
  }

  drawProgress() {
    const { turn } = this;
    this.progress.hidden = turn.state !== "running";
    if (this.progress.hidden) return;
    const { done = 0, total = 0 } = turn.progress ?? {};
    if (total > 1) Object.assign(this.bar, { max: total, value: Math.min(done, total) });
    else this.bar.removeAttribute("value");
    const seconds = Math.floor(turn.seconds);
    this.label.textContent = progressWords(turn) + (seconds >= 3 ? ` · ${seconds} s` : "");
  }

  drawNotices() {
    const texts = this.turn.notices.map((n) => n.text);
    if (texts.join() === this.shownNotices) return;
    this.shownNotices = texts.join();
    this.notices.replaceChildren(...texts.map((text) => el("p", { className: "notice", textContent: text })));
  }

  drawSources() {
    const { turn } = this;
    this.sources.hidden = !turn.sources.length;
    const focused = document.activeElement;
    const known = new Set(turn.sources.map((s) => s.n));
    for (const [n, item] of this.places) if (!known.has(n)) (item.remove(), this.places.delete(n));
    for (const source of turn.sources) {
      const list = turn.isCited(source) ? this.cited : this.others;
      const item = this.places.get(source.n) ?? this.item(source);
      item.source = source;
      if (item.parentElement !== list) insertByNumber(list, item);
    }
    if (focused !== document.activeElement && this.sources.contains(focused)) focused.focus({ preventScroll: true });
    const others = this.others.childElementCount;
    const any = this.cited.childElementCount > 0;
    this.citedTitle.hidden = this.cited.hidden = !any;
    this.found.hidden = !others;
    const summary = any ? `Also found (${others})` : `${turn.done?.abstained ? "The nearest places" : "Found"} (${others})`;
    if (this.summary.textContent === summary) return;
    this.summary.textContent = summary;
    if (turn.done?.abstained) this.found.open = true; // they are all there is to go by
  }

  item(source) {
    const item = el("li");
    const where = [source.path, pageOf(source)].filter(Boolean).join(", ");
    const button = el("button", { type: "button", className: "place", ariaLabel: `Source ${source.n}: ${place(source)}` });
    button.append(el("span", { className: "n", textContent: String(source.n) }), el("span", { className: "heading", textContent: source.heading || source.path }), el("span", { className: "path", textContent: where }));
    button.onclick = () => this.open(item.source);
    item.append(button);
    item.n = source.n;
    this.places.set(source.n, item);
    return item;
  }

  drawFailure() {
    const { failure, state } = this.turn;
    const key = JSON.stringify([failure, state]);
    if (key === this.shownFailure) return;
    this.shownFailure = key;
    this.failure.replaceChildren();
    if (state === "stopped") {
      this.failure.append(el("p", { className: "stopped" }, el("span", { textContent: "Stopped." }), this.again));
    } else if (state === "failed" && failure) {
      const box = el("div", { className: "failure" });
      box.role = "alert";
      this.failure.append(box);
      box.append(el("p", {}, el("strong", { textContent: failure.what }), failure.next ? ` ${failure.next}` : ""));
      if (failure.retryable) box.append(this.again);
      if (failure.ref) box.append(el("p", { className: "ref" }, "Reference ", el("code", { textContent: failure.ref })));
    }
  }

  drawFacts() {
    const { done, text } = this.turn;
    this.facts.hidden = !done;
    if (!done || this.shownDone === done) return;
    this.shownDone = done;
    const who = done.abstained ? "Not found in the documents" : (RUNGS[done.rung] ?? RUNGS.model)(done.model ?? done.rung ?? "");
    this.facts.replaceChildren(el("span", { textContent: `${who} · ${duration(done.duration_s)}` }));
    if (text) this.facts.append(this.copy);
  }
}

/** What a progress event says, with its counts and the time that is left where they are known. */
export function progressWords({ progress, waiting, text }) {
  if (waiting) return waiting;
  if (!progress) return "Sending the question…";
  const { label, done, total, unit, eta_s: eta } = progress;
  const counts = total > 1 && !/\d+\/\d+/.test(label) ? ` (${done}/${total} ${unit})` : "";
  const left = eta ? ` · about ${Math.round(eta[0])} to ${Math.round(eta[1])} s left` : "";
  return text ? "Writing the answer…" + left : label + counts + left;
}

export function endWords({ state, sources, done }) {
  if (state === "stopped") return "Stopped.";
  if (done?.abstained) return "Done: the documents do not say.";
  return state === "done" ? `The answer is complete${sources.length ? `, with ${plural(sources.length, "source")}` : ""}.` : "";
}

export const place = (source) => [source.path, source.heading, pageOf(source)].filter(Boolean).join(", ");

function insertByNumber(list, item) {
  const after = [...list.children].find((other) => other.n > item.n);
  list.insertBefore(item, after ?? null);
}

/** Headings of an answer stand below its question, which is an h2, and skip no level. */
function relevel(body) {
  let level = 2;
  for (const heading of body.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    level = Math.min(6, Number(heading.tagName[1]) + 2, level + 1);
    heading.replaceWith(el(`h${level}`, {}, ...heading.childNodes));
  }
}

/** Copies, and says so on the button; where the browser does not allow it, `fallback` is selected for Ctrl+C. */
export async function copyText(text, button, fallback) {
  try {
    await navigator.clipboard.writeText(text);
    const before = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = before), 1500);
  } catch {
    if (fallback) getSelection().selectAllChildren(fallback);
  }
}
