"""Cut a document into passages: spans that never cross a heading or a page end and, if possible,
never split a block.

Lengths are in characters. A block (paragraph, list, fenced code, table) longer than `LONGEST` is
split at the best boundary inside it: a blank line, then the end of a sentence, a line, a word.
"""

import itertools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import lru_cache

from slipway.knowledge.readers import ParsedDocument
from slipway.knowledge.readers.document import Heading
from slipway.types import Passage, Record

TARGET, LONGEST, LONGEST_FENCE = 1200, 2000, 4000

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_BOUNDARIES = tuple(
    re.compile(pattern) for pattern in (r"\n[ \t]*\n", r"[.!?][\"')\]]*\s|[。！？]", r"\n", r"\s")
)

# A line of a list of contents: `2.1 Leave ........ 12`, `- [Leave](#leave)`
_ENTRY = re.compile(
    r"(?:[-*+]\s+)?\[(?P<linked>[^\]]+)\]\(#[^)\s]*\)|(?P<name>\S.{0,300}?)(?:[\s.·…_]{2,}|\s)\d{1,4}"
)
_NUMBERED = re.compile(r"^\W*\d+(?:\.\d+)*[.)]?\s+")

Span = tuple[int, int]


class HeadingSpan(Record, frozen=True, kw_only=True):
    """The text under a heading, up to the next heading. `trail` holds the headings above it and
    ends with `heading`.
    """

    heading: str
    trail: tuple[str, ...]
    start: int
    end: int


def passages(document: ParsedDocument, path: str, version: str) -> list[Passage]:
    """Return the passages in reading order, with empty ids: the store gives the ids."""
    return [
        Passage(
            id="",
            path=path,
            title=document.title,
            heading=span.heading,
            trail=span.trail,
            start=start,
            end=end,
            text=document.text[start:end],
            version=version,
            page=bisect_right(document.pages, start) or None,
        )
        for span in heading_spans(document)
        for left, right in _sheets(document, span.start, span.end)
        for start, end in _spans(document, left, right)
    ]


def heading_spans(document: ParsedDocument) -> Iterator[HeadingSpan]:
    """Yield the text under each heading; text before the first heading belongs to the title.

    A heading without own text is skipped if it has subheadings (it is in their trails); else the
    heading line itself is the text.
    """
    text, headings = document.text, document.headings
    first = headings[0].start if headings else len(text)
    if text[document.body : first].strip():
        yield HeadingSpan(
            heading=document.title, trail=(document.title,), start=document.body, end=first
        )
    above: list[tuple[int, str]] = []
    for index, heading in enumerate(headings):
        following = headings[index + 1] if index + 1 < len(headings) else None
        end = following.start if following else len(text)
        above = [
            *(outer for outer in above if outer[0] < heading.level),
            (heading.level, heading.text),
        ]
        empty = not text[heading.end : end].strip()
        if empty and following and following.level > heading.level:
            continue
        yield HeadingSpan(
            heading=heading.text,
            trail=tuple(name for _, name in above),
            start=heading.start if empty else heading.end,
            end=end,
        )


def _sheets(document: ParsedDocument, start: int, end: int) -> Iterator[Span]:
    """Split a span at page starts; without pages, return it whole."""
    pages = document.pages[bisect_right(document.pages, start) : bisect_left(document.pages, end)]
    return itertools.pairwise([start, *pages, end])


def _spans(document: ParsedDocument, start: int, end: int) -> Iterator[Span]:
    """Join blocks into spans of about `TARGET`, without the white space around them."""
    text = document.text
    held: Span | None = None
    for block in _blocks(document, start, end):
        if held and (block[1] - held[0] <= TARGET or _belongs(text, held, block)):
            held = (held[0], block[1])
            continue
        if held:
            yield held
        held = block
    if held:
        yield held


def _belongs(text: str, held: Span, block: Span) -> bool:
    """Return whether the block must follow `held`, which ends with a colon, and still fits."""
    return text.endswith(":", 0, held[1]) and block[1] - held[0] <= LONGEST


def _blocks(document: ParsedDocument, start: int, end: int) -> Iterator[Span]:
    breaks = document.breaks[
        bisect_left(document.breaks, start) : bisect_left(document.breaks, end)
    ]
    edges = [start, *breaks, end]
    for left, right in itertools.pairwise(edges):
        if _is_contents(document, left, right):
            continue
        for piece in _pieces(document.text, left, right):
            span = _stripped(document.text, *piece)
            if span[0] < span[1]:
                yield span


def _is_contents(document: ParsedDocument, start: int, end: int) -> bool:
    """Tell whether a block belongs to a list of contents: each line is a heading of the document
    with its page. It answers nothing, and would be found before the text that does.
    """
    if end - start > LONGEST:
        return False
    lines = document.text[start:end].split("\n")
    entries = [_ENTRY.fullmatch(line.strip()) for line in lines if line.strip()]
    return bool(entries) and all(
        entry is not None
        and _name_of(entry["linked"] or entry["name"]) in _names_of(document.headings)
        for entry in entries
    )


@lru_cache(8)
def _names_of(headings: tuple[Heading, ...]) -> frozenset[str]:
    return frozenset(_name_of(heading.text) for heading in headings)


def _name_of(text: str) -> str:
    """Return a heading without its number, signs and capitals."""
    return _NUMBERED.sub("", " ".join(text.split())).strip(" .").casefold()


def _pieces(text: str, start: int, end: int) -> Iterator[Span]:
    """Split a block that is too long at its best boundaries."""
    longest = LONGEST_FENCE if _FENCE.match(text, start) else LONGEST
    while end - start > longest:
        cut = _cut(text, start, start + LONGEST)
        yield start, cut
        start = cut
    yield start, end


def _cut(text: str, start: int, limit: int) -> int:
    """Return the last boundary of the best kind in the second half of [start, limit)."""
    middle = (start + limit) // 2
    for boundary in _BOUNDARIES:
        ends = [found.end() for found in boundary.finditer(text, middle, limit)]
        if ends:
            return ends[-1]
    return limit


def _stripped(text: str, start: int, end: int) -> Span:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())
