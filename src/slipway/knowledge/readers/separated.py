"""Read separated values (CSV, TSV): one table."""

import csv
import io
import itertools

from slipway.knowledge.readers.document import (
    DocumentBuilder,
    OnPage,
    ParsedDocument,
    UnreadableFile,
)
from slipway.knowledge.readers.encoding import decoded
from slipway.knowledge.readers.sheets import SheetRow, write_rows

_SAMPLE_LINES = 50


def separated(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read separated values. The separator is the one of comma, semicolon, tab and bar that splits
    the first lines most evenly. (csv.Sniffer guesses letters, and is slow.)
    """
    file, builder = decoded(data), DocumentBuilder()
    builder.losses += file.losses
    csv.field_size_limit(1_000_000)
    reader = csv.reader(io.StringIO(file.text, newline=""), delimiter=_delimiter(file.text))
    try:
        rows = [SheetRow(cells=[cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise UnreadableFile(
            f"Its line {reader.line_num} is not a row of values ({error})", "fix the line"
        ) from None
    write_rows(builder, rows)
    return builder.document(fallback, {})


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
