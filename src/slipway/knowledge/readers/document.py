"""The result of reading a file, a builder for it, and the error of files that cannot be read."""

import re
from collections import deque
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


class Loss(Record, frozen=True, kw_only=True):
    """Something that the file holds and the text lacks: `what` as a clause with a verb ("2 charts
    are not read"), and the `fix`.
    """

    what: str
    fix: str = ""


class ParsedDocument(Record, frozen=True, kw_only=True):
    """A file's text with its structure.

    `headings` and `breaks` (starts of paragraphs, lists, code, tables) are in order. Text before
    `body` is not shown (front matter). Page or slide n starts at `pages[n - 1]`; kinds without
    pages have none. `meta` is the front matter of Markdown, or `title`, `author` and `date`
    (ISO 8601) of PDF and office files, in JSON types only. `losses` is what could not be read.
    """

    title: str
    text: str
    headings: tuple[Heading, ...] = ()
    breaks: tuple[int, ...] = ()
    body: int = 0
    pages: tuple[int, ...] = ()
    meta: dict[str, Any] = {}  # noqa: RUF012 - msgspec makes a new one for each
    losses: tuple[Loss, ...] = ()


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


def counted(number: int, one: str, several: str) -> str:
    """Return `1 chart` or `2 charts`."""
    return f"{number} {one if number == 1 else several}"


class DocumentBuilder:
    """Build a document block by block, with a blank line between blocks."""

    def __init__(self) -> None:
        self.headings: list[Heading] = []
        self.breaks: list[int] = []
        self.pages: list[int] = []
        self.losses: list[Loss] = []
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

    def include(self, document: ParsedDocument, below: int = 0) -> None:
        """Add another document's text and structure, its headings `below` levels lower."""
        shift = self._length - document.body
        self.headings += [
            Heading(
                level=heading.level + below,
                text=heading.text,
                start=heading.start + shift,
                end=heading.end + shift,
            )
            for heading in document.headings
        ]
        self.breaks += [shift + at for at in document.breaks if at >= document.body]
        self.losses += document.losses
        text = document.text[document.body :].rstrip() + "\n\n"
        self._out.append(text)
        self._length += len(text)

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
            losses=tuple(self.losses),
        )


# Tables

_WIDEST_HEAD = 400
# characters: a block is about one passage, so each passage begins with the column names
_BLOCK = 1000


def table(rows: Sequence[Sequence[str]], heads: int = 1) -> Iterable[str]:
    """Yield Markdown tables of about one passage each. Every table repeats the column names, which
    are in the first `heads` rows (0: none); if they are too long, rows become lines of
    `name: value` pairs.
    """
    cells = [[_cell(cell) for cell in row] for row in rows]
    head, rest = _joined_heads(cells[:heads]), cells[heads:]
    top = [" | ".join(head), " | ".join(["---"] * len(head))] if head else []
    wide = len("".join(top[:1])) > _WIDEST_HEAD
    lines = [_pairs(head, row) if wide else " | ".join(row).rstrip() for row in rest]
    return (
        "\n".join([*([] if wide and rest else top), *part])
        for part in _parts(lines, _BLOCK - (0 if wide else len("".join(top[:1]))))
    )


def write_grid(builder: "DocumentBuilder", grid: list[list[str]], heads: int = 1) -> None:
    """Write a table. Rows at the top that say one thing only are its title; a table of one column
    is a frame around text.
    """
    rows = [row for row in grid if any(row)]
    if rows and max(map(len, rows)) == 1:
        for row in rows:
            builder.block(row[0])
        return
    while len(rows) > 1 and len(rows[0]) > 1 and len({*filter(None, rows[0])}) == 1:
        if not all(rows[0]):
            break
        builder.block(rows[0][0])
        rows, heads = rows[1:], max(heads - 1, 1)
    for part in table(rows, max(1, min(heads, len(rows)))) if rows else ():
        builder.block(part)


def _joined_heads(rows: list[list[str]]) -> list[str]:
    """Join the names of several head rows by column: `2025` above `Q1` becomes `2025 Q1`."""
    width = max(map(len, rows), default=0)
    columns = zip(*(row + [""] * (width - len(row)) for row in rows), strict=True)
    return [" ".join(dict.fromkeys(filter(None, column))) for column in columns]


class Cell(Record, frozen=True, kw_only=True):
    """A table cell that covers `rows` x `columns` cells of the grid."""

    text: str
    rows: int = 1
    columns: int = 1


_WIDEST_GRID = 1000  # columns


def filled(rows: Iterable[Sequence[Cell]]) -> list[list[str]]:
    """Return the grid of a table, with the text of merged cells repeated in each cell that they
    cover.
    """
    grid: list[list[str]] = []
    spans: dict[int, tuple[int, str]] = {}  # column -> (rows that are still covered, text)
    for row in rows:
        cells = deque(cell for cell in row for _ in range(max(1, min(cell.columns, _WIDEST_GRID))))
        out, later = list[str](), dict[int, tuple[int, str]]()
        while (cells or len(out) in spans) and len(out) < _WIDEST_GRID:
            if len(out) in spans:
                left, text = spans[len(out)]
            else:
                cell = cells.popleft()
                left, text = cell.rows, cell.text
            if left > 1:
                later[len(out)] = (left - 1, text)
            out.append(text)
        spans = later
        grid.append(out)
    return grid


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


# Raised text

_UNIT = re.compile(r"(?:^|[^\w])(?:[kcmdµn]?m|ft|in|yd|mi|s|h|ha|kg)$")
_POWERS = {"2": "²", "3": "³"}


def raised(before: str, text: str, *, note: bool = False) -> str:
    """Return a superscript as text that does not change the number or word `before` it: an exponent
    as `^6`, an ordinal (`1st`) and the square of a unit (`m²`) joined. The marks of notes are left
    out: they are no part of the sentence, and look like citations.
    """
    text = one_line(text)
    if note or (text and before and _is_note(before, text)):
        return ""
    if not any(character.isdigit() for character in text) or not before[-1:].strip():
        return text
    if _UNIT.search(before) and text in _POWERS:
        return _POWERS[text]
    return f"^{text}" if text.lstrip("-+−–").isalnum() else f"^({text})"


def _is_note(before: str, text: str) -> bool:
    """Return whether a superscript is the mark of a note: a number after a word or a full stop, or
    a 1 after a number, since nobody writes that exponent.
    """
    if not re.fullmatch(r"\(?\d{1,3}\)?(?:,\s?\d{1,3})*", text):
        return False
    word = re.search(r"[^\W\d_]*\W*$", before)
    long_word = word is not None and len(word[0].rstrip()) > 2
    return long_word or not before[-1].isalnum() or (before[-1].isdigit() and text == "1")


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
