"""Read HTML: the text that a person sees on the page."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from slipway.knowledge.readers.document import (
    LONGEST_HEADING,
    Heading,
    OnPage,
    ParsedDocument,
    one_line,
)
from slipway.knowledge.readers.text import decoded

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_UNREAD = (
    "script, style, nav, aside, noscript, template, svg, button, select, textarea, iframe, object, canvas, [hidden], a.headerlink, "
    "[role=navigation], [role=banner], [role=contentinfo], [role=complementary], [role=search]"
)
# left out, except inside `main` or `article` (HTML's own rule for banners)
_PAGE_ENDS = "header, footer"
_OWN_ENDS = frozenset({"main", "article"})
_ANCHOR_SIGNS = frozenset("#¶§")
_PARAGRAPH_TAGS = """
    address article blockquote body caption center dd details dialog div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5
    h6 header hr main ol p pre section summary table ul
"""
_PARAGRAPHS = frozenset(_PARAGRAPH_TAGS.split())
_LINES = frozenset(["br", "li", "tr"])
_CELLS = frozenset(["td", "th"])
_SPACES = re.compile(r"[ \t\n\f\r]+")


def html(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read a page without scripts, menus, page headers and footers; only `main` if there is one.

    Paragraphs get a blank line between them, list items a line of their own after `- `, table cells
    ` | ` between them; `pre` is fenced as in Markdown.
    """
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(decoded(data))
    unread = {node.mem_id for node in tree.css(_UNREAD)}
    unread |= {node.mem_id for node in tree.css(_PAGE_ENDS) if not _is_inside(node, _OWN_ENDS)}
    page = _Page(unread)
    for root in (tree.css_first("main, [role=main]"), tree.body):
        if root is not None and not page.out:
            page.walk(root)
    named = tree.css_first("title")
    title = next((heading.text for heading in page.headings if heading.level == 1), "")
    title = title or (one_line(named.text()) if named else "") or fallback
    return ParsedDocument(
        title=title,
        text="".join(page.out),
        headings=tuple(page.headings),
        breaks=tuple(page.breaks),
    )


def _is_inside(node: "LexborNode", tags: frozenset[str]) -> bool:
    while node.parent is not None:
        node = node.parent
        if node.tag in tags:
            return True
    return False


class _Page:
    """Collect text during a walk over the tree. Separators wait until the next text, so that the
    strongest one wins.
    """

    def __init__(self, unread: set[int]) -> None:
        self.out: list[str] = []
        self.headings: list[Heading] = []
        self.breaks: list[int] = []
        self._unread = unread  # nodes, by their ids
        self._length = 0
        self._owed, self._mark = "", ""  # the mark of a list item waits for its text
        self._cells = 0  # depth in table cells: blocks there stay on the line of the row
        self._items = 0  # depth in list items: blocks there follow line by line

    def walk(self, root: "LexborNode") -> None:
        """Walk the tree without recursion, since pages may be nested deeply."""
        stack = [(root, False)]
        while stack:
            node, left = stack.pop()
            tag = node.tag or ""
            if left:
                self._leave(tag)
            elif node.mem_id in self._unread:
                continue
            elif tag == "-text":
                self._say(_SPACES.sub(" ", node.text_content or ""))
            elif tag == "pre" and not self._cells:
                self._fence(self._text(node))
            elif tag in _HEADINGS and not self._cells:
                self._head(_HEADINGS[tag], one_line(self._text(node)))
            elif not tag.startswith(("-", "_")):
                self._enter(tag)
                stack.append((node, True))
                stack.extend((child, False) for child in _children(node))

    def _text(self, root: "LexborNode") -> str:
        """Return all text with its white space, without the signs that link a heading to itself."""
        texts, stack = [], [root]
        while stack:
            node = stack.pop()
            if node.tag == "-text":
                texts.append(node.text_content or "")
            elif node.tag == "br":
                texts.append("\n")
            elif node.mem_id not in self._unread and not (
                node.tag == "a" and node.text(strip=True) in _ANCHOR_SIGNS
            ):
                stack.extend(_children(node))
        return "".join(texts)

    def _enter(self, tag: str) -> None:
        self._separate(tag)
        if tag in _CELLS:
            self._owe(" " if self._at_line_start() else " | ")
            self._cells += 1
        elif tag == "li" and not self._cells:
            self._mark = "- "
        self._items += tag == "li"

    def _leave(self, tag: str) -> None:
        self._cells -= tag in _CELLS
        if tag == "li":
            self._items, self._mark = self._items - 1, ""
        self._separate(tag)

    def _separate(self, tag: str) -> None:
        if tag in _PARAGRAPHS or tag in _LINES:
            self._owe(
                " " if self._cells else "\n\n" if tag in _PARAGRAPHS and not self._items else "\n"
            )

    def _owe(self, separator: str) -> None:
        self._owed = max(self._owed, separator, key=_SEPARATORS.index)

    def _at_line_start(self) -> bool:
        return "\n" in self._owed or not self.out

    def _say(self, text: str) -> None:
        if text.startswith(" "):
            self._owe(" ")
        if text.strip(" "):
            self._write(text.strip(" "))
            self._owe(" " if text.endswith(" ") else "")

    def _fence(self, code: str) -> None:
        ticks = max((len(found) for found in re.findall("`{3,}", code)), default=2) + 1
        if code.strip():
            self._owe("\n\n")
            self._mark = ""
            self._write(f"{'`' * ticks}\n{code.replace(chr(13), '').strip(chr(10))}\n{'`' * ticks}")
            self._owe("\n\n")

    def _head(self, level: int, name: str) -> None:
        if name:
            self._owe("\n\n")
            self._mark = ""
            self._write(name)
            if len(name) <= LONGEST_HEADING:
                self.headings.append(
                    Heading(
                        level=level, text=name, start=self._length - len(name), end=self._length
                    )
                )
            self._owe("\n\n")

    def _write(self, text: str) -> None:
        owed = self._owed if self.out else ""
        self._length += len(owed)
        if owed in ("\n\n", ""):
            self.breaks += [self._length] if owed or not self.out else []
        self.out += [owed, self._mark, text]
        self._length += len(self._mark) + len(text)
        self._owed, self._mark = "", ""


def _children(node: "LexborNode") -> "Iterator[LexborNode]":
    return reversed(list(node.iter(include_text=True)))


_SEPARATORS = ("", " ", " | ", "\n", "\n\n")
