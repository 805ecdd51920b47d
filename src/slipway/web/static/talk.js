/** The conversation of this tab: asking, resuming, trying again, stopping. It is kept while it goes on. */

import { currentId, keepTurns, newId, setCurrent, turnsOf } from "./conversations.js";
import { speak } from "./notices.js";
import { closePassage } from "./passages.js";
import { endWords, progressWords } from "./progress.js";
import { Refused, at, call, follow, resume, retry } from "./server.js";
import { Turn, messagesFor } from "./turn.js";
import { TurnView } from "./view.js";
import { say } from "./words.js";

const KEEP_MS = 1000;

const $ = (id) => document.getElementById(id);
export const talk = {
  id: null,
  turns: [],
  views: new Map(), // turn -> its view
  running: null, // {turn, abort, stopping}
  follows: false, // the view scrolls with the text until the reader scrolls
  painted: () => {}, // called when something begins or ends
  locked: () => {}, // called if the key is not accepted any more
  names: () => [], // what can be asked: rows of /v1/models
  attached: () => [], // the ids of the files that belong to the next question
};

const viewOf = (turn) =>
  new TurnView(turn, {
    again: () => again(turn),
    keep,
    regenerate: (app) => regenerate(turn, app),
    edit: (question) => edit(turn, question),
    show: (version) => showVersion(turn, version),
    suggest: (question) => !talk.running && ask(question, turn.app),
    isLast: () => turn === talk.turns.at(-1),
    names: () => talk.names(),
    turns: () => talk.turns,
  });

function add(turn) {
  const before = talk.turns.at(-1);
  talk.turns.push(turn);
  insert(turn, (element) => $("turns").append(element));
  if (before) talk.views.get(before).draw(); // it is not the last one any more
}

function insert(turn, put) {
  const view = viewOf(turn);
  talk.views.set(turn, view);
  put(view.element);
  turn.changed = () => drawSoon(turn);
  view.draw();
}

/** Draws a turn from the start, such as after its question was edited. */
function redraw(turn) {
  closePassage();
  const { element } = talk.views.get(turn);
  insert(turn, (fresh) => element.replaceWith(fresh));
}

export function ask(question, app) {
  const turn = new Turn({ question, app, files: talk.attached() });
  talk.id ??= newId();
  add(turn);
  run(turn, "ask");
}

/** `how`: ask (from the start), retry (what is missing) or resume (the rest of a stream). */
async function run(turn, how) {
  const abort = new AbortController();
  const { signal } = abort;
  const running = (talk.running = { turn, abort, stopping: false });
  const ways = {
    ask: () => call("v1/answers", { body: bodyFor(turn), signal }),
    retry: () => retry(turn, signal),
    resume: () => resume(turn, signal),
  };
  const wait = (n, of) => {
    turn.waiting = say("lineLost", n, of);
    turn.changed();
  };
  turn.begin(how);
  talk.follows = true;
  $("log").ariaBusy = "true";
  talk.painted();
  const clock = setInterval(() => turn.changed(), 1000);
  try {
    await follow(turn, ways[how], { signal, wait });
  } catch (error) {
    settle(turn, how, error);
  }
  clearInterval(clock);
  turn.waiting = null;
  if (talk.running === running) talk.running = null;
  talk.painted();
  finish(turn);
  $("log").ariaBusy = "false";
  speak(endWords(turn));
}

function bodyFor(turn) {
  const files = [...new Set(talk.turns.slice(0, talk.turns.indexOf(turn) + 1).flatMap((each) => each.files.map(({ id }) => id)))];
  return { app: turn.app, messages: messagesFor(turn, talk.turns), stream: true, ...(files.length && { attachments: files }) };
}

/** Ends a turn that the server did not end itself. */
function settle(turn, how, error) {
  const forgotten = how !== "ask" && (error.status === 404 || error.status === 410); // it can be asked from the start
  if (talk.running?.stopping || error.name === "AbortError") turn.fail({ code: "cancelled" });
  else if (error.status === 401) giveBack(turn, error);
  else if (error instanceof Refused) turn.fail({ ...error.failure, retryable: error.failure.retryable || forgotten });
  else turn.fail({ code: "page", retryable: true });
}

/** The key is not accepted: the question goes back into the box. */
function giveBack(turn, error) {
  turn.fail(error.failure);
  talk.turns = talk.turns.filter((t) => t !== turn);
  talk.views.get(turn).element.remove();
  talk.views.delete(turn);
  if (!$("question").value) $("question").value = turn.question;
  talk.locked();
}

/** Draws a turn that has ended, and keeps it. */
function finish(turn) {
  const view = talk.views.get(turn);
  if (!view) return; // a new conversation was begun
  view.draw();
  keep();
  scrollAlong(turn);
}

async function again(turn) {
  if (talk.running) return;
  const { code } = turn.failure ?? {};
  $("question").focus({ preventScroll: true });
  if (!turn.id || code === "gone" || code === "not_found") return run(turn, "ask");
  return run(turn, code === "lost" || code === "unreachable" ? "resume" : "retry");
}

/** Asks the same question once more, also of another model or app; the answers before stay a click away. */
function regenerate(turn, app) {
  if (talk.running) return;
  turn.newVersion(app);
  redraw(turn);
  run(turn, "ask");
}

function showVersion(turn, version) {
  if (talk.running?.turn === turn) return;
  turn.showVersion(version);
  redraw(turn);
  keep();
  talk.views.get(turn).versions.focusOne();
}

/** Asks a changed question in place of this one. Returns what brings back the old one, with what was said after it. */
function edit(turn, question) {
  const at = talk.turns.indexOf(turn);
  const before = JSON.parse(JSON.stringify(talk.turns.slice(at)));
  cutFrom(at);
  ask(question, turn.app);
  return async () => {
    await stop();
    cutFrom(at);
    for (const fields of before) add(new Turn(fields));
    keep();
    talk.painted();
  };
}

function cutFrom(at) {
  closePassage();
  for (const turn of talk.turns.splice(at)) {
    talk.views.get(turn).element.remove();
    talk.views.delete(turn);
  }
}

export async function stop() {
  const { running } = talk;
  if (!running || running.stopping) return;
  running.stopping = true;
  $("question").focus({ preventScroll: true });
  if (!running.turn.id) return running.abort.abort();
  setTimeout(() => running.abort.abort(), 2000); // for a stream that does not say that it was stopped
  await call(at`v1/answers/${running.turn.id}/cancel`, { body: {} }).catch(() => running.abort.abort());
}

// What is seen and heard

let drawing = 0;

function drawSoon(turn) {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    talk.views.get(turn)?.draw();
    scrollAlong(turn);
    if (turn.state !== "running") return;
    if (performance.now() - keptAt >= KEEP_MS || turn.id !== keptId) keep(); // by its id it can be resumed after a reload
    keptId = turn.id;
    speak(heard(turn));
  });
}

/** What screen readers read: where the answer is, and each section once it is there; never its words as they come. */
function heard(turn) {
  const done = turn.sections.filter((section) => section?.state === "done").length;
  if (!turn.many || !done || turn.waiting) return progressWords(turn);
  return say("saidSection", done, turn.sections.length, turn.sections[done - 1]?.title ?? "");
}

let keptAt = 0;
let keptId = "";
let keeping = Promise.resolve();
export const deleted = new Set(); // the ids of conversations that must not be written any more

/** Keeps the conversation as it is now; one write after the other. */
export function keep() {
  keptAt = performance.now();
  const { id } = talk;
  if (!talk.turns.length) return keeping;
  setCurrent(id);
  const turns = JSON.parse(JSON.stringify(talk.turns));
  keeping = keeping.then(() => deleted.has(id) || keepTurns(id, turns)).catch(() => {}); // the next write tries again
  return keeping;
}

/** Scrolls with the text until the question has reached the top; from there on, the reader reads. */
function scrollAlong(turn) {
  if (!talk.follows || turn !== talk.turns.at(-1)) return;
  const top = talk.views.get(turn).element.getBoundingClientRect().top - $("choice").closest("header").offsetHeight - 16;
  const root = document.documentElement;
  const below = root.scrollHeight - root.clientHeight - root.scrollTop;
  const by = Math.min(top, below);
  if (by > 0) scrollBy({ top: by, behavior: "instant" });
}

const leave = () => (talk.follows = false);
for (const name of ["wheel", "touchmove"]) addEventListener(name, leave, { passive: true });
addEventListener("pointerdown", (event) => event.target === document.documentElement && leave()); // the scroll bar
addEventListener("keydown", ({ key, target }) => ["PageUp", "ArrowUp", "Home"].includes(key) && target !== $("question") && leave());
addEventListener("pagehide", keep);

// From one conversation to another

/** An empty conversation. The one before stays in the list, unless it was deleted. */
export function fresh() {
  if (talk.running) {
    const { abort } = talk.running;
    stop();
    abort.abort();
  }
  keep();
  closePassage();
  for (const view of talk.views.values()) view.element.remove();
  Object.assign(talk, { id: null, turns: [] });
  talk.views.clear();
  setCurrent(null);
}

/** The conversation called `id`, else the one that this tab showed before a reload; an answer that was not complete is resumed. */
export async function restore(id = currentId()) {
  await keeping;
  const turns = id ? (await turnsOf(id)).map((fields) => new Turn(fields)) : [];
  if (!turns.length || talk.turns.length) return; // something was asked in the meantime
  show(id, turns);
  setCurrent(id);
  const last = turns.at(-1);
  for (const turn of turns) {
    if (turn.state === "running" && (turn !== last || !turn.id)) turn.fail({ code: turn.id ? "lost" : "left", retryable: true });
    talk.views.get(turn).draw();
  }
  talk.follows = true;
  if (last.state === "running") run(last, "resume");
  else scrollAlong(last);
}

/** Shows `turns`, which are kept once something is asked. */
export function show(id, turns) {
  talk.id = id;
  for (const turn of turns) add(turn);
  talk.painted();
}
