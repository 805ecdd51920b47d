/** Conversations kept in this browser, each under a name of its own, the oldest dropped where there are too many. Those of one key are not
 * shown to another, and no key is ever written here. What cannot be told apart by its key stays in the tab.
 */

import { tab } from "./server.js";

const PREFIX = "slipway.talk.";
const CURRENT = "slipway.talk"; // of this tab: which one it shows
const MOST = 20;
const LARGEST = 2_000_000; // characters in all

let mine = null; // what names of this reader's conversations begin with; null where they may not outlive the tab

/** Whose conversations are meant from now on. */
export async function keepFor(key) {
  const owner = key ? await digest(key).catch(() => null) : "open"; // without TLS, browsers compute no digests
  mine = owner && writable() ? `${PREFIX}${owner}.` : null;
}

/** 32 bits of a salted hash: enough to tell keys apart, too little to find one by. */
async function digest(key) {
  const salt = localStorage.getItem("slipway.salt") ?? crypto.randomUUID();
  localStorage.setItem("slipway.salt", salt);
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(salt + key));
  return [...new Uint8Array(hash).slice(0, 4)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function writable() {
  try {
    localStorage.setItem("slipway.try", "");
    localStorage.removeItem("slipway.try");
    return true;
  } catch {
    return false;
  }
}

export const newId = () => `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 10)}`;

/** The conversation that this tab shows; where a tab is opened anew, none. */
export const currentTalk = () => tab.read(CURRENT);

/** The tab begins anew. What may not outlive it is forgotten with that. */
export function leaveTalk() {
  if (!mine) tab.forget(PREFIX + currentTalk());
  tab.forget(CURRENT);
}

const nameOf = (id) => (mine ? mine + id : PREFIX + id);
const read = (name) => (mine ? localStorage.getItem(name) : tab.read(name));

/** The turns of a conversation, as they were kept; none where there are none. */
export function talkOf(id) {
  try {
    return JSON.parse(read(nameOf(id)))?.turns ?? [];
  } catch {
    return [];
  }
}

/** All that are kept, the latest first: {id, at, title}. */
export function talks() {
  if (!mine) return [];
  const names = Object.keys(localStorage).filter((name) => name.startsWith(mine));
  return names.map(summary).filter(Boolean).sort((a, b) => b.at - a.at);
}

const summaries = new Map(); // name -> what was read there, and from what

function summary(name) {
  const text = localStorage.getItem(name);
  const known = summaries.get(name);
  if (known?.text === text) return known.found;
  const found = summaryOf(name, text);
  summaries.set(name, { text, found });
  return found;
}

function summaryOf(name, text) {
  try {
    const { at, turns } = JSON.parse(text);
    return { id: name.slice(mine.length), at, title: turns[0].question };
  } catch {
    return null;
  }
}

/** Keeps a conversation; where there is no room for all of it, its oldest turns go first. */
export function keepTalk(id, turns) {
  tab.write(CURRENT, id);
  for (let from = 0; from < turns.length; from = Math.max(from + 1, Math.ceil(turns.length / 2))) {
    const text = JSON.stringify({ at: Date.now(), turns: turns.slice(from) });
    if (mine ? text.length <= LARGEST && put(nameOf(id), text) : tab.write(nameOf(id), text)) return;
  }
}

/** Drops others, the oldest first, until there is room. */
function put(name, text) {
  const others = talks().filter((each) => nameOf(each.id) !== name);
  for (;;) {
    const used = others.reduce((sum, each) => sum + localStorage.getItem(nameOf(each.id)).length, text.length);
    if (others.length < MOST && used <= LARGEST && wrote(name, text)) return true;
    if (!others.length) return false;
    localStorage.removeItem(nameOf(others.pop().id));
  }
}

function wrote(name, text) {
  try {
    localStorage.setItem(name, text);
    return true;
  } catch {
    return false; // the browser's own limit
  }
}

export function forgetTalk(id) {
  if (mine) localStorage.removeItem(nameOf(id));
  else tab.forget(nameOf(id));
}
