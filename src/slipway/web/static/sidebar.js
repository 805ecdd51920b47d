/** The list of conversations: search, open, rename, pin, export, delete. */

import { change, currentId, everything, isOnServer, onChange, remove, search, summaries, turnsOf } from "./conversations.js";
import { button, el, saveFile, setText } from "./dom.js";
import { menuButton } from "./menu.js";
import { stored } from "./stored.js";
import { deleted } from "./talk.js";
import { toast } from "./toast.js";
import { Turn, conversationOf } from "./turn.js";
import { say } from "./words.js";

const $ = (id) => document.getElementById(id);
const wide = matchMedia("(min-width: 64rem)");
const DAY_MS = 86_400_000;
const SEARCH_MS = 150;

const side = { open: () => {}, rows: new Map(), timer: 0, drawing: null };

/** `open(id)` shows a conversation; without an id, a new one. */
export function beginSidebar(open) {
  side.open = open;
  onChange(drawSoon);
  wide.onchange = showSidebar;
  showSidebar();
  return draw();
}

// Showing and hiding it

const isShown = () => document.body.classList.contains("with-side");

function showSidebar() {
  if ("embed" in document.documentElement.dataset) return toggle(false);
  toggle(wide.matches && stored.read("sidebar") !== "hidden");
}

export function toggleSidebar() {
  toggle(!isShown());
  if (wide.matches) stored.write("sidebar", isShown() ? null : "hidden");
  else if (isShown()) $("side-search").focus();
}

function toggle(shown) {
  document.body.classList.toggle("with-side", shown);
  $("side").hidden = !shown;
  $("side-toggle").ariaExpanded = String(shown);
  const covers = shown && !wide.matches;
  $("side-shade").hidden = !covers;
  for (const each of document.querySelectorAll("body > header, main, footer")) each.inert = covers;
}

export function closeOverlay() {
  if (wide.matches || !isShown()) return false;
  toggle(false);
  $("side-toggle").focus();
  return true;
}

$("side-toggle").onclick = toggleSidebar;
$("side-close").onclick = () => (wide.matches ? toggleSidebar() : closeOverlay(), $("side-toggle").focus());
$("side-shade").onclick = closeOverlay;
$("side-new").onclick = () => openOne(null);

function openOne(id) {
  closeOverlay();
  side.open(id);
}

// The list

function drawSoon() {
  side.drawing ??= setTimeout(async () => {
    await draw();
    side.drawing = null;
  }, 50);
}

async function draw() {
  const words = $("side-search").value.trim();
  const [all, found] = await Promise.all([summaries(), words ? search(words) : null]).catch(() => [[], null]);
  const shown = found ? all.filter(({ id }) => found.has(id)) : all;
  const groups = groupsOf(shown);
  $("side-list").replaceChildren(...groups.flatMap(([title, rows]) => [el("h3", { textContent: title }), el("ul", {}, ...rows.map(row))]));
  $("side-none").hidden = shown.length > 0;
  setText($("side-none"), say(words ? "noConversationFound" : "noConversations"));
  $("side-foot").hidden = !all.length;
  setText($("side-kept"), say(isOnServer() ? "keptOnServer" : "keptHere"));
  for (const id of side.rows.keys()) if (!all.some((each) => each.id === id)) side.rows.delete(id);
}

/** [title, rows]: the pinned ones, then by age. */
function groupsOf(all) {
  const today = new Date().setHours(0, 0, 0, 0);
  const ages = [["pinned", ({ pinned }) => pinned], ["today", ({ at }) => at >= today], ["yesterday", ({ at }) => at >= today - DAY_MS]];
  ages.push(["week", ({ at }) => at >= today - 7 * DAY_MS], ["older", () => true]);
  const groups = ages.map(([name]) => [say(name), []]);
  for (const each of all) groups[ages.findIndex(([, belongs]) => belongs(each))][1].push(each);
  return groups.filter(([, rows]) => rows.length);
}

function row(summary) {
  const known = side.rows.get(summary.id);
  const item = known ?? makeRow(summary.id);
  side.rows.set(summary.id, item);
  item.summary = summary;
  setText(item.title, summary.title);
  item.title.title = summary.title;
  item.opener.ariaCurrent = summary.id === currentId() ? "true" : null;
  return item.element;
}

function makeRow(id) {
  const title = el("span", { dir: "auto" });
  const opener = el("button", { type: "button", className: "quiet" }, title);
  opener.onclick = () => openOne(id);
  const item = { title, opener };
  const more = menuButton("more", say("conversationMenu"), () => itemsOf(item), {});
  item.element = el("li", {}, opener, more);
  return item;
}

const itemsOf = (item) => [
  { label: say("rename"), act: () => renameOne(item) },
  { label: say(item.summary.pinned ? "unpin" : "pin"), act: () => change(item.summary.id, { pinned: !item.summary.pinned }) },
  { label: say("export"), act: () => exportOne(item.summary) },
  null,
  { label: say("delete"), act: () => removeOnes([item.summary.id]), danger: true },
];

function renameOne({ element, opener, summary }) {
  const field = el("input", { value: summary.title, ariaLabel: say("newName"), dir: "auto", maxLength: 200 });
  const done = async (isKept) => {
    field.onblur = null;
    const title = field.value.trim();
    if (isKept && title && title !== summary.title) await change(summary.id, { title, named: true });
    field.replaceWith(opener);
    opener.focus();
  };
  field.onkeydown = (event) => {
    if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    done(event.key === "Enter");
  };
  field.onblur = () => done(true);
  opener.replaceWith(field);
  field.focus();
  field.select();
}

export async function removeOnes(ids) {
  const shown = ids.includes(currentId());
  for (const id of ids) deleted.add(id);
  if (shown) side.open(null);
  const turns = (await Promise.all(ids.map(turnsOf))).flat();
  const files = turns.flatMap((turn) => turn.files ?? []).map(({ id }) => id);
  if (files.length) import("./attach.js").then(({ forgetFiles }) => forgetFiles(files));
  const undo = await remove(ids);
  $("side-new").focus();
  toast(ids.length === 1 ? say("conversationDeleted") : say("conversationsDeleted", ids.length), () => {
    for (const id of ids) deleted.delete(id);
    undo();
  });
}

$("side-clear").onclick = async () => removeOnes((await summaries()).map(({ id }) => id));
$("side-export").onclick = async () => {
  const all = await everything();
  saveFile("slipway-conversations.json", "application/json", JSON.stringify(all, null, 1));
  toast(say("exported"));
};

async function exportOne({ id, title }) {
  const turns = (await turnsOf(id)).map((fields) => new Turn(fields));
  saveFile(`${title.slice(0, 60).replace(/[^\p{L}\p{N}]+/gu, "-") || "slipway"}.md`, "text/markdown", conversationOf(turns));
  toast(say("exported"));
}

$("side-search").oninput = () => {
  clearTimeout(side.timer);
  side.timer = setTimeout(draw, SEARCH_MS);
};

/** Marks the conversation that is shown. */
export function markCurrent() {
  for (const [id, { opener }] of side.rows) opener.ariaCurrent = id === currentId() ? "true" : null;
}
