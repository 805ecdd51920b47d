/** The conversation of this tab: asking, reading on, trying again, stopping; kept in the browser while it goes on. */

import { currentTalk, keepTalk, leaveTalk, newId, talkOf } from "./kept.js";
import { speak } from "./notices.js";
import { closePassage } from "./passage.js";
import { endWords, progressWords } from "./progress.js";
import { Refused, call, follow, resume, retry } from "./server.js";
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
  follows: false, // the view goes with the text until the reader scrolls
  painted: () => {}, // told when something begins or ends
  locked: () => {}, // told that the key is not taken any more
};

function add(turn) {
  const view = new TurnView(turn, { again: () => again(turn), keep });
  talk.turns.push(turn);
  talk.views.set(turn, view);
  $("turns").append(view.element);
  turn.changed = () => drawSoon(turn);
  view.draw();
}

export function ask(question, app) {
  const turn = new Turn({ question, app });
  talk.id ??= newId();
  add(turn);
  run(turn, "ask");
}

/** `how`: ask (anew), retry (what is missing) or resume (read on). */
async function run(turn, how) {
  const abort = new AbortController();
  const { signal } = abort;
  const running = (talk.running = { turn, abort, stopping: false });
  const ways = {
    ask: () => call("v1/answers", { body: { app: turn.app, messages: messagesFor(turn, talk.turns), stream: true }, signal }),
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

/** What an answer ends with that the server did not end itself. */
function settle(turn, how, error) {
  const forgotten = how !== "ask" && (error.status === 404 || error.status === 410); // it can be asked anew
  if (talk.running?.stopping || error.name === "AbortError") turn.fail({ code: "cancelled" });
  else if (error.status === 401) giveBack(turn, error);
  else if (error instanceof Refused) turn.fail({ ...error.failure, retryable: error.failure.retryable || forgotten });
  else turn.fail({ code: "page", retryable: true });
}

/** The key is not taken (any more): the question goes back to where it was typed. */
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

export async function stop() {
  const { running } = talk;
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
    talk.views.get(turn)?.draw();
    scrollAlong(turn);
    if (turn.state !== "running") return;
    keepSometimes();
    speak(heard(turn));
  });
}

/** What is told to the ear: where the answer is, and each section once it is there; never its words as they come. */
function heard(turn) {
  const done = turn.sections.filter((section) => section?.state === "done").length;
  if (!turn.many || !done || turn.waiting) return progressWords(turn);
  return say("saidSection", done, turn.sections.length, turn.sections[done - 1]?.title ?? "");
}

let keptAt = 0;

function keepSometimes() {
  if (performance.now() - keptAt >= KEEP_MS) keep();
}

export function keep() {
  keptAt = performance.now();
  if (talk.turns.length) keepTalk(talk.id, talk.turns);
}

/** Goes with the text until the question has reached the top; from there on, the reader reads. */
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

/** An empty conversation; the one before stays among those that are kept. */
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
  leaveTalk();
}

/** The conversation called `id`, else the one that this tab showed before a reload; an answer that was under way is read on. */
export function restore(id = currentTalk()) {
  const turns = id ? talkOf(id).map((fields) => new Turn(fields)) : [];
  if (!turns.length) return;
  talk.id = id;
  for (const turn of turns) add(turn);
  talk.painted();
  const last = turns.at(-1);
  for (const turn of turns) {
    if (turn.state === "running" && (turn !== last || !turn.id)) turn.fail({ code: turn.id ? "lost" : "left", retryable: true });
    if (turn.state !== "running") finish(turn);
  }
  talk.follows = true;
  if (last.state === "running") run(last, "resume");
}
