"""Read Markdown: CommonMark with tables and front matter."""

import datetime
import itertools
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from slipway.knowledge.readers.document import (
    LONGEST_HEADING,
    Heading,
    OnPage,
    ParsedDocument,
    UnreadableFile,
    one_line,
)
from slipway.knowledge.readers.text import decoded, line_starts

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_FRONT_MATTER = re.compile(
    r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE
)
_FRONT_TITLE = re.compile(
    r"^title[ \t]*:[ \t]*(?P<quote>[\"']?)(?P<title>.*?)(?P=quote)[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
_ATTRIBUTES = re.compile(
    r"\{\s*[:#.][^{}]*\}\s*$"
)  # `{ #anchor }`, which MkDocs, Docusaurus and Pandoc write after a heading
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_SAYS_TEXT = frozenset({"text", "text_special", "code_inline", "image"})


def markdown(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read CommonMark with tables. Headings inside lists, quotes or code are not headings."""
    text = decoded(data)
    front = _FRONT_MATTER.match(text)
    meta = _front_matter(text, front)
    base = front.end() if front else 0
    lines = line_starts(text, base)
    tokens = _markdown_parser().parse(text[base:])
    headings = tuple(_markdown_headings(text, tokens, lines))
    title = (
        next((heading.text for heading in headings if heading.level == 1), "")
        or _front_title(front)
        or fallback
    )
    breaks = tuple(lines[token.map[0]] for token in tokens if token.level == 0 and token.map)
    return ParsedDocument(
        title=title, text=text, headings=headings, breaks=breaks, body=base, meta=meta
    )


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
            token.content if token.type in _SAYS_TEXT else " " * (token.type == "softbreak")
            for token in tokens
        )
    )


def _front_title(front: re.Match[str] | None) -> str:
    found = _FRONT_TITLE.search(front.group(1)) if front else None
    return one_line(found["title"]) if found else ""


@cache
def _markdown_parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt  # takes 60 ms to import

    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.disable(
        ["inline", "text_join"]
    )  # only headings need it, and they ask for it one by one
    return parser


# Front matter

_RIGHTS = re.compile(r"\b(access|groups)\b[\"']?[ \t]*:", re.IGNORECASE)  # as YAML or JSON write it
_LONGEST_FRONT = 64_000
_OPENED = re.compile(r"\s*---[ \t]*\n((?:[^\n]+\n){0,50})")


def _front_matter(text: str, front: re.Match[str] | None) -> dict[str, Any]:
    """Parse front matter. Ignore it if it is invalid, but raise UnreadableFile if it seems to limit
    who may read the file.
    """
    if front is None:
        opened = _OPENED.match(text)
        if opened and any(_RIGHTS.match(line.lstrip(" \t{\"'")) for line in opened[1].splitlines()):
            raise UnreadableFile(
                "Its front matter, which says who may read it, is not closed or not at the start",
                "put it first, between two lines of ---",
            )
        return {}
    try:
        return _mapping(front[1])
    except ValueError as error:
        if _RIGHTS.search(front[1]):
            raise UnreadableFile(
                f"Its front matter, which says who may read it, {error}",
                "write it as lines of `name: value`",
            ) from None
        return {}


def _mapping(source: str) -> dict[str, Any]:
    """Parse YAML. Raises ValueError, whose text completes "Its front matter ..."."""
    import yaml  # takes 20 ms, and few files have front matter

    if len(source) > _LONGEST_FRONT:
        raise ValueError(f"is longer than {_LONGEST_FRONT} characters")
    try:
        loaded = yaml.safe_load(source)
        plain = _plain(loaded, itertools.count())
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except (
        yaml.YAMLError,
        ValueError,
    ) as error:  # ValueError: a date like 2024-13-45, or too many values
        raise ValueError("is not valid YAML, or holds too many values") from error
    if not isinstance(plain, dict | None):
        raise ValueError("is not a YAML mapping")  # noqa: TRY004 - the text is wrong
    return plain or {}


def _plain(value: Any, counted: "itertools.count[int]") -> Any:
    """Convert to JSON types. Raises ValueError for values that refer to themselves or that references
    multiply beyond 10,000.
    """
    if next(counted) > 10_000:
        raise ValueError
    if isinstance(value, dict):
        return {str(key): _plain(each, counted) for key, each in value.items()}
    if isinstance(value, list | set | tuple):
        return [_plain(each, counted) for each in value]
    if isinstance(value, datetime.date):
        return value.isoformat()
    return (
        value
        if value is None
        or isinstance(value, bool | float)
        or (isinstance(value, int) and abs(value) < 2**63)
        else str(value)
    )
