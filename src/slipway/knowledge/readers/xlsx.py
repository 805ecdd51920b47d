"""Read Excel workbooks: each visible sheet is a heading, its rows are tables that repeat the column
names in every passage. Values are shown as Excel shows them.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from slipway.knowledge.readers.document import (
    DocumentBuilder,
    Loss,
    OnPage,
    ParsedDocument,
    UnreadableFile,
    counted,
    raised,
)
from slipway.knowledge.readers.number_format import BUILT_IN, GENERAL, shown_number
from slipway.knowledge.readers.office import OfficePackage, attribute, child, descend, local
from slipway.knowledge.readers.sheets import SheetRow, shown_value, write_rows
from slipway.types import Record

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_WIDEST, _TALLEST = 16_384, 1_048_576  # Excel's own limits
_TRUE = frozenset(["1", "true", "on"])
_UNHIDE = "show them in Excel and save it"
_REFERENCE = re.compile(r"([A-Z]{1,3})(\d{1,7})")


class _Merge(Record, frozen=True, kw_only=True):
    """A merged range; rows and columns count from 0, the ends are included."""

    top: int
    left: int
    bottom: int
    right: int


class _Sheet:
    """One sheet as it is read: rows by number, with the texts of their cells by column."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[int, str]] = {}
        self.hidden_rows = set[int]()
        self.hidden_columns = set[int]()
        self.merges: list[_Merge] = []
        self.without_value = 0  # formulas that no program has computed


def xlsx(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read a workbook. Hidden sheets, rows and columns are left out and counted, and so are
    formulas without a stored value.
    """
    package, builder = OfficePackage(data), DocumentBuilder()
    main = package.main("xl/workbook.xml")
    book, parts = package.xml(main), package.relations(main)
    cells = _Cells(package, dict(parts.values()), book)
    hidden, sheets = 0, list[_Sheet]()
    for entry in descend(book, frozenset(["sheet"])):
        kind, part = parts.get(_relation(entry), ("", ""))
        if kind != "worksheet" or part not in package:
            continue
        if entry.get("state", "visible") != "visible":
            hidden += 1
            continue
        sheet = _read(package, part, cells)
        builder.heading(1, entry.get("name", ""))
        write_rows(builder, _visible(sheet))
        sheets.append(sheet)
    builder.losses += _losses(sheets, hidden)
    meta = package.meta()
    return builder.document(meta.get("title") or fallback, meta)


def _relation(entry: "Element") -> str:
    return next((value for key, value in entry.attrib.items() if key.endswith("}id")), "")


def _losses(sheets: Sequence[_Sheet], hidden: int) -> Iterator[Loss]:
    without = sum(sheet.without_value for sheet in sheets)
    if without:
        yield Loss(
            what=f"{counted(without, 'formula has', 'formulas have')} no stored value",
            fix="open it in Excel and save it, so that the formulas are computed",
        )
    left_out = [
        counted(number, f"hidden {what}", f"hidden {what}s")
        for number, what in (
            (hidden, "sheet"),
            (sum(len(sheet.hidden_columns) for sheet in sheets), "column"),
            (sum(len(sheet.hidden_rows) for sheet in sheets), "row"),
        )
        if number
    ]
    if left_out:
        total = hidden + sum(len(s.hidden_columns) + len(s.hidden_rows) for s in sheets)
        verb = "is" if total == 1 else "are"
        yield Loss(what=f"{', '.join(left_out)} {verb} left out", fix=_UNHIDE)


class _Cells:
    """Turns cells into text, with the workbook's strings and formats."""

    def __init__(self, package: OfficePackage, parts: Mapping[str, str], book: "Element") -> None:
        properties = child(book, "workbookPr")
        self._since_1904 = properties is not None and properties.get("date1904") in _TRUE
        strings = parts.get("sharedStrings", "")
        self._strings = (
            [_said(item) for item in package.rows(strings, "si")] if strings in package else []
        )
        styles = parts.get("styles", "")
        self._codes = _codes(package.xml(styles)) if styles in package else []

    def text(self, cell: "Element", value: str | None) -> str:
        kind = cell.get("t", "n")
        if kind == "inlineStr":
            inline = child(cell, "is")
            return _said(inline) if inline is not None else ""
        if value is None:
            return ""
        if kind == "s":
            number = int(value) if value.isdecimal() else -1
            return self._strings[number] if 0 <= number < len(self._strings) else ""
        if kind == "b":
            return "TRUE" if value in _TRUE else "FALSE"
        return self._number(value, cell.get("s", "0")) if kind == "n" else value.strip()

    def _number(self, value: str, style: str) -> str:
        try:
            number, at = float(value), int(style)
        except ValueError:
            return value.strip()
        code = self._codes[at] if 0 <= at < len(self._codes) else GENERAL
        return shown_number(number, code, since_1904=self._since_1904)


def _codes(styles: "Element") -> list[str]:
    """Return the number format of each cell style."""
    own = {
        each.get("numFmtId", ""): each.get("formatCode", GENERAL)
        for each in descend(styles, frozenset(["numFmt"]), frozenset(["dxfs"]))
    }
    listed = child(styles, "cellXfs")
    numbers = [each.get("numFmtId", "0") for each in (listed if listed is not None else [])]
    return [
        own.get(each) or BUILT_IN.get(int(each) if each.isdecimal() else 0, GENERAL)
        for each in numbers
    ]


def _said(item: "Element") -> str:
    """Return a string's text: runs with superscripts, without struck-out ones."""
    out = ""
    for part in descend(item, frozenset(["t", "r"]), frozenset(["rPh"])):
        if local(part) == "t":
            out += part.text or ""
            continue
        text = "".join(each.text or "" for each in descend(part, frozenset(["t"])))
        look = child(part, "rPr")
        if look is None:
            out += text
        elif not _is_on(child(look, "strike")):
            up = child(look, "vertAlign")
            out += raised(out, text) if up is not None and up.get("val") == "superscript" else text
    return out.strip()


def _is_on(element: "Element | None") -> bool:
    return element is not None and (attribute(element, "val") or "1") in _TRUE


def _read(package: OfficePackage, part: str, cells: _Cells) -> _Sheet:
    sheet, row_number = _Sheet(), -1
    for element in package.rows(part, "row", "col", "mergeCell"):
        name = local(element)
        if name == "col" and element.get("hidden") in _TRUE:
            first, last = _index(element.get("min")), _index(element.get("max"))
            sheet.hidden_columns.update(range(first, min(last, _WIDEST) + 1))
        elif name == "mergeCell":
            sheet.merges += _merge(element.get("ref", ""))
        elif name == "row":
            row_number = _index(element.get("r")) if element.get("r") else row_number + 1
            row = _row(sheet, element, cells)
            if row and row_number < _TALLEST:
                sheet.rows[row_number] = row
                if element.get("hidden") in _TRUE:
                    sheet.hidden_rows.add(row_number)
    used = max((max(row) for row in sheet.rows.values()), default=-1)
    sheet.hidden_columns = {
        column
        for column in sheet.hidden_columns
        if column <= used and any(row.get(column) for row in sheet.rows.values())
    }
    return sheet


def _row(sheet: _Sheet, element: "Element", cells: _Cells) -> dict[int, str]:
    out, column = dict[int, str](), -1
    for cell in element:
        if local(cell) != "c":
            continue
        found = _REFERENCE.match(cell.get("r", ""))
        column = _column(found[1]) if found else column + 1
        value, formula = None, False
        for each in cell:
            name = local(each)
            if name == "v":
                value = each.text
            formula = formula or name == "f"
        if formula and not value and cell.get("t", "n") != "str":
            sheet.without_value += 1
        if (text := cells.text(cell, value)) and column < _WIDEST:
            out[column] = text
    return out


def _index(number: str | None) -> int:
    return max(int(number) - 1, 0) if number and number.isdecimal() else 0


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number - 1


def _merge(reference: str) -> list[_Merge]:
    ends = [_REFERENCE.fullmatch(end) for end in reference.split(":")]
    if len(ends) != 2 or not ends[0] or not ends[1]:
        return []
    return [
        _Merge(
            top=int(ends[0][2]) - 1,
            left=_column(ends[0][1]),
            bottom=int(ends[1][2]) - 1,
            right=_column(ends[1][1]),
        )
    ]


def _visible(sheet: _Sheet) -> Iterator[SheetRow]:
    """Yield the visible rows, blank ones included, with the values of merged cells repeated."""
    heads = _fill_merged(sheet)
    used = {column for row in sheet.rows.values() for column in row}
    columns = sorted(used - sheet.hidden_columns)
    before = -1
    for number in sorted(sheet.rows):
        if number in sheet.hidden_rows:
            before = number
            continue
        if number > before + 1:
            yield SheetRow(cells=[""])
        before = number
        row = sheet.rows[number]
        yield SheetRow(
            cells=[row.get(column, "") for column in columns], heads=heads.get(number, 1)
        )


def _fill_merged(sheet: _Sheet) -> dict[int, int]:
    """Repeat the value of merged cells in each cell that they cover, except of titles that are the
    only cell of their row. Return how many rows of names begin at a row, by its merged cells.
    """
    heads = dict[int, int]()
    width = max((max(row) for row in sheet.rows.values()), default=-1)
    for merge in sheet.merges:
        text = sheet.rows.get(merge.top, {}).get(merge.left, "")
        right = min(merge.right, width)
        alone = all(merge.left <= column <= right for column in sheet.rows.get(merge.top, {}))
        if not text or (alone and right > merge.left):
            continue
        for number in _between(sheet.rows, merge.top, merge.bottom):
            for column in range(merge.left, right + 1):
                sheet.rows[number].setdefault(column, text)
        spans = max(merge.bottom - merge.top + 1, 2 if right > merge.left else 1)
        heads[merge.top] = max(heads.get(merge.top, 1), min(spans, 5))
    return heads


def _between(rows: Mapping[int, object], first: int, last: int) -> Iterable[int]:
    if last - first < len(rows):
        return [number for number in range(first, last + 1) if number in rows]
    return [number for number in rows if first <= number <= last]


# Other formats


def calamine(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read `.xls` and `.xlsb` workbooks: values as last computed, dates as ISO 8601, other numbers
    without their format. Hidden sheets are left out and counted.
    """
    from python_calamine import CalamineError, CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

    builder, hidden = DocumentBuilder(), 0
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(data))
        for each in book.sheets_metadata:
            if each.typ != SheetTypeEnum.WorkSheet:
                continue
            if each.visible != SheetVisibleEnum.Visible:
                hidden += 1
                continue
            builder.heading(1, each.name)
            rows = book.get_sheet_by_name(each.name).to_python()
            write_rows(builder, (SheetRow(cells=[*map(shown_value, row)]) for row in rows))
    except CalamineError as error:
        what = (
            "It is protected by a password"
            if "assword" in str(error)
            else "It is damaged: a sheet cannot be read"
        )
        raise UnreadableFile(
            what, "open it in Excel and save it again, without a password"
        ) from None
    builder.losses += _losses([], hidden)
    return builder.document(fallback, {})
