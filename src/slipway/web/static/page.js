/** The chat page: who can answer, the question box, and what surrounds the conversation. */

import { currentId, keepFor, newId, setCurrent, summaries } from "./conversations.js";
import { button, el, failureNodes, phrase, saveFile } from "./dom.js";
import { icon } from "./icons.js";
import { applyLooks } from "./looks.js";
import { menuButton } from "./menu.js";
import { command, notice, withdraw } from "./notices.js";
import { get, readiness, tab } from "./server.js";
import { beginSidebar, closeOverlay, markCurrent, toggleSidebar } from "./sidebar.js";
import { ask, fresh, restore, show, stop, talk } from "./talk.js";
import { toast } from "./toast.js";
import { Turn, conversationOf } from "./turn.js";
import { failureWords, say, sayAll } from "./words.js";

const START = "slipway serve --docs DIR --model dashscope/qwen-plus";
const POLL_MS = 1000;

const $ = (id) => document.getElementById(id);
const page = {
  names: [], // what can be asked: rows of /v1/models
  state: null, // /readyz
  session: null, // /v1/session: who asks, and what the page may offer
  look: 0, // the timer that asks for the state again
  waiting: false, // a question was sent before it was known who can be asked
};

/** In a frame of another site, one app is asked, and there is less around it. */
const embedded = location.pathname.endsWith("/embed") ? new URLSearchParams(location.hash.slice(1)) : null;
if (embedded) {
  document.documentElement.dataset.embed = "";
  // a link that is opened by itself must not put its sender's key in place of the reader's
  if (embedded.get("key") && parent !== window) tab.write("slipway.key", embedded.get("key"));
  if (embedded.get("app")) tab.write("slipway.choice", embedded.get("app"));
}

// Who can answer

async function begin() {
  try {
    page.state = await readiness();
    page.session = await get("v1/session");
    page.names = (await get("v1/models")).data;
  } catch (error) {
    if (error.status === 401) askForKey();
    else notice("failed", failureNodes(failureWords(error.failure)), { label: say("again"), act: begin, alert: true });
    return;
  }
  $("lock").hidden = true;
  withdraw("failed");
  $("composer").inert = false;
  const { person, conversations } = page.session;
  const failed = new URLSearchParams(location.search).get("signin");
  if (failed) history.replaceState(null, "", location.pathname);
  await keepFor(tab.read("slipway.key"), { person, onServer: conversations === "server" });
  fillChoice();
  if (page.session.attach) import("./attach.js").then(({ beginAttaching }) => beginAttaching(page.session.attach, chosen));
  if (!talk.turns.length) await (shared() ? openShared(shared()) : restore());
  showState();
  beginSidebar(openConversation);
  if (!matchMedia("(pointer: coarse)").matches) $("question").focus({ preventScroll: true });
  if (page.waiting) submit();
}

function askForKey() {
  const tried = tab.read("slipway.key");
  tab.forget("slipway.key");
  if (tried) $("lock-why").textContent = say("lockWrong");
  $("lock-why").classList.toggle("wrong", Boolean(tried));
  $("key").ariaInvalid = String(Boolean(tried));
  $("lock").hidden = false;
  $("lock-login").hidden = !page.state?.login;
  const failed = new URLSearchParams(location.search).get("signin");
  if (failed) notice("signin", [say(failed === "unavailable" ? "signInUnavailable" : "signInRefused")], { alert: true });
  if (page.state?.login) $("lock-login").href = `login?next=${encodeURIComponent(location.search)}`;
  $("empty").hidden = true;
  withdraw("failed");
  $("composer").inert = true;
  $("key").value = "";
  (page.state?.login ? $("lock-login") : $("key")).focus();
}

$("lock").onsubmit = (event) => {
  event.preventDefault();
  tab.write("slipway.key", $("key").value.trim());
  begin();
};

const kindOf = (row) => row.slipway?.kind ?? "model";
const chosen = () => page.names.find((row) => row.id === $("choice").value) ?? page.names[0];

function fillChoice() {
  const rows = page.names;
  const groups = [["app", "apps"], ["route", "routes"], ["model", "models"]].map(([kind, label]) => {
    const options = rows.filter((row) => kindOf(row) === kind).map((row) => el("option", { value: row.id, textContent: row.id, title: row.slipway?.about ?? "" }));
    return options.length ? el("optgroup", { label: say(label) }, ...options) : "";
  });
  $("choice").replaceChildren(...groups);
  $("choice").hidden = rows.length < 2 || Boolean(embedded?.get("app"));
  const wanted = rows.find((row) => row.id === tab.read("slipway.choice")) ?? rows.find((row) => kindOf(row) === "app") ?? rows[0];
  if (wanted) $("choice").value = wanted.id;
}

export function choose(id) {
  $("choice").value = id;
  $("choice").onchange();
}

$("choice").onchange = () => {
  tab.write("slipway.choice", $("choice").value);
  showState();
};

/** Shows what the server can do right now; while it reads documents, this asks again every second. */
function showState() {
  const row = chosen();
  const knowledge = row && page.state.knowledge[row.id];
  const nothing = !row;
  $("ask").disabled = nothing;
  $("question").disabled = nothing;
  if (nothing) command("models", say("nothingSetUp"), START);
  else if (!page.state.models && !embedded) command("models", say("noModel"), START);
  else withdraw("models");
  if (knowledge && !knowledge.ready) {
    notice("reading", [say("readingDocuments", knowledge.read)]);
    page.look ||= setTimeout(lookAgain, POLL_MS);
  } else withdraw("reading");
  $("empty").hidden = nothing || talk.turns.length > 0;
  fillDocuments(knowledge);
  $("empty-about").textContent = nothing ? "" : about(row, knowledge);
  const examples = row?.slipway?.examples ?? []; // the operator's, else questions that the documents themselves ask
  $("examples").replaceChildren(...examples.map((textContent) => button(textContent, null, { dir: "auto" })));
  paint();
}

/** The button that opens the documents; failed ones are counted for who may do something about them. */
function fillDocuments(knowledge) {
  const failed = knowledge?.failed ?? 0;
  const [number, rest] = say("documentsFailed", failed);
  const count = el("span", { className: "count" }, number, el("span", { className: "wide", textContent: rest }));
  const words = failed ? [say("documents"), el("span", { className: "unseen", textContent: " · " }), count] : [say("documents")];
  $("documents-open").hidden = !knowledge || Boolean(embedded);
  if ($("documents-open").textContent !== words.map((each) => each.textContent ?? each).join("")) $("documents-open").replaceChildren(...words);
}

$("documents-open").onclick = async () => {
  const { openDocuments } = await import("./documents.js").catch(() => ({}));
  if (!openDocuments) return toast(say("notLoaded"));
  openDocuments(chosen().id, (state) => {
    page.state = state;
    showState();
  });
};

async function lookAgain() {
  page.look = 0;
  try {
    page.state = await readiness();
    page.names = (await get("v1/models")).data; // its examples come with the documents
  } catch {
    // the next question will say what is wrong
  }
  showState();
}

function about(row, knowledge) {
  if (row.slipway?.about) return row.slipway.about;
  if (!knowledge) return say(kindOf(row) === "app" ? "askApp" : "askModel", row.id);
  return knowledge.ready ? say("askDocuments", row.id, knowledge.documents, knowledge.failed) : say("askAbout", row.id);
}

// Conversations

async function openConversation(id) {
  fresh();
  if (id) await restore(id);
  showState();
  markCurrent();
  scrollTo({ top: id ? document.documentElement.scrollHeight : 0, behavior: "instant" });
  if (!matchMedia("(pointer: coarse)").matches) $("question").focus({ preventScroll: true });
}

export const newConversation = () => openConversation(null);
$("new-conversation").onclick = newConversation;

const shared = () => new URLSearchParams(location.search).get("share");

/** A conversation that somebody shared. It becomes the reader's own once something is asked. */
async function openShared(id) {
  try {
    const { turns } = await get(`v1/shares/${encodeURIComponent(id)}`);
    show(newId(), turns.map((fields) => new Turn(fields)));
    setCurrent(null);
    notice("shared", [say("sharedWithYou")]);
  } catch (error) {
    notice("shared", failureNodes(failureWords(error.failure)), { alert: true });
  }
}

export function exportConversation() {
  saveFile(`slipway-${new Date().toISOString().slice(0, 10)}.md`, "text/markdown", conversationOf(talk.turns));
  toast(say("exported"));
}

// What can be done with the page

const openSettings = () => import("./settings.js").then(({ openSettings: open }) => open(page.session));
const openShortcuts = () => import("./palette.js").then(({ openShortcuts: open }) => open());
const openPalette = () => import("./palette.js").then(({ openPalette: open }) => open(commands()));

function commands() {
  const hasTurns = talk.turns.length > 0;
  const found = [
    { label: say("newConversation"), keys: "Ctrl+Shift+O", act: newConversation },
    { label: say("searchConversations"), act: () => (document.body.classList.contains("with-side") || toggleSidebar(), $("side-search").focus()) },
    { label: say("toggleConversations"), keys: "Ctrl+B", act: toggleSidebar },
    { label: say("settings"), act: openSettings },
    { label: say("shortcuts"), keys: "?", act: openShortcuts },
  ];
  if (!$("documents-open").hidden) found.push({ label: say("documents"), act: () => $("documents-open").click() });
  if (hasTurns) found.push({ label: say("exportMarkdown"), act: exportConversation });
  for (const { id } of page.names.length > 1 ? page.names : []) found.push({ label: say("askName", id), act: () => choose(id) });
  return { found, conversations: () => summaries(), open: openConversation };
}

function moreItems() {
  const found = [{ label: say("commands"), act: openPalette }, { label: say("settings"), act: openSettings }, { label: say("shortcuts"), act: openShortcuts }];
  if (talk.turns.some((turn) => turn.text)) found.push({ label: say("exportMarkdown"), act: exportConversation });
  if (page.session?.logout) found.push(null, { label: say("signOut", page.session.person), act: () => import("./settings.js").then(({ signOut }) => signOut()) });
  return found;
}

// The question box

talk.locked = askForKey;
talk.painted = paint;
talk.names = () => page.names;

function paint() {
  const busy = Boolean(talk.running);
  $("ask").hidden = busy;
  $("stop").hidden = !busy;
  $("log").hidden = !talk.turns.length;
  $("new-conversation").hidden = !talk.turns.length;
  for (const view of talk.views.values()) for (const each of view.retries) each.disabled = busy;
  for (const each of $("examples").children) each.disabled = busy;
  markCurrent();
}

const question = $("question");

function grow() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}

question.oninput = grow;
question.onkeydown = (event) => {
  if (event.isComposing || event.keyCode === 229) return;
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    submit();
  } else if (event.key === "ArrowUp" && !question.value && talk.turns.length && !talk.running) {
    event.preventDefault();
    talk.views.get(talk.turns.at(-1)).edit();
  }
};
$("composer").onsubmit = (event) => {
  event.preventDefault();
  submit();
};

function submit() {
  if (talk.running || !question.value.trim()) return question.focus();
  page.waiting = !chosen() || !$("lock").hidden; // until it is known who can be asked, the question stays in the box
  if (page.waiting) return;
  const text = question.value;
  question.value = "";
  grow();
  if (matchMedia("(pointer: coarse)").matches) question.blur();
  else question.focus({ preventScroll: true });
  put(text);
}

function put(text) {
  if (talk.running || !chosen() || !$("lock").hidden) return;
  ask(text.trim(), chosen().id);
  $("empty").hidden = true;
}

$("stop").onclick = (event) => event.detail < 2 && stop(); // it appears where Ask was: a double click must not stop
$("examples").onclick = (event) => {
  if (!event.target.matches("button")) return;
  question.focus({ preventScroll: true });
  put(event.target.textContent);
};

// Keys

const SHORTCUTS = { k: openPalette, b: toggleSidebar };

addEventListener("keydown", (event) => {
  if (event.isComposing || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  const { key, ctrlKey, metaKey, shiftKey, altKey, target } = event;
  if (key === "Escape" && embedded && !talk.running && parent !== window) return parent.postMessage("slipway:close", "*");
  if (key === "Escape") return void (closeOverlay() || stop());
  const pressed = (ctrlKey || metaKey) && !altKey;
  const act = pressed && (shiftKey ? (key.toLowerCase() === "o" ? newConversation : null) : SHORTCUTS[key.toLowerCase()]);
  const typing = target.closest?.("input, textarea, select, [contenteditable]") && !(target === question && !question.value && key === "?");
  const plain = !pressed && !altKey && !typing ? { "?": openShortcuts, "/": () => question.focus() }[key] : null;
  if (!(act || plain)) return;
  event.preventDefault();
  (act || plain)();
});

applyLooks();
sayAll();
for (const each of document.querySelectorAll("[data-icon]")) each.append(icon(each.dataset.icon));
$("more").replaceWith(menuButton("more", say("more"), moreItems));
$("keys").replaceChildren(...phrase(say("keys"), "kbd"));
begin();

// The installed page is closed and opened all the time: it continues where it was.
if (matchMedia("(display-mode: standalone)").matches && !currentId()) {
  addEventListener("load", async () => {
    const [latest] = await summaries();
    if (latest && !talk.turns.length) openConversation(latest.id);
  });
}
