"""Match document paths against patterns such as `hr/**`, `*.pdf` or `guide`.

`*` and `?` stay inside a folder, `**` does not, and a folder's name matches everything in it.
"""

import posixpath
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

_SPELLINGS = 8
_WILD = re.compile(r"[*?]")


class Glob:
    """Match a path against a pattern, folder by folder. The time is bounded by the lengths,
    whatever pattern a client sends.

    `literals` are the names in the pattern without a wildcard, `is_literal` tells whether all are.
    """

    def __init__(self, pattern: str) -> None:
        names = [name for name in tidy(pattern).split("/") if name]
        self.literals = tuple(name for name in names if not _WILD.search(name))
        self.is_literal = len(self.literals) == len(names)
        if pattern.count("**") > _SPELLINGS:
            names = [name if name == "**" else re.sub(r"\*+", "*", name) for name in names]
        self._spellings = [
            [None if name == "**" else _name(name) for name in spelling]
            for spelling in _spellings(names)
        ]

    def match(self, path: str) -> bool:
        """Tell whether the pattern matches this path or a folder above it."""
        return self.match_names(names_in(path))

    def match_names(self, names: Sequence[str]) -> bool:
        """Do what `match` does with a path that `names_in` has split."""
        return any(_leads(spelling, names) for spelling in self._spellings)


@lru_cache(maxsize=1024)
def glob(pattern: str) -> Glob:
    """Compile a pattern; the latest ones are cached."""
    return Glob(pattern)


def tidy(path: str) -> str:
    """Return a path as patterns compare it: composed characters, `/` between names, without `./`,
    doubled or closing slashes, and without `..` behind a name.
    """
    plain = "/".join(names_in(path))
    return "" if not plain.strip("/") else posixpath.normpath(plain).lstrip("/")


def names_in(path: str) -> list[str]:
    """Split a path into names with composed characters: the same, whatever form the file system
    uses. A backslash separates names as well.
    """
    return unicodedata.normalize("NFC", path).replace("\\", "/").split("/")


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
        if not at:
            return False
    return len(pattern) in at


def _onward(pattern: Sequence[re.Pattern[str] | None], at: set[int]) -> set[int]:
    """Add the positions reached when `**` matches no folder at all."""
    for n, each in enumerate(pattern):
        if n in at and each is None:
            at.add(n + 1)
    return at
