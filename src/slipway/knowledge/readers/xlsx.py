"""Read Excel sheets and separated values: each sheet is a heading, its rows are tables that repeat
the column names in every passage.
"""

import csv
import datetime
import io
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from slipway.knowledge.readers.document import (
    DocumentBuilder,
    OnPage,
    ParsedDocument,
    UnreadableFile,
    table,
)
from slipway.knowledge.readers.office import OfficePackage

_SAMPLE_LINES = 50

Row = list[str]


def xlsx(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read values as Excel last computed them, dates as ISO 8601. Hidden sheets are left out."""
    from python_calamine import CalamineError, CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

    meta, builder = OfficePackage(data).meta(), DocumentBuilder()
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(data))
        for sheet in book.sheets_metadata:
            if sheet.visible == SheetVisibleEnum.Visible and sheet.typ == SheetTypeEnum.WorkSheet:
                builder.heading(1, sheet.name)
                _write(builder, book.get_sheet_by_name(sheet.name).to_python())
    except CalamineError as error:
        what = (
            "It is protected by a password"
            if "assword" in str(error)
            else "It is damaged: a sheet cannot be read"
        )
        raise UnreadableFile(
            what, "open it in Excel and save it again, without a password"
        ) from None
    return builder.document(meta.get("title") or fallback, meta)


def separated(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read separated values. The separator is the one of comma, semicolon, tab and bar that splits
    the first lines most evenly. (csv.Sniffer guesses letters, and is slow.)
    """
    text, builder = _decoded(data), DocumentBuilder()
    csv.field_size_limit(1_000_000)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    try:
        rows = [[cell.strip() for cell in row] for row in reader]
    except csv.Error as error:
        raise UnreadableFile(
            f"Its line {reader.line_num} is not a row of values ({error})", "mend the line"
        ) from None
    _write(builder, rows)
    return builder.document(fallback, {})


def _decoded(data: bytes) -> str:
    """Decode UTF-8, UTF-16 with a byte order mark, else Windows-1252, which Excel often writes."""
    code = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(code)
    except UnicodeDecodeError:
        text = _western(data)
    if "\0" in text:
        raise UnreadableFile(
            "It is not text (it has zero bytes)", "export it again as CSV in UTF-8"
        )
    return text


def _western(data: bytes) -> str:
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError as error:
        raise UnreadableFile(
            f"It is neither UTF-8 nor Windows text (byte {error.start} does not fit)",
            "save it as CSV in UTF-8",
        ) from None
    if any(sign < " " and sign not in "\t\r\n\f" for sign in set(text)):
        raise UnreadableFile(
            "It is not text (it has control characters)", "export it again as CSV in UTF-8"
        )
    return text


def _delimiter(text: str) -> str:
    lines = list(itertools.islice(io.StringIO(text, newline=""), _SAMPLE_LINES))

    def evenness(sign: str) -> tuple[float, int]:
        try:
            widths = [len(row) for row in csv.reader(lines, delimiter=sign) if row]
        except csv.Error:
            return 0, 0
        usual = max(set(widths), key=widths.count, default=1)
        return (widths.count(usual) / len(widths), usual) if usual > 1 else (0, 0)

    return max(",;\t|", key=evenness)


def _write(builder: DocumentBuilder, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as tables. Rows above the column names are text; a blank row starts a new table if
    other column names follow.
    """
    tables, after_gap = list[list[Row]](), True
    for row in rows:
        shown = [shown_as(cell) for cell in row]
        if not any(shown):
            after_gap = True
            continue
        _place(tables, shown, after_gap=after_gap)
        after_gap = False
    for each in tables:
        _write_table(builder, each)


def _place(tables: list[list[Row]], row: Row, *, after_gap: bool) -> None:
    if after_gap and (not tables or _names(row, tables[-1])):
        tables.append([])
    tables[-1].append(row)


def _names(row: Row, before: list[Row]) -> bool:
    """Return whether the row names columns: only words, and other cells filled than in the last row."""
    filled = [bool(cell) for cell in row]
    return not any(_is_number(cell) for cell in row) and filled != [
        bool(cell) for cell in before[-1]
    ]


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:2].lstrip("-+").isdigit()


def _write_table(builder: DocumentBuilder, rows: list[Row]) -> None:
    most = max(sum(map(bool, row)) for row in rows)
    head = (
        next(number for number, row in enumerate(rows) if sum(map(bool, row)) * 2 >= most)
        if len(rows) > 1
        else 1
    )
    builder.block("\n".join("  ".join(filter(None, row)) for row in rows[:head]))
    width = max(map(len, rows))
    even = [row + [""] * (width - len(row)) for row in rows[head:]]
    used = [number for number, column in enumerate(zip(*even, strict=True)) if any(column)]
    for part in table([[row[number] for number in used] for row in even]) if even else []:
        builder.block(part)


def shown_as(value: Any) -> str:
    """Return a cell's value as a person sees it."""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, datetime.datetime):
        day = value.replace(microsecond=0)
        return (
            day.date().isoformat()
            if day.time() == datetime.time()
            else day.isoformat(sep=" ", timespec="minutes" if not day.second else "auto")
        )
    return str(value).strip()


def _number(value: float) -> str:
    """Format with 15 digits, as Excel does: 0.1 + 0.2 is 0.3."""
    short = f"{value:.15g}"
    return f"{value:.0f}" if "e+" in short and abs(value) < 1e21 else short
