"""Decide who may read which document, and which documents a question is limited to.

Rules match paths; the first that matches applies, and a document that no rule matches is readable
by everybody who may call the app. A document's own front matter can only narrow that. Documents
that an asker may not read are removed before anything is ranked or counted.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

from slipway.errors import BadRequest
from slipway.knowledge.document_store import Doc
from slipway.knowledge.index import DocumentFilter
from slipway.settings import AccessRule
from slipway.types import Asker, Within

EVERYBODY = "*"
_CACHED_FILTERS = 32  # of one generation; each may hold a number for every other document
_SPELLINGS = 8


Rules = Sequence[tuple["Glob", frozenset[str]]]


class Access:
    """Hold the compiled rules of one app. `document_filter` covers a whole collection and is cached
    until something changes. Thread-safe.

    `rules` is called each time and must return the same object until the rules change; changed
    rules apply from the next question on.
    """

    def __init__(self, rules: Callable[[], Sequence[AccessRule]] = tuple) -> None:
        self._source = rules
        self._compiled: tuple[Sequence[AccessRule] | None, Rules] = (None, ())
        # Replaced as a whole, since other threads read it
        self._known: tuple[Rules, object, dict[Any, tuple[DocumentFilter | None]]] = ((), None, {})

    def _rules(self) -> Rules:
        rules, (source, compiled) = self._source(), self._compiled
        if rules is not source:
            compiled = [(glob(rule.path), frozenset(rule.groups)) for rule in rules]
            self._compiled = (rules, compiled)
        return compiled

    def may_read(self, asker: Asker, doc: Doc) -> bool:
        """Tell whether this asker may read this document."""
        return _may_read(self._rules(), asker, doc)

    def document_filter(
        self, asker: Asker, within: Within | None, documents: Mapping[int, Doc], generation: object
    ) -> DocumentFilter | None:
        """Return which documents this asker's question may find; None means all. `documents` belong
        to `generation`.
        """
        rules, key = self._rules(), (asker.everything, asker.groups, within)
        known_rules, known_generation, known = self._known
        if known_rules is not rules or known_generation != generation:
            known = {}
            self._known = (rules, generation, known)
        kept = known.get(key)
        if kept is None:
            if len(known) >= _CACHED_FILTERS:
                known.clear()
            kept = known[key] = (_document_filter(rules, asker, within, documents),)
        return kept[0]


def _may_read(rules: Rules, asker: Asker, doc: Doc) -> bool:
    if asker.everything:
        return True
    names = _names(doc)
    groups = next((groups for pattern, groups in rules if any(map(pattern.match, names))), None)
    return _is_member(asker, groups) and all(_is_member(asker, each) for each in doc.groups)


def _names(doc: Doc) -> Sequence[str]:
    """Return the names that a rule may use for a document. With several folders, its path depends
    on what the other folders hold; a rule must not.
    """
    return (doc.path, doc.home, doc.home.partition("/")[2]) if doc.home else (doc.path,)


def _document_filter(
    rules: Rules, asker: Asker, within: Within | None, documents: Mapping[int, Doc]
) -> DocumentFilter | None:
    wanted = matcher(within)
    out = frozenset(
        number
        for number, doc in documents.items()
        if not (_may_read(rules, asker, doc) and wanted(doc))
    )
    if not out:
        return None
    if 2 * len(out) < len(documents):
        return DocumentFilter(documents=out, excludes=True)
    return DocumentFilter(documents=frozenset(documents) - out)


def _is_member(asker: Asker, groups: frozenset[str] | None) -> bool:
    return groups is None or EVERYBODY in groups or not groups.isdisjoint(asker.groups)


def matcher(within: Within | None) -> Any:
    """Return a function that tells whether the question's limits include a document. Raise
    BadRequest for limits that cannot be parsed.
    """
    if within is None:
        return lambda doc: True
    pattern = glob(within.path) if within.path else None
    tags = {tag.casefold() for tag in within.tags}
    since, until = _day(within.since, "since"), _day(within.until, "until")

    def wanted(doc: Doc) -> bool:
        if pattern is not None and not pattern.match(doc.path):
            return False
        if tags and not tags <= {tag.casefold() for tag in doc.tags}:
            return False
        return not (since or until) or (
            bool(doc.date) and since <= doc.date[:10] and (not until or doc.date[:10] <= until)
        )

    return wanted


def _day(text: str, field: str) -> str:
    if not text:
        return ""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise BadRequest(
            f"`within.{field}` is not a date.", "Write it as 2026-01-31.", param=f"within.{field}"
        ) from None


class Glob:
    """Match a path against a pattern, folder by folder. The time is bounded by the lengths,
    whatever pattern a client sends.
    """

    def __init__(self, pattern: str) -> None:
        names = [name for name in _plain(pattern).removeprefix("./").split("/") if name]
        if pattern.count("**") > _SPELLINGS:
            names = [name if name == "**" else re.sub(r"\*+", "*", name) for name in names]
        self._spellings = [
            [None if name == "**" else _name(name) for name in spelling]
            for spelling in _spellings(names)
        ]

    def match(self, path: str) -> bool:
        """Tell whether the pattern matches this path or a folder above it."""
        names = _plain(path).split("/")
        return any(_leads(spelling, names) for spelling in self._spellings)


@lru_cache(maxsize=1024)
def glob(pattern: str) -> Glob:
    """Compile a pattern such as `hr/**`, `*.pdf` or `guide`: `*` stays inside a folder, `**` does
    not, and a folder's name matches everything in it.
    """
    return Glob(pattern)


def _spellings(names: Sequence[str]) -> list[list[str]]:
    """Expand `**` next to other letters into both readings: `**.pdf` is `*.pdf` or `*/**/*.pdf`."""
    for at, name in enumerate(names):
        before, crossing, after = name.partition("**")
        if crossing and name != "**":
            rest = _spellings([f"*{after.lstrip('*')}", *names[at + 1 :]])[:_SPELLINGS]
            inside = [[*names[:at], f"{before}{first}", *others] for first, *others in rest]
            return inside + [[*names[:at], f"{before}*", "**", *each] for each in rest]
    return [list(names)]


def _name(pattern: str) -> re.Pattern[str]:
    """Compile one path segment. Each `*` matches as little as possible and is never retried: what
    follows can be found no better further left.
    """
    first, *more = [
        "".join("." if sign == "?" else re.escape(sign) for sign in part)
        for part in re.split(r"\*+", pattern)
    ]
    if not more:
        return re.compile(first, re.DOTALL)
    *middle, last = more
    return re.compile(first + "".join(f"(?>.*?{part})" for part in middle) + ".*" + last, re.DOTALL)


def _leads(pattern: Sequence[re.Pattern[str] | None], names: Sequence[str]) -> bool:
    """Tell whether the pattern matches this path or a folder above it."""
    at = _onward(pattern, {0})
    for name in names:
        if len(pattern) in at:
            return True
        through = {n for n in at if pattern[n] is None}
        at = _onward(
            pattern,
            through
            | {n + 1 for n in at if (each := pattern[n]) is not None and each.fullmatch(name)},
        )
    return len(pattern) in at


def _onward(pattern: Sequence[re.Pattern[str] | None], at: set[int]) -> set[int]:
    """Add the positions reached when `**` matches no folder at all."""
    for n, each in enumerate(pattern):
        if n in at and each is None:
            at.add(n + 1)
    return at


def _plain(path: str) -> str:
    """Return composed characters: the same name, whatever form the file system uses."""
    return unicodedata.normalize("NFC", path)
