/** What answered, on demand: a line that opens. */

import { el } from "./dom.js";
import { among, say } from "./words.js";

export class Facts {
  constructor() {
    this.summary = el("summary");
    this.list = el("dl");
    this.element = el("details", { className: "how", hidden: true }, this.summary, this.list);
  }

  draw(turn) {
    const { done } = turn;
    this.element.hidden = !done;
    if (!done || this.shown === done) return;
    this.shown = done;
    this.summary.replaceChildren(`${whoWords(done)} · ${say("duration", done.duration_s)}`, el("span", { className: "unseen", textContent: ` · ${say("how")}` }));
    this.list.replaceChildren(...rows(turn).flatMap(([name, value]) => [el("dt", { textContent: among("facts", name) }), el("dd", { textContent: value })]));
  }
}

const servedBy = (done) => done.served_by;

function whoWords(done) {
  if (done.abstained) return say("notFound");
  const words = among("servedBy", servedBy(done)) ?? among("servedBy", "model");
  return typeof words === "function" ? words(done.model ?? servedBy(done) ?? "") : words;
}

/** What is known of it, as [name, value]. */
function rows({ id, done, usage }) {
  const found = [
    ["servedBy", among("servedByNames", servedBy(done)) ?? servedBy(done)],
    ["model", done.model],
    ["first", done.ttft_s == null ? null : say("duration", done.ttft_s)],
    ["whole", say("duration", done.duration_s)],
    ["cost", usage && (usage.cost_usd == null ? say("costUnknown") : say("cost", usage.cost_usd))],
    ["tokens", usage && say("tokens", usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.estimated)],
    ["prompt", done.prompt],
    ["attempts", done.attempts ? String(done.attempts) : null],
    ["id", done.id ?? id],
  ];
  return found.filter(([, value]) => value);
}
