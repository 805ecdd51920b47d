"""Write the rows of a sheet as tables, each with its column names."""

import datetime
from collections.abc import Iterable
from typing import Any

from slipway.knowledge.readers.document import DocumentBuilder, table
from slipway.knowledge.readers.number_format import plain_number
from slipway.types import Record


class SheetRow(Record, frozen=True, kw_only=True):
    """The texts of a row. `heads` is how many rows name the columns if this is the first of them;
    merged cells tell.
    """

    cells: list[str]
    heads: int = 1


def write_rows(builder: DocumentBuilder, rows: Iterable[SheetRow]) -> None:
    """Write rows as tables. Rows above the column names are text; a blank row starts a new table if
    other column names follow.
    """
    tables, after_gap = list[list[SheetRow]](), True
    for row in rows:
        if not any(row.cells):
            after_gap = True
            continue
        if after_gap and (not tables or _names_columns(row, tables[-1][-1])):
            tables.append([])
        tables[-1].append(row)
        after_gap = False
    for each in tables:
        _write_table(builder, each)


def _names_columns(row: SheetRow, before: SheetRow) -> bool:
    """Return whether the row names columns: only words, and other cells filled than in the last
    row.
    """
    filled = [bool(cell) for cell in row.cells]
    return not any(_is_number(cell) for cell in row.cells) and filled != [
        bool(cell) for cell in before.cells
    ]


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:2].lstrip("-+").isdigit()


def _write_table(builder: DocumentBuilder, rows: list[SheetRow]) -> None:
    most = max(_filled(row) for row in rows)
    head = next(n for n, row in enumerate(rows) if _filled(row) * 2 >= most) if len(rows) > 1 else 1
    builder.block(
        "\n".join("  ".join(dict.fromkeys(filter(None, row.cells))) for row in rows[:head])
    )
    width = max(len(row.cells) for row in rows)
    even = [row.cells + [""] * (width - len(row.cells)) for row in rows[head:]]
    if not even:
        return
    used = [number for number, column in enumerate(zip(*even, strict=True)) if any(column)]
    heads = min(rows[head].heads, len(even))
    for part in table([[row[number] for number in used] for row in even], heads):
        builder.block(part)


def _filled(row: SheetRow) -> int:
    return sum(map(bool, row.cells))


def shown_value(value: Any) -> str:
    """Return a cell's value as a person sees it."""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return plain_number(value)
    if isinstance(value, datetime.datetime):
        day = value.replace(microsecond=0)
        return (
            day.date().isoformat()
            if day.time() == datetime.time()
            else day.isoformat(sep=" ", timespec="minutes" if not day.second else "auto")
        )
    if isinstance(value, datetime.time):
        return value.isoformat("minutes" if not value.second else "seconds")
    return str(value).strip()
