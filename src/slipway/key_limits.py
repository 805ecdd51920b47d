"""Limits of keys made at run time: what is asked for, checked before it is saved."""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, get_args

import msgspec

from slipway.errors import BadRequest
from slipway.settings import Allowance
from slipway.settings.checks import LEAST_BUDGET, MOST_BUDGET
from slipway.settings.keys import AtLimit

# the largest number of each limit, as in the settings
MOST = {"rpm": 10_000_000, "tpm": 10_000_000_000, "answers": 1_000_000}
MONEY = ("usd_per_day", "usd_per_month")
AT_LIMIT: tuple[AtLimit, ...] = get_args(AtLimit)
FIELDS = (*MOST, *MONEY, "at_limit")
NONE = "none"  # removes a limit, as null does in JSON
_WHOLE = re.compile(r"-?[0-9]+")
_AMOUNT = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def changed_limits(before: Allowance | None, asked: Mapping[str, Any] | None) -> Allowance | None:
    """Return limits with what is asked for; a field that is null or `none` is removed, None removes
    all. Raises BadRequest that names the field.
    """
    if asked is None:
        return None
    fields: dict[str, Any] = {} if before is None else msgspec.structs.asdict(before)
    for name, value in asked.items():
        if name not in FIELDS:
            known = ", ".join(f"`{each}`" for each in FIELDS)
            raise refused(
                name, f"there is no limit of this name; there are {known}.", "Correct it."
            )
        is_gone = value is None or (isinstance(value, str) and value.strip() == NONE)
        fields[name] = None if is_gone else checked(name, value)
    if fields.get("at_limit") is None:
        fields.pop("at_limit", None)
    day, month = fields.get("usd_per_day"), fields.get("usd_per_month")
    if day is not None and month is not None and day > month:
        what = f"`{day}` is more than `usd_per_month` ({month}), so it limits nothing."
        raise refused("usd_per_day", what, "Lower it.")
    limits = Allowance(**fields)
    return None if limits == Allowance() else limits


def checked(name: str, value: Any) -> int | Decimal | str:
    """Return the value of a limit. Raises BadRequest."""
    text = str(value).strip()
    if name == "at_limit":
        if text not in AT_LIMIT:
            raise refused(name, f"`{text[:50]}` is unknown.", f"Write {', '.join(AT_LIMIT)}.")
        return text
    if "," in text:
        raise refused(
            name, f"`{text[:50]}` has a comma.", "Write `1000`, not `1,000`; and `0.5`, not `0,5`."
        )
    return amount(name, text) if name in MONEY else whole(name, text)


def whole(name: str, text: str) -> int:
    if not _WHOLE.fullmatch(text) or not 1 <= int(text[:30]) <= MOST[name]:
        what = f"`{text[:50]}` is not a whole number from 1 to {MOST[name]}."
        raise refused(name, what, f"Write such a number, or `{NONE}` for no limit.")
    return int(text)


def amount(name: str, text: str) -> Decimal:
    try:
        usd = Decimal(text) if _AMOUNT.fullmatch(text) else None
    except InvalidOperation:
        usd = None
    if usd is None or not LEAST_BUDGET <= usd <= MOST_BUDGET:
        what = f"`{text[:50]}` is not a budget from {LEAST_BUDGET:f} to {MOST_BUDGET} USD."
        raise refused(name, what, f"Write USD, such as `5` or `0.50`, or `{NONE}` for no limit.")
    return usd


def refused(name: str, what: str, fix: str) -> BadRequest:
    field = f"limits.{name}"
    return BadRequest(f"`{field}`: {what}", fix, param=field)


def described(limits: Allowance | None) -> Iterator[str]:
    """Yield the limits that are set, as `rpm 60`."""
    if limits is not None:
        for name in FIELDS:
            value = getattr(limits, name)
            if value is not None and (name != "at_limit" or value != Allowance().at_limit):
                yield f"{name} {value:f}" if isinstance(value, Decimal) else f"{name} {value}"
