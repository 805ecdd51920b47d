"""Read the front matter of texts: YAML between `---`, TOML between `+++`, or JSON.

It may say who may read the file (`access`, `groups`), so nothing that mentions them is ever
ignored: it is understood, or the file is left out. Comments may come before front matter. HTML says
the same in `<meta name="access">`, reStructuredText in a field list.
"""

import datetime
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from slipway.knowledge.readers.document import UnreadableFile, one_line
from slipway.types import Record

_LONGEST = 64_000  # characters
_HEAD = 20_000  # characters, in which front matter begins
_MISPLACED_LINES = 100  # in which front matter behind other text is noticed
_LIMITS = ("access", "groups")
_MARK_OF = {"yaml": "---", "yml": "---", "toml": "+++", "json": ";;;"}
_KIND_OF = {"-": "yaml", "+": "toml", ";": "json"}
_BEFORE = re.compile(
    r"(?:\s|<!--.*?-->|<\?[^>]*\?>|\{/\*.*?\*/\}|\{#.*?#\}|/\*.*?\*/)*", re.DOTALL | re.IGNORECASE
)
_OPENS = re.compile(
    r"(?P<mark>-{3,}|\+{3,}|;{3,})[ \t]*(?P<kind>yaml|yml|toml|json)?[ \t]*(?:#[^\n]*)?(?:\n|\Z)",
    re.IGNORECASE,
)
_CLOSES = {
    "-": re.compile(r"^(?:-{3,}|\.\.\.)[ \t]*(?:#[^\n]*)?(?:\n|\Z)", re.MULTILINE),
    "+": re.compile(r"^\+{3,}[ \t]*(?:#[^\n]*)?(?:\n|\Z)", re.MULTILINE),
    ";": re.compile(r"^;{3,}[ \t]*(?:\n|\Z)", re.MULTILINE),
}
# A line that says who may read, as YAML, TOML, JSON or a field list write it, also in a table
# (`[extra.access]`), with a dotted key, or with a full-width sign
_LIMIT_LINE = re.compile(
    r"^[-{,>* \t]*+\[*(?:[\w-]+\.)*[\"':]?(?:access|groups)[\"']?[ \t]*"
    r"(?:[:=：＝.\]]|\Z)",
    re.IGNORECASE | re.MULTILINE,
)
_FIELD_LINE = re.compile(r"[ \t]*(?:[-*#][ \t]|[\"':]?[\w -]{1,40}[\"']?[ \t]*[:=：＝])")
_FENCE = re.compile(r"\s*(?:```|~~~)")
_RULER = re.compile(r" {0,3}(?:-{3,}|\+{3,})\s*$")
_META_TAG = re.compile(r"<meta\b[^>]*>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"(name|content)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]+))", re.IGNORECASE)
_TITLE_LINE = re.compile(
    r"^title[ \t]*[:=][ \t]*(?P<quote>[\"']?)(?P<title>.*?)(?P=quote)[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)


class FrontMatter(Record, frozen=True, kw_only=True):
    """What the front matter says; the text begins at `end`."""

    meta: dict[str, Any] = {}  # noqa: RUF012 - msgspec makes a new one for each
    title: str = ""
    end: int = 0


def front_matter(text: str) -> FrontMatter:
    """Parse the front matter of Markdown; empty if there is none. Invalid front matter is ignored,
    but UnreadableFile is raised if it seems to limit who may read the file.
    """
    start = _start(text)
    opened = _OPENS.match(text, start)
    if opened is None:
        found = _json_object(text, start)
        return found or _without(text, start)
    mark = opened["mark"][0]
    closed = _CLOSES[mark].search(text, opened.end())
    if closed is None:
        return _without(text, start)
    if _is_misplaced(text[closed.start() :]):
        raise UnreadableFile(
            "It says a second time who may read it, behind its front matter",
            "write that once, in the first block",
        )
    source = text[opened.end() : closed.start()]
    title = _TITLE_LINE.search(source)
    return FrontMatter(
        meta=_meta(source, (opened["kind"] or _KIND_OF[mark]).lower()),
        title=one_line(title["title"]) if title else "",
        end=closed.end(),
    )


def front_matter_of_text(text: str) -> FrontMatter:
    """Parse the front matter of plain text, where a line of dashes is mostly an ornament: only what
    holds fields is front matter. A field list may be first as well (reStructuredText).
    """
    found = front_matter(text)
    fields = _field_list(text)
    if found.meta:
        return FrontMatter(meta=found.meta | fields, title=found.title, end=found.end)
    return FrontMatter(meta=fields)


def front_matter_of_html(text: str) -> FrontMatter:
    """Parse front matter before the page, and `<meta name="access" content="hr, board">` in it."""
    found = front_matter(text)
    meta = dict(found.meta)
    for tag in _META_TAG.findall(text[:_LONGEST]):
        fields = {name.lower(): "".join(value) for name, *value in _ATTRIBUTE.findall(tag)}
        if (name := fields.get("name", "").strip().lower()) in _LIMITS:
            meta[_unused(name, meta)] = fields.get("content")
    return FrontMatter(meta=meta, title=found.title, end=found.end if found.meta else 0)


def _start(text: str) -> int:
    """Return where front matter may begin, behind comments."""
    before = _BEFORE.match(text[:_HEAD])
    end = before.end() if before else 0
    if _LIMIT_LINE.search(text[:end].replace("<!--", "")):
        raise UnreadableFile(
            "A comment at its start seems to say who may read it",
            "write that as front matter, between two lines of ---",
        )
    return end


def _without(text: str, start: int) -> FrontMatter:
    """Return empty front matter. Raises UnreadableFile if the text seems to have some that is not
    closed, not fenced, or behind other text.
    """
    opened = _OPENS.match(text, start)
    block = text[opened.end() if opened else start :].split("\n\n", 1)[0].split("\n")[:50]
    if opened and _LIMIT_LINE.search("\n".join(block)):
        raise UnreadableFile(
            "Its front matter, which says who may read it, is not closed",
            "put it first, between two lines of --- (YAML) or +++ (TOML)",
        )
    is_field_list = block[0].lstrip().startswith(":")  # read by `front_matter_of_text`
    if (not is_field_list and _says_who_reads(block)) or _is_misplaced(text):
        raise UnreadableFile(
            "It seems to say who may read it, but not in front matter at its start",
            "put that first, between two lines of --- (YAML) or +++ (TOML)",
        )
    return FrontMatter()


def _is_misplaced(text: str) -> bool:
    """Tell whether fields between two rulers, outside of code, say who may read the file."""
    block: list[str] | None = None
    in_code = False
    for line in text[:_HEAD].split("\n")[:_MISPLACED_LINES]:
        in_code ^= bool(_FENCE.match(line))
        if in_code:
            block = None
        elif _RULER.match(line):
            if block and _says_who_reads(block):
                return True
            block = []
        elif block is not None:
            block.append(line)
    return False


def _says_who_reads(block: list[str]) -> bool:
    """Tell whether all lines are fields, and one of them limits who may read."""
    are_fields = all(_FIELD_LINE.match(line) for line in block if line.strip())
    return are_fields and bool(_LIMIT_LINE.search("\n".join(block)))


def _json_object(text: str, start: int) -> FrontMatter | None:
    if text[start : start + 1] != "{":
        return None
    try:
        value, end = json.JSONDecoder(object_pairs_hook=_pairs).raw_decode(
            text[: _LONGEST + 1], start
        )
    except (ValueError, RecursionError):
        if _LIMIT_LINE.search(text[start : start + _LONGEST].split("\n\n", 1)[0]):
            raise UnreadableFile(
                "Its front matter, which says who may read it, is not valid JSON",
                "correct it, and write `access` once",
            ) from None
        return None
    found = _plain(value, itertools.count())
    return FrontMatter(meta=_with_limits(found, str(value)), end=end) if found else None


def _field_list(text: str) -> dict[str, Any]:
    """Return the limits of a reStructuredText field list among the first lines: `:access: hr`."""
    limits: dict[str, Any] = {}
    for line in text[:_HEAD].split("\n")[:_MISPLACED_LINES]:
        found = re.match(r":(access|groups):(.*)$", line.strip(), re.IGNORECASE)
        if found:
            value = found[2].strip().strip("[]")
            limits[_unused(found[1].lower(), limits)] = value
    return limits


def _meta(source: str, kind: str) -> dict[str, Any]:
    error: ValueError | None = None
    for each in (kind, *(["toml"] if kind == "yaml" else [])):
        try:
            return _with_limits(_mapping(source, each), source)
        except ValueError as failed:
            error = error or failed
    if _LIMIT_LINE.search(source):
        how = '`name = "value"`' if kind == "toml" else "`name: value`"
        raise UnreadableFile(
            f"Its front matter, which says who may read it, {error}", f"write it as lines of {how}"
        )
    return {}


def _with_limits(meta: dict[str, Any], source: str) -> dict[str, Any]:
    """Lift who may read the file out of nested tables, such as those for a site's own fields.
    Raises UnreadableFile if the source says more about that than was found.
    """
    flat = {name: value for name, value in meta.items() if not _is_limit(name)}
    found = list(_limits(meta))
    if len(found) < len(_LIMIT_LINE.findall(source)) - _own_groups(found):
        raise UnreadableFile(
            "Its front matter mentions who may read it in a way that is not understood",
            "write one field `access: [one, two]`",
        )
    for name, value in found:
        flat[_unused(name, flat)] = value
    return flat


def _own_groups(found: list[tuple[str, Any]]) -> int:
    """Count the fields `groups` inside `access`, which say one thing together."""
    return sum(
        isinstance(value, dict) and any(map(_is_limit, map(str, value))) for _, value in found
    )


def _limits(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, each in value.items():
            if _is_limit(name):
                yield name.strip(), each
            else:
                yield from _limits(each)
    elif isinstance(value, list):
        for each in value:
            yield from _limits(each)


def _is_limit(name: str) -> bool:
    return name.strip().casefold() in _LIMITS


def _unused(name: str, taken: dict[str, Any]) -> str:
    """Return the name with so many spaces behind it that it is a new one: each field counts."""
    while name in taken:
        name += " "
    return name


def _mapping(source: str, kind: str) -> dict[str, Any]:
    """Parse YAML, TOML or JSON. Raises ValueError, whose text completes "Its front matter ..."."""
    if len(source) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} characters")
    parse = {"toml": _toml, "json": _json}.get(kind, _yaml)
    try:
        plain = _plain(parse(source), itertools.count())
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(plain, dict | None):
        raise ValueError("is not a mapping of names to values")  # noqa: TRY004 - the text is wrong
    return plain or {}


def _pairs(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Make a mapping. Raises ValueError for a field of `_LIMITS` that is there twice."""
    names = [name for name, _ in pairs if isinstance(name, str) and _is_limit(name)]
    if len(names) != len(set(names)):
        raise ValueError("says who may read it twice")
    return dict(pairs)


def _yaml(source: str) -> Any:
    import yaml  # takes 20 ms, and few files have front matter

    class OnceLoader(yaml.SafeLoader):
        """Load YAML, and refuse a limit that is there twice: YAML would take the last one."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            if isinstance(node, yaml.MappingNode):
                _pairs([(getattr(key, "value", None), None) for key, _ in node.value])
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(source, OnceLoader)  # noqa: S506 - it is a SafeLoader
    except (yaml.YAMLError, TypeError) as error:
        raise ValueError("is not valid YAML") from error


def _toml(source: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ValueError("is not valid TOML") from error


def _json(source: str) -> Any:
    try:
        return json.loads(source, object_pairs_hook=_pairs)
    except json.JSONDecodeError as error:
        raise ValueError("is not valid JSON") from error


def _plain(value: Any, counted: "itertools.count[int]") -> Any:
    """Convert to JSON types. Raises ValueError for values that refer to themselves or that
    references multiply beyond 10,000.
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
