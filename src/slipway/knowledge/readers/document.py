"""The result of reading a file, a builder for it, and the error of files that cannot be read."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from slipway.types import Record

LONGEST_HEADING = 300  # characters; longer lines are text

OnPage = Callable[
    [int], None
]  # called with the page or slide that is read next, so that a timeout can name it


class Heading(Record, frozen=True, kw_only=True):
    """A heading: [start, end) are its lines with the line end; `text` is without markup.

    A heading that is not in the text (a PDF bookmark) has `start == end` at the text it names.
    """

    level: int
    text: str
    start: int
    end: int


class ParsedDocument(Record, frozen=True, kw_only=True):
    """A file's text with its structure.

    `headings` and `breaks` (starts of paragraphs, lists, code, tables) are in order. Text before
    `body` is not shown (front matter). Page or slide n starts at `pages[n - 1]`; kinds without
    pages have none. `meta` is the front matter of Markdown, or `title`, `author` and `date`
    (ISO 8601) of PDF and office files, in JSON types only. Its `pages_without_text` lists the
    scanned pages of a PDF that has text on others.
    """

    title: str
    text: str
    headings: tuple[Heading, ...] = ()
    breaks: tuple[int, ...] = ()
    body: int = 0
    pages: tuple[int, ...] = ()
    meta: dict[str, Any] = {}  # noqa: RUF012 - msgspec makes a new one for each


class UnreadableFile(Exception):
    """A file cannot be read: `what` is wrong, on which page or slide if known, and the `fix`.
    `str()` joins them to a sentence.
    """

    def __init__(self, what: str, fix: str = "", page: int | None = None) -> None:
        super().__init__(what, fix, page)
        self.what, self.fix, self.page = what.removesuffix("."), fix.removesuffix("."), page

    def __str__(self) -> str:
        where = f" (page {self.page})" if self.page else ""
        return f"{self.what}{where}{'; ' * bool(self.fix)}{self.fix}."


def one_line(text: str) -> str:
    """Join white space, line ends included, to single spaces."""
    return " ".join(text.split())


class DocumentBuilder:
    """Build a document block by block, with a blank line between blocks."""

    def __init__(self) -> None:
        self.headings: list[Heading] = []
        self.breaks: list[int] = []
        self.pages: list[int] = []
        self._out: list[str] = []
        self._length = 0

    def page(self) -> None:
        """Start a new page."""
        self.pages.append(self._length)

    def block(self, text: str) -> None:
        """Add a paragraph, list or table; empty text is ignored."""
        if text := text.strip():
            self.breaks.append(self._length)
            self._out.append(f"{text}\n\n")
            self._length += len(text) + 2

    def heading(self, level: int, text: str) -> None:
        """Add a heading; one that is too long becomes a paragraph."""
        name, start = one_line(text), self._length
        self.block(name)
        if 0 < len(name) <= LONGEST_HEADING:
            self.headings.append(
                Heading(level=level, text=name, start=start, end=start + len(name) + 1)
            )

    def name(self, level: int, text: str) -> None:
        """Add a heading that is not part of the text."""
        if name := one_line(text)[:LONGEST_HEADING]:
            self.headings.append(
                Heading(level=level, text=name, start=self._length, end=self._length)
            )

    def document(self, title: str, meta: dict[str, Any]) -> ParsedDocument:
        """Return the document that was built."""
        return ParsedDocument(
            title=title,
            text="".join(self._out),
            headings=tuple(self.headings),
            breaks=tuple(self.breaks),
            pages=tuple(self.pages),
            meta=meta,
        )


# Tables

_WIDEST_HEAD = 400
# characters: a block is about one passage, so each passage begins with the column names
_BLOCK = 1000


def table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Yield Markdown tables of about one passage each. Every table repeats the first row, which
    names the columns; if that row is too long, rows become lines of `name: value` pairs instead.
    """
    head, *rest = ([_cell(cell) for cell in row] for row in rows)
    top = [" | ".join(head), " | ".join(["---"] * len(head))]
    wide = len(top[0]) > _WIDEST_HEAD
    lines = [_pairs(head, row) if wide else " | ".join(row).rstrip() for row in rest]
    return (
        "\n".join([*([] if wide and rest else top), *part])
        for part in _parts(lines, _BLOCK - (0 if wide else len(top[0])))
    )


def _parts(lines: list[str], longest: int) -> Iterable[list[str]]:
    part, length = list[str](), 0
    for line in lines:
        if part and length + len(line) > longest:
            yield part
            part, length = [], 0
        part.append(line)
        length += len(line) + 1
    if part or not lines:
        yield part


def _pairs(head: list[str], row: list[str]) -> str:
    names = [*head, *[""] * (len(row) - len(head))]
    return "; ".join(
        f"{name}: {cell}" if name else cell for name, cell in zip(names, row, strict=False) if cell
    )


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")


# Metadata

_USELESS = re.compile(
    r"untitled|(microsoft )?(word|powerpoint|excel) ?- |(powerpoint )?presentation\d*$|document\d*$|.*\.\w{2,4}$",
    re.IGNORECASE,
)


def described(title: str | None, author: str | None, date: str | None) -> dict[str, Any]:
    """Return `meta` with the known values, without titles that programs invent."""
    named = one_line(title or "")
    known = {
        "title": "" if _USELESS.match(named) else named,
        "author": one_line(author or ""),
        "date": date or "",
    }
    return {key: value for key, value in known.items() if value}
