"""Find the tables of a PDF page: rows whose cells, set apart by wide gaps, share columns."""

import math
from collections.abc import Iterator, Sequence

from slipway.knowledge.readers.document import table
from slipway.knowledge.readers.pdf_text import CellText, TextLine

_LEAST_ROWS = 2
_LONGEST_CELL = 60  # characters, on average: longer cells are columns of prose
_SAME_ROW = 0.4  # of the letters' size: how far the bottoms of one row's cells may differ


def joined_rows(lines: Sequence[TextLine]) -> list[TextLine]:
    """Join lines that are parts of one row: at the same height, each to the right of the last one,
    with a gap between.
    """
    out = list[TextLine]()
    for line in lines:
        last = out[-1] if out else None
        if (
            last is not None
            and abs(last.bottom - line.bottom) < _SAME_ROW * min(last.size, line.size)
            and line.left > last.right + 0.5 * last.size
            and not (line.vertical or last.vertical)
        ):
            cells = (*_cells(last), *_cells(line))
            out[-1] = TextLine(
                text="  ".join(cell.text for cell in cells),
                left=last.left,
                right=line.right,
                bottom=min(last.bottom, line.bottom),
                top=max(last.top, line.top),
                size=last.size,
                bold=last.bold and line.bold,
                cells=cells,
                margin=last.margin,
            )
        else:
            out.append(line)
    return out


def _cells(line: TextLine) -> tuple[CellText, ...]:
    return line.cells or (CellText(text=line.text, left=line.left, right=line.right),)


def parts(lines: Sequence[TextLine]) -> Iterator[tuple[list[str], list[TextLine]]]:
    """Split lines into tables and text, in order: yield (blocks of a table, lines of text), one of
    which is empty.
    """
    text, at = list[TextLine](), 0
    while at < len(lines):
        run = _run(lines, at)
        rows = _rows(lines[at:run]) if run - at >= _LEAST_ROWS else None
        if rows is None:
            text.append(lines[at])
            at += 1
            continue
        if text:
            yield [], text
            text = []
        yield list(table(rows, _heads(rows))), []
        at = run
    if text:
        yield [], text


def _run(lines: Sequence[TextLine], at: int) -> int:
    """Return where the rows that begin at `at` end. Lines of one cell in between continue a cell of
    the row above, if they lie inside one of its columns but the first.
    """
    end = at
    while end < len(lines):
        if len(lines[end].cells) < 2 and not (
            end > at and end + 1 < len(lines) and _continues(lines[at:end], lines[end])
        ):
            break
        end += 1
    while end > at and len(lines[end - 1].cells) < 2:
        end -= 1
    return end


def _continues(rows: Sequence[TextLine], line: TextLine) -> bool:
    above = next((row for row in reversed(rows) if row.cells), None)
    if above is None or rows[-1].bottom - line.bottom > 2 * line.size:
        return False
    return any(abs(cell.left - line.left) < line.size for cell in above.cells[1:])


def _rows(lines: Sequence[TextLine]) -> list[list[str]] | None:
    """Return the grid of a table; None if the columns don't fit together, or hold prose."""
    columns = _columns(lines)
    rows = list[list[str]]()
    for line in lines:
        row = [""] * len(columns)
        for cell in _cells(line):
            at = _nearest(columns, cell)
            row[at] = f"{row[at]} {cell.text}".strip().replace("\u00ad", "")
        if len(line.cells) < 2 and rows:
            rows[-1] = [
                f"{above} {below}".strip() for above, below in zip(rows[-1], row, strict=True)
            ]
        else:
            rows.append(row)
    filled = [cell for row in rows for cell in row if cell]
    if len(columns) < 2 or sum(map(len, filled)) > _LONGEST_CELL * len(filled):
        return None
    return rows if len(rows) >= _LEAST_ROWS else None


def _columns(lines: Sequence[TextLine]) -> list[tuple[float, float]]:
    """Return the (left, right) of the columns: those of the rows with most cells, widened by cells
    of the others that overlap one column only.
    """
    most = max(len(line.cells) for line in lines)
    columns = list[tuple[float, float]]()
    for line in sorted(lines, key=lambda line: len(line.cells) != most):
        for cell in line.cells:
            hit = [each for each in columns if each[0] < cell.right and cell.left < each[1]]
            if len(hit) == 1:
                columns.remove(hit[0])
                columns.append((min(hit[0][0], cell.left), max(hit[0][1], cell.right)))
            elif not hit and len(line.cells) == most:
                columns.append((cell.left, cell.right))
    return sorted(columns)


def _nearest(columns: Sequence[tuple[float, float]], cell: CellText) -> int:
    """Return the column that a cell overlaps most, or is nearest to."""
    nearest, most, start, end = 0, -math.inf, cell.left, cell.right
    for at, (left, right) in enumerate(columns):
        shared = min(right, end) - max(left, start)
        if shared > most:
            nearest, most = at, shared
    return nearest


def _heads(rows: Sequence[Sequence[str]]) -> int:
    """Return 1 if the first row has names only, 0 if it has numbers, as rows of values have."""
    numbered = any(any(sign.isdigit() for sign in cell) for cell in rows[0])
    return 0 if numbered or (not all(rows[0]) and len(rows[0]) == 2) else 1
