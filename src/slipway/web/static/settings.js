/** The settings of this browser: theme, text size, language, and the key. */

import { button, el } from "./dom.js";
import { applyLooks, size, sizes, theme, themes } from "./looks.js";
import { call, tab } from "./server.js";
import { openSheet } from "./sheet.js";
import { stored } from "./stored.js";
import { languages, say } from "./words.js";

export function openSettings(session) {
  const rows = [
    choice("theme", themes.map((each) => [each, say(`theme_${each}`)]), theme(), applyLooks),
    choice("size", sizes.map((each) => [each, say(`size_${each}`)]), size(), applyLooks),
    choice("language", [["", say("languageOfBrowser")], ...languages], stored.read("language") ?? "", () => location.reload()),
  ];
  openSheet(say("settings"), el("div", { className: "settings" }, ...rows, ...keyRows(session)));
}

/** A row of radio buttons; what is chosen counts at once. */
function choice(name, options, chosen, apply) {
  const labels = options.map(([value, label]) => {
    const radio = el("input", { type: "radio", name, value, checked: value === chosen });
    radio.onchange = () => {
      stored.write(name, value || null);
      apply();
    };
    return el("label", {}, radio, el("span", { textContent: label }));
  });
  return el("fieldset", {}, el("legend", { textContent: say(name) }), el("div", { className: "options" }, ...labels));
}

function keyRows(session) {
  if (session?.person) {
    const row = el("p", {}, say("signedInAs", session.person));
    return [el("section", {}, el("h3", { textContent: say("account") }), row, ...(session.logout ? [button(say("signOut", session.person), signOut)] : []))];
  }
  if (!tab.read("slipway.key")) return [];
  const forget = button(say("forgetKey"), () => {
    tab.forget("slipway.key");
    location.reload();
  });
  return [el("section", {}, el("h3", { textContent: say("key") }), el("p", { textContent: say("lockWhy") }), forget)];
}

export async function signOut() {
  const { next } = await (await call("logout", { body: {} })).json();
  location.assign(next ?? ".");
}
