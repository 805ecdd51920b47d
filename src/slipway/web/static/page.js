/** The chat page: who can answer, the composer, and the turns of this tab. */

import { openDocuments } from "./documents.js";
import { command, notice, speak, withdraw } from "./notices.js";
import { openPassage } from "./passage.js";
import { Refused, call, follow, get, readiness, resume, retry, tab } from "./server.js";
import { Turn, forgetTurns, keepTurns, keptTurns, messagesFor } from "./turn.js";
import { TurnView, el, endWords, progressWords } from "./view.js";

const START = "slipway serve --docs DIR --model dashscope/qwen-plus";
const POLL_MS = 1000;
const KEEP_MS = 1000;

const $ = (id) => document.getElementById(id);
const page = {
  turns: [],
  views: new Map(), // turn -> its view
  names: [], // what can be asked: rows of /v1/models
  state: null, // /readyz
  look: 0, // the timer that asks for it again
  running: null, // {turn, abort, stopping}
  follows: false, // the view goes with the text until the reader scrolls
};

// Who can answer

async function begin() {
  try {
    page.state = await readiness();
    page.names = (await get("v1/models")).data;
  } catch (error) {
    if (error.status === 401) askForKey(error);
    else notice("failed", [el("strong", { textContent: error.what }), ` ${error.next}`], { label: "Try again", act: begin, alert: true });
    return;
  }
  $("lock").hidden = true;
  withdraw("failed");
  $("composer").inert = false;
  fillChoice();
  showState();
  if (!page.turns.length) restore();
  if (!matchMedia("(pointer: coarse)").matches) $("question").focus({ preventScroll: true });
}

function askForKey({ what, code }) {
  const tried = tab.read("slipway.key");
  tab.forget("slipway.key");
  if (tried) $("lock-why").textContent = `${what} Check it, or ask the operator for another.`;
  $("lock-why").classList.toggle("wrong", Boolean(tried));
  $("key").ariaInvalid = String(Boolean(tried) && code === "invalid_api_key");
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
  const groups = [["app", "Apps"], ["route", "Routes"], ["model", "Models"]].map(([kind, label]) => {
    const options = rows.filter((row) => kindOf(row) === kind).map((row) => el("option", { value: row.id, textContent: row.id }));
    return options.length ? el("optgroup", { label }, ...options) : "";
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
  if (nothing) command("models", "Nothing is set up that could answer. Start the server with documents, a model, or both:", START);
  else if (!page.state.models) command("models", "No language model is set up: answers are quoted from the documents. Add one:", START);
  else withdraw("models");
  if (knowledge && !knowledge.ready) {
    notice("reading", [`Reading the documents… ${knowledge.read}`]);
    page.look ||= setTimeout(lookAgain, POLL_MS);
  } else withdraw("reading");
  $("empty").hidden = nothing || page.turns.length > 0;
  $("anew").hidden = !page.turns.length;
  $("log").hidden = !page.turns.length;
  fillDocuments(knowledge);
  $("empty-about").textContent = nothing ? "" : about(row, knowledge);
  const examples = row?.slipway?.examples ?? []; // questions that the documents themselves ask
  $("examples").replaceChildren(...examples.map((textContent) => el("button", { type: "button", textContent })));
}

/** The way to the documents; those that failed are counted for who may do something about them. */
function fillDocuments(knowledge) {
  const failed = knowledge?.failed ?? 0;
  const count = el("span", { className: "count" }, String(failed), el("span", { className: "wide", textContent: " failed" }));
  const words = failed ? ["Documents", el("span", { className: "unseen", textContent: " · " }), count] : ["Documents"];
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
  if (!knowledge) return kindOf(row) === "app" ? `Ask ${row.id}.` : `Ask ${row.id}. It answers from what it has learnt, without documents.`;
  const count = knowledge.documents;
  const left = knowledge.failed ? ` (${knowledge.failed} could not be read)` : "";
  return knowledge.ready ? `Ask about ${row.id}: ${count} ${count === 1 ? "document" : "documents"}${left}. Every answer shows its sources.` : `Ask about ${row.id}.`;
}

// Asking

function add(turn) {
  const view = new TurnView(turn, { again: () => again(turn), open: (source) => openPassage(source, turn.text) });
  page.turns.push(turn);
  page.views.set(turn, view);
  $("turns").append(view.element);
  turn.changed = () => drawSoon(turn);
  return view;
}

function ask(question) {
  const text = question.trim();
  if (!text || page.running || !chosen() || !$("lock").hidden) return;
  const turn = new Turn({ question: text, app: chosen().id });
  add(turn);
  showState();
  run(turn, "ask");
}

/** `how`: ask (anew), retry (what is missing) or resume (read on). */
async function run(turn, how) {
  const abort = new AbortController();
  const { signal } = abort;
  const running = (page.running = { turn, abort, stopping: false });
  const ways = {
    ask: () => call("v1/answers", { body: { app: turn.app, messages: messagesFor(turn, page.turns), stream: true }, signal }),
    retry: () => retry(turn, signal),
    resume: () => resume(turn, signal),
  };
  const wait = (n, of) => {
    turn.waiting = `The connection was lost. Trying again… (${n}/${of})`;
    turn.changed();
  };
  turn.begin(how);
  page.follows = true;
  $("log").ariaBusy = "true";
  paintComposer();
  const clock = setInterval(() => turn.changed(), 1000);
  try {
    await follow(turn, ways[how], { signal, wait });
  } catch (error) {
    settle(turn, how, error);
  }
  clearInterval(clock);
  turn.waiting = null;
  if (page.running === running) page.running = null;
  paintComposer();
  await finish(turn);
  $("log").ariaBusy = "false";
  speak(endWords(turn));
}

/** What an answer ends with that the server did not end itself. */
function settle(turn, how, error) {
  const forgotten = how !== "ask" && (error.status === 404 || error.status === 410); // it can be asked anew
  if (page.running.stopping || error.name === "AbortError") turn.fail({ code: "cancelled" });
  else if (error.status === 401) giveBack(turn, error);
  else if (error instanceof Refused) turn.fail({ ...error.failure, retryable: error.retryable || forgotten });
  else turn.fail({ code: "page", what: "This page failed in a way that it should not.", next: "Reload it, and try again.", retryable: true, ref: "" });
}

/** The key is not taken (any more): the question goes back to where it was typed. */
function giveBack(turn, error) {
  turn.fail(error.failure);
  page.turns = page.turns.filter((t) => t !== turn);
  page.views.get(turn).element.remove();
  if (!$("question").value) $("question").value = turn.question;
  askForKey(error);
}

/** The page's last word on a turn: kept, and its text as the server's clean HTML where that can be had. */
async function finish(turn) {
  keepTurns(page.turns);
  const view = page.views.get(turn);
  if (!view) return; // a new conversation was begun
  view.draw();
  if (turn.text && turn.id) {
    const { html } = await get(`v1/answers/${turn.id}/html`).catch(() => ({}));
    if (html && turn.state !== "running") view.showHtml(html);
  }
  scrollAlong(turn);
}

async function again(turn) {
  if (page.running) return;
  const { code } = turn.failure ?? {};
  $("question").focus({ preventScroll: true });
  if (!turn.id || code === "gone" || code === "not_found") return run(turn, "ask");
  return run(turn, code === "lost" || code === "unreachable" ? "resume" : "retry");
}

async function stop() {
  const { running } = page;
  if (!running || running.stopping) return;
  running.stopping = true;
  $("question").focus({ preventScroll: true });
  if (!running.turn.id) return running.abort.abort();
  setTimeout(() => running.abort.abort(), 2000); // the stream tells that it was stopped; where it does not, this does
  await call(`v1/answers/${running.turn.id}/cancel`, { body: {} }).catch(() => running.abort.abort());
}

// What is seen and heard

let drawing = 0;

function drawSoon(turn) {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    page.views.get(turn)?.draw();
    scrollAlong(turn);
    keepSometimes();
    if (turn.state === "running") speak(progressWords(turn));
  });
}

let keptAt = 0;

function keepSometimes() {
  if (performance.now() - keptAt < KEEP_MS) return;
  keptAt = performance.now();
  keepTurns(page.turns);
}

/** Goes with the text until the question has reached the top; from there on, the reader reads. */
function scrollAlong(turn) {
  if (!page.follows || turn !== page.turns.at(-1)) return;
  const top = page.views.get(turn).element.getBoundingClientRect().top - $("choice").closest("header").offsetHeight - 16;
  const root = document.documentElement;
  const below = root.scrollHeight - root.clientHeight - root.scrollTop;
  const by = Math.min(top, below);
  if (by > 0) scrollBy({ top: by, behavior: "instant" });
}

const leave = () => (page.follows = false);
for (const name of ["wheel", "touchmove"]) addEventListener(name, leave, { passive: true });
addEventListener("pointerdown", (event) => event.target === document.documentElement && leave()); // the scroll bar

function paintComposer() {
  const busy = Boolean(page.running);
  $("ask").hidden = busy;
  $("stop").hidden = !busy;
  for (const view of page.views.values()) view.again.disabled = busy;
  for (const button of $("examples").children) button.disabled = busy;
}

// The composer, and the rest of what can be pressed

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
  if (page.running || !question.value.trim()) return question.focus();
  const text = question.value;
  question.value = "";
  grow();
  if (matchMedia("(pointer: coarse)").matches) question.blur();
  else question.focus({ preventScroll: true });
  ask(text);
}

$("stop").onclick = (event) => event.detail < 2 && stop(); // it appears where Ask was: a double click must not stop
$("examples").onclick = (event) => {
  if (event.target.matches("button")) {
    question.focus({ preventScroll: true });
    ask(event.target.textContent);
  }
};
$("anew").onclick = () => {
  if (page.running) {
    stop();
    page.running.abort.abort();
  }
  for (const view of page.views.values()) view.element.remove();
  page.turns = [];
  page.views.clear();
  forgetTurns();
  showState();
  question.focus();
};
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]")) stop();
  if (["PageUp", "ArrowUp", "Home"].includes(event.key) && event.target !== question) page.follows = false;
});
addEventListener("pagehide", () => page.turns.length && keepTurns(page.turns));

/** The turns of this tab from before a reload; an answer that was under way is read on. */
function restore() {
  const turns = keptTurns();
  for (const turn of turns) add(turn);
  showState();
  const last = turns.at(-1);
  for (const turn of turns) {
    if (turn.state === "running" && (turn !== last || !turn.id)) {
      turn.fail({ code: turn.id ? "lost" : "left", what: "The page was left before the answer came.", next: "", retryable: true, ref: "" });
    }
    if (turn.state !== "running") finish(turn);
  }
  page.follows = true;
  if (last?.state === "running") run(last, "resume");
}

begin();
