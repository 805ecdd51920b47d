"""PDF: text by page, its lines joined to paragraphs; headings from the bookmarks, and from the
sizes of the letters.

pdfium (Chrome's reader; Apache and BSD licences) gives characters with their places. What is a
line, a paragraph, a heading or a running header is told here, from the habits of the whole file.
"""

import ctypes
import itertools
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from slipway.knowledge.readers.document import (
    Document,
    Draft,
    OnPage,
    Unreadable,
    described,
    one_line,
)
from slipway.types import Record

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

_MOST_PAGES, _MOST_SIGNS, _MOST_BOOKMARKS = 5_000, 200_000, 20_000
_LARGER = 1.12  # how much larger than the text a heading's letters are
_LONGEST_HEADING, _RANKS = 120, 4
# how often letters below the bookmarked headings must stand out: what does so once is an address or
# a figure
_OFTEN = 3
_SIMPLER = "print it to a new PDF, or remove it"


class Line(Record, frozen=True, kw_only=True):
    """Places are in points from the page's lower left corner; `size` is that of most of its
    letters.
    """

    text: str
    left: float
    right: float
    bottom: float
    top: float
    size: float
    bold: bool


class Mark(Record, frozen=True, kw_only=True):
    """A bookmark: what it says, and the index of its page."""

    level: int
    text: str
    page: int


def pdf(data: bytes, fallback: str, on_page: OnPage) -> Document:
    """Raises Unreadable for files that are encrypted, damaged (naming the page), only pictures, or
    have too many pages.
    """
    file = _opened(data)
    pages = [_lines(file, number, on_page) for number in range(_page_count(file))]
    if not any(pages):
        raise Unreadable(
            "It has no text, only pictures of it",
            "run text recognition over it, such as `ocrmypdf in.pdf out.pdf`",
        )
    meta, marks = _meta(file) | _pictures(file, pages), _marks(file, len(pages))
    texts = _without_running_lines(pages)
    ranks = _ranks_below(marks, texts) if marks else _ranks(texts)
    draft = Draft()
    for number, lines in enumerate(texts):
        draft.page()
        _write(draft, lines, [mark for mark in marks if mark.page == number], ranks)
    return draft.document(meta.get("title") or _shown_title(texts) or fallback, meta)


def _shown_title(pages: list[list[Line]]) -> str:
    """The first words in the largest letters of the first page that says something."""
    page = next((lines for lines in pages if lines), [])
    largest = max((line.size for line in page), default=0.0)
    if largest < _text_size(pages) * _LARGER:
        return ""
    _, group = next(
        (size, list(group))
        for size, group in itertools.groupby(page, key=lambda line: line.size)
        if size == largest
    )
    title = " ".join(line.text for line in group[:3])
    return title if len(title) <= _LONGEST_HEADING else ""


# Out of the file


def _opened(data: bytes) -> "PdfDocument":
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        return PdfDocument(data)
    except PdfiumError as error:
        if "assword" in str(error) or "ecurity" in str(error):
            raise Unreadable(
                "It is encrypted, and opens with a password only", "save it without the password"
            ) from None
        raise Unreadable(
            "It is damaged, or no PDF", "open it in the program that made it and export it again"
        ) from None


def _page_count(file: "PdfDocument") -> int:
    count = len(file)
    if count > _MOST_PAGES:
        raise Unreadable(
            f"It has {count} pages, and {_MOST_PAGES} is the limit", "split it into smaller files"
        )
    if count == 0:
        raise Unreadable("It has no pages, or its list of pages is damaged", _SIMPLER)
    return count


def _lines(file: "PdfDocument", number: int, on_page: OnPage) -> list[Line]:
    from pypdfium2 import PdfiumError

    on_page(number + 1)
    try:
        page = file[number]
        try:
            return list(_page_lines(page, number))
        finally:
            page.close()
    except PdfiumError:
        raise Unreadable("A page of it is damaged", _SIMPLER, number + 1) from None


def _page_lines(page: "PdfPage", number: int) -> Iterator[Line]:
    """One call into pdfium for each sign of the text; what is told of a line's place and letters is
    asked of few of its signs.
    """
    import pypdfium2.raw as c

    text = page.get_textpage()
    count = text.count_chars()
    if count > _MOST_SIGNS:
        raise Unreadable(
            f"A page of it has {count} signs, and {_MOST_SIGNS} is the limit", _SIMPLER, number + 1
        )
    codes = [c.FPDFText_GetUnicode(text.raw, index) for index in range(count)]
    start = 0
    for stop in [*(index for index, code in enumerate(codes) if code in _LINE_ENDS), count]:
        if line := _line(text.raw, codes, start, stop):
            yield line
        start = stop + 1


_LINE_ENDS = frozenset([10, 13])
_SOFT_HYPHENS = frozenset(
    [0x02, 0xAD, 0xFFFE]
)  # pdfium writes the first or the last for a hyphen at a line's end


def _line(text: Any, codes: list[int], start: int, stop: int) -> Line | None:
    said = "".join(
        "\u00ad" if code in _SOFT_HYPHENS else chr(code) if code > 31 or code == 9 else ""
        for code in codes[start:stop]
    )
    said = one_line(said.encode("utf-16", "surrogatepass").decode("utf-16", "ignore"))
    seen = [
        index
        for index in range(start, stop)
        if codes[index] > 32 and codes[index] not in _SOFT_HYPHENS
    ]
    if not said.strip("\u00ad") or not seen:
        return None
    places = [_box(text, index) for index in (seen[0], seen[len(seen) // 2], seen[-1])]
    sizes, bold = zip(
        *(_letters(text, index) for index in (seen[0], seen[len(seen) // 2], seen[-1])), strict=True
    )
    return Line(
        text=said,
        left=places[0][0],
        right=places[-1][1],
        bottom=min(place[2] for place in places),
        top=max(place[3] for place in places),
        size=statistics.median(sizes),
        bold=all(bold),
    )


def _box(text: Any, index: int) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of a sign, as its font sets it: the same for `a` and `A`."""
    import pypdfium2.raw as c

    rect = c.FS_RECTF()
    c.FPDFText_GetLooseCharBox(text, index, rect)
    return rect.left, rect.right, min(rect.bottom, rect.top), max(rect.bottom, rect.top)


def _letters(text: Any, index: int) -> tuple[float, bool]:
    """Size and weight. The size is that on the page: the font's own may be 1 and scaled. Many fonts
    tell their weight by their name only.
    """
    import pypdfium2.raw as c

    matrix, name, flags = c.FS_MATRIX(), ctypes.create_string_buffer(128), ctypes.c_int()
    scale = (
        abs(matrix.d) or abs(matrix.b) or 1.0 if c.FPDFText_GetMatrix(text, index, matrix) else 1.0
    )
    c.FPDFText_GetFontInfo(text, index, name, len(name), flags)
    bold = c.FPDFText_GetFontWeight(text, index) >= 600 or bool(_BOLD.search(name.value))
    return round(c.FPDFText_GetFontSize(text, index) * scale, 1), bold


_BOLD = re.compile(rb"bold|black|heavy|demi|CMBX|-Bd", re.IGNORECASE)


def _marks(file: "PdfDocument", pages: int) -> list[Mark]:
    """Bookmarks that lead to a page, in the order of the pages. Damaged or endless ones are none."""
    from pypdfium2 import PdfiumError

    found = list[Mark]()
    try:
        for each in itertools.islice(file.get_toc(max_depth=6), _MOST_BOOKMARKS):
            goal, text = each.get_dest(), one_line(each.get_title())
            page = goal.get_index() if goal else None
            if text and page is not None and 0 <= page < pages:
                found.append(Mark(level=each.level + 1, text=text, page=page))
    except (PdfiumError, UnicodeError):
        return []
    return sorted(found, key=lambda mark: mark.page)


def _meta(file: "PdfDocument") -> dict[str, Any]:
    said = file.get_metadata_dict()
    return described(
        said.get("Title"),
        said.get("Author"),
        _date(said.get("ModDate") or "") or _date(said.get("CreationDate") or ""),
    )


def _pictures(file: "PdfDocument", pages: list[list[Line]]) -> dict[str, list[int]]:
    """Pages that show pictures and say nothing: scans among the text."""
    import pypdfium2.raw as c

    silent = [number for number, lines in enumerate(pages) if not lines]
    found = [
        number + 1
        for number in silent
        if any(True for _ in file[number].get_objects([c.FPDF_PAGEOBJ_IMAGE], max_depth=2))
    ]
    return {"pages_without_text": found} if found else {}


def _date(said: str) -> str:
    """`D:20240131120000+01'00'` as ISO 8601; empty where it is none (PDF 1.7, 7.9.4)."""
    found = re.match(
        r"(?:D:)?(\d{4})(\d\d)?(\d\d)?(?:(\d\d)(\d\d)(\d\d)?)?(Z|[+-]\d\d'?\d\d)?", said
    )
    if not found:
        return ""
    year, month, day, hour, minute, second, zone = found.groups()
    date = f"{year}-{month or '01'}-{day or '01'}"
    if hour is None:
        return date
    offset = "" if not zone else zone if zone == "Z" else f"{zone[:3]}:{zone[-2:]}"
    return f"{date}T{hour}:{minute}:{second or '00'}{offset}"


# What repeats on most pages

_EDGE_LINES = 3
_PAGE_NUMBER = re.compile(
    r"[-–—\s]*(?:page|seite|p\.)?\s*(?:\d{1,5}|[ivxlc]{1,7})(?:\s*(?:of|von|de|/|\|)\s*\d{1,5})?[-–—\s]*$",
    re.IGNORECASE,
)


def _without_running_lines(pages: list[list[Line]]) -> list[list[Line]]:
    """Headers and footers stand apart from the text, at the same height of many pages, and say the
    same but for numbers, or name a chapter and the page's number. Larger letters are headings, of
    which only the very same words run.
    """
    text_size = _text_size(pages)
    edges = [_edge(lines, top=True) + _edge(lines, top=False) for lines in pages]
    seen = Counter(
        key
        for page, lines in enumerate(edges)
        for key in {key for line in lines for key in _running(line, page, text_size)}
    )
    often = max(3, 0.4 * sum(map(bool, pages)))

    def runs(line: Line, page: int) -> bool:
        return bool(_PAGE_NUMBER.match(line.text)) or any(
            seen[key] >= often for key in _running(line, page, text_size)
        )

    return [
        [line for line in lines if line not in edge or not runs(line, page)]
        for page, (lines, edge) in enumerate(zip(pages, edges, strict=True))
    ]


def _edge(lines: list[Line], *, top: bool) -> list[Line]:
    """The highest or lowest lines of a page, where there are few of them and then a gap."""
    ordered = sorted(lines, key=lambda line: line.bottom, reverse=top)
    for number, (outer, inner) in enumerate(
        itertools.pairwise(ordered[: _EDGE_LINES + 1]), start=1
    ):
        if abs(outer.bottom - inner.bottom) > 1.8 * min(outer.size, inner.size):
            return ordered[:number]
    return []


def _running(line: Line, page: int, text_size: float) -> set[tuple[str | int, int]]:
    """What other pages have alike, each with its height: the words; and how far a number at either
    end is from the page's own.
    """
    height = round(line.bottom / 4)
    if line.size >= text_size * _LARGER:
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


def _text_size(pages: Sequence[Sequence[Line]]) -> float:
    """That of most letters."""
    sizes = Counter[float]()
    for line in itertools.chain.from_iterable(pages):
        sizes[line.size] += len(line.text)
    return sizes.most_common(1)[0][0] if sizes else 0.0


# Headings


def _ranks(pages: list[list[Line]]) -> dict[tuple[float, bool], int]:
    """(size, bold) -> level of what looks like a heading: larger letters first, then bold ones of
    the text's own size. Where half of the lines look like it, none does.
    """
    usual = _text_size(pages)
    every = list(itertools.chain.from_iterable(pages))
    looks = Counter((line.size, line.bold) for line in every if _stands_out(line, usual))
    if not looks or sum(looks.values()) * 2 > len(every):
        return {}
    return {
        look: min(rank, _RANKS) for rank, look in enumerate(sorted(looks, reverse=True), start=1)
    }


def _ranks_below(marks: list[Mark], pages: list[list[Line]]) -> dict[tuple[float, bool], int]:
    """The same below the bookmarks, which often name the chapters alone: letters between the
    bookmarked headings' and the text's in size.
    """
    located = ((pages[mark.page], *_located(pages[mark.page], mark, 0)) for mark in marks)
    known = {
        (line.size, line.bold)
        for lines, start, stop in located
        for line in lines[max(start, 0) : max(stop, 0)]
    }
    largest, usual = max(known, default=(0.0, False))[0], _text_size(pages)
    counts = Counter(
        (line.size, line.bold)
        for line in itertools.chain.from_iterable(pages)
        if _stands_out(line, usual)
    )
    looks = [
        look
        for look in _ranks(pages)
        if look not in known and usual * _LARGER <= look[0] < largest and counts[look] >= _OFTEN
    ]
    lowest = max(mark.level for mark in marks)
    return {look: lowest + rank for rank, look in enumerate(looks, start=1)}


_LEADER = re.compile(r"(?:\. ?){4}|…{2}")  # of a table of contents


def _stands_out(line: Line, usual: float) -> bool:
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
    """What is compared of a bookmark and a line: letters and digits."""
    return "".join(sign for sign in text.casefold() if sign.isalnum())


def _located(lines: list[Line], mark: Mark, after: int) -> tuple[int, int]:
    """The lines, up to three, that say what the bookmark says; (-1, -1) where none do. A numbered
    title may lack its number.
    """
    wanted = _key(mark.text)
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


# Onto the page


class Head(Record, frozen=True, kw_only=True):
    """A heading on a page: the lines [start, stop) say it, none where it is a bookmark that the
    page does not repeat.
    """

    start: int
    stop: int
    level: int
    text: str


def _write(
    draft: Draft, lines: list[Line], marks: list[Mark], ranks: dict[tuple[float, bool], int]
) -> None:
    at = 0
    for head in _heads(lines, marks, ranks):
        for block in _blocks(lines[at : head.start]):
            draft.block(block)
        if head.stop > head.start:
            draft.heading(head.level, head.text)
        else:
            draft.name(head.level, head.text)
        at = head.stop
    for block in _blocks(lines[at:]):
        draft.block(block)


def _heads(
    lines: list[Line], marks: list[Mark], ranks: dict[tuple[float, bool], int]
) -> list[Head]:
    """In their order; of two for the same lines, the bookmark's."""
    marked = list(_by_marks(lines, marks))
    taken = {number for head in marked for number in range(head.start, head.stop)}
    ranked = [
        head for head in _by_rank(lines, ranks) if taken.isdisjoint(range(head.start, head.stop))
    ]
    return sorted([*marked, *ranked], key=lambda head: (head.start, head.stop))


def _by_marks(lines: list[Line], marks: list[Mark]) -> Iterator[Head]:
    """What is not found stands where the heading before it ended."""
    after = 0
    for mark in marks:
        start, stop = _located(lines, mark, after)
        if start < 0:
            start = stop = after
        yield Head(start=start, stop=stop, level=mark.level, text=mark.text)
        after = stop


def _by_rank(lines: list[Line], ranks: dict[tuple[float, bool], int]) -> Iterator[Head]:
    """Up to three neighbours of one look are one heading."""
    at = 0
    for level, group in itertools.groupby(lines, key=lambda line: _level(line, ranks)):
        said = [line.text for line in group]
        if level and len(said) <= 3:
            yield Head(start=at, stop=at + len(said), level=level, text=" ".join(said))
        at += len(said)


def _level(line: Line, ranks: dict[tuple[float, bool], int]) -> int:
    """0 for text."""
    return ranks.get((line.size, line.bold), 0) if len(line.text) <= _LONGEST_HEADING else 0


_ITEM = re.compile(r"(?:[•◦▪‣·*–—-]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+\S")
_COLUMN = 0.3  # of the page's width: what is narrower is no column of prose
_FULL = 0.85  # a line that reaches this far is continued by the next one


def _blocks(lines: list[Line]) -> Iterator[str]:
    """Paragraphs: what is set apart by more than the usual distance, or in other letters."""
    distances = [
        above.bottom - below.bottom
        for above, below in itertools.pairwise(lines)
        if 0 < above.bottom - below.bottom < 4 * above.size
    ]
    usual = statistics.median(distances) if distances else 0.0
    narrowest = _COLUMN * max((line.right for line in lines), default=0.0)
    group = list[Line]()
    for line in lines:
        if group and _is_apart(group[-1], line, usual):
            yield _joined(group, narrowest)
            group = []
        group.append(line)
    if group:
        yield _joined(group, narrowest)


def _is_apart(above: Line, below: Line, usual: float) -> bool:
    distance = above.bottom - below.bottom
    return (
        distance > 1.4 * usual + 0.5
        or (distance < -0.5 * below.size and above.text.endswith("."))
        or abs(above.size - below.size) > 1
    )


def _joined(lines: list[Line], narrowest: float) -> str:
    """Lines that reach the right edge go on in the next one; others, such as rows and list items,
    end where they end.
    """
    left = min(line.left for line in lines)
    width = max(narrowest, max(line.right for line in lines) - left)
    out = lines[0].text
    for above, below in itertools.pairwise(lines):
        full = above.right - left >= _FULL * width
        same_row = abs(above.bottom - below.bottom) < 0.3 * above.size
        if out.endswith("\u00ad") or (
            out.endswith(("-", "‐")) and out[-2:-1].isalpha() and below.text[:1].islower()
        ):
            out = out[:-1] + below.text
        elif same_row or (full and not _ITEM.match(below.text)):
            out = f"{out} {below.text}"
        else:
            out = f"{out}\n{below.text}"
    return out.replace("\u00ad", "")
