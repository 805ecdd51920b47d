"""Read plain text and reStructuredText."""

import re

import msgspec

from slipway.knowledge.readers.document import Heading, Loss, OnPage, ParsedDocument, one_line
from slipway.knowledge.readers.encoding import decoded
from slipway.knowledge.readers.front_matter import front_matter_of_text

_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_RULE = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*$")
_TITLE_LENGTH = 80


def line_starts(text: str, base: int) -> list[int]:
    """Return the offsets of the lines from `base` on, and of the end of the text."""
    return [base, *(found.end() for found in re.compile("\n").finditer(text, base)), len(text)]


def restructured(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read reStructuredText. Headings are underlined, perhaps overlined too; a style's level is the
    order in which it first appears.
    """
    file = decoded(data)
    text = file.text
    front = front_matter_of_text(text)
    rows, lines = text[front.end :].split("\n"), line_starts(text, front.end)
    ranks: dict[tuple[str, bool], int] = {}
    headings = []
    for number in range(len(rows) - 1):
        before = rows[number - 1].rstrip() if number else ""
        if not _is_underlined(before, rows[number], rows[number + 1].rstrip()):
            continue
        over = bool(before)
        level = ranks.setdefault((rows[number + 1][0], over), len(ranks) + 1)
        name = one_line(rows[number].replace("`", ""))
        headings.append(
            Heading(level=level, text=name, start=lines[number - over], end=lines[number + 2])
        )
    title = headings[0].text if headings else fallback
    return ParsedDocument(
        title=title,
        text=text,
        headings=tuple(headings),
        breaks=_paragraphs(text),
        body=front.end,
        meta=front.meta,
        losses=file.losses,
    )


def _is_underlined(before: str, row: str, rule: str) -> bool:
    if not row.strip() or _RULE.match(row) or not _RULE.match(rule) or len(rule) < len(row.strip()):
        return False
    return before == rule or (not before and not row[0].isspace())


def plain(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read plain text, without headings."""
    file = decoded(data)
    front = front_matter_of_text(file.text)
    document = plain_text(file.text[front.end :], front.title or fallback, file.losses)
    return msgspec.structs.replace(document, meta=front.meta)


def plain_text(text: str, fallback: str, losses: tuple[Loss, ...] = ()) -> ParsedDocument:
    """Read text that is decoded already. A short first line followed by a blank line, and without
    the end of a sentence, is the title.
    """
    first, _, rest = text.strip().partition("\n")
    alone = rest.startswith(("\n", "==", "--")) and bool(rest.strip("\n=- "))
    titled = (
        alone and len(first) <= _TITLE_LENGTH and not first.rstrip().endswith((".", ",", ";", ":"))
    )
    return ParsedDocument(
        title=one_line(first) if titled else fallback,
        text=text,
        breaks=_paragraphs(text),
        losses=losses,
    )


def _paragraphs(text: str) -> tuple[int, ...]:
    return (0, *(found.end() for found in _BLANK_LINES.finditer(text)))
