"""Rewrite the HTML and JSX inside Markdown as Markdown, and drop what a reader of the page doesn't
see: comments, scripts and struck-out text. Code stays as it is.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from html import unescape

from slipway.knowledge.readers.document import one_line, raised
from slipway.knowledge.readers.html import fragment_text

Lines = tuple[int, int]

_ATTRIBUTES = r"(?:\s(?:[^<>\"'{}]|\"[^\"]*\"|'[^']*'|\{(?:[^{}]|\{[^{}]*\})*\})*)?"
_SHORT, _LONG = 2_000, 50_000  # characters between an opening and its closing tag
_TAGS = """
    a abbr address article aside b big blockquote body br button caption center cite code col
    colgroup dd details dfn div dl dt em figcaption figure font footer form h1 h2 h3 h4 h5 h6 head
    header hr html i iframe img input ins kbd label li link main mark meta nav ol p picture pre q
    rp rt ruby samp section small source span strong summary svg table tbody td tfoot th thead
    time title tr tt u ul var video wbr
"""
_NAMES = "|".join(_TAGS.split())
_BLOCK_TAGS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "center", "details", "div", "dl", "dt"}
    | {"dd", "figure", "figcaption", "footer", "form", "header", "hr", "html", "main", "nav"}
    | {"ol", "p", "section", "ul"}
)
_TITLED = re.compile(r"\b(?:title|label|header|heading|question)\s*=\s*[\"'{]([^\"'{}]+)")
_MAY_HOLD = re.compile(r"<[A-Za-z/!]|~~|^(?:import|export) |\{/\*", re.MULTILINE)
_AFTER_DETAILS = re.compile(r"\s*(?:<details|#{1,6}\s|<h[1-6]\b|</|\Z)", re.IGNORECASE)

_PATTERN = re.compile(
    rf"""
    (?P<keep>(?<!`)(?P<ticks>`+)(?!`)[^\n]{{0,{_SHORT}}}?(?<!`)(?P=ticks)(?!`)|\\[<~`])
    |(?P<comment><!--.{{0,{_LONG}}}?-->|<(?P<unseen>script|style)\b[^>]*>.{{0,{_LONG}}}?</(?P=unseen)\s*>)
    |[ ]?(?P<struck>~~(?=[^\s~])[^\n]{{0,{_SHORT}}}?(?<=[^\s~])~~|<(?P<strike>del|s|strike)\b{_ATTRIBUTES}>.{{0,{_SHORT}}}?</(?P=strike)\s*>)
    |<sup\b{_ATTRIBUTES}>(?P<sup>.{{0,{_SHORT}}}?)</sup\s*>
    |<sub\b{_ATTRIBUTES}>(?P<sub>.{{0,{_SHORT}}}?)</sub\s*>
    |^(?P<level>\#{{1,6}})(?=[ \t])
    |<h(?P<rank>[1-6])\b{_ATTRIBUTES}>(?P<heading>.{{0,{_SHORT}}}?)</h(?P=rank)\s*>
    |<summary\b{_ATTRIBUTES}>(?P<summary>.{{0,{_SHORT}}}?)</summary\s*>
    |(?P<table><(?P<grid>table|dl)\b{_ATTRIBUTES}>.{{0,{_LONG}}}?</(?P=grid)\s*>)
    |<code\b{_ATTRIBUTES}>(?P<code>[^\n]{{0,{_SHORT}}}?)</code\s*>
    |(?P<item><li\b{_ATTRIBUTES}>)
    |</?(?P<tag>{_NAMES})\b{_ATTRIBUTES}/?>
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
_JSX = re.compile(rf"</?(?P<name>[A-Z][\w.]*)(?P<attributes>{_ATTRIBUTES})\s*/?>|<>|</>")
_JSX_COMMENT = re.compile(rf"\{{/\*.{{0,{_LONG}}}?\*/\}}", re.DOTALL)
_STATEMENT = re.compile(r"^(?:import|export)\s.*?(?:\n[ \t]*(?=\n)|\Z)", re.MULTILINE | re.DOTALL)
_ANY_TAG = re.compile(rf"</?[A-Za-z][\w-]*{_ATTRIBUTES}/?>")

Coder = Callable[[str], Iterable[Lines]]  # returns the line ranges of code


def rewritten(text: str, code_of: Coder, *, jsx: bool = False) -> str:
    """Return Markdown without HTML. `code_of` finds the line ranges of code blocks, which are kept;
    `jsx` also drops the statements and component tags of MDX.
    """
    if not _MAY_HOLD.search(text):
        return text
    rewriter = _Rewriter(jsx=jsx)
    return "".join(
        part if is_code else rewriter.prose(part) for is_code, part in _parts(text, code_of(text))
    )


def _parts(text: str, code: Iterable[Lines]) -> Iterator[tuple[bool, str]]:
    """Yield (is code, text) in order."""
    lines = text.splitlines(keepends=True)
    at = 0
    for start, end in sorted(code):
        if start >= at:
            yield False, "".join(lines[at:start])
            yield True, "".join(lines[start:end])
            at = end
    yield False, "".join(lines[at:])


class _Rewriter:
    """Rewrite prose between code blocks; the level of the last heading carries over."""

    def __init__(self, *, jsx: bool) -> None:
        self._jsx = jsx
        self._level = 1

    def prose(self, text: str) -> str:
        if self._jsx:
            text = _STATEMENT.sub("", _JSX_COMMENT.sub("", text))
            text = _JSX.sub(_component, text)
        return _PATTERN.sub(self._replaced, text)

    def _replaced(self, found: re.Match[str]) -> str:
        kind = found.lastgroup if found.lastgroup != "ticks" else "keep"
        parts = found.groupdict()
        if parts["keep"] is not None:
            return found[0]
        if parts["comment"] is not None or parts["struck"] is not None:
            return ""
        if parts["level"] is not None:
            self._level = len(found["level"])
            return found[0]
        if parts["sup"] is not None:
            before = found.string[max(0, found.start() - 40) : found.start()]
            return raised(before, _plain(found["sup"]), note="<a" in found["sup"])
        if parts["heading"] is not None:
            return self._heading(int(found["rank"]), found["heading"])
        if parts["summary"] is not None:
            return self._summary(found)
        return _simple(kind or "", parts)

    def _heading(self, level: int, text: str) -> str:
        self._level = level
        name = _plain(text)
        return f"\n\n{'#' * level} {name}\n\n" if name else ""

    def _summary(self, found: re.Match[str]) -> str:
        """Write a heading if only the details belong to it, else a paragraph in bold."""
        name = _plain(found["summary"])
        end = found.string.lower().find("</details>", found.end())
        if name and end >= 0 and _AFTER_DETAILS.match(found.string, end + len("</details>")):
            return f"\n\n{'#' * min(self._level + 1, 6)} {name}\n\n"
        return f"\n\n**{name}**\n\n" if name else ""


def _simple(kind: str, parts: dict[str, str | None]) -> str:
    if (sub := parts["sub"]) is not None:
        return _plain(sub)
    if (table := parts["table"]) is not None:
        return f"\n\n{fragment_text(table)}\n\n"
    if (code := parts["code"]) is not None:
        return f"`{_plain(code)}`"
    if parts["item"] is not None:
        return "\n- "
    tag = (parts["tag"] or "").lower()
    return "\n" if tag in _BLOCK_TAGS else " " if tag in ("br", "td", "th") else ""


def _component(found: re.Match[str]) -> str:
    """Return the title of a JSX component, as of cards and tabs, as a paragraph in bold."""
    titled = _TITLED.search(found["attributes"] or "")
    return f"\n\n**{titled[1].strip()}**\n\n" if titled else "\n"


def _plain(source: str) -> str:
    return one_line(unescape(_ANY_TAG.sub("", source)))
