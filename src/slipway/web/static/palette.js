/** Every command by its name, every conversation by its title; and the sheet of shortcuts. */

import { el, phrase } from "./dom.js";
import { openSheet } from "./sheet.js";
import { among, say } from "./words.js";

const MOST = 12;

/** `found`: [{label, keys, act}]; `conversations()` the summaries, of which `open(id)` shows one. */
export async function openPalette({ found, conversations, open }) {
  const field = el("input", { type: "text", ariaLabel: say("commands"), placeholder: say("typeCommand"), autocomplete: "off", spellcheck: false });
  const list = el("ul", { id: "palette-list", role: "listbox", ariaLabel: say("commands") });
  Object.assign(field, { role: "combobox", ariaExpanded: "true", ariaAutoComplete: "list" });
  field.setAttribute("aria-controls", list.id);
  const dialog = openSheet(say("commands"), field, list);
  dialog.classList.add("palette");
  field.focus();
  const rest = (await conversations()).map(({ id, title }) => ({ label: title, note: say("conversation"), act: () => open(id) }));
  const all = [...found, ...rest];
  let at = 0;
  const draw = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = all.filter(({ label }) => words.every((word) => label.toLowerCase().includes(word))).slice(0, MOST);
    at = Math.max(0, Math.min(at, shown.length - 1));
    list.replaceChildren(...shown.map((each, n) => option(each, n === at, () => run(each))));
    if (shown.length) field.setAttribute("aria-activedescendant", list.children[at].id);
    else list.append(el("li", { className: "none", textContent: say("noCommand") }));
    return shown;
  };
  const run = (each) => {
    dialog.close();
    each.act();
  };
  field.oninput = () => ((at = 0), draw());
  field.onkeydown = (event) => {
    if (event.isComposing) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const shown = draw();
    if (event.key === "Enter" && shown[at]) run(shown[at]);
    else if (step) at = (at + step + shown.length) % Math.max(1, shown.length);
    else return;
    event.preventDefault();
    if (dialog.open) draw();
  };
  draw();
}

let count = 0;

function option({ label, keys, note }, isChosen, act) {
  const item = el("li", { role: "option", id: `palette-${++count}`, ariaSelected: String(isChosen) }, el("span", { textContent: label, dir: "auto" }));
  if (keys || note) item.append(keys ? el("kbd", { textContent: keys }) : el("small", { textContent: note }));
  item.onclick = act;
  if (isChosen) queueMicrotask(() => item.scrollIntoView({ block: "nearest" }));
  return item;
}

export function openShortcuts() {
  const rows = Object.entries(among("shortcutKeys", "all")).flatMap(([keys, label]) => [el("dt", {}, ...phrase(keys, "kbd")), el("dd", { textContent: label })]);
  openSheet(say("shortcuts"), el("dl", { className: "shortcuts" }, ...rows));
}
