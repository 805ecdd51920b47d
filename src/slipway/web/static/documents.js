/** The documents of an app in their dialog: what became of each, and, for keys that may, adding and removing. All that they say is only ever text. */

import { speak } from "./notices.js";
import { call, get, readiness } from "./server.js";
import { Uploads, kindNames } from "./uploads.js";
import { button, dropFocus, el, loadStyle, failureNodes, shownPath, unreadWords } from "./dom.js";
import { exactWords, failureWords, say } from "./words.js";

await loadStyle("documents.css");

const MANY = 20; // from here on there is a filter
const MOST = 300; // shown at once
const FIRST_LOOK_MS = 1000;
const SLOWEST_LOOK_MS = 8000;

const dialog = document.querySelector("#documents");
const part = (name) => document.querySelector(`#documents-${name}`);
const uploads = new Uploads(part("uploads"), part("choose"), settled);
const panel = {
  app: "",
  list: null, // GET /v1/documents
  state: null, // the app's part of /readyz
  rows: new Map(), // id -> its list item
  added: [], // ids, the latest last: these stand first
  look: 0, // the timer of the next look
  wait: FIRST_LOOK_MS,
  tell: () => {},
};

/** `tell(state)` is handed what /readyz says whenever this looks. */
export function openDocuments(app, tell) {
  if (panel.app !== app) Object.assign(panel, { list: null, state: null, added: [] });
  Object.assign(panel, { app, tell, wait: FIRST_LOOK_MS });
  part("title").textContent = say("documentsOf", app);
  part("filter").value = "";
  uploads.show(app);
  draw();
  dialog.showModal();
  part("close").focus();
  part("shelf").scrollTop = 0;
  look();
}

async function look() {
  clearTimeout(panel.look);
  const { app } = panel;
  try {
    const [list, state] = await Promise.all([get(`v1/documents?app=${encodeURIComponent(app)}`), readiness()]);
    if (app !== panel.app) return;
    for (const document of list.data) document.path = shownPath(document.path);
    Object.assign(panel, { list, state: state.knowledge[app] });
    panel.tell(state);
    dropFocus(part("failure"), part("close"));
    part("failure").replaceChildren();
  } catch (error) {
    if (app === panel.app) showFailure(error);
  }
  draw();
  if (!dialog.open || !isBusy()) return;
  panel.look = setTimeout(look, panel.wait);
  panel.wait = Math.min(panel.wait * 1.3, SLOWEST_LOOK_MS);
}

function showFailure(error) {
  const words = failureWords(error.failure);
  const said = words.what + words.next;
  if (part("failure").firstChild?.said === said) return; // it would be read out once more
  const box = el("div", { className: "failure", role: "alert" }, el("p", {}, ...failureNodes(words)), button(say("again"), look));
  box.said = said;
  part("failure").replaceChildren(box);
}

/** Whether anything is still on its way, so that it is worth to look again. */
function isBusy() {
  const { list, state } = panel;
  return Boolean(state && (!state.ready || denseWords(state).coming)) || Boolean(list?.data.some((each) => each.state === "reading"));
}

async function settled({ id }) {
  panel.added.push(id);
  await look();
}

// What is seen

function draw() {
  const { list, state } = panel;
  const all = (list?.data ?? []).filter((each) => !uploads.shows(each) || panel.added.includes(each.id));
  const shown = all.filter(matcher(part("filter").value));
  const failed = shown.filter((each) => each.state === "failed");
  const others = shown.filter((each) => each.state !== "failed");
  part("count").textContent = list ? countWords(all) : part("failure").firstChild ? "" : say("looking");
  drawNote(state, all);
  part("add").hidden = !list?.may_add;
  if (list?.may_add) drawRules(list);
  part("search").hidden = all.length <= MANY;
  fill("failed", failed, say("unreadTitle", failed.length));
  fill("others", others, failed.length || all.length > MANY ? say("documentsTitle", others.length) : "");
  const none = !list || shown.length ? "" : all.length ? say("filterNone") : say("noDocuments");
  part("none").textContent = shown.length > MOST ? say("onlyFirst", MOST) : none;
  part("none").hidden = !part("none").textContent;
}

function countWords(all) {
  const failed = all.filter((each) => each.state === "failed").length;
  const done = all.filter((each) => each.state === "done" || each.state === "partly");
  const passages = done.reduce((sum, each) => sum + each.passages, 0);
  return [say("countDocuments", done.length), say("countPassages", passages), failed && say("countUnread", failed)].filter(Boolean).join(" · ");
}

/** A quiet line: what is still being read, and how far the search by meaning is. */
function drawNote(state, all) {
  const reading = all.filter((each) => each.state === "reading").length;
  const parts = [];
  if (state && !state.ready) parts.push(say("beingRead", state.read));
  else if (reading) parts.push(say("someBeingRead", reading));
  if (state) parts.push(denseWords(state).words);
  part("note").textContent = parts.filter(Boolean).join(" ");
  part("note").hidden = !part("note").textContent;
}

/** `dense` of /readyz as a sentence; none where the search by meaning is complete. `coming` where it is being built. */
function denseWords({ dense = "", ready }) {
  const off = /^off: *(.*?)\.?$/s.exec(dense);
  if (off) return { words: say("wordsOnly", off[1]), coming: false };
  const [, done, total] = /^(\d+)\/(\d+)$/.exec(dense) ?? [];
  const complete = dense === "100 %" || (done !== undefined && Number(done) >= Number(total));
  if (complete || !dense || !ready) return { words: "", coming: false };
  const far = done === undefined ? dense : say("ofPassages", done, total);
  return { words: say("meaningComing", far), coming: true };
}

function drawRules({ kinds, largest_mb: largest }) {
  part("files").accept = kinds.join(",");
  part("kinds").textContent = say("kinds", kindNames(kinds), largest);
}

/** Every word must stand in the path, the title or a tag. */
function matcher(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return ({ path, title, tags }) => words.every((word) => `${path} ${title} ${tags.join(" ")}`.toLowerCase().includes(word));
}

function fill(name, documents, title) {
  const list = part(name);
  part(`${name}-title`).textContent = title;
  part(`${name}-title`).hidden = !title || !documents.length;
  list.hidden = !documents.length;
  const items = documents.toSorted(inOrder).slice(0, MOST).map(itemOf);
  if (items.length === list.children.length && items.every((item, n) => item === list.children[n])) return;
  const focused = document.activeElement;
  const had = list.contains(focused);
  list.replaceChildren(...items);
  if (!had) return;
  if (focused.isConnected) focused.focus({ preventScroll: true });
  else part("title").focus({ preventScroll: true });
}

function inOrder(a, b) {
  const rank = ({ id, state }) => (state === "reading" ? -Infinity : -1 - panel.added.lastIndexOf(id));
  return rank(a) - rank(b) || a.path.localeCompare(b.path) || 0;
}

/** The list item of a document: the one that there is, unless something about it has changed. */
function itemOf(document) {
  const key = JSON.stringify([document, panel.list.may_add, panel.added.includes(document.id)]);
  const known = panel.rows.get(document.id);
  if (known?.key === key) return known;
  const item = Object.assign(row(document), { key });
  panel.rows.set(document.id, item);
  return item;
}

function row(document) {
  const { path, title, state, tags, date, passages, uploaded } = document;
  const read = [say("countPassages", passages), date, say("bytes", document.size)];
  const facts = { reading: [say("reading")], failed: [date], done: read, partly: read }[state];
  const about = el("div", { className: "about" }, el("p", { className: "name", textContent: title || path, dir: "auto" }));
  if (title && title !== path) about.append(el("p", { className: "path", textContent: path }));
  if (state === "failed" || state === "partly") about.append(reason(document));
  const line = el("p", { className: "facts" }, facts.filter(Boolean).join(" · "), ...tags.map((tag) => el("span", { className: "tag", textContent: tag })));
  if (panel.added.includes(document.id)) line.prepend(el("span", { className: "tag new", textContent: say("justAdded") }));
  if (line.textContent) about.append(line);
  const item = el("li", { className: `document ${state}` }, about);
  if (uploaded && state !== "reading" && panel.list.may_add) item.append(removal(document, item));
  return item;
}

function reason(document) {
  return el("p", { className: "reason", dir: "auto" }, ...failureNodes({ what: unreadWords(document), next: document.next }));
}

// Removing

function removal(document, item) {
  const opener = button(say("remove"), null, { className: "quiet", ariaLabel: say("removeOne", document.path) });
  opener.onclick = () => {
    const sure = button(say("remove"), () => remove(document, item, sure), { className: "danger" });
    const keep = button(say("keepIt"), null);
    const said = el("p", { textContent: say("removeWhat") });
    const box = el("div", { className: "confirm", role: "group", ariaLabel: say("removeSure", document.path) }, said, el("div", { className: "row" }, sure, keep));
    keep.onclick = () => {
      box.remove();
      opener.hidden = false;
      opener.focus();
    };
    opener.hidden = true;
    item.append(box);
    box.scrollIntoView({ block: "nearest" });
    keep.focus();
  };
  return el("div", { className: "acts" }, opener);
}

async function remove({ id, path }, item, presser) {
  presser.disabled = true;
  try {
    await call(`v1/documents/${encodeURIComponent(id)}`, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) return notRemoved(error, item, presser);
  }
  speak(say("removed", path));
  const neighbour = item.nextElementSibling ?? item.previousElementSibling;
  (neighbour?.querySelector("button:not([hidden])") ?? part("title")).focus();
  panel.list.data = panel.list.data.filter((each) => each.id !== id);
  draw();
  await look();
}

function notRemoved(error, item, presser) {
  const words = exactWords(error.failure);
  presser.disabled = false;
  item.querySelector(".confirm > p").replaceChildren(...failureNodes(words));
  presser.focus();
  speak(`${words.what} ${words.next}`);
}

// Choosing, dropping, closing

function take(files) {
  const { app, list } = panel;
  if (!files.length || !list?.may_add) return;
  const known = new Set(list.data.filter((each) => each.uploaded).map((each) => each.path.slice(each.path.lastIndexOf("/") + 1)));
  uploads.add(files, { app, known, kinds: list.kinds, largest_mb: list.largest_mb });
}

part("choose").onclick = () => part("files").click();
part("files").onchange = ({ target }) => {
  take(target.files);
  target.value = ""; // so that the same file can be chosen again
};
part("filter").oninput = () => {
  draw();
  speak(say("countDocuments", part("failed").children.length + part("others").children.length));
};

const hasFiles = (event) => dialog.open && event.dataTransfer?.types.includes("Files");
const over = (is) => part("add").classList.toggle("over", is);
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault(); // else the browser would leave the page for the file
  event.dataTransfer.dropEffect = panel.list?.may_add ? "copy" : "none";
  over(true);
});
addEventListener("dragleave", (event) => event.relatedTarget || over(false));
addEventListener("drop", (event) => {
  over(false);
  if (!hasFiles(event)) return;
  event.preventDefault();
  take(event.dataTransfer.files);
});

addEventListener("beforeunload", (event) => uploads.unsent && event.preventDefault()); // the browser asks

part("close").onclick = () => dialog.close();
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // beside it
});
dialog.addEventListener("cancel", (event) => {
  const asked = document.activeElement.closest(".confirm");
  if (!asked) return;
  event.preventDefault(); // Esc leaves the question first
  asked.querySelector("button:last-child").click();
});
dialog.addEventListener("close", () => clearTimeout(panel.look));
