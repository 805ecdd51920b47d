/** The operations page: who may see it, which window it shows, and asking again every few seconds. */

import { failureNodes, setText } from "../dom.js";
import { applyLooks } from "../looks.js";
import { notice, withdraw } from "../notices.js";
import { get, tab } from "../server.js";
import { beginAnswers, drawAnswers, openAnswer } from "./answers.js";
import { drawDetails, placeForAnswers } from "./details.js";
import { moment } from "./format.js";
import { drawCharts, drawTiles, drawVerdict, titleOf } from "./overview.js";
import { failureWords } from "../words.js";
import { say, sayAll } from "./words.js";

const EVERY_MS = 5000;
const WINDOWS = ["now", "hour", "day", "week"];

const $ = (id) => document.getElementById(id);
const page = { window: "hour", paused: false, timer: 0, asked: 0, drawn: false };

/** Asks for the numbers and shows them; only the latest question's reply counts. */
async function look() {
  clearTimeout(page.timer);
  const asked = ++page.asked;
  try {
    const data = await get(`v1/operations?window=${page.window}`);
    if (asked === page.asked) show(data);
  } catch (error) {
    if (asked === page.asked) failed(error);
  }
  if (asked === page.asked && !page.paused && !document.hidden && $("lock").hidden) page.timer = setTimeout(look, EVERY_MS);
}

function show(data) {
  withdraw("failed");
  $("lock").hidden = true;
  for (const id of ["board", "window", "pause", "verdict"]) $(id).hidden = false;
  drawVerdict(data);
  document.title = titleOf(data.verdict);
  drawTiles(data);
  drawCharts(data);
  drawDetails(data, openAnswer);
  if (!page.drawn) placeForAnswers(beginAnswers());
  drawAnswers(data);
  page.updatedAt = data.at;
  setText($("updated"), say(page.paused ? "pausedAt" : "updatedAt", moment(data.at, data.at)));
  if (!page.drawn) openLinked();
  page.drawn = true;
}

function failed(error) {
  if (error.status === 401 || error.status === 403) return askForKey(error.status);
  notice("failed", failureNodes(failureWords(error.failure)), { label: say("again"), act: look, alert: true });
  if (page.drawn) setText($("updated"), say("staleSince", moment(page.updatedAt, page.updatedAt)));
}

/** 401: no key, or an unknown one. 403: a key that is no admin. */
function askForKey(status) {
  const tried = tab.read("slipway.key");
  setText($("lock-why"), say(status === 403 ? (tried ? "lockNoAdmin" : "lockPersonNoAdmin") : tried ? "lockWrong" : "lockWhy"));
  const isWrong = Boolean(tried) || status === 403;
  $("lock-why").classList.toggle("wrong", isWrong);
  $("key").ariaInvalid = String(isWrong);
  for (const id of ["board", "window", "pause", "verdict"]) $(id).hidden = true;
  document.title = say("titleLong");
  withdraw("failed");
  const wasHidden = $("lock").hidden;
  $("lock").hidden = false;
  $("key").value = "";
  if (wasHidden || tried) $("key").focus();
}

$("lock").onsubmit = (event) => {
  event.preventDefault();
  tab.write("slipway.key", $("key").value.trim());
  look();
};

// The window, and whether the page is live

function choose(window) {
  page.window = window;
  document.querySelector(`#window [value=${window}]`).checked = true;
  const address = new URL(location.href);
  address.searchParams.set("window", window);
  history.replaceState(null, "", address);
  $("board").ariaBusy = "true";
  look().finally(() => ($("board").ariaBusy = "false"));
}

function pause(paused) {
  page.paused = paused;
  $("pause").ariaPressed = String(paused);
  $("pause").textContent = say(paused ? "resume" : "pause");
  if (!paused) return look();
  clearTimeout(page.timer);
  if (page.updatedAt) setText($("updated"), say("pausedAt", moment(page.updatedAt, page.updatedAt)));
}

const isTyping = ({ target }) => target.matches("input:not([type=radio]), textarea, select") || document.querySelector("dialog[open]");

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event) || !$("lock").hidden) return;
  const window = WINDOWS[Number(event.key) - 1];
  if (window) choose(window);
  else if (event.key === "p") pause(!page.paused);
});

document.addEventListener("visibilitychange", () => !document.hidden && !page.paused && look());
$("window").onchange = ({ target }) => choose(target.value);
$("pause").onclick = () => pause(!page.paused);
$("settings").onclick = async () => {
  const { openSettings } = await import("../settings.js");
  openSettings(null);
};

/** `?answer=ID` opens the trace of an answer. */
function openLinked() {
  const id = new URLSearchParams(location.search).get("answer");
  if (id) openAnswer(id);
}

applyLooks();
sayAll();
const asked = new URLSearchParams(location.search).get("window");
page.window = WINDOWS.includes(asked) ? asked : "hour";
document.querySelector(`#window [value=${page.window}]`).checked = true;
$("pause").textContent = say("pause");
$("pause").ariaPressed = "false";
look();
