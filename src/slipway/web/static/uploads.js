/** Files on their way to the server: checked, sent a few at a time, and watched until they are read. A file that was not taken can be tried again. */

import { speak } from "./notices.js";
import { Refused, get, send } from "./server.js";
import { button, dropFocus, el, failureNodes, unreadWords } from "./dom.js";
import { exactWords, failureWords, say } from "./words.js";

const AT_ONCE = 2;
const FIRST_LOOK_MS = 500;
const SLOWEST_LOOK_MS = 5000;
const NAMES = {
  ".pdf": "PDF", ".docx": "Word", ".pptx": "PowerPoint", ".xlsx": "Excel", ".csv": "CSV", ".tsv": "CSV", ".html": "HTML", ".htm": "HTML",
  ".md": "Markdown", ".markdown": "Markdown", ".mdx": "Markdown", ".rst": "reStructuredText", ".ipynb": "Jupyter", ".epub": "EPUB", ".eml": "E-Mail",
  ".xls": "Excel", ".xlsb": "Excel", ".odt": "OpenDocument", ".odp": "OpenDocument", ".ods": "OpenDocument",
};
const NEWER = { ".doc": ".docx", ".ppt": ".pptx", ".xls": ".xlsx" };

/** The kinds of file as people call them. */
export const kindNames = (kinds) => [...new Set(kinds.map((kind) => (kind === ".txt" ? say("fileText") : (NAMES[kind] ?? kind))))].join(", ");

/** Why this file would not be taken, as `what` and `next`; undefined where nothing speaks against it. */
function objection({ name, size: bytes }, { kinds, largest_mb: largest }) {
  const kind = /\.[^.]*$/.exec(name)?.[0].toLowerCase();
  if (NEWER[kind] && !kinds.includes(kind)) return { what: say("wrongKind", kind), next: say("saveAs", NEWER[kind]) };
  if (!kinds.includes(kind)) return { what: say("wrongKinds"), next: say("theseKinds", kindNames(kinds)) };
  if (bytes <= largest * 2 ** 20) return undefined;
  return { what: say("tooLarge", say("bytes", bytes), largest), next: say("splitIt") };
}

export class Uploads {
  /** `settled(document)` is called when one was read, or failed to be; `home` takes the focus that a row that leaves had. */
  constructor(list, home, settled) {
    Object.assign(this, { list, home, settled, all: [] });
  }

  /** `rules` are what the server said of its documents: the app, the kinds, how large one may be, and `known`, the names of the uploads there are. */
  add(files, rules) {
    const added = [...files].map((file) => new Upload(file, rules, this));
    this.all.push(...added);
    this.list.append(...added.map((upload) => upload.element));
    const fine = added.filter((upload) => upload.state === "waiting");
    const first = added.find((upload) => upload.failure);
    if (first) speak(`${first.file.name}: ${first.failure.what} ${first.failure.next}`);
    else if (fine.length) speak(say("sendingFiles", fine.length, fine[0].file.name));
    this.next();
  }

  next() {
    const sending = this.all.filter((upload) => upload.state === "sending").length;
    for (const upload of this.all.filter((each) => each.state === "waiting").slice(0, Math.max(0, AT_ONCE - sending))) upload.send();
  }

  drop(upload) {
    this.all = this.all.filter((each) => each !== upload);
    dropFocus(upload.element, this.home);
    upload.element.remove();
    this.next();
  }

  /** Only the files for this app are shown. */
  show(app) {
    for (const upload of this.all) upload.element.hidden = upload.rules.app !== app;
  }

  get unsent() {
    return this.all.some((upload) => ["waiting", "sending"].includes(upload.state));
  }

  /** Whether a listed document is shown as an upload already. Until the server has said its id, its name tells. */
  shows({ id, state, uploaded, path }) {
    const name = path.split("/").pop();
    return this.all.some((upload) => upload.id === id || (uploaded && state === "reading" && upload.state === "sending" && upload.file.name === name));
  }
}

class Upload {
  state = "waiting"; // then sending, reading; or failed
  share = 0;
  id = "";

  constructor(file, rules, uploads) {
    Object.assign(this, { file, rules, uploads });
    this.bar = el("progress", { max: 1, ariaLabel: say("progressOf", file.name) });
    this.words = el("p", { className: "facts" });
    this.cancel = button(say("cancel"), () => this.leave(), { className: "quiet", ariaLabel: say("cancelOne", file.name) });
    this.again = button(say("again"), () => this.retry(), { ariaLabel: say("tryOne", file.name) });
    this.dismiss = button(say("dismiss"), () => this.leave(), { className: "quiet", ariaLabel: say("dismissOne", file.name) });
    const about = el("div", { className: "about" }, el("p", { className: "name", textContent: file.name, dir: "auto" }), this.words, this.bar);
    this.element = el("li", { className: "document" }, about, el("div", { className: "acts" }, this.cancel, this.again, this.dismiss));
    const failure = objection(file, rules);
    if (failure) this.fail(failure);
    else this.draw();
  }

  draw() {
    const { state, share, failure } = this;
    const percent = Math.floor(share * 100);
    const words = { waiting: say("fileWaiting"), sending: share < 1 ? say("fileSending", percent, say("bytes", this.file.size)) : say("reading"), reading: say("reading") };
    this.element.classList.toggle("failed", state === "failed");
    if (failure) this.words.replaceChildren(...failureNodes(failure));
    else this.words.textContent = words[state] + (this.rules.known.has(this.file.name) ? say("fileReplaces") : "");
    this.bar.hidden = state === "failed" || state === "waiting";
    if (share < 1) this.bar.value = share;
    else this.bar.removeAttribute("value");
    const shown = { cancel: state === "waiting" || (state === "sending" && share < 1), again: Boolean(failure?.retryable), dismiss: Boolean(failure) };
    for (const [name, is] of Object.entries(shown)) {
      if (!is) dropFocus(this[name], this.uploads.home);
      this[name].hidden = !is;
    }
  }

  async send() {
    this.abort = new AbortController();
    this.state = "sending";
    this.draw();
    const form = new FormData();
    form.append("app", this.rules.app);
    form.append("file", this.file);
    const tell = (share) => {
      this.share = share;
      this.draw();
    };
    try {
      const { data } = await send("v1/documents", form, { tell, signal: this.abort.signal });
      await this.watch(data[0]);
    } catch (error) {
      if (error.name !== "AbortError") this.fail(await this.why(error));
    }
    this.uploads.next();
  }

  /** Until the server has read it. */
  async watch(document) {
    Object.assign(this, { state: "reading", share: 1, id: document.id });
    this.draw();
    this.uploads.next();
    for (let wait = FIRST_LOOK_MS; document.state === "reading"; wait = Math.min(wait * 1.5, SLOWEST_LOOK_MS)) {
      await new Promise((resolve) => setTimeout(resolve, wait));
      document = await get(`v1/documents/${encodeURIComponent(this.id)}`).catch((error) => {
        if (error.status > 0 && error.status < 500) throw error;
        return document; // the line is down; it will be back
      });
    }
    const { name } = this.file;
    if (document.state === "failed") speak(say("fileUnread", name, unreadWords(document)));
    else speak([say("fileDone", name), document.state === "partly" ? unreadWords(document) : ""].join(" ").trim());
    await this.uploads.settled(document);
    this.uploads.drop(this);
  }

  /** What to say of an error; a file that was moved or changed since it was chosen looks like a server out of reach. */
  async why(error) {
    if (!(error instanceof Refused)) return failureWords();
    const there = await this.file.slice(0, 1).arrayBuffer().then(() => true, () => false);
    return there ? { ...error.failure, ...exactWords(error.failure) } : { what: say("fileGone"), next: say("chooseAgain") };
  }

  fail(failure) {
    Object.assign(this, { state: "failed", share: 0, failure });
    this.draw();
    speak(`${this.file.name}: ${failure.what} ${failure.next ?? ""}`);
  }

  retry() {
    Object.assign(this, { state: "waiting", failure: null });
    this.draw();
    this.uploads.next();
  }

  leave() {
    this.abort?.abort();
    this.uploads.drop(this);
  }
}
