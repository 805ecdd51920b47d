/** One question and what became of it, folded from the events of its answer; and the turns that a tab keeps. */

import { tab } from "./server.js";

const KEPT = "slipway.turns";
const FIELDS = ["question", "app", "id", "last", "sections", "sources", "citations", "notices", "done", "failure", "state"];

/** What each event does to a turn; those that are not here change nothing that is seen. */
const EVENTS = {
  progress: (turn, progress) => (turn.progress = progress),
  source(turn, source) {
    turn.sources = [...turn.sources.filter((s) => s.n !== source.n), source].sort((a, b) => a.n - b.n);
  },
  section(turn, { index, title, state }) {
    if (state !== "started") return;
    turn.sections[index] = { title, text: "" }; // also where it is begun again after a failure
    turn.citations = turn.citations.filter((c) => c.section !== index);
  },
  delta(turn, { section, text }) {
    turn.sections[section] ??= { title: "", text: "" };
    turn.sections[section].text += text;
  },
  citation: (turn, { section, n, flags }) => turn.citations.push({ section, n, flags }),
  notice(turn, notice) {
    if (!turn.notices.some((n) => n.text === notice.text)) turn.notices.push(notice);
  },
  error: (turn, failure) => turn.fail(failure),
  done: (turn, done) => Object.assign(turn, { state: "done", done, failure: null, progress: null }),
};

export class Turn {
  id = "";
  last = 0; // the number of the last event seen
  sections = []; // {title, text}
  sources = [];
  citations = [];
  notices = [];
  done = null;
  failure = null;
  state = "running"; // or done, stopped, failed
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
    if (how === "ask") Object.assign(this, { id: "", last: 0, sections: [], sources: [], citations: [] });
    this.changed();
  }

  take(name, data, id) {
    this.last = id;
    this.waiting = null;
    EVENTS[name]?.(this, data);
    this.changed();
  }

  fail(failure) {
    Object.assign(this, { state: failure.code === "cancelled" ? "stopped" : "failed", failure, progress: null });
  }

  get text() {
    const parts = this.sections.filter(Boolean).map(({ title, text }) => (title ? `${title}\n\n${text}` : text));
    return parts.filter(Boolean).join("\n\n");
  }

  get seconds() {
    return (performance.now() - this.began) / 1000;
  }

  isCited(source) {
    return this.citations.some((c) => c.n === source.n);
  }

  toJSON() {
    return Object.fromEntries(FIELDS.map((name) => [name, this[name]]));
  }
}

/** Keeps the turns in the tab; where there is no room for all, the oldest go first. */
export function keepTurns(turns) {
  for (let from = 0; from <= turns.length; from = Math.max(from + 1, Math.ceil(turns.length / 2))) {
    if (tab.write(KEPT, JSON.stringify(turns.slice(from)))) return;
  }
}

export function keptTurns() {
  try {
    return JSON.parse(tab.read(KEPT) ?? "[]").map((fields) => new Turn(fields));
  } catch {
    return [];
  }
}

export const forgetTurns = () => tab.forget(KEPT);

/** The conversation before `turn`, as the server reads it: the questions that were answered, and their answers. */
export function messagesFor(turn, turns) {
  const before = turns.slice(0, turns.indexOf(turn)).filter((t) => t.state === "done" && t.text);
  const history = before.flatMap((t) => [{ role: "user", content: t.question }, { role: "assistant", content: t.text }]);
  return [...history, { role: "user", content: turn.question }];
}
