/** Makes the children of `from` like those of `to`, and leaves what is the same: nodes keep the reader's selection and focus. */

const KEPT = new Set(["aria-expanded", "aria-controls"]); // set by the page while a passage is open

export function patchChildren(from, to) {
  const fresh = [...to.childNodes];
  fresh.forEach((node, n) => {
    const old = from.childNodes[n];
    if (!old) from.append(node);
    else if (!patch(old, node)) old.replaceWith(node);
  });
  while (from.childNodes.length > fresh.length) from.lastChild.remove();
}

/** False if `old` cannot become `node`. */
function patch(old, node) {
  if (old.nodeType !== node.nodeType || old.nodeName !== node.nodeName) return false;
  if (old.nodeType === Node.TEXT_NODE) {
    if (node.data.startsWith(old.data)) old.appendData(node.data.slice(old.data.length));
    else old.data = node.data;
    return true;
  }
  const isSet = old.firstElementChild && old.dataset.tex !== undefined && old.dataset.tex === node.dataset.tex; // the same formula
  patchAttributes(old, node);
  if (isSet) return true;
  if (old.matches("pre > code")) patchCode(old, node.textContent);
  else patchChildren(old, node);
  return true;
}

function patchAttributes(old, node) {
  for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (!node.hasAttribute(name) && !KEPT.has(name)) old.removeAttribute(name);
}

/** Code that grows keeps its colours; only what is new is appended. */
function patchCode(old, text) {
  const before = old.textContent;
  if (text === before) return;
  if (text.startsWith(before)) old.append(text.slice(before.length));
  else old.textContent = text;
}
