"""The types of slots: what each looks like in a pattern, and how its text becomes a value."""

import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from fractions import Fraction

from slipway.rules import expressions
from slipway.rules.dates import date_of
from slipway.rules.normalising import normal_form
from slipway.rules.numerals import SHAPE, number_of
from slipway.rules.rule import SlotSettings
from slipway.rules.tables import Table
from slipway.rules.units import UnitProblem, unit_named
from slipway.rules.values import (
    Formula,
    MoneyAmount,
    Quantity,
    TableRow,
    Value,
)
from slipway.types import Record

MAX_TEXT = 200  # characters of a text slot
_ANYTHING = r".+?"
_AMOUNT = re.compile(r"([-+]?[\d,]+(?:\.\d+)?)\s*(\D.*)")
_CURRENCIES = {
    "$": "USD",
    "us$": "USD",
    "usd": "USD",
    "dollar": "USD",
    "dollars": "USD",
    "美元": "USD",
    "€": "EUR",
    "eur": "EUR",
    "euro": "EUR",
    "euros": "EUR",
    "欧元": "EUR",
    "£": "GBP",
    "gbp": "GBP",
    "pound": "GBP",
    "pounds": "GBP",
    "英镑": "GBP",
    "元": "CNY",
    "块": "CNY",
    "块钱": "CNY",
    "人民币": "CNY",
    "cny": "CNY",
    "rmb": "CNY",
    "jpy": "JPY",
    "yen": "JPY",
    "日元": "JPY",
    "chf": "CHF",
    "inr": "INR",
    "₹": "INR",
}
_FORMULA = re.compile(r"[\d\s.,()+*/×÷xX^%−-]{3,200}")
_OPERATION = re.compile(r"[+*/×÷xX^−-]")

Read = Callable[[str, date], Value | None]


class SlotProblem(Exception):
    """A slot cannot be as it is written; the message says why."""


class Slot(Record, frozen=True, kw_only=True):
    """A slot: the expression that finds it in a question, and what reads the text found there.

    `read` returns None if the text is no such value; the pattern then does not match.
    """

    name: str
    kind: str
    shape: str
    read: Read
    columns: tuple[str, ...] = ()  # of its table


def read_text(text: str, today: date) -> Value | None:
    text = text.strip()
    return text if 0 < len(text) <= MAX_TEXT else None


def read_number(text: str, today: date) -> Value | None:
    return number_of(text)


def read_money(text: str, today: date) -> Value | None:
    """Read `$5`, `5 EUR`, `5元`. A yen sign alone could be two currencies, so it is not read."""
    plain = text.strip().casefold()
    for sign in ("us$", "$", "€", "£", "₹"):
        if plain.startswith(sign) and (amount := number_of(plain[len(sign) :])) is not None:
            return MoneyAmount(amount=amount, currency=_CURRENCIES[sign])
    found = _AMOUNT.fullmatch(plain)
    amount = number_of(found[1]) if found else None
    currency = _CURRENCIES.get(found[2].strip()) if found else None
    if amount is None or currency is None:
        return None
    return MoneyAmount(amount=amount, currency=currency)


def read_unit(text: str, today: date) -> Value | None:
    found = _AMOUNT.fullmatch(text.strip())
    amount = number_of(found[1]) if found else None
    if found is None or amount is None:
        return None
    try:
        return Quantity(amount=amount, unit=unit_named(found[2]))
    except UnitProblem:
        return None


def read_unit_name(text: str, today: date) -> Value | None:
    try:
        return unit_named(text)
    except UnitProblem:
        return None


def read_formula(text: str, today: date) -> Value | None:
    """Compute what somebody typed: digits, brackets and + - * / ^ only."""
    if not _FORMULA.fullmatch(text) or not _OPERATION.search(text.strip()[1:]):
        return None
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    for theirs, ours in (("×", "*"), ("x", "*"), ("X", "*"), ("÷", "/"), ("−", "-"), ("^", "**")):
        plain = plain.replace(theirs, ours)
    if "," in plain or "%" in plain or "//" in plain:
        return None
    try:
        result = expressions.compute(expressions.parse(plain), {})
    except expressions.ExpressionProblem:
        return None
    return Formula(text=text.strip(), result=result) if isinstance(result, Fraction) else None


# name -> (what it looks like in a question, how it is read)
SLOT_TYPES: dict[str, tuple[str, Read]] = {
    "text": (_ANYTHING, read_text),
    "number": (SHAPE, read_number),
    "date": (_ANYTHING, date_of),
    "money": (_ANYTHING, read_money),
    "unit": (_ANYTHING, read_unit),
    "unit_name": (_ANYTHING, read_unit_name),
    "formula": (r"[\d\s.,()+*/×÷xX^%−-]+", read_formula),
}

# what an answer may read of a value, beside the columns of tables
PARTS = {"money": ("amount",), "unit": ("amount",), "formula": ("result",)}


def slot_of(
    name: str, written: str | None, given: SlotSettings | None, tables: Mapping[str, Table]
) -> Slot:
    """Return a slot: `written` is its type in the pattern, `given` its entry under `slots`.

    Raises SlotProblem.
    """
    given = given or SlotSettings()
    if written is not None and "|" in written:
        given = SlotSettings(values={value.strip(): () for value in written.split("|")})
    elif written is not None and written in tables:
        given = SlotSettings(table=written)
    elif written is not None:
        given = SlotSettings(type=written, min=given.min, max=given.max)
    if given.table is not None:
        return table_slot(name, given.table, tables)
    if given.values is not None:
        return choice_slot(name, given.values)
    kind = given.type or "text"
    if kind not in SLOT_TYPES:
        known = ", ".join([*SLOT_TYPES, *tables])
        raise SlotProblem(f"there is no slot type `{kind}`; known: {known}, or values as `a|b|c`")
    shape, read = SLOT_TYPES[kind]
    return Slot(name=name, kind=kind, shape=shape, read=within(read, given.min, given.max))


def within(read: Read, least: Decimal | None, most: Decimal | None) -> Read:
    """Return a reader that accepts only numbers in these limits."""
    if least is None and most is None:
        return read

    def limited(text: str, today: date) -> Value | None:
        value = read(text, today)
        amount = value.amount if isinstance(value, Quantity | MoneyAmount) else value
        if not isinstance(amount, Fraction):
            return None
        fits = (least is None or amount >= Fraction(least)) and (
            most is None or amount <= Fraction(most)
        )
        return value if fits else None

    return limited


def choice_slot(name: str, values: Mapping[str, tuple[str, ...]]) -> Slot:
    """Return a slot with fixed values, each with other words for it."""
    meant = dict[str, str]()
    for value, others in values.items():
        for word in (value, *others):
            form = normal_form(word)
            if not form:
                raise SlotProblem(f"the slot `{name}` has a value without words")
            if meant.setdefault(form, value) != value:
                raise SlotProblem(f"`{word}` means two values of the slot `{name}`; remove one")
    if not meant:
        raise SlotProblem(f"the slot `{name}` has no values")

    def read(text: str, today: date) -> Value | None:
        value = meant.get(normal_form(text))
        return None if value is None else TableRow(key=value, cells={})

    return Slot(name=name, kind="values", shape=_ANYTHING, read=read)


def table_slot(name: str, table_name: str, tables: Mapping[str, Table]) -> Slot:
    """Return a slot whose values are the keys of a table."""
    table = tables.get(table_name)
    if table is None:
        known = ", ".join(tables) or "none"
        raise SlotProblem(f"there is no table `{table_name}`; known: {known}")

    def read(text: str, today: date) -> Value | None:
        row = table.find(text)
        return None if row is None else TableRow(key=row[table.key], cells=row)

    return Slot(name=name, kind=table_name, shape=_ANYTHING, read=read, columns=table.columns)
