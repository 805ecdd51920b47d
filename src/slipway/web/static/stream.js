/** Shows Markdown while it is being written. Blocks that can no longer change are drawn once; only the last ones are parsed again as text arrives. */

import { blocksOf, clean, newEnv } from "./markdown.js";
import { patchChildren } from "./patch.js";

let remend = null; // loaded when the first answer arrives; until then, open signs are shown as they are

const mend = (text) => {
  if (!remend) import("./vendor/remend.js").then((module) => (remend = module.default), () => {});
  return remend ? remend(text, MEND) : text;
};

/** Closes what the last words have opened (bold, code, a link), so that it looks at once as it will. */
const MEND = { linkMode: "text-only", images: false, htmlTags: false, comparisonOperators: false, singleTilde: false };
/** A line that has only begun: a list's or heading's sign, or half a citation. It is shown once it says what it is. */
const HALF = /(?:(?:^|\n)[ \t]*(?:[-*+]|\d{1,9}[.)]?|#{1,6}|>|`{1,2}|~{1,2}|\|)[ \t]*|\[\^?[\d]*|\[[ xX]?)$/;

export class Stream {
  /** `home` gets the blocks; `furnish(fragment, node)` completes each before it is shown; `settled(node)` is called once for each block that is final. */
  constructor(home, { isSource, furnish, settled }) {
    Object.assign(this, { home, isSource, furnish, settled });
    this.clear();
  }

  clear() {
    for (const { node } of this.blocks ?? []) node.remove();
    Object.assign(this, { text: "", from: 0, whole: 0, blocks: [], env: newEnv(this.isSource), ended: false });
  }

  /** Draws `text`, which usually continues what was drawn before. `ended`: nothing more will come. */
  update(text, ended) {
    if (text === this.text && ended === this.ended) return;
    if (!text.startsWith(this.text) || (this.ended && !ended)) this.clear();
    Object.assign(this, { text, ended });
    const rest = text.slice(this.from);
    const found = blocksOf(ended ? rest : mend(rest.replace(HALF, "")), this.env);
    found.forEach(({ html }, n) => this.draw(this.whole + n, html));
    for (const { node } of this.blocks.splice(this.whole + found.length)) node.remove();
    this.settle(found, rest, ended);
  }

  draw(at, html) {
    const block = (this.blocks[at] ??= this.block());
    if (block.html === html) return;
    block.html = html;
    const fragment = clean(html);
    this.furnish(fragment, block.node);
    patchChildren(block.node, fragment);
  }

  block() {
    const node = document.createElement("div");
    node.className = "block";
    this.home.append(node);
    return { node, html: null };
  }

  /** A block is final if the one after it has a whole line: until then, a list's next item may look like a paragraph. */
  settle(found, rest, ended) {
    const lines = rest.split("\n");
    let final = ended ? found.length : found.length - 1;
    while (final > 0 && !ended && found[final].line >= lines.length - 1) final--;
    if (final <= 0) return;
    for (let n = 0; n < final; n++) this.settled(this.blocks[this.whole + n].node);
    this.whole += final;
    this.from += ended ? rest.length : lines.slice(0, found[final].line).join("\n").length + 1;
  }
}
