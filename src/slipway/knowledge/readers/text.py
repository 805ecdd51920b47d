"""Read plain text."""

import re

import msgspec

from slipway.knowledge.readers.document import Loss, OnPage, ParsedDocument, one_line
from slipway.knowledge.readers.encoding import decoded
from slipway.knowledge.readers.front_matter import front_matter_of_text

_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_TITLE_LENGTH = 80


def line_starts(text: str, base: int) -> list[int]:
    """Return the offsets of the lines from `base` on, and of the end of the text."""
    return [base, *(found.end() for found in re.compile("\n").finditer(text, base)), len(text)]


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
