"""Read OpenDocument files, as LibreOffice writes them: text (`.odt`), slides (`.odp`) and sheets
(`.ods`), whose cells hold the text that a person sees.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from slipway.knowledge.readers.document import (
    Cell,
    DocumentBuilder,
    Loss,
    OnPage,
    ParsedDocument,
    UnreadableFile,
    counted,
    described,
    filled,
    one_line,
    raised,
    write_grid,
)
from slipway.knowledge.readers.encoding import cleaned
from slipway.knowledge.readers.office import OfficePackage, attribute, child, descend, local
from slipway.knowledge.readers.sheets import SheetRow, write_rows
from slipway.types import Record

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_BLOCKS = frozenset(["h", "p", "list", "table"])
_UNREAD = frozenset(
    ["tracked-changes", "annotation", "notes", "forms", "sequence-decls", "event-listeners"]
)
_MOST_REPEATED = 1000  # rows or columns that a sheet repeats
_DEEPEST = 100  # elements in elements


class _Look(Record, frozen=True, kw_only=True):
    """What a style does to text."""

    unseen: bool = False  # struck out
    hidden: bool = False
    raised: bool = False


class _File:
    """The parts of a file that all kinds share."""

    def __init__(self, data: bytes) -> None:
        package = OfficePackage(data)
        if "META-INF/manifest.xml" in package and b"encryption-data" in package.bytes(
            "META-INF/manifest.xml"
        ):
            raise UnreadableFile("It is protected by a password", "save it without one")
        root = package.xml("content.xml")
        self.looks = {
            attribute(style, "name") or "": _look(style)
            for style in descend(root, frozenset(["style"]))
        }
        found = child(root, "body")
        self.body = next(iter(found)) if found is not None and len(found) else root
        self.meta = _meta(package)
        self.builder = DocumentBuilder()
        self.hidden = 0

    def document(self, title: str, fallback: str) -> ParsedDocument:
        if self.hidden:
            what = counted(self.hidden, "hidden part is", "hidden parts are")
            self.builder.losses.append(Loss(what=f"{what} left out", fix="show them and save it"))
        first = self.builder.headings[0].text if self.builder.headings else ""
        title = title or self.meta.get("title") or first or fallback
        return self.builder.document(title, self.meta)

    def blocks(self, element: "Element") -> None:
        """Write headings, paragraphs, lists and tables, in order."""
        for block in descend(element, _BLOCKS, _UNREAD):
            name = local(block)
            if name == "table":
                self.table(block)
            elif name == "list":
                self.builder.block("\n".join(self.items(block)))
            elif name == "h":
                level = attribute(block, "outline-level") or "1"
                self.builder.heading(int(level) if level.isdecimal() else 1, self.text(block))
            else:
                self.builder.block(self.text(block))
                self._boxes(block)

    def _boxes(self, paragraph: "Element") -> None:
        for box in descend(paragraph, frozenset(["text-box"])):
            self.blocks(box)

    def items(self, element: "Element", depth: int = 0) -> Iterator[str]:
        """Yield the lines of a list."""
        for item in (each for each in element if local(each) in ("list-item", "list-header")):
            for part in item:
                if local(part) == "list" and depth < _DEEPEST:
                    yield from self.items(part, depth + 1)
                elif text := self.text(part):
                    yield f"{'  ' * depth}- {text}"

    def table(self, element: "Element") -> None:
        """Write a table of a text or a slide."""
        rows = list(descend(element, frozenset(["table-row"])))
        heads = sum(1 for part in descend(element, frozenset(["table-header-rows"])) for _ in part)
        spans = ("number-rows-spanned", "number-columns-spanned")
        first = [cell for row in rows[:1] for cell in _cells(row)]
        merged = any(_number(cell, span) > 1 for cell in first for span in spans)
        grid = filled([self._cell(cell) for cell in _cells(row)] for row in rows)
        write_grid(self.builder, grid, heads or 1 + merged)

    def _cell(self, cell: "Element") -> Cell:
        return Cell(
            text="\n".join(self.paragraphs(cell)),
            rows=_number(cell, "number-rows-spanned"),
            columns=_number(cell, "number-columns-spanned"),
        )

    def paragraphs(self, element: "Element") -> list[str]:
        """Return the texts of the paragraphs in an element."""
        found = descend(element, frozenset(["p", "h"]), _UNREAD)
        return [text for each in found if (text := self.text(each))]

    def text(self, element: "Element") -> str:
        """Return the text of a paragraph, its notes in brackets at the end."""
        notes = list[str]()
        said = cleaned(re.sub(r"[ \t]+", " ", self._inline(element, notes, "", 0)).strip())
        return " ".join([said, *(f"[{note}]" for note in notes if note)]).strip()

    def _inline(self, element: "Element", notes: list[str], before: str, depth: int) -> str:
        out = element.text or ""
        for part in element if depth < _DEEPEST else ():
            name = local(part)
            if name == "note":
                body = child(part, "note-body")
                notes += self.paragraphs(body) if body is not None else []
            elif name in ("tab", "line-break"):
                out += " " if name == "tab" else "\n"
            elif name == "s":
                out += " "
            elif name not in _UNREAD and name not in ("frame", "text-box", "custom-shape", "list"):
                out += self._span(part, notes, before + out, depth)
            out += part.tail or ""
        return out

    def _span(self, part: "Element", notes: list[str], before: str, depth: int) -> str:
        look = self.looks.get(attribute(part, "style-name") or "", _Look())
        self.hidden += look.hidden
        if look.unseen or look.hidden or local(part) == "hidden-text":
            return ""
        text = self._inline(part, notes, before, depth + 1)
        return raised(before, text) if look.raised else text


def odt(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read a text document. Its title is the file property, else the first heading."""
    file = _File(data)
    file.blocks(file.body)
    return file.document("", fallback)


def odp(data: bytes, fallback: str, on_page: OnPage) -> ParsedDocument:
    """Read slides: each is a page, its title a heading, the speaker's notes at its end."""
    file = _File(data)
    for number, slide in enumerate(descend(file.body, frozenset(["page"])), start=1):
        on_page(number)
        file.builder.page()
        frames = [each for each in slide if local(each) != "notes"]
        titles = [each for each in frames if attribute(each, "class") == "title"]
        title = one_line(" ".join(text for each in titles for text in file.paragraphs(each)))
        if title:
            file.builder.heading(1, title)
        else:
            file.builder.name(1, f"Slide {number}")
        for frame in frames:
            if frame not in titles:
                file.blocks(frame)
        notes = child(slide, "notes")
        said = [
            text for each in (notes if notes is not None else []) for text in file.paragraphs(each)
        ]
        file.builder.block("\n".join(["Notes:", *said]) if said else "")
    return file.document("", fallback)


def ods(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read sheets, with the values as they are shown."""
    file = _File(data)
    for sheet in descend(file.body, frozenset(["table"])):
        look = file.looks.get(attribute(sheet, "style-name") or "", _Look())
        if look.hidden:
            file.hidden += 1
            continue
        file.builder.heading(1, attribute(sheet, "name") or "")
        write_rows(file.builder, _rows(file, sheet))
    return file.document("", fallback)


def _rows(file: _File, sheet: "Element") -> Iterator[SheetRow]:
    hidden = list[bool]()
    for column in descend(sheet, frozenset(["table-column"]), frozenset(["table-row"])):
        count = min(_number(column, "number-columns-repeated"), _MOST_REPEATED)
        hidden += [attribute(column, "visibility") in ("collapse", "filter")] * count
    rows = list[list[Cell]]()
    for row in descend(sheet, frozenset(["table-row"])):
        cells = [
            Cell(
                text=" ".join(file.paragraphs(cell)),
                rows=_number(cell, "number-rows-spanned"),
                columns=_number(cell, "number-columns-spanned"),
            )
            for cell in _cells(row)
            for _ in range(min(_number(cell, "number-columns-repeated"), _MOST_REPEATED))
        ]
        if attribute(row, "visibility") in ("collapse", "filter"):
            file.hidden += any(cell.text for cell in cells)
            continue
        repeated = _number(row, "number-rows-repeated")
        blank = not any(cell.text for cell in cells)
        rows += [cells] * (1 if blank else min(repeated, _MOST_REPEATED))
    grid = filled(rows)
    width = max((len(row) for row in grid), default=0)
    hidden += [False] * (width - len(hidden))
    file.hidden += sum(
        hidden[column]
        and any(row[column : column + 1] != [""] for row in grid if len(row) > column)
        for column in range(width)
    )
    for line in grid:
        yield SheetRow(cells=[text for at, text in enumerate(line) if not hidden[at]])


def _cells(row: "Element") -> Iterator["Element"]:
    """Yield the cells that hold something; those that a merged cell covers follow from its span."""
    return (cell for cell in row if local(cell) == "table-cell")


def _number(element: "Element", name: str) -> int:
    said = attribute(element, name) or "1"
    return max(int(said), 1) if said.isdecimal() else 1


def _look(style: "Element") -> _Look:
    values = {
        key.rpartition("}")[2]: value
        for part in style
        for key, value in part.attrib.items()
        if local(part) in ("text-properties", "table-properties")
    }
    line = values.get("text-line-through-style") or values.get("text-line-through-type") or "none"
    return _Look(
        unseen=line != "none",
        hidden=values.get("display") in ("none", "false"),
        raised=values.get("text-position", "").startswith(("super", "3", "5")),
    )


def _meta(package: OfficePackage) -> dict[str, Any]:
    if "meta.xml" not in package:
        return {}
    try:
        root = package.xml("meta.xml")
    except UnreadableFile:
        return {}
    said = {local(each): each.text or "" for each in root.iter() if not len(each)}
    return described(said.get("title"), said.get("creator"), said.get("date", "")[:19])
