/** The server's side: requests with this tab's key, refusals as errors with words, and streams of events that survive a dropped line. */

import { failureWords, locale } from "./words.js";

const TRIES = 5;
const FIRST_WAIT_MS = 500;
const SILENCE_MS = 30_000; // the server sends a heartbeat every 10 s

/** What this tab remembers; a browser that keeps nothing forgets it at the next reload. */
export const tab = {
  kept: new Map(),
  read(name) {
    try {
      return sessionStorage.getItem(name) ?? this.kept.get(name) ?? null;
    } catch {
      return this.kept.get(name) ?? null;
    }
  },
  /** False if the browser has no space for it. */
  write(name, value) {
    this.kept.set(name, value);
    try {
      sessionStorage.setItem(name, value);
      return true;
    } catch {
      return false;
    }
  },
  forget(name) {
    this.kept.delete(name);
    try {
      sessionStorage.removeItem(name);
    } catch {
      // nothing was kept
    }
  },
};

/** `failure` is what a turn can keep of it: its `code`, and the server's words where it said any; `status` 0 where no answer came at all. */
export class Refused extends Error {
  constructor(failure, status = 0) {
    super(failure.what);
    Object.assign(this, { failure, status });
  }
}

/** A failure that the page itself finds, by its code. */
const broken = (code, status, more) => new Refused({ ...failureWords({ code }), code, retryable: true, ...more }, status);
const unreachable = () => broken("unreachable");
const lost = () => broken("lost");

async function refused(response) {
  const { status } = response;
  const error = await response.json().then((body) => body.error, () => null);
  if (error?.slipway) return new Refused({ code: error.code, ...error.slipway }, status);
  return broken("strange", status, { retryable: status >= 500, ref: response.headers.get("x-slipway-answer-id") ?? "" });
}

/** Who asks, and in which language they read. */
function asker() {
  const key = tab.read("slipway.key");
  return { "accept-language": locale, ...(key && { authorization: `Bearer ${key}` }) };
}

/** A path with each value as one name of it: an id in a shared conversation may hold `../` and lead to another route. */
export const at = (texts, ...values) => String.raw({ raw: texts }, ...values.map(encodeURIComponent));

/** The response, once it is a good one. Raises Refused. Paths are relative, so that the page may live below a prefix. */
export async function call(path, { body, method = body ? "POST" : "GET", headers = {}, signal } = {}) {
  const all = { ...asker(), ...(body && { "content-type": "application/json" }), ...headers };
  let response;
  try {
    response = await fetch(path, { method, body: body && JSON.stringify(body), headers: all, signal, cache: "no-store" });
  } catch (error) {
    throw error.name === "AbortError" ? error : unreachable();
  }
  if (!response.ok) throw await refused(response);
  return response;
}

/** Sends a form with files; `tell` hears how much of it has gone, 0 to 1. What was answered. Raises Refused. */
export function send(path, form, { tell, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not say how much has gone
    request.open("POST", path);
    for (const [name, value] of Object.entries(asker())) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total, lengthComputable }) => lengthComputable && tell(loaded / total);
    request.onerror = () => reject(unreachable());
    request.onabort = () => reject(signal.reason);
    request.onload = async () => {
      const response = new Response(request.response, { status: request.status });
      if (response.ok) response.json().then(resolve, () => reject(unreachable()));
      else reject(await refused(response));
    };
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}

export const get = async (path) => (await call(path)).json();

/** The state of the server, also while it is not ready yet. */
export async function readiness() {
  try {
    return await (await fetch("readyz", { headers: asker(), cache: "no-store" })).json();
  } catch {
    throw unreachable();
  }
}

/**
 * Gives `turn.take(name, data, id)` each event of an answer once. The first response comes from `open()`; where the line drops, the
 * answer is picked up behind `turn.last`. `wait(n, of)` is called before each new try. Raises Refused.
 */
export async function follow(turn, open, { signal, wait }) {
  let response = await open();
  let tries = 0;
  for (;;) {
    turn.id = response?.headers.get("x-slipway-answer-id") ?? turn.id;
    const before = turn.last;
    if (response && (await read(response, turn, signal))) return;
    if (turn.last > before) tries = 0;
    if (tries >= TRIES) throw lost();
    wait(++tries, TRIES);
    await pause(FIRST_WAIT_MS * 2 ** (tries - 1), signal);
    response = await again(turn, signal);
  }
}

export const resume = (turn, signal) =>
  call(at`v1/answers/${turn.id}/events`, { headers: { "last-event-id": String(turn.last) }, signal });

/** What is missing of an answer that ended early; where it turns out not to have, the rest of it. */
export async function retry(turn, signal) {
  try {
    return await call(at`v1/answers/${turn.id}/retry`, { body: { stream: true }, signal });
  } catch (error) {
    if (error.status !== 409) throw error;
    return resume(turn, signal);
  }
}

/** The rest of the stream, or null where the line is still down. */
async function again(turn, signal) {
  try {
    return await resume(turn, signal);
  } catch (error) {
    if (error instanceof Refused && (error.status === 0 || error.status >= 500)) return null;
    throw error;
  }
}

/** True where the stream came to its own end. */
async function read(response, turn, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let ended = false;
  let held = "";
  for (;;) {
    const chunk = await within(SILENCE_MS, reader.read()).catch(() => null); // null: the line dropped
    signal.throwIfAborted();
    if (!chunk) reader.cancel().catch(() => {});
    if (!chunk || chunk.done) return ended;
    const blocks = (held + chunk.value).split("\n\n");
    held = blocks.pop();
    for (const block of blocks) {
      const { id, name, data } = parse(block);
      if (!data || id <= turn.last) continue;
      turn.take(name, JSON.parse(data), id);
      ended = name === "done" || name === "error";
    }
  }
}

function parse(block) {
  const found = { id: 0, name: "message", data: "" };
  for (const line of block.split("\n")) {
    const [, field, value] = /^(id|event|data): ?(.*)$/.exec(line) ?? [];
    if (field === "id") found.id = Number(value);
    else if (field === "event") found.name = value;
    else if (field === "data") found.data += found.data ? `\n${value}` : value;
  }
  return found;
}

function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("silence")), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
