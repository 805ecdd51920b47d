"""Markdown: CommonMark with tables, and front matter."""

import datetime
import itertools
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from slipway.knowledge.readers.document import (
    LONGEST_HEADING,
    Document,
    Heading,
    OnPage,
    Unreadable,
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


def markdown(data: bytes, fallback: str, _: OnPage) -> Document:
    """CommonMark with tables. Only headings at the outermost level count: not those in lists,
    quotes or code.
    """
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
    return Document(title=title, text=text, headings=headings, breaks=breaks, body=base, meta=meta)


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
    """Pages saved from the web hold code that nobody fenced, with `# comments` that look like
    titles. Such a line is told by the page's own habit: its lower headings all stand clear between
    blank lines, and this one, not the first, hangs on the text above or below.
    """
    lower = [heading for heading in headings if heading.level > 1]
    if not lower or not all(_stands_clear(text, heading) for heading in lower):
        return headings
    return [
        heading
        for heading in headings
        if heading is headings[0] or heading.level > 1 or _stands_clear(text, heading)
    ]


def _stands_clear(text: str, heading: Heading) -> bool:
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
    from markdown_it import MarkdownIt  # 60 ms to import, and only needed where there is Markdown

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
    """Front matter that cannot be understood is ignored, unless it seems to say who may read: then
    nobody may. Raises Unreadable.
    """
    if front is None:
        opened = _OPENED.match(text)
        if opened and any(_RIGHTS.match(line.lstrip(" \t{\"'")) for line in opened[1].splitlines()):
            raise Unreadable(
                "Its front matter, which says who may read it, is not closed or not at the start",
                "put it first, between two lines of ---",
            )
        return {}
    try:
        return _mapping(front[1])
    except ValueError as error:
        if _RIGHTS.search(front[1]):
            raise Unreadable(
                f"Its front matter, which says who may read it, {error}",
                "write it as lines of `name: value`",
            ) from None
        return {}


def _mapping(source: str) -> dict[str, Any]:
    """Raises ValueError, which ends a sentence that begins with the front matter."""
    import yaml  # 20 ms, and only needed where there is front matter

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
    ) as error:  # ValueError: 2024-13-45, or what grows without end
        raise ValueError("is not valid YAML, or holds too many values") from error
    if not isinstance(plain, dict | None):
        raise ValueError("is not a YAML mapping")  # noqa: TRY004 - a fault of the text
    return plain or {}


def _plain(value: Any, counted: "itertools.count[int]") -> Any:
    """With JSON's types only; what refers to itself, or grows a thousandfold through references, is
    refused.
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
