/** A menu that opens beside its button: the arrow keys move in it, Escape closes it. */

import { button, el } from "./dom.js";
import { icon } from "./icons.js";

let opened = null;

/** A button that opens a menu. `items()` returns [{label, act, checked, danger}]; null means a line between them. */
export function menuButton(symbol, label, items, more = {}) {
  const opener = button("", () => (opened?.opener === opener ? opened.element.hidePopover() : openMenu(opener, items())), { className: "quiet symbol", ariaLabel: label, title: label, ...more });
  opener.append(icon(symbol));
  opener.ariaHasPopup = "menu";
  opener.ariaExpanded = "false";
  return opener;
}

export function openMenu(opener, items) {
  const list = el("div", { className: "menu", role: "menu", popover: "auto" }, ...items.map((item) => (item ? row(item) : el("hr"))));
  list.setAttribute("aria-label", opener.ariaLabel ?? opener.textContent);
  list.addEventListener("toggle", ({ newState }) => newState === "closed" && closed(list, opener));
  list.onkeydown = (event) => move(list, event);
  document.body.append(list);
  list.showPopover();
  place(list, opener);
  opener.ariaExpanded = "true";
  opened = { opener, element: list };
  list.querySelector("button")?.focus();
}

function row({ label, act, checked, danger }) {
  const item = button(label, () => {
    item.closest(".menu").hidePopover();
    act();
  });
  item.role = checked === undefined ? "menuitem" : "menuitemradio";
  if (checked !== undefined) item.ariaChecked = String(checked);
  if (danger) item.className = "danger-text";
  item.tabIndex = -1;
  return item;
}

function closed(list, opener) {
  if (opened?.element === list) opened = null;
  opener.ariaExpanded = "false";
  if (list.contains(document.activeElement) || document.activeElement === document.body) opener.focus({ preventScroll: true });
  list.remove();
}

function move(list, event) {
  const rows = [...list.querySelectorAll("button")];
  const at = rows.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
  if (event.key === "Tab") return list.hidePopover();
  if (event.key === "Escape") event.stopPropagation(); // it stops no answer
  if (to === undefined) return;
  event.preventDefault();
  rows[(to + rows.length) % rows.length].focus();
}

function place(list, opener) {
  const at = opener.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = list;
  const below = at.bottom + 4 + height <= innerHeight || at.top < height + 8;
  list.style.left = `${Math.max(8, Math.min(at.left, innerWidth - width - 8))}px`;
  list.style.top = `${below ? Math.min(at.bottom + 4, innerHeight - height - 8) : at.top - height - 4}px`;
}
