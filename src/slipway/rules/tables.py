"""CSV tables: look up a row by its key, however the key is written."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from slipway.rules.normalising import normal_form
from slipway.types import Record

MAX_ROWS = 100_000
MAX_MB = 20


class TableProblem(Exception):
    """A table cannot be used; the message says why and what to do."""


class Table(Record, frozen=True, kw_only=True):
    """Rows by the normal form of their key and of its other names."""

    name: str
    key: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]

    def find(self, text: str) -> Mapping[str, str] | None:
        """Return the row with this key, or None."""
        return self.rows.get(normal_form(text))


def read_table(name: str, file: Path, key: str | None, also: str | None) -> Table:
    """Read a CSV file with a header line. Raises TableProblem."""
    reader = csv.DictReader(io.StringIO(text_of(file)), strict=True)
    try:
        columns = tuple(reader.fieldnames or ())
        key = column_of(columns, key or (columns[0] if columns else ""), "key", file)
        if also is not None:
            column_of(columns, also, "also", file)
        rows = dict(keyed(reader, key, also, file))
    except csv.Error as error:
        raise TableProblem(f"line {reader.line_num} of `{file}` is not CSV: {error}") from None
    if not rows:
        raise TableProblem(f"`{file}` has no rows; write a header line and at least one row")
    return Table(name=name, key=key, columns=columns, rows=rows)


def text_of(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_MB * 1024 * 1024:
            raise TableProblem(f"`{file}` is larger than {MAX_MB} MiB; keep what rules look up")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise TableProblem(f"`{file}` is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise TableProblem(f"`{file}` cannot be read: {why}") from None


def column_of(columns: tuple[str, ...], wanted: str, field: str, file: Path) -> str:
    if wanted not in columns:
        known = ", ".join(columns) or "none"
        raise TableProblem(
            f"`{file}` has no column `{wanted}`, which `{field}` names; its columns are: {known}"
        )
    return wanted


def keyed(
    reader: "csv.DictReader[str]", key: str, also: str | None, file: Path
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row under its key and its other names. Raises TableProblem for a key twice."""
    seen = dict[str, int]()
    for count, row in enumerate(reader, 1):
        line = reader.line_num
        if count > MAX_ROWS:
            raise TableProblem(f"`{file}` has more than {MAX_ROWS:,} rows; keep what is looked up")
        if None in row or None in row.values():
            raise TableProblem(
                f"line {line} of `{file}` has another number of values than the header"
            )
        names = [row[key], *(row[also].split("|") if also else ())]
        for name in [name for name in names if name.strip()]:
            form = normal_form(name)
            if form in seen:
                raise TableProblem(
                    f"line {line} of `{file}` has the key `{name}`, as line {seen[form]} has; "
                    "a key must be there once"
                )
            seen[form] = line
            yield form, row
