"""Read HTML: the text that a person sees on the page, with what opens at a click."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from slipway.knowledge.readers.document import (
    LONGEST_HEADING,
    Cell,
    Heading,
    OnPage,
    ParsedDocument,
    filled,
    one_line,
    raised,
    table,
)
from slipway.knowledge.readers.encoding import cleaned, decoded
from slipway.knowledge.readers.front_matter import front_matter_of_html

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_UNREAD = (
    "script, style, nav, noscript, template, svg, button, select, textarea, iframe, object, canvas, "
    "del, s, strike, rp, rt, head, a.headerlink, [aria-hidden=true].anchor, "
    "[role=navigation], [role=banner], [role=contentinfo], [role=search], "
    "[role=complementary]"
)
# hidden until a person opens them, so they are read
_OPENED_BY_CLICK = frozenset({"until-found"})
_PANELS = re.compile(
    r"\b(?:tab-?panels?|tab-?pane|tab-?content|tabbed-block|collaps|accordion)", re.IGNORECASE
)
# left out, except inside `main` or `article` (HTML's own rule for banners)
_PAGE_ENDS = "header, footer"
_OWN_ENDS = frozenset({"main", "article"})
_SIDE = re.compile(
    r"side-?bar|\bnav|\btoc\b|menu|related|share|cookie|banner|advert|promo", re.IGNORECASE
)
_MOST_LINKS = 0.5  # an aside with a larger share of its text in links is navigation
_OPENERS = "h1, h2, h3, h4, h5, h6, summary, dt"  # a button that is all their text is read
_SHORT_TERM = 100  # characters: longer terms get a line of their own
_ANCHOR_SIGNS = frozenset("#¶§")
_PARAGRAPH_TAGS = """
    address article aside blockquote body caption center dd details dialog div dl dt fieldset
    figcaption figure footer form h1 h2 h3 h4 h5 h6 header hr main ol p pre section summary table ul
"""
_PARAGRAPHS = frozenset(_PARAGRAPH_TAGS.split())
_LINES = frozenset(["br", "li", "tr"])
_CELLS = frozenset(["td", "th"])
_SPACES = re.compile(r"[ \t\n\f\r]+")
_INVISIBLE_STYLE = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)


def html(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read a page without scripts, menus, page headers and footers; only `main` if there is one.

    Paragraphs get a blank line between them, list items a line of their own after `- `; tables are
    written as in Markdown, with the values of merged cells repeated; `pre` is fenced.
    """
    file = decoded(data, markup=True)
    front = front_matter_of_html(file.text)
    document = html_text(file.text[front.end :], front.title or fallback)
    return ParsedDocument(
        title=document.title,
        text=document.text,
        headings=document.headings,
        breaks=document.breaks,
        losses=file.losses,
        meta=front.meta,
    )


def html_text(source: str, fallback: str) -> ParsedDocument:
    """Read a page that is decoded already."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(source)
    page = _Page(_unread(tree.root) if tree.root else set())
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


def fragment_text(source: str) -> str:
    """Return the text of a piece of HTML."""
    return html_text(f"<body>{source}</body>", "").text


def _unread(root: "LexborNode") -> set[int]:
    """Return the ids of the nodes that are left out."""
    kept = {
        button.mem_id
        for each in root.css(_OPENERS)
        for button in each.css("button")
        if one_line(button.text()) == one_line(each.text())
    }
    unread = {node.mem_id for node in root.css(_UNREAD)} - kept
    unread |= {node.mem_id for node in root.css(_PAGE_ENDS) if not _is_inside(node, _OWN_ENDS)}
    unread |= {node.mem_id for node in root.css("aside") if _is_navigation(node)}
    hidden = (node for node in root.css("[hidden], [style]") if _is_hidden(node))
    return unread | {node.mem_id for node in hidden}


def _is_hidden(node: "LexborNode") -> bool:
    """Return whether nobody sees the node, not even after a click on a tab or a question."""
    attributes = node.attributes
    hidden = (
        attributes.get("hidden") not in _OPENED_BY_CLICK
        if "hidden" in attributes
        else bool(_INVISIBLE_STYLE.search(attributes.get("style") or ""))
    )
    return hidden and not _is_panel(node)


def _is_panel(node: "LexborNode") -> bool:
    attributes = node.attributes
    named = f"{attributes.get('class') or ''} {attributes.get('id') or ''}"
    return (
        attributes.get("role") in ("tabpanel", "region")
        or "aria-labelledby" in attributes
        or bool(_PANELS.search(named))
    )


def _is_navigation(aside: "LexborNode") -> bool:
    """Return whether an aside is a side bar rather than a note or caution in the text."""
    attributes = aside.attributes
    named = " ".join(attributes.get(name) or "" for name in ("class", "id", "aria-label"))
    if attributes.get("role") == "note":
        return False
    if not _is_inside(aside, _OWN_ENDS) or _SIDE.search(named):
        return True
    text = len(one_line(aside.text()))
    links = sum(len(one_line(link.text())) for link in aside.css("a"))
    return not text or links > _MOST_LINKS * text


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
        # the mark of a list item waits for its text
        self._owed, self._mark = "", ""
        self._cells = 0  # depth in table cells: blocks there stay on the line of the row
        self._items = 0  # depth in list items: blocks there follow line by line
        self._term = 0  # where the last term of a definition list begins
        self._defines = False  # between a term and the text of its definition
        self._summaries = set[int]()  # the n-th headings that are summaries of details

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
                self._say(_SPACES.sub(" ", cleaned(node.text_content or "")))
            elif not self._whole(node, tag) and not tag.startswith(("-", "_")):
                self._enter(tag)
                stack.append((node, True))
                stack.extend((child, False) for child in _children(node))

    def _whole(self, node: "LexborNode", tag: str) -> bool:
        """Write a node that is not walked into; False if it has to be."""
        if tag == "sup":
            self._raise(node)
            return True
        if self._cells:
            return False
        if tag == "pre":
            self._fence(self._text(node))
        elif tag in _HEADINGS:
            self._head(_HEADINGS[tag], one_line(self._text(node)))
        elif tag == "summary" and self._is_question(node):
            self._head(self._below(), one_line(self._text(node)))
            self._summaries.add(len(self.headings))
        elif tag == "table" and (rows := self._rows(node)):
            self._table(node, rows)
        else:
            return False
        return True

    def _below(self) -> int:
        """Return the level below the last heading; details on the same level share it."""
        if not self.headings:
            return 2
        last = self.headings[-1].level
        return last if len(self.headings) in self._summaries else min(last + 1, 6)

    def _is_question(self, summary: "LexborNode") -> bool:
        """Return whether nothing but other details or a heading follows: only then the summary can
        be a heading, since a heading's text goes on to the next one.
        """
        following = summary.parent.next if summary.parent is not None else None
        while following is not None and following.tag == "-text" and not _text_of(following):
            following = following.next
        return following is None or following.tag in {"details", *_HEADINGS}

    def _text(self, root: "LexborNode") -> str:
        """Return all text with its white space, without the signs that link a heading to itself."""
        texts, stack = list[str](), [root]
        while stack:
            node = stack.pop()
            if node.tag == "-text":
                texts.append(node.text_content or "")
            elif node.tag == "br":
                texts.append("\n")
            elif node.tag == "sup" and node.mem_id not in self._unread:
                texts.append(raised("".join(texts[-3:]), node.text() or "", note=_is_note(node)))
            elif node.mem_id not in self._unread and not (
                node.tag == "a" and node.text(strip=True) in _ANCHOR_SIGNS
            ):
                stack.extend(_children(node))
        return cleaned("".join(texts))

    def _ends_open(self) -> bool:
        """Return whether the last text does not end with a mark of its own."""
        return self.out[-1][-1:] not in ":?!." if self.out else True

    def _enter(self, tag: str) -> None:
        self._defines = self._defines or (tag == "dd" and self._owed in (": ", "\n", " "))
        self._separate(tag)
        if tag == "dt":
            self._term = self._length
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
        if tag == "dt" and self._owed == "\n\n":  # a term and its definition are one block
            short = self._length - self._term <= _SHORT_TERM
            self._owed = (": " if self._ends_open() else " ") if short else "\n"

    def _separate(self, tag: str) -> None:
        if tag in _PARAGRAPHS and self._defines:
            return
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

    def _raise(self, node: "LexborNode") -> None:
        before = "".join(self.out[-6:]) + self._owed
        text = raised(before[-40:], node.text() or "", note=_is_note(node))
        if text:
            self._write(text)

    def _fence(self, code: str) -> None:
        ticks = max((len(found) for found in re.findall("`{3,}", code)), default=2) + 1
        if code.strip():
            self._block(f"{'`' * ticks}\n{code.replace(chr(13), '').strip(chr(10))}\n{'`' * ticks}")

    def _head(self, level: int, name: str) -> None:
        if name:
            self._block(name)
            if len(name) <= LONGEST_HEADING:
                end = self._length
                self.headings.append(
                    Heading(level=level, text=name, start=end - len(name), end=end)
                )

    def _block(self, text: str) -> None:
        self._owe("\n\n")
        self._mark = ""
        self._write(text)
        self._owe("\n\n")

    # Tables

    def _rows(self, node: "LexborNode") -> "list[list[LexborNode]]":
        """Return the cells of a table by rows; empty if it only arranges the page."""
        if node.attributes.get("role") in ("presentation", "none") or node.css_first("td table"):
            return []
        rows = [
            [cell for cell in row.iter() if cell.tag in _CELLS]
            for row in node.css("tr")
            if row.mem_id not in self._unread
        ]
        rows = [row for row in rows if row]
        return rows if max(map(len, rows), default=0) > 1 else []

    def _table(self, node: "LexborNode", rows: "list[list[LexborNode]]") -> None:
        if (caption := node.css_first("caption")) is not None:
            self._block(one_line(self._text(caption)))
        cells = [
            [self._cell(cell) for cell in row if cell.mem_id not in self._unread] for row in rows
        ]
        grid = [row for row in filled(cells) if any(row)]
        for part in table(grid, _head_rows(rows)) if grid else ():
            self._block(part)

    def _cell(self, node: "LexborNode") -> Cell:
        inner = _Page(self._unread)
        inner._cells = 1
        for child in node.iter(include_text=True):
            inner.walk(child)
        attributes = node.attributes
        return Cell(
            text="".join(inner.out),
            rows=_span(attributes.get("rowspan")),
            columns=_span(attributes.get("colspan")),
        )

    def _write(self, text: str) -> None:
        owed = self._owed if self.out else ""
        self._length += len(owed)
        if owed in ("\n\n", ""):
            self.breaks += [self._length] if owed or not self.out else []
        self.out += [owed, self._mark, text]
        self._length += len(self._mark) + len(text)
        self._owed, self._mark, self._defines = "", "", False


def _head_rows(rows: "list[list[LexborNode]]") -> int:
    """Count the rows of column names at the top: those with only `th`; else one, but none in a
    table of two columns, which is a list of names and values.
    """
    heads = 0
    for row in rows:
        if any(cell.tag != "th" for cell in row):
            break
        heads += 1
    if not heads and max(map(len, rows)) <= 2:
        return 0
    return max(1, min(heads, len(rows) - 1))


def _span(said: str | None) -> int:
    return min(int(said), 1000) if said and said.isdecimal() and int(said) > 0 else 1


def _is_note(sup: "LexborNode") -> bool:
    """Return whether a superscript is the mark of a note: it is, or has, a link."""
    parent = sup.parent
    return sup.css_first("a") is not None or (parent is not None and parent.tag == "a")


def _text_of(node: "LexborNode") -> str:
    return (node.text_content or "").strip()


def _children(node: "LexborNode") -> "Iterator[LexborNode]":
    return reversed(list(node.iter(include_text=True)))


_SEPARATORS: tuple[str, ...] = ("", " ", " | ", ": ", "\n", "\n\n")
