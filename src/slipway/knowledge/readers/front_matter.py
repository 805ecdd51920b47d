"""Read the front matter of Markdown files: YAML between `---`, TOML between `+++`.

It may say who may read the file (`access`, `groups`), so front matter that cannot be understood is
never ignored if it mentions them.
"""

import datetime
import itertools
import re
from typing import Any

from slipway.knowledge.readers.document import UnreadableFile, one_line
from slipway.types import Record

_CLOSED = {
    "yaml": re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE),
    "toml": re.compile(r"\+\+\+[ \t]*\n(.*?)^\+\+\+[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE),
}
_MARKS = {"yaml": "---", "toml": "+++"}
# as YAML, JSON or TOML write it, perhaps in a table `[extra]` or a dotted key
_ACCESS = re.compile(r"\b(access|groups)\b[\"']?[ \t]*[:=.\]]", re.IGNORECASE)
_OPENED = re.compile(r"\s*(?:---|\+\+\+)[ \t]*\n((?:[^\n]+\n){0,50})")
_TITLE_LINE = re.compile(
    r"^title[ \t]*[:=][ \t]*(?P<quote>[\"']?)(?P<title>.*?)(?P=quote)[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
_LONGEST = 64_000  # characters


class FrontMatter(Record, frozen=True, kw_only=True):
    """What the front matter says; the text begins at `end`."""

    meta: dict[str, Any] = {}  # noqa: RUF012 - msgspec makes a new one for each
    title: str = ""
    end: int = 0


def front_matter(text: str) -> FrontMatter:
    """Parse the front matter; empty if there is none. Invalid front matter is ignored, but
    UnreadableFile is raised if it seems to limit who may read the file.
    """
    for kind, pattern in _CLOSED.items():
        if found := pattern.match(text):
            title = _TITLE_LINE.search(found[1])
            return FrontMatter(
                meta=_meta(found[1], kind),
                title=one_line(title["title"]) if title else "",
                end=found.end(),
            )
    opened = _OPENED.match(text)
    if opened and any(_ACCESS.match(line.lstrip(" \t{\"'[")) for line in opened[1].splitlines()):
        raise UnreadableFile(
            "Its front matter, which says who may read it, is not closed or not at the start",
            "put it first, between two lines of --- (YAML) or +++ (TOML)",
        )
    return FrontMatter()


def _meta(source: str, kind: str) -> dict[str, Any]:
    try:
        meta = _mapping(source, kind)
    except ValueError as error:
        if _ACCESS.search(source):
            how = "`name: value`" if kind == "yaml" else '`name = "value"`'
            raise UnreadableFile(
                f"Its front matter, which says who may read it, {error}",
                f"write it as lines of {how}",
            ) from None
        return {}
    return _with_custom_fields(meta)


def _with_custom_fields(meta: dict[str, Any]) -> dict[str, Any]:
    """Lift who may read the file out of the tables that Zola (`extra`) and Hugo (`params`) keep for
    a site's own fields.
    """
    tables = [table for name in ("extra", "params") if isinstance(table := meta.get(name), dict)]
    lifted = {
        f"{name} ": value
        for table in tables
        for name, value in table.items()
        if name.strip().casefold() in ("access", "groups")
    }
    return meta | lifted  # another name, since a field of the same name may limit readers as well


def _mapping(source: str, kind: str) -> dict[str, Any]:
    """Parse YAML or TOML. Raises ValueError, whose text completes "Its front matter ..."."""
    if len(source) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} characters")
    try:
        plain = _plain(_toml(source) if kind == "toml" else _yaml(source), itertools.count())
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(plain, dict | None):
        raise ValueError("is not a YAML mapping")  # noqa: TRY004 - the text is wrong
    return plain or {}


def _yaml(source: str) -> Any:
    import yaml  # takes 20 ms, and few files have front matter

    try:
        return yaml.safe_load(source)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date like 2024-13-45
        raise ValueError("is not valid YAML") from error


def _toml(source: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ValueError("is not valid TOML") from error


def _plain(value: Any, counted: "itertools.count[int]") -> Any:
    """Convert to JSON types. Raises ValueError for values that refer to themselves or that references
    multiply beyond 10,000.
    """
    if next(counted) > 10_000:
        raise ValueError("holds too many values")
    if isinstance(value, dict):
        return {str(key): _plain(each, counted) for key, each in value.items()}
    if isinstance(value, list | set | tuple):
        return [_plain(each, counted) for each in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return (
        value
        if value is None
        or isinstance(value, bool | float)
        or (isinstance(value, int) and abs(value) < 2**63)
        else str(value)
    )
