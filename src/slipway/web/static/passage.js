/** A source in its dialog: what is known of it at once, then its passage as the server has it now. */

import { excerpt } from "./excerpt.js";
import { get } from "./server.js";
import { pageOf } from "./view.js";

const dialog = document.querySelector("#passage");
const part = (name) => document.querySelector(`#passage-${name}`);
let shown = null;
let written = null; // what is drawn, so that it is not drawn anew under the reader

/** `answer` is the text that cites it: what it says word for word is marked, and in sight. */
export async function openPassage(source, answer) {
  shown = source;
  written = null;
  fill(source, answer);
  if (!dialog.open) dialog.showModal();
  part("text").scrollTop = 0;
  part("text").querySelector("mark, .said")?.scrollIntoView({ block: "center", inline: "nearest" });
  try {
    const passage = await get(`v1/passages/${encodeURIComponent(source.id)}`);
    if (shown === source) fill(passage, answer);
  } catch (error) {
    if (shown !== source) return;
    const note = error.status === 404 ? "The documents have been read anew since. This is the passage as it was then." : `${error.what} This is the passage as it was found.`;
    Object.assign(part("note"), { textContent: note, hidden: false });
  }
}

function fill({ path, page, heading, title, trail, text }, answer) {
  const above = (trail ?? []).filter((step) => step !== heading);
  if (title && title !== heading && title !== above[0]) above.unshift(title);
  part("path").textContent = [path, pageOf({ path, page })].filter(Boolean).join(", ");
  part("heading").textContent = heading || title || path;
  part("trail").textContent = above.join(" › ");
  part("trail").hidden = !above.length;
  if (written !== text) part("text").replaceChildren(...excerpt((written = text), answer));
  part("note").hidden = true;
}

part("close").onclick = () => dialog.close();
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // beside it
});
dialog.addEventListener("close", () => (shown = null));
