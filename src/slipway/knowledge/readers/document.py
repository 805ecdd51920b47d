"""What a reader makes of a file, and what it raises where it cannot."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from slipway.types import Record

LONGEST_HEADING = 300  # what is longer is text

OnPage = Callable[
    [int], None
]  # told which page or slide is read next, so that one that takes too long can be named


class Heading(Record, frozen=True, kw_only=True):
    """[start, end) is the heading's own line or lines, the line end included; `text` is what it
    says, without markup.

    A heading that does not stand in the text (a bookmark of a PDF) has `start == end`, where what
    it names begins.
    """

    level: int
    text: str
    start: int
    end: int


class Document(Record, frozen=True, kw_only=True):
    """Headings and `breaks` (starts of blocks: paragraphs, lists, code, tables) are in order; what
    is before `body` is not for readers.

    Page or slide n starts at `pages[n - 1]`; kinds without pages have none. `meta` is what the file
    says of itself: the front matter of Markdown, or `title`, `author` and `date` (ISO 8601) of PDF
    and office files. It holds JSON's types only. `pages_without_text` are those of a PDF that were
    scanned, where others were not.
    """

    title: str
    text: str
    headings: tuple[Heading, ...] = ()
    breaks: tuple[int, ...] = ()
    body: int = 0
    pages: tuple[int, ...] = ()
    meta: dict[str, Any] = {}  # noqa: RUF012 - msgspec makes a new one for each


class Unreadable(Exception):
    """`what` is wrong with the file, on which page or slide where that is known, and what to do.
    `str()` is all of it as one sentence.
    """

    def __init__(self, what: str, fix: str = "", page: int | None = None) -> None:
        super().__init__(what, fix, page)
        self.what, self.fix, self.page = what.removesuffix("."), fix.removesuffix("."), page

    def __str__(self) -> str:
        where = f" (page {self.page})" if self.page else ""
        return f"{self.what}{where}{'; ' * bool(self.fix)}{self.fix}."


def one_line(text: str) -> str:
    return " ".join(text.split())


class Draft:
    """A document that is written block by block; blocks are set apart by a blank line."""

    def __init__(self) -> None:
        self.headings: list[Heading] = []
        self.breaks: list[int] = []
        self.pages: list[int] = []
        self._out: list[str] = []
        self._length = 0

    def page(self) -> None:
        """What comes next is on a new page."""
        self.pages.append(self._length)

    def block(self, text: str) -> None:
        if text := text.strip():
            self.breaks.append(self._length)
            self._out.append(f"{text}\n\n")
            self._length += len(text) + 2

    def heading(self, level: int, text: str) -> None:
        name, start = one_line(text), self._length
        self.block(name)
        if 0 < len(name) <= LONGEST_HEADING:
            self.headings.append(
                Heading(level=level, text=name, start=start, end=start + len(name) + 1)
            )

    def name(self, level: int, text: str) -> None:
        """A heading that is not part of the text."""
        if name := one_line(text)[:LONGEST_HEADING]:
            self.headings.append(
                Heading(level=level, text=name, start=self._length, end=self._length)
            )

    def document(self, title: str, meta: dict[str, Any]) -> Document:
        return Document(
            title=title,
            text="".join(self._out),
            headings=tuple(self.headings),
            breaks=tuple(self.breaks),
            pages=tuple(self.pages),
            meta=meta,
        )


# Tables

_WIDEST_HEAD = 400
# characters: a block is about one passage, so that each passage begins with the names of its
# columns
_BLOCK = 1000


def table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Blocks of rows as Markdown tables, each beginning with the first row, which names the
    columns. Where that row is too long to be repeated, each row becomes a line of `name: value`
    pairs instead.
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
    """`meta` of what is known. Titles that programs make up are left out."""
    named = one_line(title or "")
    known = {
        "title": "" if _USELESS.match(named) else named,
        "author": one_line(author or ""),
        "date": date or "",
    }
    return {key: value for key, value in known.items() if value}
