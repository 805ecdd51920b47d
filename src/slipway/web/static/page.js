/** The chat page: who can answer, the composer, and what stands around the conversation. */

import { openDocuments } from "./documents.js";
import { button, el, failureNodes, phrase } from "./dom.js";
import { currentTalk, forgetTalk, keepFor, talks } from "./kept.js";
import { command, notice, speak, withdraw } from "./notices.js";
import { get, readiness, tab } from "./server.js";
import { ask, fresh, restore, stop, talk } from "./talk.js";
import { conversationOf } from "./turn.js";
import { failureWords, say, sayAll } from "./words.js";

const START = "slipway serve --docs DIR --model dashscope/qwen-plus";
const POLL_MS = 1000;
const EARLIER = 5; // conversations that are offered

const $ = (id) => document.getElementById(id);
const page = {
  names: [], // what can be asked: rows of /v1/models
  state: null, // /readyz
  look: 0, // the timer that asks for it again
};

// Who can answer

async function begin() {
  try {
    page.state = await readiness();
    page.names = (await get("v1/models")).data;
  } catch (error) {
    if (error.status === 401) askForKey();
    else notice("failed", failureNodes(failureWords(error.failure)), { label: say("again"), act: begin, alert: true });
    return;
  }
  $("lock").hidden = true;
  withdraw("failed");
  $("composer").inert = false;
  await keepFor(tab.read("slipway.key"));
  fillChoice();
  if (!talk.turns.length) restore();
  showState();
  if (!matchMedia("(pointer: coarse)").matches) $("question").focus({ preventScroll: true });
}

function askForKey() {
  const tried = tab.read("slipway.key");
  tab.forget("slipway.key");
  if (tried) $("lock-why").textContent = say("lockWrong");
  $("lock-why").classList.toggle("wrong", Boolean(tried));
  $("key").ariaInvalid = String(Boolean(tried));
  $("lock").hidden = false;
  $("empty").hidden = true;
  withdraw("failed");
  $("composer").inert = true;
  $("key").value = "";
  $("key").focus();
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
    const options = rows.filter((row) => kindOf(row) === kind).map((row) => el("option", { value: row.id, textContent: row.id }));
    return options.length ? el("optgroup", { label: say(label) }, ...options) : "";
  });
  $("choice").replaceChildren(...groups);
  $("choice").hidden = rows.length < 2;
  const wanted = rows.find((row) => row.id === tab.read("slipway.choice")) ?? rows.find((row) => kindOf(row) === "app") ?? rows[0];
  if (wanted) $("choice").value = wanted.id;
}

$("choice").onchange = () => {
  tab.write("slipway.choice", $("choice").value);
  showState();
};

/** What the server can and cannot do right now; while it reads documents, this looks again every second. */
function showState() {
  const row = chosen();
  const knowledge = row && page.state.knowledge[row.id];
  const nothing = !row;
  $("ask").disabled = nothing;
  $("question").disabled = nothing;
  if (nothing) command("models", say("nothingSetUp"), START);
  else if (!page.state.models) command("models", say("noModel"), START);
  else withdraw("models");
  if (knowledge && !knowledge.ready) {
    notice("reading", [say("readingDocuments", knowledge.read)]);
    page.look ||= setTimeout(lookAgain, POLL_MS);
  } else withdraw("reading");
  $("empty").hidden = nothing || talk.turns.length > 0;
  fillDocuments(knowledge);
  $("empty-about").textContent = nothing ? "" : about(row, knowledge);
  const examples = row?.slipway?.examples ?? []; // questions that the documents themselves ask
  $("examples").replaceChildren(...examples.map((textContent) => button(textContent, null)));
  fillEarlier();
  paint();
}

/** The way to the documents; those that failed are counted for who may do something about them. */
function fillDocuments(knowledge) {
  const failed = knowledge?.failed ?? 0;
  const [number, rest] = say("documentsFailed", failed);
  const count = el("span", { className: "count" }, number, el("span", { className: "wide", textContent: rest }));
  const words = failed ? [say("documents"), el("span", { className: "unseen", textContent: " · " }), count] : [say("documents")];
  $("documents-open").hidden = !knowledge;
  if ($("documents-open").textContent !== words.map((each) => each.textContent ?? each).join("")) $("documents-open").replaceChildren(...words);
}

$("documents-open").onclick = () =>
  openDocuments(chosen().id, (state) => {
    page.state = state;
    showState();
  });

async function lookAgain() {
  page.look = 0;
  try {
    page.state = await readiness();
    page.names = (await get("v1/models")).data; // its examples come with the documents
  } catch {
    // the next question will tell
  }
  showState();
}

function about(row, knowledge) {
  if (!knowledge) return say(kindOf(row) === "app" ? "askApp" : "askModel", row.id);
  return knowledge.ready ? say("askDocuments", row.id, knowledge.documents, knowledge.failed) : say("askAbout", row.id);
}

// Conversations of this browser

function fillEarlier() {
  const all = talk.turns.length ? [] : talks();
  $("earlier").hidden = !all.length;
  $("talks").replaceChildren(...all.slice(0, EARLIER).map(earlier));
}

function earlier({ id, at, title }) {
  const opener = el("button", { type: "button", className: "place" }, el("span", { className: "heading", textContent: title, dir: "auto" }), el("span", { className: "path", textContent: say("when", at) }));
  opener.onclick = () => {
    restore(id);
    showState();
    $("question").focus({ preventScroll: true });
  };
  const forget = button(say("forget"), () => forgetOnes([id]), { className: "quiet", ariaLabel: say("forgetOne", title) });
  return el("li", {}, opener, forget);
}

function forgetOnes(ids) {
  ids.forEach(forgetTalk);
  fillEarlier();
  speak(say("forgotten"));
  ($("talks").querySelector("button") ?? $("question")).focus();
}

$("forget-all").onclick = () => forgetOnes(talks().map(({ id }) => id));

$("anew").onclick = () => {
  fresh();
  showState();
  $("question").focus();
};

$("export").onclick = () => {
  const url = URL.createObjectURL(new Blob([conversationOf(talk.turns)], { type: "text/markdown" }));
  el("a", { href: url, download: `slipway-${new Date().toISOString().slice(0, 10)}.md` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  speak(say("exported"));
};

// The composer, and the rest of what can be pressed

talk.locked = askForKey;
talk.painted = paint;

function paint() {
  const busy = Boolean(talk.running);
  $("ask").hidden = busy;
  $("stop").hidden = !busy;
  $("anew").hidden = $("log").hidden = !talk.turns.length;
  $("export").hidden = busy || !talk.turns.some((turn) => turn.text);
  for (const view of talk.views.values()) for (const each of view.retries) each.disabled = busy;
  for (const each of $("examples").children) each.disabled = busy;
}

const question = $("question");

function grow() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}

question.oninput = grow;
question.onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
    event.preventDefault();
    submit();
  }
};
$("composer").onsubmit = (event) => {
  event.preventDefault();
  submit();
};

function submit() {
  if (talk.running || !question.value.trim()) return question.focus();
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
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !event.defaultPrevented && !document.querySelector("dialog[open]")) stop();
});

sayAll();
$("keys").replaceChildren(...phrase(say("keys"), "kbd"));
begin();

// The installed page is closed and opened all the time: it goes on where it was.
if (matchMedia("(display-mode: standalone)").matches && !currentTalk()) addEventListener("load", () => talks().length && restore(talks()[0].id));
