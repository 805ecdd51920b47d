"""Compare the ledger with a provider's invoice, and name each difference.

An invoice is a CSV table. If it has the ids of calls, calls are compared one by one; else its lines
are added up by model, and by day if it has days.
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from slipway.errors import SettingsError
from slipway.ledger import LedgerRow, format_usd, usd
from slipway.prices import PICO
from slipway.types import Record

# a column of ours -> what invoices call it
NAMES = {
    "id": ("id", "request_id", "call_id", "generation_id"),
    "model": ("model", "model_name", "model_id"),
    "day": ("day", "date", "usage_date"),
    "input_tokens": ("input_tokens", "prompt_tokens"),
    "output_tokens": ("output_tokens", "completion_tokens"),
    "cost_usd": ("cost_usd", "cost", "amount_usd", "amount"),
}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}(?!\d)")
SHOWN = 50  # differences that a person is shown; --json has all


class InvoicedCall(Record, frozen=True, kw_only=True):
    """A line of an invoice. `cost` is in USD; `id` is empty if the invoice has none."""

    line: int
    id: str
    model: str
    day: str
    input_tokens: int | None
    output_tokens: int | None
    cost: Decimal


class InvoiceDifference(Record, frozen=True, kw_only=True):
    """Where the invoice and the ledger differ; a side that has nothing is None."""

    what: str
    where: str
    invoice_usd: str | None
    ledger_usd: str | None


class Reconciliation(Record, frozen=True, kw_only=True):
    """The result. `estimated` counts calls whose tokens the ledger had to count itself."""

    invoice_usd: str
    ledger_usd: str
    lines: int
    calls: int
    estimated: int
    unknown: int
    differences: tuple[InvoiceDifference, ...]


def read_invoice(file: Path) -> list[InvoicedCall]:
    """Return an invoice's lines. Raises SettingsError that names the column or line, and the fix."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsError([f"{file}: this is not UTF-8 text; save it as CSV in UTF-8"]) from None
    except OSError as error:
        raise SettingsError([f"{file}: it cannot be read ({error.strerror})"]) from None
    if (split := separator(text)) != ",":
        what = f"its values are separated by `{split}`".replace("\t", "tabs")
        raise SettingsError([f"{file}: {what}; save it with commas, and USD with a point"])
    rows = csv.DictReader(text.splitlines())
    columns = columns_of(file, rows.fieldnames or ())
    found, problems = list[InvoicedCall](), list[str]()
    for row in rows:
        try:
            found.append(line_of(rows.line_num, row, columns))
        except ValueError as error:
            problems.append(f"{file}:{rows.line_num}: {error}")
    if problems:
        raise SettingsError(problems[:10])
    if not found:
        raise SettingsError([f"{file}: it has no lines below its head"])
    return found


def separator(text: str) -> str:
    """Return what separates the names of the columns: spreadsheets of some countries use others."""
    head = text.partition("\n")[0]
    return "," if "," in head else next((mark for mark in ";\t|" if mark in head), ",")


def columns_of(file: Path, head: Sequence[str]) -> dict[str, str]:
    """Return the invoice's own name of each column that is known. Raises SettingsError."""
    by_name = {name.strip().lower().replace(" ", "_"): name for name in head}
    columns = {
        ours: by_name[theirs]
        for ours, names in NAMES.items()
        for theirs in [next((name for name in names if name in by_name), "")]
        if theirs
    }
    if "cost_usd" not in columns or not ({"id", "model"} & columns.keys()):
        has = ", ".join(f"`{name}`" for name in head) or "none"
        what = f"an invoice needs a column `cost_usd`, and `id` or `model`; it has {has}"
        fix = "rename its columns (`day`, `input_tokens` and `output_tokens` are read too)"
        raise SettingsError([f"{file}: {what}; {fix}"])
    return columns


def line_of(
    number: int, values: Mapping[Any, str | None], columns: Mapping[str, str]
) -> InvoicedCall:
    """Return a line. Raises ValueError that says what is wrong with it."""
    if None in values:  # where DictReader puts what the head has no name for
        raise ValueError("it has more values than the head; write USD with a point")
    row = {name: values.get(column) or "" for name, column in columns.items()}
    try:
        cost = Decimal(row["cost_usd"].strip().removeprefix("$"))
        good = cost.is_finite()
    except InvalidOperation:
        good = False
    if not good:
        raise ValueError(f"`{row['cost_usd']}` is no amount; write USD with a point, as `0.28`")
    id_, model = row.get("id", "").strip(), row.get("model", "").strip()
    if not id_ and not model:
        raise ValueError("it names neither a call (`id`) nor a `model`")
    day = row.get("day", "").strip()
    if day and not _DAY.match(day):
        raise ValueError(f"`{day}` is no day; write it as `2026-01-31`")
    counts = {}
    for name in ("input_tokens", "output_tokens"):
        text = row.get(name, "").strip()
        if text and not (text.isascii() and text.isdigit()):
            raise ValueError(f"`{text}` is no number of tokens (`{name}`)")
        counts[name] = int(text) if text else None
    return InvoicedCall(
        line=number,
        id=id_,
        model=model,
        day=day[:10],
        cost=cost,
        **counts,
    )


def reconcile(
    invoice: Sequence[InvoicedCall], rows: Sequence[LedgerRow], names: Mapping[str, str]
) -> Reconciliation:
    """Compare; `names` gives the provider's name of each of our models."""
    charged = [row for row in rows if row.cost or row.cost is None]
    by_call = any(line.id for line in invoice)
    compare = compare_calls if by_call else compare_sums
    return Reconciliation(
        invoice_usd=written(sum((line.cost for line in invoice), Decimal(0))),
        ledger_usd=written(total(rows)),
        lines=len(invoice),
        calls=len(charged),
        estimated=sum(row.usage.estimated for row in charged),
        unknown=sum(row.cost is None for row in rows),
        differences=tuple(compare(invoice, charged if compare is compare_sums else rows, names)),
    )


def total(rows: Iterable[LedgerRow]) -> Decimal:
    return usd(sum(row.cost or 0 for row in rows)) or Decimal(0)


def written(amount: Decimal) -> str:
    return format_usd(amount) or "0"


def compare_calls(
    invoice: Sequence[InvoicedCall], rows: Sequence[LedgerRow], names: Mapping[str, str]
) -> Iterator[InvoiceDifference]:
    """Yield the calls that differ. Calls that were never answered have no id in the ledger: they
    are paired with lines of the same model and amount.
    """
    twice = [id_ for id_, n in Counter(line.id for line in invoice if line.id).items() if n > 1]
    rows = sorted(
        rows, key=lambda row: row.cost != 0
    )  # of two calls with one id, the one that cost
    by_id = {row.upstream: row for row in rows if row.upstream}
    left = defaultdict[tuple[str, int | None], list[LedgerRow]](list)
    for row in rows:
        if not row.upstream:
            left[names.get(row.model, row.model), row.cost].append(row)
    for line in invoice:
        where = f"line {line.line}, {line.id or 'no id'}, {line.model}"
        found = by_id.pop(line.id, None)
        if found is None:
            nameless = left.get((line.model, pico(line.cost)))
            if nameless:
                nameless.pop()
            else:
                what = "the invoice has it twice" if line.id in twice else "not in the ledger"
                yield InvoiceDifference(
                    what=what, where=where, invoice_usd=written(line.cost), ledger_usd=None
                )
        elif found.cost is None:
            yield difference("its price is unknown here", where, line.cost, found)
        elif usd(found.cost) != line.cost:
            yield difference(tokens_differ(line, found), where, line.cost, found)
    for row in [*by_id.values(), *(row for group in left.values() for row in group)]:
        if row.cost == 0:
            continue  # calls that cost nothing need not be on an invoice
        where = f"answer {row.answer}, {row.upstream or 'never answered'}, {row.model}"
        yield InvoiceDifference(
            what="not on the invoice",
            where=where,
            invoice_usd=None,
            ledger_usd=format_usd(row.cost_usd),
        )


def difference(what: str, where: str, cost: Decimal, row: LedgerRow) -> InvoiceDifference:
    return InvoiceDifference(
        what=what,
        where=f"{where}, answer {row.answer}",
        invoice_usd=written(cost),
        ledger_usd=format_usd(row.cost_usd),
    )


def tokens_differ(line: InvoicedCall, row: LedgerRow) -> str:
    """Say why the amounts differ."""
    ours = (row.usage.input_tokens, row.usage.output_tokens)
    theirs = (line.input_tokens, line.output_tokens)
    if None in theirs or ours == theirs:
        return "another price" if ours == theirs else "another amount"
    counted = ", which the ledger had to count" if row.usage.estimated else ""
    return f"{theirs[0]} + {theirs[1]} tokens instead of {ours[0]} + {ours[1]}{counted}"


def pico(amount: Decimal) -> int | None:
    """Return an amount in picodollars; None if it is no whole number of them."""
    scaled = amount * PICO
    return int(scaled) if scaled == scaled.to_integral_value() else None


def compare_sums(
    invoice: Sequence[InvoicedCall], rows: Sequence[LedgerRow], names: Mapping[str, str]
) -> Iterator[InvoiceDifference]:
    """Yield the models, or the models of a day, whose sums differ."""
    by_day = any(line.day for line in invoice)
    theirs, ours = (
        defaultdict[tuple[str, str], Decimal](Decimal),
        defaultdict[tuple[str, str], int](int),
    )
    unknown = Counter[tuple[str, str]]()
    for line in invoice:
        theirs[line.model, line.day] += line.cost
    for row in rows:
        day = datetime.fromtimestamp(row.at, UTC).strftime("%Y-%m-%d") if by_day else ""
        group = (names.get(row.model, row.model), day)
        ours[group] += row.cost or 0
        unknown[group] += row.cost is None
    for group in sorted({*theirs, *ours}):
        mine = usd(ours[group]) or Decimal(0)
        if theirs[group] != mine:
            lacks = f"; {unknown[group]} calls have no price here" if unknown[group] else ""
            yield InvoiceDifference(
                what=f"another sum{lacks}",
                where=", ".join(part for part in group if part),
                invoice_usd=written(theirs[group]),
                ledger_usd=written(mine),
            )


def lines(found: Reconciliation) -> Iterator[str]:
    """Yield the lines that a person reads."""
    yield f"invoice {found.invoice_usd} USD, {found.lines:,} lines"
    yield f"ledger  {found.ledger_usd} USD, {found.calls:,} calls, {found.estimated:,} of them counted"
    for each in found.differences[:SHOWN]:
        amounts = (
            f"{each.invoice_usd or '-'} on the invoice, {each.ledger_usd or '-'} in the ledger"
        )
        yield f"  {each.where}: {each.what}: {amounts}"
    if (more := len(found.differences) - SHOWN) > 0:
        yield f"  and {more:,} more; --json has all"
    if found.unknown:
        yield f"The price of {found.unknown:,} calls is unknown: set `price` of their models."
    yield "They are equal." if not found.differences else f"{len(found.differences):,} differences."
