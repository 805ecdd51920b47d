/** The conversations that are kept: in this browser's IndexedDB, or on the server if it keeps them. Those of one reader are not shown to another, and no key
 * is ever written here.
 */

import "./vendor/idb.js";
import { at, call, get, tab } from "./server.js";
import { stored } from "./stored.js";

const { openDB } = globalThis.idb;
const CURRENT = "slipway.conversation"; // of this tab: which one it shows
const OLD = "slipway.talk."; // how an earlier version named conversations in localStorage
export const MOST = 500;

const memory = { summaries: new Map(), turns: new Map() }; // for a browser that keeps nothing
const state = { owner: null, db: null, onServer: false, known: new Map() }; // `known`: what the server listed
const listeners = new Set();
const others = typeof BroadcastChannel === "function" ? new BroadcastChannel("slipway.conversations") : null;

/** `listener()` is called if the list may have changed, also by another tab. */
export const onChange = (listener) => listeners.add(listener);
const changed = () => (listeners.forEach((listener) => listener()), others?.postMessage("changed"));
if (others) others.onmessage = () => listeners.forEach((listener) => listener());

/** Whose conversations are meant from now on: `person` is who signed in, else they belong to the key. `onServer`: the server keeps them. */
export async function keepFor(key, { person = null, onServer = false } = {}) {
  state.owner = person ? `person-${digest(person)}` : key ? `key-${digest(key)}` : "open";
  state.onServer = onServer;
  state.db ??= onServer ? null : await open().catch(() => null);
  if (state.db) await takeOver();
}

export const isOnServer = () => state.onServer;

/** 32 bits of a salted hash (FNV-1a): enough to tell readers apart, too little to find a key by. */
function digest(text) {
  if (!stored.read("salt")) stored.write("salt", newId());
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(stored.read("salt") + text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash.toString(16).padStart(8, "0");
}

const open = () =>
  openDB("slipway", 1, {
    upgrade(db) {
      db.createObjectStore("summaries", { keyPath: "id" }).createIndex("owner", "owner");
      db.createObjectStore("turns", { keyPath: "id" }).createIndex("owner", "owner");
    },
  });

/** Moves what an earlier version kept in localStorage; it can be recognised only if no key was used. */
async function takeOver() {
  const names = Object.keys(localStorage).filter((name) => name.startsWith(`${OLD}open.`));
  for (const name of names) {
    try {
      const { at, turns } = JSON.parse(localStorage.getItem(name));
      const id = name.slice(OLD.length + "open.".length);
      await put({ id, owner: "open", title: turns[0].question, at, pinned: false }, turns);
    } catch {
      // it cannot be read any more
    }
    localStorage.removeItem(name);
  }
}

export const newId = () => `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 10)}`;

/** The conversation that this tab shows; null in a new tab. */
export const currentId = () => tab.read(CURRENT);
export const setCurrent = (id) => (id ? tab.write(CURRENT, id) : tab.forget(CURRENT));

/** All that are kept: {id, title, at, pinned}, the pinned ones first, then the latest. */
export async function summaries() {
  const all = await everySummary();
  return all.sort((a, b) => b.pinned - a.pinned || b.at - a.at);
}

async function everySummary() {
  if (state.onServer) {
    const { data } = await get("v1/conversations");
    state.known = new Map(data.map((each) => [each.id, each]));
    return data;
  }
  if (state.db) return state.db.getAllFromIndex("summaries", "owner", state.owner);
  return [...memory.summaries.values()].filter(({ owner }) => owner === state.owner);
}

/** The turns of a conversation as they were kept; none if it is not there. */
export async function turnsOf(id) {
  if (state.onServer) return (await get(at`v1/conversations/${id}`).catch(() => null))?.turns ?? [];
  const found = state.db ? await state.db.get("turns", id) : memory.turns.get(id);
  return found?.owner === state.owner ? found.turns : [];
}

export async function summaryOf(id) {
  if (state.onServer) return state.known.get(id) ?? null;
  const found = state.db ? await state.db.get("summaries", id) : memory.summaries.get(id);
  return found?.owner === state.owner ? found : null;
}

/** Keeps a conversation; its title is its first question until it is renamed. */
export async function keepTurns(id, turns) {
  const before = await summaryOf(id);
  const title = before?.named ? before.title : (turns[0]?.question ?? "");
  const summary = { ...before, id, owner: state.owner, title, at: Date.now(), pinned: before?.pinned ?? false };
  await put(summary, turns);
  if (!before && !state.onServer) await dropOldest();
  changed();
}

async function put(summary, turns) {
  const { id, owner } = summary;
  if (state.onServer) {
    const { title, at, pinned, named = false } = summary;
    await call(at`v1/conversations/${id}`, { method: "PUT", body: { title, at, pinned, named, turns } });
    state.known.set(id, { id, title, at, pinned, named });
  } else if (state.db) {
    const change = state.db.transaction(["summaries", "turns"], "readwrite");
    change.objectStore("summaries").put(summary);
    change.objectStore("turns").put({ id, owner, turns });
    await change.done;
  } else {
    memory.summaries.set(id, summary);
    memory.turns.set(id, { id, owner, turns });
  }
}

async function dropOldest() {
  const all = (await summaries()).filter(({ pinned }) => !pinned);
  for (const { id } of all.slice(MOST)) await drop(id);
}

async function drop(id) {
  if (state.onServer) {
    await call(at`v1/conversations/${id}`, { method: "DELETE" });
    return void state.known.delete(id);
  }
  if (!state.db) return void (memory.summaries.delete(id), memory.turns.delete(id));
  const change = state.db.transaction(["summaries", "turns"], "readwrite");
  change.objectStore("summaries").delete(id);
  change.objectStore("turns").delete(id);
  await change.done;
}

/** Changes what the list shows: `{title, named}` or `{pinned}`. */
export async function change(id, fields) {
  const summary = await summaryOf(id);
  if (!summary) return;
  await put({ ...summary, ...fields }, await turnsOf(id));
  changed();
}

/** Deletes conversations. Returns what brings them back. */
export async function remove(ids) {
  const gone = await Promise.all(ids.map(async (id) => [await summaryOf(id), await turnsOf(id)]));
  for (const id of ids) await drop(id);
  changed();
  return async () => {
    for (const [summary, turns] of gone) if (summary) await put(summary, turns);
    changed();
  };
}

/** The ids of the conversations in which every word of `words` is found, in the title or in the text. */
export async function search(words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  if (state.onServer) return new Set((await get(`v1/conversations?q=${encodeURIComponent(words)}`)).data.map(({ id }) => id));
  const turns = state.db ? await state.db.getAllFromIndex("turns", "owner", state.owner) : [...memory.turns.values()];
  const titles = new Map((await everySummary()).map(({ id, title }) => [id, title]));
  const matches = (row) => {
    const text = `${titles.get(row.id) ?? ""}\n${textOf(row.turns)}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  };
  return new Set(turns.filter(({ owner }) => owner === state.owner).filter(matches).map(({ id }) => id));
}

const textOf = (turns) => turns.map(({ question, sections = [] }) => [question, ...sections.map((section) => section?.text)].join("\n")).join("\n");

/** All conversations with their turns, the latest first, to be taken along. */
export async function everything() {
  const found = await summaries();
  return Promise.all(found.map(async (summary) => ({ ...summary, turns: await turnsOf(summary.id) })));
}
