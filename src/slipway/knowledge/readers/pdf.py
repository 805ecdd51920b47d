"""Read PDF: text by page, lines joined to paragraphs, headings from bookmarks and letter sizes.

pdfium (Chrome's PDF library; Apache and BSD licences) returns characters with positions.
`pdf_layout` decides from the whole file what is a paragraph, a heading or a running header.
"""

import itertools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from slipway.knowledge.readers.document import (
    DocumentBuilder,
    Loss,
    OnPage,
    ParsedDocument,
    UnreadableFile,
    described,
    one_line,
)
from slipway.knowledge.readers.ocr import Recogniser
from slipway.knowledge.readers.pdf_layout import Bookmark, Layout
from slipway.knowledge.readers.pdf_text import MOST_CHARACTERS, PageText, TextLine, with_fields

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

_MOST_PAGES, _MOST_BOOKMARKS = 5_000, 20_000
_MOST_LISTED = 5  # page numbers that a sentence names
_UNKNOWN_SHARE = 0.3  # of a page's letters
_REFONT = "export it again with its fonts embedded, or run text recognition over it"
OCR = "set `ocr: true` (see the documents page), or run `ocrmypdf in.pdf out.pdf`"
_SIMPLER = "print it to a new PDF, or remove it"


def pdf(data: bytes, fallback: str, on_page: OnPage) -> ParsedDocument:
    """Read a PDF. Raises UnreadableFile if it is encrypted, damaged (with the page), has only
    pictures, or too many pages.
    """
    file = _opened(data)
    fields = bool(file.get_formtype())
    if fields:
        file.init_forms()
    builder = DocumentBuilder()
    unknown = list[int]()
    pages = [
        _lines(file, number, on_page, unknown, fields=fields) for number in range(_page_count(file))
    ]
    pictures = _pictures(file, pages)
    pictures = _without_recognised(file, pages, pictures, on_page)
    if not any(pages):
        raise UnreadableFile(
            "It has no text, only pictures of it", f"have its text recognised: {OCR}"
        )
    if len(unknown) * 2 > sum(map(bool, pages)):
        raise UnreadableFile("Its letters cannot be read: its fonts don't name them", _REFONT)
    meta, bookmarks = _meta(file), _bookmarks(file, len(pages))
    builder.losses += _losses(pictures, unknown)
    layout = Layout(pages, bookmarks)
    for number in range(len(pages)):
        builder.page()
        layout.write(builder, number)
    return builder.document(meta.get("title") or layout.title() or fallback, meta)


def _without_recognised(
    file: "PdfDocument", pages: list[list[TextLine]], pictures: list[int], on_page: OnPage
) -> list[int]:
    """Recognise the text of scanned pages if that is switched on; return the numbers of those that
    stay without text.
    """
    recogniser, left = Recogniser(), list[int]()
    for number in pictures:
        if recogniser.is_on():
            on_page(number)
            pages[number - 1] = recogniser.lines(file[number - 1])
        if not pages[number - 1]:
            left.append(number)
    return left


def _losses(pictures: list[int], unknown: list[int]) -> Iterator[Loss]:
    if pictures:
        what = f"{_listed(pictures)} {'is' if len(pictures) == 1 else 'are'} only a picture of text"
        yield Loss(what=what, fix=f"have the text recognised: {OCR}")
    if unknown:
        what = f"the letters of {_listed(unknown)} cannot be read: the fonts don't name them"
        yield Loss(what=what, fix=_REFONT)


def _listed(pages: list[int]) -> str:
    """Return `page 2`, or `pages 2, 3 and 5`; of many, the first ones and how many more."""
    if len(pages) == 1:
        return f"page {pages[0]}"
    shown = pages[:_MOST_LISTED]
    rest = len(pages) - len(shown)
    last = f"{rest} more" if rest else str(shown.pop())
    return f"pages {', '.join(map(str, shown))} and {last}"


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


def _lines(
    file: "PdfDocument", number: int, on_page: OnPage, unknown: list[int], *, fields: bool
) -> list[TextLine]:
    """Return the lines of a page; add its number to `unknown` if most letters have no name."""
    from pypdfium2 import PdfiumError

    on_page(number + 1)
    try:
        page = file[number]
        try:
            text = PageText(page)
            if text.count > MOST_CHARACTERS:
                raise UnreadableFile(
                    f"A page of it has {text.count} characters, and {MOST_CHARACTERS} is the limit",
                    _SIMPLER,
                    number + 1,
                )
            lines = list(text.lines())
            if text.unknown_share() > _UNKNOWN_SHARE:
                unknown.append(number + 1)
            return with_fields(lines, page) if fields else lines
        finally:
            page.close()
    except PdfiumError:
        raise UnreadableFile("A page of it is damaged", _SIMPLER, number + 1) from None


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


def _pictures(file: "PdfDocument", pages: list[list[TextLine]]) -> list[int]:
    """Return the numbers of the pages with pictures and no text: scans."""
    import pypdfium2.raw as c

    silent = [number for number, lines in enumerate(pages) if not lines]
    return [
        number + 1
        for number in silent
        if any(True for _ in file[number].get_objects([c.FPDF_PAGEOBJ_IMAGE], max_depth=2))
    ]


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
