"""Read the lines of a PDF page, with their positions: text, cells of tables, raised numbers and the
values of form fields.
"""

import ctypes
import re
import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from slipway.knowledge.readers.document import one_line, raised
from slipway.knowledge.readers.encoding import cleaned
from slipway.types import Record

if TYPE_CHECKING:
    from pypdfium2 import PdfPage

MOST_CHARACTERS = 200_000  # of a page
_MARGIN = 0.12  # the share of the page's height, at the top and at the bottom, for running lines
_CELL_GAP = 1.4  # a gap between two words of so many letter sizes separates cells
_AS_HIGH = 0.1  # a raised character reaches up to its neighbour, within this share of its height
_RAISED = 0.82  # a raised character is smaller than its neighbour by this factor
_SPACES = re.compile("[ \t\xa0]+")
_VISIBLE = re.compile("[^\x00-\x20\xa0\xad\ufffe\uffff\ud800-\udfff]")
_LINE_ENDS = re.compile("[\r\n]")
# pdfium returns the first or last for a hyphen at a line end
_SOFT_HYPHENS = frozenset("\x02\u00ad\ufffe")
_DROPPED = re.compile("[\x00\x01\x03-\x08\x0b-\x1f\uffff\ud800-\udfff]")
_NUMBER = re.compile(r"(?<![\s\d])\d{1,4}(?!\d)|(?<!\d)\d{2,6}(?!\d)")
_BOLD = re.compile(rb"bold|black|heavy|demi|CMBX|-Bd", re.IGNORECASE)
_UNKNOWN = re.compile("[\ufffd\ue000-\uf8ff]")


class CellText(Record, frozen=True, kw_only=True):
    """A part of a line between wide gaps."""

    text: str
    left: float
    right: float


class TextLine(Record, frozen=True, kw_only=True):
    """A line of text; positions in points from the lower left corner; `size` of most letters.

    `cells` has its parts if there are wide gaps. `margin`: it is near the top or bottom of the
    page.
    """

    text: str
    left: float
    right: float
    bottom: float
    top: float
    size: float
    bold: bool
    cells: tuple[CellText, ...] = ()
    margin: bool = False
    vertical: bool = False


class PageText:
    """The text of a page: an index into pdfium's characters is an index into `characters`."""

    def __init__(self, page: "PdfPage") -> None:
        import pypdfium2.raw as c

        self._c: Any = c
        # reused, since a line asks for dozens
        self._rect, self._matrix = c.FS_RECTF(), c.FS_MATRIX()
        self._name = ctypes.create_string_buffer(128)
        self._page = page
        self._text = page.get_textpage()
        self._raw: Any = self._text.raw
        self.count: int = self._text.count_chars()
        height = page.get_height()
        self._low, self._high = _MARGIN * height, (1 - _MARGIN) * height
        self.characters = ""
        self._height = 0.0  # of the highest letter looked at in this line

    def lines(self) -> Iterator[TextLine]:
        """Yield the lines in the order of the file."""
        self.characters = self._characters()
        start = 0
        for stop in [*(each.start() for each in _LINE_ENDS.finditer(self.characters)), self.count]:
            if line := self._line(start, stop):
                yield line
            start = stop + 1

    def unknown_share(self) -> float:
        """Return the share of characters that pdfium cannot name, after `lines`."""
        shown = len(self.characters) - sum(map(str.isspace, self.characters))
        return len(_UNKNOWN.findall(self.characters)) / shown if shown else 0.0

    def _characters(self) -> str:
        """Return all characters: in one call, unless some are left out of its result or take two
        units, so that the indices would not fit.
        """
        c = self._c
        buffer = ctypes.create_string_buffer((self.count + 1) * 2)
        units = c.FPDFText_GetText(
            self._raw, 0, self.count, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort))
        )
        text = buffer.raw[: max(units - 1, 0) * 2].decode("utf-16-le", "surrogatepass")
        if len(text) == self.count and not re.search("[\ud800-\udfff]", text):
            return text
        codes = (c.FPDFText_GetUnicode(self._raw, index) for index in range(self.count))
        return "".join(chr(code) if 0 < code < 0x110000 else "\x00" for code in codes)

    def _line(self, start: int, stop: int) -> TextLine | None:
        part = self.characters[start:stop]
        shown = _VISIBLE.search(part)
        if shown is None:
            return None
        first, last = shown.start(), len(part) - 1
        while not _VISIBLE.match(part, last):
            last -= 1
        middle = _VISIBLE.search(part, (first + last) // 2)
        samples = [start + at for at in (first, middle.start() if middle else last, last)]
        boxes = [self._box(index) for index in samples]
        size, bold = self._look(samples)
        left, right = boxes[0][0], boxes[-1][1]
        bottom, top = min(box[2] for box in boxes), max(box[3] for box in boxes)
        self._height = max(box[3] - box[2] for box in boxes)
        vertical = (
            last > first + 1
            and abs(boxes[0][0] - boxes[-1][0]) < 0.5 * size < boxes[0][3] - boxes[-1][3]
        )
        cells = () if vertical else self._cells(start + first, start + last + 1, size, left, right)
        text = "  ".join(cell.text for cell in cells) if cells else self._said(start, stop)
        if not text.strip("\u00ad"):
            return None
        return TextLine(
            text=text,
            left=left,
            right=right,
            bottom=bottom,
            top=top,
            size=size,
            bold=bold,
            cells=cells,
            margin=bottom < self._low or top > self._high,
            vertical=vertical,
        )

    def _cells(
        self, start: int, stop: int, size: float, left: float, right: float
    ) -> tuple[CellText, ...]:
        """Return the parts between wide gaps; empty if there are none."""
        if right - left < _CELL_GAP * size:
            return ()
        edges = list[tuple[int, float, float]]()  # where a part begins, the sides of the gap
        for gap in _SPACES.finditer(self.characters, start, stop):
            if gap.end() - gap.start() > 1 or self._is_generated(gap.start()):
                end, begin = self._box(gap.start() - 1)[1], self._box(gap.end())[0]
                if begin - end > _CELL_GAP * size:
                    edges.append((gap.end(), end, begin))
        if not edges:
            return ()
        starts, stops = [start, *(at for at, _, _ in edges)], [*(at for at, _, _ in edges), stop]
        lefts, rights = [left, *(x for _, _, x in edges)], [*(x for _, x, _ in edges), right]
        cells = [
            CellText(text=self._said(begin, end), left=x, right=y)
            for begin, end, x, y in zip(starts, stops, lefts, rights, strict=True)
        ]
        return tuple(cell for cell in cells if cell.text)

    def _is_generated(self, index: int) -> bool:
        """Return whether pdfium made a space from a gap; a space of the file's own is no gap."""
        return bool(self._c.FPDFText_IsGenerated(self._raw, index))

    def _said(self, start: int, stop: int) -> str:
        """Return the text of a range: white space joined, raised numbers set apart."""
        part = self.characters[start:stop]
        out, at = "", 0
        for found in _NUMBER.finditer(part):
            split = self._raised_from(start, found)
            if split is not None:
                before = out + part[at:split]
                out = before + raised(one_line(before), part[split : found.end()])
                at = found.end()
        out += part[at:]
        for hyphen in _SOFT_HYPHENS:
            out = out.replace(hyphen, "\u00ad")
        return one_line(_with_composed(_DROPPED.sub("", out)))

    def _raised_from(self, start: int, found: re.Match[str]) -> int | None:
        """Return the index, relative to `start`, from which the digits are raised; None if none."""
        first = found.start()
        begins_word = first == 0 or found.string[first - 1].isspace()
        base = first if begins_word else first - 1
        last = self._box(start + found.end() - 1)
        if last[3] - last[2] > _RAISED * self._height:
            return None  # as large as most of the line
        _, _, bottom, top = self._box(start + base)
        limit = _RAISED * (top - bottom)
        if last[3] - last[2] > limit or last[3] < top - _AS_HIGH * (top - bottom):
            return None  # as large, or smaller on the same line
        for at in range(base + 1, found.end()):
            _, _, low, high = self._box(start + at)
            if high - low <= limit:
                return at
        return None

    def _box(self, index: int) -> tuple[float, float, float, float]:
        """Return left, right, bottom, top of a character's font box: the same height for `a` and
        `A`.
        """
        rect = self._rect
        self._c.FPDFText_GetLooseCharBox(self._raw, index, rect)
        low, high = rect.bottom, rect.top
        return (
            (rect.left, rect.right, low, high) if low < high else (rect.left, rect.right, high, low)
        )

    def _look(self, samples: list[int]) -> tuple[float, bool]:
        """Return the size of most letters and whether they are bold, from the first, middle and
        last character.
        """
        looks = [self._letters(samples[0]), self._letters(samples[2])]
        if looks[0] != looks[1]:
            looks.append(self._letters(samples[1]))
        return statistics.median_low([size for size, _ in looks]), all(bold for _, bold in looks)

    def _letters(self, index: int) -> tuple[float, bool]:
        """Return size and whether bold. The size is that on the page, as the font's own may be
        scaled; many fonts show their weight only in their name.
        """
        c, matrix, name, flags = self._c, self._matrix, self._name, ctypes.c_int()
        scale = 1.0
        if c.FPDFText_GetMatrix(self._raw, index, matrix):
            scale = abs(matrix.d) or abs(matrix.b) or 1.0
        c.FPDFText_GetFontInfo(self._raw, index, name, len(name), flags)
        bold = c.FPDFText_GetFontWeight(self._raw, index) >= 600 or bool(_BOLD.search(name.value))
        return round(c.FPDFText_GetFontSize(self._raw, index) * scale, 1), bold


def _with_composed(text: str) -> str:
    """Clean the text, but keep the hyphens at line ends: the layout joins the words."""
    return "\u00ad".join(map(cleaned, text.split("\u00ad")))


# Form fields


def with_fields(lines: list[TextLine], page: "PdfPage") -> list[TextLine]:
    """Put the values of form fields behind their labels: the nearest text to the left, else a line
    of their own.
    """
    lines = list(lines)
    for field in _fields(page):
        labels = [
            line
            for line in lines
            if line.right <= field.left + 3 and line.bottom < field.top and line.top > field.bottom
        ]
        if not labels:
            below = (n for n, line in enumerate(lines) if line.top < field.bottom)
            lines.insert(next(below, len(lines)), field)
            continue
        label = max(labels, key=lambda line: line.right)
        lines[lines.index(label)] = TextLine(
            text=f"{label.text} {field.text}",
            left=label.left,
            right=field.right,
            bottom=label.bottom,
            top=label.top,
            size=label.size,
            bold=False,
        )
    return lines


def _fields(page: "PdfPage") -> Iterator[TextLine]:
    import pypdfium2.raw as c

    form = page.formenv
    for index in range(c.FPDFPage_GetAnnotCount(page.raw)) if form else ():
        annotation = c.FPDFPage_GetAnnot(page.raw, index)
        try:
            if c.FPDFAnnot_GetSubtype(annotation) != c.FPDF_ANNOT_WIDGET:
                continue
            rect, text = c.FS_RECTF(), _value(annotation, form)
            if text and c.FPDFAnnot_GetRect(annotation, rect):
                low, high = sorted((rect.bottom, rect.top))
                yield TextLine(
                    text=text,
                    left=rect.left,
                    right=rect.right,
                    bottom=low,
                    top=high,
                    size=min(high - low, 10.0),
                    bold=False,
                )
        finally:
            c.FPDFPage_CloseAnnot(annotation)


def _value(annotation: Any, form: Any) -> str:
    import pypdfium2.raw as c

    kind = c.FPDFAnnot_GetFormFieldType(form.raw, annotation)
    if kind in (c.FPDF_FORMFIELD_CHECKBOX, c.FPDF_FORMFIELD_RADIOBUTTON):
        return "[x]" if c.FPDFAnnot_IsChecked(form.raw, annotation) else ""
    if kind in (c.FPDF_FORMFIELD_PUSHBUTTON, c.FPDF_FORMFIELD_SIGNATURE):
        return ""
    length = c.FPDFAnnot_GetFormFieldValue(form.raw, annotation, None, 0)
    if not 2 < length < 2 * MOST_CHARACTERS:
        return ""
    buffer = ctypes.create_string_buffer(length)
    c.FPDFAnnot_GetFormFieldValue(
        form.raw, annotation, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort)), length
    )
    return one_line(buffer.raw[: length - 2].decode("utf-16-le", "ignore"))
