/** One question and its answer, built from the events of its stream. */

import { place } from "./dom.js";
import { say } from "./words.js";

const FIELDS = ["question", "app", "id", "last", "sections", "sources", "citations", "notices", "usage", "done", "failure", "state", "opinion"];
const KEPT = [...FIELDS, "files", "versions", "version"]; // what is kept of a turn; the first belong to each of its versions

/** What each event changes in a turn; other events change nothing that is seen. */
const EVENTS = {
  progress: (turn, progress) => (turn.progress = progress),
  source(turn, source) {
    turn.sources = [...turn.sources.filter((s) => s.n !== source.n), source].sort((a, b) => a.n - b.n);
  },
  section(turn, { index, title, state }) {
    if (state !== "started") return (turn.section(index).state = state);
    turn.sections[index] = { title, text: "", state: "waiting" }; // also if it begins again after a failure
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
  files = []; // {id, name}: what was attached to the question
  versions = []; // the other answers to the same question; its own place is empty
  version = 0;
  progress = null;
  waiting = null; // what to say while there is no connection
  began = 0;
  changed = () => {};

  constructor(fields) {
    for (const name of KEPT) if (name in fields) this[name] = fields[name];
  }

  get fields() {
    return Object.fromEntries(FIELDS.map((name) => [name, this[name]]));
  }

  /** Puts this answer aside and makes place for another, by `app`. */
  newVersion(app) {
    this.versions[this.version] = this.fields;
    this.version = this.versions.length;
    this.versions.push(null);
    this.app = app;
  }

  showVersion(version) {
    this.versions[this.version] = this.fields;
    Object.assign(this, this.versions[version]);
    this.versions[version] = null;
    this.version = version;
  }

  /** Called before it is asked (`ask`: nothing of an old answer counts), tried again (`retry`) or resumed (`resume`). */
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

  /** `until` says when trying again helps, if the server said how long to wait. */
  fail({ retry_after_s: wait, ...failure }) {
    if (wait) failure.until = Date.now() + 1000 * wait;
    Object.assign(this, { state: failure.code === "cancelled" ? "stopped" : "failed", failure, progress: null });
  }

  section(index) {
    return (this.sections[index] ??= { title: "", text: "", state: "waiting" });
  }

  /** Whether it has several sections, each with its title. */
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

  /** The answer with the sources that it cites, for copying. */
  get markdown() {
    const cited = this.sources.filter((source) => this.isCited(source)).map((source) => `[${source.n}] ${place(source)}`);
    return cited.length ? `${this.text}\n\n${say("sources")}:\n\n${cited.join("  \n")}` : this.text;
  }

  toJSON() {
    return Object.fromEntries(KEPT.map((name) => [name, this[name]]));
  }
}

/** The messages for the server: the questions before `turn` that were answered, their answers, and its own question. */
export function messagesFor(turn, turns) {
  const before = turns.slice(0, turns.indexOf(turn)).filter((t) => t.state === "done" && t.text);
  const history = before.flatMap((t) => [{ role: "user", content: t.question }, { role: "assistant", content: t.text }]);
  return [...history, { role: "user", content: turn.question }];
}

/** The whole conversation as Markdown. */
export function conversationOf(turns) {
  const parts = turns.map((turn) => `## ${turn.question.replaceAll("\n", " ")}\n\n${turn.markdown.replace(/^(#{1,5}) /gm, "#$1 ")}`);
  return `# ${say("conversation")}\n\n${parts.join("\n\n")}\n`;
}
