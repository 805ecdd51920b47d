"""Read PDF: text by page, lines joined to paragraphs, headings from bookmarks and letter sizes.

pdfium (Chrome's PDF library; Apache and BSD licences) returns characters with positions. `pdf_layout`
decides from the whole file what is a paragraph, a heading or a running header.
"""

import ctypes
import itertools
import re
import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from slipway.knowledge.readers.document import (
    DocumentBuilder,
    OnPage,
    ParsedDocument,
    UnreadableFile,
    described,
    one_line,
)
from slipway.knowledge.readers.pdf_layout import Bookmark, Layout, TextLine

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

_MOST_PAGES, _MOST_CHARACTERS, _MOST_BOOKMARKS = 5_000, 200_000, 20_000
_SIMPLER = "print it to a new PDF, or remove it"


def pdf(data: bytes, fallback: str, on_page: OnPage) -> ParsedDocument:
    """Read a PDF. Raises UnreadableFile if it is encrypted, damaged (with the page), has only
    pictures, or too many pages.
    """
    file = _opened(data)
    pages = [_lines(file, number, on_page) for number in range(_page_count(file))]
    if not any(pages):
        raise UnreadableFile(
            "It has no text, only pictures of it",
            "run text recognition over it, such as `ocrmypdf in.pdf out.pdf`",
        )
    meta, bookmarks = _meta(file) | _pictures(file, pages), _bookmarks(file, len(pages))
    layout = Layout(pages, bookmarks)
    builder = DocumentBuilder()
    for number in range(len(pages)):
        builder.page()
        layout.write(builder, number)
    return builder.document(meta.get("title") or layout.title() or fallback, meta)


# Read from the file


def _opened(data: bytes) -> "PdfDocument":
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        return PdfDocument(data)
    except PdfiumError as error:
        if "assword" in str(error) or "ecurity" in str(error):
            raise UnreadableFile(
                "It is encrypted, and opens with a password only", "save it without the password"
            ) from None
        raise UnreadableFile(
            "It is damaged, or no PDF", "open it in the program that made it and export it again"
        ) from None


def _page_count(file: "PdfDocument") -> int:
    count = len(file)
    if count > _MOST_PAGES:
        raise UnreadableFile(
            f"It has {count} pages, and {_MOST_PAGES} is the limit", "split it into smaller files"
        )
    if count == 0:
        raise UnreadableFile("It has no pages, or its list of pages is damaged", _SIMPLER)
    return count


def _lines(file: "PdfDocument", number: int, on_page: OnPage) -> list[TextLine]:
    from pypdfium2 import PdfiumError

    on_page(number + 1)
    try:
        page = file[number]
        try:
            return list(_page_lines(page, number))
        finally:
            page.close()
    except PdfiumError:
        raise UnreadableFile("A page of it is damaged", _SIMPLER, number + 1) from None


def _page_lines(page: "PdfPage", number: int) -> Iterator[TextLine]:
    """Yield the lines of a page: one pdfium call per character; position and font are read from a
    few characters of each line only.
    """
    import pypdfium2.raw as c

    text = page.get_textpage()
    count = text.count_chars()
    if count > _MOST_CHARACTERS:
        raise UnreadableFile(
            f"A page of it has {count} signs, and {_MOST_CHARACTERS} is the limit",
            _SIMPLER,
            number + 1,
        )
    codes = [c.FPDFText_GetUnicode(text.raw, index) for index in range(count)]
    start = 0
    for stop in [*(index for index, code in enumerate(codes) if code in _LINE_ENDS), count]:
        if line := _line(text.raw, codes, start, stop):
            yield line
        start = stop + 1


_LINE_ENDS = frozenset([10, 13])
_SOFT_HYPHENS = frozenset(
    [0x02, 0xAD, 0xFFFE]
)  # pdfium returns the first or last for a hyphen at a line end


def _line(text: Any, codes: list[int], start: int, stop: int) -> TextLine | None:
    said = "".join(
        "\u00ad" if code in _SOFT_HYPHENS else chr(code) if code > 31 or code == 9 else ""
        for code in codes[start:stop]
    )
    said = one_line(said.encode("utf-16", "surrogatepass").decode("utf-16", "ignore"))
    seen = [
        index
        for index in range(start, stop)
        if codes[index] > 32 and codes[index] not in _SOFT_HYPHENS
    ]
    if not said.strip("\u00ad") or not seen:
        return None
    places = [_box(text, index) for index in (seen[0], seen[len(seen) // 2], seen[-1])]
    sizes, bold = zip(
        *(_letters(text, index) for index in (seen[0], seen[len(seen) // 2], seen[-1])), strict=True
    )
    return TextLine(
        text=said,
        left=places[0][0],
        right=places[-1][1],
        bottom=min(place[2] for place in places),
        top=max(place[3] for place in places),
        size=statistics.median(sizes),
        bold=all(bold),
    )


def _box(text: Any, index: int) -> tuple[float, float, float, float]:
    """Return left, right, bottom, top of a character's font box: the same height for `a` and `A`."""
    import pypdfium2.raw as c

    rect = c.FS_RECTF()
    c.FPDFText_GetLooseCharBox(text, index, rect)
    return rect.left, rect.right, min(rect.bottom, rect.top), max(rect.bottom, rect.top)


def _letters(text: Any, index: int) -> tuple[float, bool]:
    """Return size and whether bold. The size is that on the page, as the font's own may be scaled;
    many fonts show their weight only in their name.
    """
    import pypdfium2.raw as c

    matrix, name, flags = c.FS_MATRIX(), ctypes.create_string_buffer(128), ctypes.c_int()
    scale = (
        abs(matrix.d) or abs(matrix.b) or 1.0 if c.FPDFText_GetMatrix(text, index, matrix) else 1.0
    )
    c.FPDFText_GetFontInfo(text, index, name, len(name), flags)
    bold = c.FPDFText_GetFontWeight(text, index) >= 600 or bool(_BOLD.search(name.value))
    return round(c.FPDFText_GetFontSize(text, index) * scale, 1), bold


_BOLD = re.compile(rb"bold|black|heavy|demi|CMBX|-Bd", re.IGNORECASE)


def _bookmarks(file: "PdfDocument", pages: int) -> list[Bookmark]:
    """Return the bookmarks that lead to a page, in page order; none if they are damaged or endless."""
    from pypdfium2 import PdfiumError

    found = list[Bookmark]()
    try:
        for each in itertools.islice(file.get_toc(max_depth=6), _MOST_BOOKMARKS):
            goal, text = each.get_dest(), one_line(each.get_title())
            page = goal.get_index() if goal else None
            if text and page is not None and 0 <= page < pages:
                found.append(Bookmark(level=each.level + 1, text=text, page=page))
    except (PdfiumError, UnicodeError):
        return []
    return sorted(found, key=lambda bookmark: bookmark.page)


def _meta(file: "PdfDocument") -> dict[str, Any]:
    said = file.get_metadata_dict()
    return described(
        said.get("Title"),
        said.get("Author"),
        _date(said.get("ModDate") or "") or _date(said.get("CreationDate") or ""),
    )


def _pictures(file: "PdfDocument", pages: list[list[TextLine]]) -> dict[str, list[int]]:
    """Return the pages with pictures and no text (scans) for `meta`."""
    import pypdfium2.raw as c

    silent = [number for number, lines in enumerate(pages) if not lines]
    found = [
        number + 1
        for number in silent
        if any(True for _ in file[number].get_objects([c.FPDF_PAGEOBJ_IMAGE], max_depth=2))
    ]
    return {"pages_without_text": found} if found else {}


def _date(said: str) -> str:
    """Convert `D:20240131120000+01'00'` (PDF 1.7, 7.9.4) to ISO 8601; empty if invalid."""
    found = re.match(
        r"(?:D:)?(\d{4})(\d\d)?(\d\d)?(?:(\d\d)(\d\d)(\d\d)?)?(Z|[+-]\d\d'?\d\d)?", said
    )
    if not found:
        return ""
    year, month, day, hour, minute, second, zone = found.groups()
    date = f"{year}-{month or '01'}-{day or '01'}"
    if hour is None:
        return date
    offset = "" if not zone else zone if zone == "Z" else f"{zone[:3]}:{zone[-2:]}"
    return f"{date}T{hour}:{minute}:{second or '00'}{offset}"
