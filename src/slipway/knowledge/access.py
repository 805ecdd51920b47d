"""Who may read which document, and which documents a question is limited to.

Rules go by path; the first that matches counts, and where none does, everybody who may call the app may read. A document's own front matter
can only narrow that. What an asker may not read does not exist for the search: it is taken out before anything is ranked or counted.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

from slipway.errors import BadRequest
from slipway.knowledge.index import Reach
from slipway.knowledge.shelf import Doc
from slipway.settings import AccessRule
from slipway.types import Asker, Within

EVERYBODY = "*"
_KEPT = 256  # reaches remembered, of one generation


class Access:
    """The rules of one app, compiled. `reach` answers for a whole collection, from memory where nothing has changed.

    `rules` is asked each time: rules that were changed count from the next question on. It gives the same object as long as nothing has.
    """

    def __init__(self, rules: Callable[[], Sequence[AccessRule]] = tuple) -> None:
        self._source = rules
        self._compiled: Sequence[AccessRule] | None = None
        self._rules: list[tuple[re.Pattern[str], frozenset[str]]] = []
        self._known: dict[tuple[Any, ...], Reach | None] = {}

    def _renew(self) -> None:
        rules = self._source()
        if rules is not self._compiled:
            self._rules, self._known = [(glob(rule.path), frozenset(rule.groups)) for rule in rules], {}
            self._compiled = rules

    def may_read(self, asker: Asker, doc: Doc) -> bool:
        self._renew()
        return self._may_read(asker, doc)

    def _may_read(self, asker: Asker, doc: Doc) -> bool:
        if asker.everything:
            return True
        groups = next((groups for pattern, groups in self._rules if pattern.match(_plain(doc.path))), None)
        return _within(asker, groups) and all(_within(asker, each) for each in doc.groups)

    def reach(self, asker: Asker, within: Within | None, documents: Mapping[int, Doc], generation: object) -> Reach | None:
        """Which documents this asker's question may find; None where it is all of them. `documents` are those of `generation`."""
        self._renew()
        key = (generation, asker.everything, asker.groups, within)
        if key not in self._known:
            if len(self._known) >= _KEPT or any(known[0] != generation for known in self._known):
                self._known = {}
            self._known[key] = self._reach(asker, within, documents)
        return self._known[key]

    def _reach(self, asker: Asker, within: Within | None, documents: Mapping[int, Doc]) -> Reach | None:
        wanted = matcher(within)
        out = frozenset(number for number, doc in documents.items() if not (self._may_read(asker, doc) and wanted(doc)))
        if not out:
            return None
        if 2 * len(out) < len(documents):
            return Reach(documents=out, others=True)
        return Reach(documents=frozenset(documents) - out)


def _within(asker: Asker, groups: frozenset[str] | None) -> bool:
    return groups is None or EVERYBODY in groups or not groups.isdisjoint(asker.groups)


def matcher(within: Within | None) -> Any:
    """(document) -> whether the question is about it. Raises BadRequest for a limit that cannot be understood."""
    if within is None:
        return lambda doc: True
    pattern = glob(within.path) if within.path else None
    tags = {tag.casefold() for tag in within.tags}
    since, until = _day(within.since, "since"), _day(within.until, "until")

    def wanted(doc: Doc) -> bool:
        if pattern is not None and not pattern.match(_plain(doc.path)):
            return False
        if tags and not tags <= {tag.casefold() for tag in doc.tags}:
            return False
        return not (since or until) or (bool(doc.date) and since <= doc.date[:10] and (not until or doc.date[:10] <= until))

    return wanted


def _day(text: str, field: str) -> str:
    if not text:
        return ""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise BadRequest(f"`within.{field}` is not a day.", "Write it as 2026-01-31.", param=f"within.{field}") from None


@lru_cache(maxsize=1024)
def glob(pattern: str) -> re.Pattern[str]:
    """`hr/**`, `*.pdf`, `guide`: `*` stays inside a folder, `**` does not, and a folder's name means all that is in it."""
    pattern = _plain(pattern).removeprefix("./").rstrip("/")
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(signs.get(part, re.escape(part)) for part in parts) + r"(?:/.*)?\Z", re.DOTALL)


def _plain(path: str) -> str:
    """Composed characters: the same name, however a file system spells it."""
    return unicodedata.normalize("NFC", path)
