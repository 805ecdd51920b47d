/** A markdown-it plugin: `$x$`, `$$x$$`, `\(x\)` and `\[x\]` are maths. Pandoc's rule keeps prices apart: no space inside of the dollars, no digit behind them. */

const INLINE = [
  [/\$\$([^$]+?)\$\$/y, true],
  [/\$(?! )((?:\\.|[^$\\\n])+?)(?<![ \\])\$(?!\d)/y, false],
  [/\\\(([\s\S]+?)\\\)/y, false],
  [/\\\[([\s\S]+?)\\\]/y, true],
];
const BLOCK = { "$$": "$$", "\\[": "\\]" };

export function maths(md) {
  md.inline.ruler.before("escape", "maths", inline);
  md.block.ruler.before("fence", "maths_block", block, { alt: ["paragraph", "blockquote", "list"] });
  md.renderer.rules.maths = (tokens, at) => html(md, tokens[at]);
  md.renderer.rules.maths_block = (tokens, at) => `<div class="scroller">${html(md, tokens[at])}</div>`;
}

const html = (md, { content, meta }) => `<span class="maths${meta.display ? " display" : ""}">${md.utils.escapeHtml(content)}</span>`;

function inline(state, silent) {
  if (!/[$\\]/.test(state.src[state.pos])) return false;
  for (const [pattern, display] of INLINE) {
    pattern.lastIndex = state.pos;
    const found = pattern.exec(state.src);
    if (!found) continue;
    if (!silent) Object.assign(state.push("maths", "", 0), { content: found[1].trim(), meta: { display } });
    state.pos += found[0].length;
    return true;
  }
  return false;
}

/** Display maths that begins a line and may run over several; one that is not closed yet is shown as it is being written. */
function block(state, startLine, endLine, silent) {
  const lineAt = (n) => state.src.slice(state.bMarks[n] + state.tShift[n], state.eMarks[n]).trim();
  const first = lineAt(startLine);
  const close = BLOCK[first.slice(0, 2)];
  if (!close || state.sCount[startLine] - state.blkIndent >= 4) return false;
  if (first.length > 2 && !first.endsWith(close) && first.indexOf(close, 2) >= 0) return false; // text goes on behind it
  let line = startLine;
  let text = first.slice(2);
  while (!text.trimEnd().endsWith(close) && line + 1 < endLine) text += `\n${lineAt(++line)}`;
  if (silent) return true;
  const token = state.push("maths_block", "", 0);
  Object.assign(token, { content: text.trimEnd().replace(close, "").trim(), meta: { display: true }, block: true, map: [startLine, line + 1] });
  state.line = line + 1;
  return true;
}
