/** Turns Markdown into clean DOM nodes. The text comes from a model or a document, so only a short list of elements and attributes may pass. */

import "./vendor/markdown-it.js";
import "./vendor/purify.js";
import "./vendor/footnote.js";
import "./vendor/task-lists.js";
import cjkFriendly from "./vendor/cjk-friendly.js";
import { maths } from "./maths.js";

const { markdownit, DOMPurify, markdownitFootnote, markdownitTaskLists } = globalThis;

const TAGS = ["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "s", "a", "sup"];
TAGS.push("table", "thead", "tbody", "tr", "th", "td", "span", "div", "input", "button");
const CLEAN = {
  ALLOWED_TAGS: TAGS,
  ALLOWED_ATTR: ["href", "title", "class", "start", "type", "checked", "disabled", "value"],
  ADD_URI_SAFE_ATTR: ["type", "start"],
  ALLOWED_URI_REGEXP: /^https?:\/\//i, // a relative link of a document would lead to a path of this server
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const CITATION = /\[(\d{1,4})\]([.,;:?)”。，；：！？）」]*)/y; // with the punctuation that may not begin a line

const md = markdownit({ html: false, linkify: true })
  .use(cjkFriendly)
  .use(markdownitFootnote)
  .use(markdownitTaskLists)
  .use(maths)
  // Without link definitions: one for `[1]` would turn every citation of source 1 into a link that the model chose.
  .disable(["reference", "footnote_inline", "footnote_tail"]);
md.linkify.set({ fuzzyLink: false, fuzzyEmail: false }); // README.md is a file, not a host
md.inline.ruler.after("link", "citation", citation);

/** `[n]` becomes a chip if source n is known. */
function citation(state, silent) {
  CITATION.lastIndex = state.pos;
  const found = CITATION.exec(state.src);
  if (!found || !state.env.isSource?.(Number(found[1]))) return false;
  if (!silent) state.push("citation", "", 0).meta = { n: Number(found[1]), after: found[2] };
  state.pos += found[0].length;
  return true;
}

const { rules } = md.renderer;
const escape = md.utils.escapeHtml;

rules.citation = (tokens, at) => {
  const { n, after } = tokens[at].meta;
  return `<span class="unbroken"><button class="mark" type="button" value="${n}">${n}</button>${escape(after)}</span>`;
};
/** No image is loaded: where it is, and what it shows, is a link. */
rules.image = (tokens, at, options, env, self) => {
  const alt = self.renderInlineAsText(tokens[at].children, options, env) || tokens[at].attrGet("src");
  return `<a href="${escape(tokens[at].attrGet("src"))}">${escape(alt)}</a>`;
};
rules.footnote_ref = (tokens, at, options, env) => `<sup>${footnoteNumber(env, tokens[at].meta.label)}</sup>`;
rules.footnote_reference_open = (tokens, at, options, env) =>
  `<div class="footnote"><span class="label">${footnoteNumber(env, tokens[at].meta.label)}</span><div>`;
rules.footnote_reference_close = () => "</div></div>";
rules.fence = (tokens, at) => codeBlock(tokens[at].content, tokens[at].info.trim().split(/\s+/)[0]);
rules.code_block = (tokens, at) => codeBlock(tokens[at].content, "");
for (const cell of ["th_open", "td_open"]) rules[cell] = (tokens, at) => `<${tokens[at].tag}${alignment(tokens[at])}>`;

/** Footnotes are counted in the order in which they are first mentioned, also when their definitions have not arrived yet. */
function footnoteNumber({ numbers }, label) {
  if (!numbers.has(label)) numbers.set(label, numbers.size + 1);
  return numbers.get(label);
}

const codeBlock = (text, language) =>
  `<pre><code${language ? ` class="language-${escape(language)}"` : ""}>${escape(text.replace(/\n$/, ""))}</code></pre>`;

/** A style attribute is not allowed by the policy; a class is. */
function alignment(token) {
  const found = /text-align:(center|right)/.exec(token.attrGet("style") ?? "");
  return found ? ` class="${found[1]}"` : "";
}

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    if (!node.hasAttribute("href")) return node.replaceWith(...node.childNodes);
    node.target = "_blank";
    node.rel = "noopener noreferrer nofollow";
  } else if (node.tagName === "INPUT") {
    node.disabled = true; // a task list shows what is done, and is no form
  }
});

/** What parsing remembers from one part of a text to the next: the footnotes, and which sources there are. */
export const newEnv = (isSource) => ({ isSource, numbers: new Map(), footnotes: { refs: {}, list: [] } });

const FOOTNOTE = /\[\^([^\]\s]+)\]/g;

/**
 * The top-level blocks of `text`, as [{line, html}]: the line on which each begins, and its HTML, which is not clean yet. A reference to a footnote counts
 * before its definition has arrived.
 */
export function blocksOf(text, env) {
  const { refs } = env.footnotes;
  for (const [, label] of text.matchAll(FOOTNOTE)) refs[`:${label}`] ??= -1;
  const tokens = md.parse(text, env);
  const found = [];
  let from = 0;
  let end = 0; // the line behind the block before
  tokens.forEach((token, at) => {
    if (token.level !== 0 || token.nesting === 1) return;
    const block = tokens.slice(from, at + 1);
    const maps = block.map((each) => each.map).filter(Boolean);
    const line = maps[0]?.[0] ?? end; // a footnote that is still empty has no place of its own
    end = Math.max(end, ...maps.map((map) => map[1]));
    found.push({ line, html: md.renderer.render(block, md.options, env) });
    from = at + 1;
  });
  return found;
}

export const clean = (html) => DOMPurify.sanitize(html, CLEAN);

/** Code in colours: spans with classes, and nothing else. */
export const cleanSpans = (html) => DOMPurify.sanitize(html, { ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"], RETURN_DOM_FRAGMENT: true });
