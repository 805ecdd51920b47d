/** Files attached to the next question: they are read for this conversation alone, and forgotten with it. */

import { button, el, phrase } from "./dom.js";
import { icon } from "./icons.js";
import { speak } from "./notices.js";
import { at, call, send } from "./server.js";
import { talk } from "./talk.js";
import { toast } from "./toast.js";
import { failureWords, say } from "./words.js";

const $ = (id) => document.getElementById(id);
const attaching = { rules: null, chosen: () => null, files: [] }; // files: {id, name, row, abort}

/** `rules`: which files, and for which apps; `chosen()`: what is asked. */
export function beginAttaching(rules, chosen) {
  Object.assign(attaching, { rules, chosen });
  $("attach").hidden = false;
  $("attach-files").accept = rules.kinds.join(",");
  talk.attached = takeReady;
}

$("attach").onclick = () => $("attach-files").click();
$("attach-files").onchange = () => {
  add([...$("attach-files").files]);
  $("attach-files").value = "";
};

function add(files) {
  if (!attaching.rules.apps.includes(attaching.chosen()?.id)) return toast(say("attachNeedsApp"));
  for (const file of files) attach(file);
  $("question").focus({ preventScroll: true });
}

async function attach(file) {
  const each = { id: null, name: file.name, abort: new AbortController() };
  each.state = el("span", { textContent: say("attaching", file.name), dir: "auto" });
  each.row = el("li", {}, each.state, dropButton(each));
  attaching.files.push(each);
  draw();
  try {
    const problem = problemOf(file);
    if (problem) throw { failure: problem };
    const form = new FormData();
    form.append("file", file, file.name);
    each.id = (await send("v1/attachments", form, { tell: () => {}, signal: each.abort.signal })).id;
    each.state.textContent = file.name;
    speak(say("attached", file.name));
  } catch (error) {
    if (each.abort.signal.aborted) return;
    const { what, next } = failureWords(error.failure);
    each.row.classList.add("failed");
    each.state.replaceChildren(...phrase(`${file.name}: ${what} ${next ?? ""}`));
    speak(what);
  }
}

function problemOf(file) {
  const { kinds, largest_mb: largest } = attaching.rules;
  const kind = /\.[^.]+$/.exec(file.name.toLowerCase())?.[0] ?? "";
  if (!kinds.includes(kind)) return { code: "kind", what: say(kind ? "wrongKind" : "wrongKinds", kind), next: say("theseKinds", kinds.join(", ")) };
  if (file.size > largest * 2 ** 20) return { code: "size", what: say("tooLarge", say("bytes", file.size), largest), next: "" };
  return null;
}

function dropButton(each) {
  const drop = button("", () => remove(each), { className: "quiet symbol", ariaLabel: say("attachRemove", each.name) });
  drop.append(icon("close"));
  return drop;
}

function remove(each) {
  each.abort.abort();
  attaching.files = attaching.files.filter((other) => other !== each);
  if (each.id) forgetFiles([each.id]);
  draw();
  $("question").focus({ preventScroll: true });
}

/** Forgets files on the server, such as with their conversation. */
export function forgetFiles(ids) {
  for (const id of ids) call(at`v1/attachments/${id}`, { method: "DELETE" }).catch(() => {}); // it expires by itself
}

function draw() {
  $("attachments").replaceChildren(...attaching.files.map(({ row }) => row));
  $("attachments").hidden = !attaching.files.length;
}

/** The files that go with the question that is asked now. */
function takeReady() {
  const ready = attaching.files.filter(({ id }) => id);
  attaching.files = attaching.files.filter(({ id, row }) => !id && !row.classList.contains("failed"));
  draw();
  return ready.map(({ id, name }) => ({ id, name }));
}

// Dropping files on the page

const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files") && !document.querySelector("dialog[open]");
const mark = (event, over) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.toggle("dropping", over);
};
addEventListener("dragover", (event) => mark(event, true));
addEventListener("dragleave", (event) => event.relatedTarget || mark(event, false));
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  mark(event, false);
  add([...event.dataTransfer.files]);
});
