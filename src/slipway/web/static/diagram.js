/** Shows a Mermaid diagram above its source. It is drawn in a sandboxed frame: the library is large, and writes styles that the page does not allow. */

import { el } from "./dom.js";
import { isDark } from "./looks.js";
import { say } from "./words.js";

const TALLEST = 2000; // pixels

/** Draws the diagram that `code` describes in place of `box`, its block. What cannot be drawn stays as code. */
export function draw(code, box) {
  const frame = el("iframe", { className: "diagram", src: new URL("diagram.html", import.meta.url).href, title: say("diagram") });
  frame.setAttribute("sandbox", "allow-scripts");
  const source = code.textContent;
  const dark = isDark();
  frame.style.colorScheme = dark ? "dark" : "light"; // the same in both documents, else the frame gets a background
  const heard = ({ source: from, data }) => {
    if (from !== frame.contentWindow) return;
    if (data.ready) frame.contentWindow.postMessage({ source, dark }, "*");
    if (data.error) frame.remove();
    if (data.error || data.height) removeEventListener("message", heard);
    if (data.height) show(frame, box, data.height);
  };
  addEventListener("message", heard);
  frame.inert = true; // it holds nothing to press
  box.before(frame);
}

function show(frame, box, height) {
  frame.style.height = `${Math.min(TALLEST, Math.ceil(height))}px`;
  frame.classList.add("drawn");
  const details = el("details", { className: "source" }, el("summary", { textContent: say("diagramSource") }));
  box.replaceWith(details);
  details.append(box);
}
