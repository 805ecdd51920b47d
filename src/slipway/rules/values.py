"""The values of slots and expressions, and how an answer shows them."""

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from fractions import Fraction

from slipway.rules.units import Unit
from slipway.types import Record

MAX_DIGITS = 400  # of a number in an answer
_PLACES = 12  # decimal places that are shown of an exact number
_ABOUT = 6  # significant digits that are shown of one that has no end
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!$])")
_STARTS = re.compile(r"^(\s*)([-+>]|\d+[.)])(?=\s)")
WHOLE_MONEY = frozenset({"JPY", "KRW", "VND"})  # currencies without cents (ISO 4217)


class Quantity(Record, frozen=True, kw_only=True):
    """An amount of a unit."""

    amount: Fraction
    unit: Unit


class MoneyAmount(Record, frozen=True, kw_only=True):
    """An amount of money; `currency` is an ISO 4217 code."""

    amount: Fraction
    currency: str


class Formula(Record, frozen=True, kw_only=True):
    """Arithmetic that somebody asked for, as text and as its exact result."""

    text: str
    result: Fraction


class TableRow(Record, frozen=True, kw_only=True):
    """A row that a slot found in a table; shown as its key."""

    key: str
    cells: Mapping[str, str]


Value = Fraction | date | str | Quantity | MoneyAmount | Unit | Formula | TableRow


def shown(value: Value) -> str:
    """Return a value as an answer shows it. Texts are escaped: they may be what somebody typed."""
    if isinstance(value, Fraction):
        return shown_number(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Quantity):
        return f"{shown_number(value.amount)} {value.unit.symbol}"
    if isinstance(value, MoneyAmount):
        return shown_money(value)
    if isinstance(value, Unit):
        return value.symbol
    if isinstance(value, Formula):
        return escaped(value.text)
    if isinstance(value, TableRow):
        return value.key
    return escaped(value)


def shown_number(number: Fraction) -> str:
    """Return a number exactly, or with `≈` and six digits if its decimals have no end."""
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    places = _PLACES if rest == 1 else 0
    scaled = number * 10**places
    if rest == 1 and scaled.denominator == 1:
        text = f"{Decimal(scaled.numerator).scaleb(-places):f}"
        return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
    about = Decimal(number.numerator) / Decimal(number.denominator)
    return f"≈ {about:.{_ABOUT}g}"


def shown_money(money: MoneyAmount) -> str:
    places = 0 if money.currency in WHOLE_MONEY else 2
    return f"{rounded_text(money.amount, places)} {money.currency}"


def rounded(number: Fraction, places: int) -> Fraction:
    """Round half away from zero, as prices are."""
    scale = 10**places
    scaled = abs(number) * scale
    whole = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    return Fraction(whole if number >= 0 else -whole, scale)


def rounded_text(number: Fraction, places: int) -> str:
    near = rounded(number, places)
    return f"{Decimal(int(near * 10**places)).scaleb(-places):f}"


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is: no markup, no link, no HTML, one line."""
    line = " ".join(text.split())
    return _STARTS.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", line))
