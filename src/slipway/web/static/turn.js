/** One question and what became of it, folded from the events of its answer. */

import { place } from "./dom.js";
import { say } from "./words.js";

const FIELDS = ["question", "app", "id", "last", "sections", "sources", "citations", "notices", "usage", "done", "failure", "state", "opinion"];

/** What each event does to a turn; those that are not here change nothing that is seen. */
const EVENTS = {
  progress: (turn, progress) => (turn.progress = progress),
  source(turn, source) {
    turn.sources = [...turn.sources.filter((s) => s.n !== source.n), source].sort((a, b) => a.n - b.n);
  },
  section(turn, { index, title, state }) {
    if (state !== "started") return (turn.section(index).state = state);
    turn.sections[index] = { title, text: "", state: "waiting" }; // also where it is begun again after a failure
    turn.citations = turn.citations.filter((c) => c.section !== index);
  },
  delta(turn, { section, text }) {
    const found = turn.section(section);
    found.text += text;
    if (found.state === "waiting") found.state = "writing";
  },
  citation: (turn, { section, n, flags }) => turn.citations.push({ section, n, flags }),
  notice(turn, notice) {
    if (!turn.notices.some((n) => n.text === notice.text && n.section === notice.section)) turn.notices.push(notice);
  },
  usage: (turn, usage) => (turn.usage = usage),
  error: (turn, failure) => turn.fail(failure),
  done: (turn, done) => Object.assign(turn, { state: "done", done, failure: null, progress: null }),
};

export class Turn {
  id = "";
  last = 0; // the number of the last event seen
  sections = []; // {title, text, state: waiting | writing | done | failed}
  sources = [];
  citations = [];
  notices = [];
  usage = null;
  done = null;
  failure = null;
  state = "running"; // or done, stopped, failed
  opinion = null; // {helpful, reported}: what the reader said of it
  progress = null;
  waiting = null; // what to say while the line is down
  began = 0;
  changed = () => {};

  constructor(fields) {
    for (const name of FIELDS) if (name in fields) this[name] = fields[name];
  }

  /** Before it is asked (`ask`: nothing of an old answer counts), asked again (`retry`) or read on (`resume`). */
  begin(how) {
    Object.assign(this, { state: "running", failure: null, done: null, progress: null, began: performance.now() });
    if (how !== "resume") this.notices = [];
    if (how === "ask") Object.assign(this, { id: "", last: 0, sections: [], sources: [], citations: [], usage: null, opinion: null });
    for (const section of this.sections) if (section?.state === "failed") section.state = "waiting";
    this.changed();
  }

  take(name, data, id) {
    this.last = id;
    this.waiting = null;
    EVENTS[name]?.(this, data);
    this.changed();
  }

  /** Where it is known how long to wait, `until` says when that is over. */
  fail({ retry_after_s: wait, ...failure }) {
    if (wait) failure.until = Date.now() + 1000 * wait;
    Object.assign(this, { state: failure.code === "cancelled" ? "stopped" : "failed", failure, progress: null });
  }

  section(index) {
    return (this.sections[index] ??= { title: "", text: "", state: "waiting" });
  }

  /** Several sections, each with its title in sight. */
  get many() {
    return this.sections.length > 1;
  }

  get text() {
    const parts = this.sections.filter((section) => section?.text).map(({ title, text }) => (this.many && title ? `## ${title}\n\n${text}` : text));
    return parts.join("\n\n");
  }

  get seconds() {
    return (performance.now() - this.began) / 1000;
  }

  isCited(source) {
    return this.citations.some((c) => c.n === source.n);
  }

  /** The answer with the places that it cites, to be taken along. */
  get markdown() {
    const cited = this.sources.filter((source) => this.isCited(source)).map((source) => `[${source.n}] ${place(source)}`);
    return cited.length ? `${this.text}\n\n${say("sources")}:\n\n${cited.join("  \n")}` : this.text;
  }

  toJSON() {
    return Object.fromEntries(FIELDS.map((name) => [name, this[name]]));
  }
}

/** The conversation before `turn`, as the server reads it: the questions that were answered, and their answers. */
export function messagesFor(turn, turns) {
  const before = turns.slice(0, turns.indexOf(turn)).filter((t) => t.state === "done" && t.text);
  const history = before.flatMap((t) => [{ role: "user", content: t.question }, { role: "assistant", content: t.text }]);
  return [...history, { role: "user", content: turn.question }];
}

/** All of it as a Markdown file. */
export function conversationOf(turns) {
  const parts = turns.map((turn) => `## ${turn.question.replaceAll("\n", " ")}\n\n${turn.markdown.replace(/^(#{1,5}) /gm, "#$1 ")}`);
  return `# ${say("conversation")}\n\n${parts.join("\n\n")}\n`;
}
