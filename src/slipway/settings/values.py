"""The kinds of values that settings have beside those of YAML: durations, shares, branches."""

import re
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*")


Duration = Annotated[
    float,
    Meta(
        extra={"duration": True},
        extra_json_schema={"type": ["number", "string"], "pattern": DURATION.pattern},
    ),
]


def seconds(value: object) -> float:
    """Return the seconds of a duration: `250ms`, `2s`, `5m`, `1h`, `30d`, or a number of seconds.

    Raise ValueError that says what is expected.
    """
    found = None if isinstance(value, bool) else DURATION.fullmatch(str(value))
    if found is None:
        raise ValueError(f"`{value}` is not a duration; write `250ms`, `2s`, `5m`, `1h` or `30d`")
    return float(found[1]) * UNITS[found[2] or "s"]


def duration(text: str) -> float:
    """Return the seconds of a duration that a person typed: unlike `seconds`, it must have a unit,
    since `90` may be meant as days. Raise ValueError that says what is expected.
    """
    plain = text.strip()
    if plain.replace(".", "", 1).isdigit() and float(plain):
        raise ValueError(f"`{plain[:50]}` has no unit; write `{plain[:50]}d` if it means days")
    return seconds(plain)


SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def share(value: str) -> float:
    """Parse a share as written: `5%`. Raises ValueError, which says what is expected."""
    found = SHARE.fullmatch(value.strip())
    if found is None or not 0 < float(found[1]) <= 100:
        raise ValueError(f"`{value}` is not a share; write `5%`")
    return float(found[1]) / 100


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the tree. With a `shorthand`, it can be written as that field's value alone."""

    shorthand: ClassVar[str | None] = None
