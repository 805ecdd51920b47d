"""Read Markdown: CommonMark with tables and front matter."""

import itertools
import re
from functools import cache
from typing import TYPE_CHECKING

from slipway.knowledge.readers.document import (
    LONGEST_HEADING,
    Heading,
    Loss,
    OnPage,
    ParsedDocument,
    one_line,
)
from slipway.knowledge.readers.encoding import decoded
from slipway.knowledge.readers.front_matter import front_matter
from slipway.knowledge.readers.inline_html import rewritten
from slipway.knowledge.readers.text import line_starts

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

# `{ #anchor }`, which MkDocs, Docusaurus and Pandoc write after a heading
_ATTRIBUTES = re.compile(r"\{\s*[:#.][^{}]*\}\s*$")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_TEXT_TOKENS = frozenset({"text", "text_special", "code_inline", "image"})


def markdown(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read CommonMark with tables. Headings inside lists, quotes or code are not headings; HTML is
    rewritten as Markdown.
    """
    file = decoded(data)
    return markdown_text(file.text, fallback, losses=file.losses)


def mdx(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read MDX: Markdown with JSX, whose statements and component tags are left out."""
    file = decoded(data)
    return markdown_text(file.text, fallback, jsx=True, losses=file.losses)


def markdown_text(
    text: str, fallback: str, *, jsx: bool = False, losses: tuple[Loss, ...] = ()
) -> ParsedDocument:
    """Read Markdown that is decoded already."""
    front = front_matter(text)
    base = front.end
    text = text[:base] + rewritten(text[base:], _code_lines, jsx=jsx)
    lines = line_starts(text, base)
    tokens = _markdown_parser().parse(text[base:])
    headings = tuple(_markdown_headings(text, tokens, lines))
    return ParsedDocument(
        title=next((each.text for each in headings if each.level == 1), "")
        or front.title
        or fallback,
        text=text,
        headings=headings,
        breaks=tuple(lines[token.map[0]] for token in tokens if token.level == 0 and token.map),
        body=base,
        meta=front.meta,
        losses=losses,
    )


def _code_lines(text: str) -> list[tuple[int, int]]:
    """Return the line ranges of fenced and indented code."""
    return [
        (token.map[0], token.map[1])
        for token in _markdown_parser().parse(text)
        if token.type in ("fence", "code_block") and token.map
    ]


def _markdown_headings(text: str, tokens: "list[Token]", lines: list[int]) -> list[Heading]:
    found = []
    for token, inside in itertools.pairwise(tokens):
        if token.type != "heading_open" or token.level > 0 or token.map is None:
            continue
        start, end = (lines[number] for number in token.map)
        name = _unmarked(inside.content)
        if 0 < len(name) <= LONGEST_HEADING:
            found.append(Heading(level=_HEADINGS[token.tag], text=name, start=start, end=end))
    return _without_comments(text, found)


def _without_comments(text: str, headings: list[Heading]) -> list[Heading]:
    """Drop `# comments` of unfenced code, as pages saved from the web have.

    If all lower headings of the page are between blank lines, a level-1 heading (not the first)
    that touches other text is a comment.
    """
    lower = [heading for heading in headings if heading.level > 1]
    if not lower or not all(_is_between_blank_lines(text, heading) for heading in lower):
        return headings
    return [
        heading
        for heading in headings
        if heading is headings[0] or heading.level > 1 or _is_between_blank_lines(text, heading)
    ]


def _is_between_blank_lines(text: str, heading: Heading) -> bool:
    above = text[text.rfind("\n", 0, max(heading.start - 1, 0)) + 1 : heading.start]
    end = text.find("\n", heading.end)
    return not above.strip() and not text[heading.end : end if end >= 0 else None].strip()


def _unmarked(source: str) -> str:
    """``Use `foo` **now** { #now }`` says `Use foo now`."""
    parser, tokens = _markdown_parser(), list["Token"]()
    parser.inline.parse(_ATTRIBUTES.sub("", source), parser, {}, tokens)
    return one_line(
        "".join(
            token.content if token.type in _TEXT_TOKENS else " " * (token.type == "softbreak")
            for token in tokens
        )
    )


@cache
def _markdown_parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt  # takes 60 ms to import

    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.disable(
        ["inline", "text_join"]
    )  # only headings need it, and they ask for it one by one
    return parser
