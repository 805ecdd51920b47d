/** A source in its dialog: what is known of it at once, then its passage as the server has it now. */

import { get } from "./server.js";
import { pageOf } from "./view.js";

const dialog = document.querySelector("#passage");
const part = (name) => document.querySelector(`#passage-${name}`);
let shown = null;

export async function openPassage(source) {
  shown = source;
  fill(source);
  if (!dialog.open) dialog.showModal();
  part("text").scrollTop = 0;
  try {
    const passage = await get(`v1/passages/${encodeURIComponent(source.id)}`);
    if (shown === source) fill(passage);
  } catch (error) {
    if (shown !== source) return;
    const note = error.status === 404 ? "The documents have been read anew since. This is the passage as it was then." : `${error.what} This is the passage as it was found.`;
    Object.assign(part("note"), { textContent: note, hidden: false });
  }
}

function fill({ path, page, heading, title, trail, text }) {
  const above = (trail ?? []).filter((step) => step !== heading);
  if (title && title !== heading && title !== above[0]) above.unshift(title);
  part("path").textContent = [path, pageOf({ path, page })].filter(Boolean).join(", ");
  part("heading").textContent = heading || title || path;
  part("trail").textContent = above.join(" › ");
  part("trail").hidden = !above.length;
  if (part("text").textContent !== text) part("text").textContent = text;
  part("note").hidden = true;
}

part("close").onclick = () => dialog.close();
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // beside it
});
dialog.addEventListener("close", () => (shown = null));
