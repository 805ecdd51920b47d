"""Decide from positions and letters of PDF lines what is a running line, a heading or a paragraph."""

import itertools
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from slipway.knowledge.readers.document import DocumentBuilder
from slipway.knowledge.readers.pdf_tables import joined_rows, parts
from slipway.knowledge.readers.pdf_text import TextLine
from slipway.types import Record

_LARGER = 1.12  # a heading's letters are larger than the text's by this factor
_LONGEST_HEADING, _RANKS = 120, 4
# headings below the bookmarked ones need a style that occurs so often: a rare one is an address or
# a figure
_OFTEN = 3


class Bookmark(Record, frozen=True, kw_only=True):
    """A bookmark: its level, its text, and the index of its page."""

    level: int
    text: str
    page: int


class Layout:
    """The layout of a whole file: its lines without running lines, and which are headings."""

    def __init__(self, pages: list[list[TextLine]], bookmarks: list[Bookmark]) -> None:
        self._pages = [_in_columns(joined_rows(lines)) for lines in _without_running_lines(pages)]
        self._bookmarks = bookmarks
        self._ranks = _ranks_below(bookmarks, self._pages) if bookmarks else _ranks(self._pages)

    def write(self, builder: DocumentBuilder, number: int) -> None:
        """Write the page with that index."""
        here = [bookmark for bookmark in self._bookmarks if bookmark.page == number]
        _write(builder, self._pages[number], here, self._ranks)

    def title(self) -> str:
        """Return the first words in the largest letters of the first page with text; empty if they
        are no larger than the text.
        """
        page = next((lines for lines in self._pages if lines), [])
        largest = max((line.size for line in page), default=0.0)
        if largest < _text_size(self._pages) * _LARGER:
            return ""
        _, group = next(
            (size, list(group))
            for size, group in itertools.groupby(page, key=lambda line: line.size)
            if size == largest
        )
        title = " ".join(line.text for line in group[:3])
        return title if len(title) <= _LONGEST_HEADING else ""


# Running headers and footers

_EDGE_LINES = 3
_PAGE_NUMBER = re.compile(
    r"[-–—\s]*(?:page|seite|p\.)?\s*(?:\d{1,5}|[ivxlc]{1,7})(?:\s*(?:of|von|de|/|\|)\s*\d{1,5})?[-–—\s]*$",
    re.IGNORECASE,
)


def _without_running_lines(pages: list[list[TextLine]]) -> list[list[TextLine]]:
    """Drop headers and footers: lines set apart from the text, at the same height on many pages,
    with the same words except numbers, or with the page number. Larger letters are headings, and
    are dropped only if all their words repeat.
    """
    text_size = _text_size(pages)
    edges = [_edge(lines, top=True) + _edge(lines, top=False) for lines in pages]
    seen = Counter(
        key
        for page, lines in enumerate(edges)
        for key in {key for line in lines for key in _running(line, page, text_size)}
    )
    often = max(3, 0.4 * sum(map(bool, pages)))

    def runs(line: TextLine, page: int) -> bool:
        return bool(_PAGE_NUMBER.match(line.text)) or any(
            seen[key] >= often for key in _running(line, page, text_size)
        )

    return [
        [line for line in lines if line not in edge or not runs(line, page)]
        for page, (lines, edge) in enumerate(zip(pages, edges, strict=True))
    ]


def _edge(lines: list[TextLine], *, top: bool) -> list[TextLine]:
    """Return the top or bottom lines of a page if they are in its margin and few, and a gap
    follows.
    """
    ordered = sorted(lines, key=lambda line: line.bottom, reverse=top)
    for number, (outer, inner) in enumerate(
        itertools.pairwise(ordered[: _EDGE_LINES + 1]), start=1
    ):
        if not outer.margin:
            return []
        if abs(outer.bottom - inner.bottom) > 1.8 * min(outer.size, inner.size):
            return ordered[:number]
    return []


# amounts, dates and long numbers: no page numbers
_VALUE = re.compile(r"\d[.,:]\d|[€$£¥%]|\d{6,}|\d[-/.]\d")


def _running(line: TextLine, page: int, text_size: float) -> set[tuple[str | int, int]]:
    """Return keys that other pages share for a running line, with the height: its words, and the
    distance of a number at either end from the page's index. Values, such as amounts, must be the
    same.
    """
    height = round(line.bottom / 4)
    if line.size >= text_size * _LARGER or _VALUE.search(line.text):
        return {(line.text, height)}
    numbers = (
        found[0]
        for found in (re.match(r"\d{1,5}(?= )", line.text), re.search(r"(?<= )\d{1,5}$", line.text))
        if found
    )
    return {
        (re.sub(r"\d+", "#", line.text), height),
        *((int(number) - page, height) for number in numbers),
    }


def _in_columns(lines: list[TextLine]) -> list[TextLine]:
    """Put vertical lines, as Chinese and Japanese may be written, from right to left."""
    if sum(line.vertical for line in lines) * 2 < len(lines) or not lines:
        return lines
    return sorted(lines, key=lambda line: (-round(line.left / max(line.size, 1)), -line.top))


def _text_size(pages: Sequence[Sequence[TextLine]]) -> float:
    """Return the size of most letters."""
    sizes = Counter[float]()
    for line in itertools.chain.from_iterable(pages):
        sizes[line.size] += len(line.text)
    return sizes.most_common(1)[0][0] if sizes else 0.0


# Headings


def _ranks(pages: list[list[TextLine]]) -> dict[tuple[float, bool], int]:
    """Map (size, bold) of headings to levels: larger letters first, then bold ones of text size.
    Empty if half of the lines qualify.
    """
    usual = _text_size(pages)
    every = list(itertools.chain.from_iterable(pages))
    looks = Counter((line.size, line.bold) for line in every if _looks_like_heading(line, usual))
    if not looks or sum(looks.values()) * 2 > len(every):
        return {}
    return {
        look: min(rank, _RANKS) for rank, look in enumerate(sorted(looks, reverse=True), start=1)
    }


def _ranks_below(
    bookmarks: list[Bookmark], pages: list[list[TextLine]]
) -> dict[tuple[float, bool], int]:
    """Map styles to levels below the bookmarks, which often name only the chapters: sizes between
    those of bookmarked headings and of the text.
    """
    located = (
        (pages[bookmark.page], *_located(pages[bookmark.page], bookmark, 0))
        for bookmark in bookmarks
    )
    known = {
        (line.size, line.bold)
        for lines, start, stop in located
        for line in lines[max(start, 0) : max(stop, 0)]
    }
    largest, usual = max(known, default=(0.0, False))[0], _text_size(pages)
    counts = Counter(
        (line.size, line.bold)
        for line in itertools.chain.from_iterable(pages)
        if _looks_like_heading(line, usual)
    )
    looks = [
        look
        for look in _ranks(pages)
        if look not in known and usual * _LARGER <= look[0] < largest and counts[look] >= _OFTEN
    ]
    lowest = max(bookmark.level for bookmark in bookmarks)
    return {look: lowest + rank for rank, look in enumerate(looks, start=1)}


_LEADER = re.compile(r"(?:\. ?){4}|…{2}")  # dots of a table of contents


def _looks_like_heading(line: TextLine, usual: float) -> bool:
    short = (
        len(line.text) <= _LONGEST_HEADING
        and any(sign.isalpha() for sign in line.text)
        and not _LEADER.search(line.text)
    )
    return short and (
        line.size >= usual * _LARGER
        or (line.bold and line.size >= usual and not line.text.endswith((".", ",", ";", ":")))
    )


def _key(text: str) -> str:
    """Return the letters and digits, to compare bookmarks with lines."""
    return "".join(sign for sign in text.casefold() if sign.isalnum())


def _located(lines: list[TextLine], bookmark: Bookmark, after: int) -> tuple[int, int]:
    """Find the up to three lines with the text of a bookmark; (-1, -1) if there are none. The
    bookmark may lack the number of the title.
    """
    wanted = _key(bookmark.text)
    for start in range(after, len(lines)):
        for stop in range(start + 1, min(start + 4, len(lines) + 1)):
            said = "".join(_key(line.text) for line in lines[start:stop])
            if wanted and (
                said == wanted
                or (len(wanted) > 3 and re.fullmatch(rf"[0-9ivxa]{{0,8}}{re.escape(wanted)}", said))
            ):
                return start, stop
            if len(said) > len(wanted) + 8:
                break
    return -1, -1


# Blocks of a page


class PdfHeading(Record, frozen=True, kw_only=True):
    """A heading in the lines [start, stop) of a page; start == stop if a bookmark is not in the
    text.
    """

    start: int
    stop: int
    level: int
    text: str


def _write(
    builder: DocumentBuilder,
    lines: list[TextLine],
    bookmarks: list[Bookmark],
    ranks: dict[tuple[float, bool], int],
) -> None:
    at = 0
    for head in _heads(lines, bookmarks, ranks):
        for block in _blocks(lines[at : head.start]):
            builder.block(block)
        if head.stop > head.start:
            builder.heading(head.level, head.text)
        else:
            builder.name(head.level, head.text)
        at = head.stop
    for block in _blocks(lines[at:]):
        builder.block(block)


def _heads(
    lines: list[TextLine], bookmarks: list[Bookmark], ranks: dict[tuple[float, bool], int]
) -> list[PdfHeading]:
    """Return headings in order; bookmarks win over letter sizes for the same lines."""
    marked = list(_by_marks(lines, bookmarks))
    taken = {number for head in marked for number in range(head.start, head.stop)}
    ranked = [
        head for head in _by_rank(lines, ranks) if taken.isdisjoint(range(head.start, head.stop))
    ]
    return sorted([*marked, *ranked], key=lambda head: (head.start, head.stop))


def _by_marks(lines: list[TextLine], bookmarks: list[Bookmark]) -> Iterator[PdfHeading]:
    """Yield headings from bookmarks; one that is not found is put after the heading before it."""
    after = 0
    for bookmark in bookmarks:
        start, stop = _located(lines, bookmark, after)
        if start < 0:
            start = stop = after
        yield PdfHeading(start=start, stop=stop, level=bookmark.level, text=bookmark.text)
        after = stop


def _by_rank(lines: list[TextLine], ranks: dict[tuple[float, bool], int]) -> Iterator[PdfHeading]:
    """Yield headings from styles; up to three lines in a row of one style are one heading."""
    at = 0
    for level, group in itertools.groupby(lines, key=lambda line: _level(line, ranks)):
        said = [line.text for line in group]
        if level and len(said) <= 3:
            yield PdfHeading(start=at, stop=at + len(said), level=level, text=" ".join(said))
        at += len(said)


def _level(line: TextLine, ranks: dict[tuple[float, bool], int]) -> int:
    """Return the heading level of a line; 0 for text."""
    return ranks.get((line.size, line.bold), 0) if len(line.text) <= _LONGEST_HEADING else 0


_ITEM = re.compile(r"(?:[•◦▪‣·*–—-]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+\S")
_COLUMN = 0.3  # of the page's width: narrower columns are not prose
_FULL = 0.85  # a line that fills so much of the width continues in the next one


def _blocks(lines: list[TextLine]) -> Iterator[str]:
    """Yield tables and paragraphs, in order."""
    for blocks, text in parts(lines):
        yield from blocks
        yield from _paragraphs(text)


def _paragraphs(lines: list[TextLine]) -> Iterator[str]:
    """Yield paragraphs, split at larger distances and other letter sizes."""
    distances = [
        above.bottom - below.bottom
        for above, below in itertools.pairwise(lines)
        if 0 < above.bottom - below.bottom < 4 * above.size
    ]
    usual = statistics.median(distances) if distances else 0.0
    narrowest = _COLUMN * max((line.right for line in lines), default=0.0)
    group = list[TextLine]()
    for line in lines:
        if group and _is_apart(group[-1], line, usual):
            yield _joined(group, narrowest)
            group = []
        group.append(line)
    if group:
        yield _joined(group, narrowest)


def _is_apart(above: TextLine, below: TextLine, usual: float) -> bool:
    if above.vertical and below.vertical:
        return False
    distance = above.bottom - below.bottom
    return (
        distance > 1.4 * usual + 0.5
        or (distance < -0.5 * below.size and above.text.endswith("."))
        or abs(above.size - below.size) > 1
    )


# scripts that are written without spaces: Chinese, Japanese, Thai, Lao, Khmer, Burmese
_UNSPACED = re.compile(
    "[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
)


def _joined(lines: list[TextLine], narrowest: float) -> str:
    """Join lines: those that reach the right edge continue in the next line; others, such as rows
    and list items, keep their line end.
    """
    left = min(line.left for line in lines)
    width = max(narrowest, max(line.right for line in lines) - left)
    out = lines[0].text
    for above, below in itertools.pairwise(lines):
        full = above.vertical or (above.right - left >= _FULL * width and not above.cells)
        same_row = abs(above.bottom - below.bottom) < 0.3 * above.size
        if out.endswith("\u00ad") or (
            out.endswith(("-", "‐")) and out[-2:-1].isalpha() and below.text[:1].islower()
        ):
            out = out[:-1] + below.text
        elif same_row or (full and not below.cells and not _ITEM.match(below.text)):
            space = "" if _UNSPACED.match(out[-1:]) and _UNSPACED.match(below.text) else " "
            out = f"{out}{space}{below.text}"
        else:
            out = f"{out}\n{below.text}"
    return out.replace("\u00ad", "")
