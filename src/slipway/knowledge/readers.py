"""A file's bytes become a `Document`: its text, its headings and the places where it may be cut, all as offsets in that text.

For Markdown, reStructuredText and plain text the text is the decoded file: the byte order mark dropped, line ends normalised to `\\n`,
nothing else changed. For HTML it is the page's readable text (see `html`). A kind of document is one row of `READERS`.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from slipway.types import Record

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token
    from selectolax.lexbor import LexborNode


class Heading(Record, frozen=True, kw_only=True):
    """[start, end) is the heading's own line or lines, the line end included; `text` is what it says, without markup."""

    level: int
    text: str
    start: int
    end: int


class Document(Record, frozen=True, kw_only=True):
    """Headings and `breaks` (starts of blocks: paragraphs, lists, code, tables) are in order; what is before `body` is not for readers."""

    title: str
    text: str
    headings: tuple[Heading, ...] = ()
    breaks: tuple[int, ...] = ()
    body: int = 0


class Unreadable(Exception):
    """`str()` says what is wrong with the file and what to do."""


Reader = Callable[[str, str], Document]  # (decoded text, title if it has none of its own) -> Document


def read(data: bytes, path: str) -> Document:
    """Reads a file by its suffix. Raises Unreadable."""
    document = READERS[PurePosixPath(path).suffix.lower()](_decoded(data), _humanised(path))
    if not document.text[document.body :].strip():
        raise Unreadable("It has no readable text; add some, or remove the file.")
    return document


def _decoded(data: bytes) -> str:
    if not data.strip():
        raise Unreadable("It is empty; add text, or remove the file.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"It is not UTF-8 text (byte {error.start} does not fit); save it as UTF-8.") from None
    if "\0" in text:
        raise Unreadable("It is not text (it has zero bytes); export it as Markdown, HTML or text.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _humanised(path: str) -> str:
    words = one_line(re.sub(r"[-_.]+", " ", PurePosixPath(path).stem))
    return words[:1].upper() + words[1:] or path


def one_line(text: str) -> str:
    return " ".join(text.split())


# Markdown

_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_FRONT_TITLE = re.compile(r"^title[ \t]*:[ \t]*(?P<quote>[\"']?)(?P<title>.*?)(?P=quote)[ \t]*$", re.MULTILINE | re.IGNORECASE)
_ATTRIBUTES = re.compile(r"\{\s*[:#.][^{}]*\}\s*$")  # `{ #anchor }`, which MkDocs, Docusaurus and Pandoc write after a heading
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LONGEST_HEADING = 300  # what is longer is text
_SAYS_TEXT = frozenset({"text", "text_special", "code_inline", "image"})


def markdown(text: str, fallback: str) -> Document:
    """CommonMark with tables. Only headings at the outermost level count: not those in lists, quotes or code."""
    front = _FRONT_MATTER.match(text)
    base = front.end() if front else 0
    lines = _line_starts(text, base)
    tokens = _markdown_parser().parse(text[base:])
    headings = tuple(_markdown_headings(text, tokens, lines))
    title = next((heading.text for heading in headings if heading.level == 1), "") or _front_title(front) or fallback
    breaks = tuple(lines[token.map[0]] for token in tokens if token.level == 0 and token.map)
    return Document(title=title, text=text, headings=headings, breaks=breaks, body=base)


def _markdown_headings(text: str, tokens: "list[Token]", lines: list[int]) -> list[Heading]:
    found = []
    for token, inside in itertools.pairwise(tokens):
        if token.type != "heading_open" or token.level > 0 or token.map is None:
            continue
        start, end = (lines[number] for number in token.map)
        name = _unmarked(inside.content)
        if 0 < len(name) <= _LONGEST_HEADING:
            found.append(Heading(level=_HEADINGS[token.tag], text=name, start=start, end=end))
    return _without_comments(text, found)


def _without_comments(text: str, headings: list[Heading]) -> list[Heading]:
    """Pages saved from the web hold code that nobody fenced, with `# comments` that look like titles. Such a line is told by the page's own
    habit: its lower headings all stand clear between blank lines, and this one, not the first, hangs on the text above or below.
    """
    lower = [heading for heading in headings if heading.level > 1]
    if not lower or not all(_stands_clear(text, heading) for heading in lower):
        return headings
    return [heading for heading in headings if heading is headings[0] or heading.level > 1 or _stands_clear(text, heading)]


def _stands_clear(text: str, heading: Heading) -> bool:
    above = text[text.rfind("\n", 0, max(heading.start - 1, 0)) + 1 : heading.start]
    end = text.find("\n", heading.end)
    return not above.strip() and not text[heading.end : end if end >= 0 else None].strip()


def _unmarked(source: str) -> str:
    """``Use `foo` **now** { #now }`` says `Use foo now`."""
    parser, tokens = _markdown_parser(), list["Token"]()
    parser.inline.parse(_ATTRIBUTES.sub("", source), parser, {}, tokens)
    return one_line("".join(token.content if token.type in _SAYS_TEXT else " " * (token.type == "softbreak") for token in tokens))


def _front_title(front: re.Match[str] | None) -> str:
    found = _FRONT_TITLE.search(front.group(1)) if front else None
    return one_line(found["title"]) if found else ""


def _line_starts(text: str, base: int) -> list[int]:
    """Offsets of the lines from `base` on, and of the end, so that every line has a start and an end."""
    return [base, *(found.end() for found in re.compile("\n").finditer(text, base)), len(text)]


@cache
def _markdown_parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt  # 60 ms to import, and only needed where there is Markdown

    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.disable(["inline", "text_join"])  # only headings need it, and they ask for it one by one
    return parser


# Plain text

_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_RULE = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*$")
_TITLE_LENGTH = 80


def restructured(text: str, fallback: str) -> Document:
    """reStructuredText: headings are underlined, perhaps overlined too; a style's rank is the order in which it first appears."""
    rows, lines = text.split("\n"), _line_starts(text, 0)
    ranks: dict[tuple[str, bool], int] = {}
    headings = []
    for number in range(len(rows) - 1):
        before = rows[number - 1].rstrip() if number else ""
        if not _is_underlined(before, rows[number], rows[number + 1].rstrip()):
            continue
        over = bool(before)
        level = ranks.setdefault((rows[number + 1][0], over), len(ranks) + 1)
        name = one_line(rows[number].replace("`", ""))
        headings.append(Heading(level=level, text=name, start=lines[number - over], end=lines[number + 2]))
    title = headings[0].text if headings else fallback
    return Document(title=title, text=text, headings=tuple(headings), breaks=_paragraphs(text))


def _is_underlined(before: str, row: str, rule: str) -> bool:
    if not row.strip() or _RULE.match(row) or not _RULE.match(rule) or len(rule) < len(row.strip()):
        return False
    return before == rule or (not before and not row[0].isspace())


def plain(text: str, fallback: str) -> Document:
    """No headings. A short first line that stands alone and does not end like a sentence is the title."""
    first, _, rest = text.strip().partition("\n")
    alone = rest.startswith(("\n", "==", "--")) and bool(rest.strip("\n=- "))
    titled = alone and len(first) <= _TITLE_LENGTH and not first.rstrip().endswith((".", ",", ";", ":"))
    return Document(title=one_line(first) if titled else fallback, text=text, breaks=_paragraphs(text))


def _paragraphs(text: str) -> tuple[int, ...]:
    return (0, *(found.end() for found in _BLANK_LINES.finditer(text)))


# HTML

_UNREAD = (
    "script, style, nav, aside, noscript, template, svg, button, select, textarea, iframe, object, canvas, [hidden], a.headerlink, "
    "[role=navigation], [role=banner], [role=contentinfo], [role=complementary], [role=search]"
)
_PAGE_ENDS = "header, footer"  # unread, except inside these, where they belong to the text (HTML's own rule for banners)
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


def html(text: str, fallback: str) -> Document:
    """The readable text of a page: no scripts, menus, page headers and footers; only `main` where there is one. Paragraphs are set apart by
    a blank line, list items stand on lines of their own after `- `, table cells are separated by ` | `, `pre` is fenced as in Markdown.
    """
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(text)
    unread = {node.mem_id for node in tree.css(_UNREAD)}
    unread |= {node.mem_id for node in tree.css(_PAGE_ENDS) if not _is_inside(node, _OWN_ENDS)}
    page = _Page(unread)
    for root in (tree.css_first("main, [role=main]"), tree.body):
        if root is not None and not page.out:
            page.walk(root)
    named = tree.css_first("title")
    title = next((heading.text for heading in page.headings if heading.level == 1), "")
    title = title or (one_line(named.text()) if named else "") or fallback
    return Document(title=title, text="".join(page.out), headings=tuple(page.headings), breaks=tuple(page.breaks))


def _is_inside(node: "LexborNode", tags: frozenset[str]) -> bool:
    while node.parent is not None:
        node = node.parent
        if node.tag in tags:
            return True
    return False


class _Page:
    """Text as it comes out of a walk over the tree. Separators are owed until the next text, so that the strongest one wins."""

    def __init__(self, unread: set[int]) -> None:
        self.out: list[str] = []
        self.headings: list[Heading] = []
        self.breaks: list[int] = []
        self._unread = unread  # nodes, by their ids
        self._length = 0
        self._owed, self._mark = "", ""  # the mark is a list item's, and waits for its text
        self._cells = 0  # how deep in table cells: blocks in there stay on the row's line
        self._items = 0  # how deep in list items: blocks in there follow line by line

    def walk(self, root: "LexborNode") -> None:
        """Without recursion: pages nest as deep as they like."""
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
        """All the text in it, white space kept; without the signs that link a heading to itself."""
        texts, stack = [], [root]
        while stack:
            node = stack.pop()
            if node.tag == "-text":
                texts.append(node.text_content or "")
            elif node.tag == "br":
                texts.append("\n")
            elif node.mem_id not in self._unread and not (node.tag == "a" and node.text(strip=True) in _ANCHOR_SIGNS):
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
            self._owe(" " if self._cells else "\n\n" if tag in _PARAGRAPHS and not self._items else "\n")

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
            if len(name) <= _LONGEST_HEADING:
                self.headings.append(Heading(level=level, text=name, start=self._length - len(name), end=self._length))
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


READERS: dict[str, Reader] = {
    ".md": markdown,
    ".markdown": markdown,
    ".html": html,
    ".htm": html,
    ".txt": plain,
    ".rst": restructured,
}
