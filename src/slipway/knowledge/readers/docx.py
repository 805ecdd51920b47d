"""Read Word: headings by style, lists, tables and footnotes. The file has no pages: Word makes
them when it shows or prints it.
"""

import re
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from slipway.knowledge.readers.document import (
    DocumentBuilder,
    Loss,
    OnPage,
    ParsedDocument,
    counted,
    raised,
    write_grid,
)
from slipway.knowledge.readers.encoding import cleaned, decoded
from slipway.knowledge.readers.graphics import GRAPHICS, graphics_of, write_graphic
from slipway.knowledge.readers.html import html_text
from slipway.knowledge.readers.office import OfficePackage, attribute, child, descend, local
from slipway.knowledge.readers.text import plain_text
from slipway.knowledge.readers.word_numbering import Numbering

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_HEADING = re.compile(
    r"(?:heading|überschrift|titre|título|titolo|kop|заголовок|標題|标题|見出し) ?([1-9])$",
    re.IGNORECASE,
)
_TITLES = frozenset(["title", "titel", "titre", "título", "titolo"])
_BLOCKS = frozenset(["p", "tbl", "altChunk"])
_BODY_LEVEL = 9  # Word's outline level of body text
_INLINE = GRAPHICS | frozenset(
    [
        "t",
        "tab",
        "br",
        "cr",
        "noBreakHyphen",
        "footnoteReference",
        "endnoteReference",
        "txbxContent",
    ]
)
_SIGNS = {"tab": " ", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
# text deleted while changes were tracked, and readings above characters
_DELETED = frozenset(["pPr", "del", "moveFrom", "rt"])
_UNREAD = frozenset(["rPr", "instrText", "delText", *_DELETED])
_OFF = frozenset(["0", "false", "off", "none"])
_DEEPEST = 5  # documents in documents


def docx(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read a Word file. Its title is the paragraph in style Title, else the file property, else the
    first heading.
    """
    package = OfficePackage(data)
    reading = _Reading(package, DocumentBuilder())
    reading.read()
    meta = package.meta()
    builder = reading.builder
    first = builder.headings[0].text if builder.headings else ""
    return builder.document(reading.title or meta.get("title") or first or fallback, meta)


class _Reading:
    """Walk over the body. List items wait until the list ends, so that it becomes one block."""

    def __init__(self, package: OfficePackage, builder: DocumentBuilder, depth: int = 0) -> None:
        self._main = package.main("word/document.xml")
        self._package, self._depth = package, depth
        self._relations = package.relations(self._main)
        parts = {kind: part for kind, part in self._relations.values() if part in package}
        styles = package.xml(parts["styles"]) if "styles" in parts else None
        numbering = partial(package.xml, parts["numbering"]) if "numbering" in parts else None
        self._levels = _levels(styles) if styles is not None else {}
        self._numbering = Numbering(numbering, styles)
        kinds = [kind for kind in ("footnotes", "endnotes") if kind in parts]
        self._notes: dict[str, dict[str, str]] = {
            kind: _notes(package.xml(parts[kind])) for kind in kinds
        }
        self.builder, self.title = builder, ""
        self._items: list[str] = []
        self._shift = 0  # 1 if there is a title, so that headings are below it
        self._hidden = 0  # runs of hidden text

    def read(self) -> None:
        """Read the whole body."""
        for block in descend(self._package.xml(self._main), _BLOCKS):
            self.block(block)
        self.end_list()
        if self._hidden:
            what = counted(self._hidden, "piece of hidden text is", "pieces of hidden text are")
            self.builder.losses.append(Loss(what=f"{what} left out", fix="show it in Word"))

    def block(self, element: "Element") -> None:
        """Write a paragraph, a table or an embedded document."""
        name = local(element)
        if name != "p":
            self.end_list()
            (self._table if name == "tbl" else self._embedded)(element)
            return
        text, more = self._text(element)
        level, label = self._level(element), self._numbering.label(element) if text else None
        number = f"{label.text} " if label and label.text else ""
        if text and level is not None:
            self.end_list()
            self._head(level, number + text)
        elif text and (label or _is_list(element)):
            depth = label.depth if label else 0
            self._items.append(f"{'  ' * depth}{number or '- '}{text}")
        elif text:
            self.end_list()
            self.builder.block(text)
        for each in more:
            self._anchored(each)

    def end_list(self) -> None:
        """Write the list items that wait."""
        self.builder.block("\n".join(self._items))
        self._items = []

    def _anchored(self, element: "Element") -> None:
        if local(element) not in GRAPHICS:
            self.block(element)
            return
        self.end_list()
        for root in graphics_of(self._package, self._relations, element):
            write_graphic(self.builder, root)

    def _embedded(self, chunk: "Element") -> None:
        """Read a document that Word shows as a part of this one (`altChunk`)."""
        _, part = self._relations.get(attribute(chunk, "id") or "", ("", ""))
        kind = PurePosixPath(part).suffix.lower()
        if part in self._package and kind in (".htm", ".html", ".xhtml", ".txt", ".mht"):
            text = decoded(self._package.bytes(part), markup=kind != ".txt").text
            self.builder.include(html_text(text, "") if kind != ".txt" else plain_text(text, ""))
        elif part in self._package and kind in (".docx", ".docm") and self._depth < _DEEPEST:
            inner = OfficePackage(self._package.bytes(part))
            _Reading(inner, self.builder, self._depth + 1).read()
        else:
            self.builder.losses.append(
                Loss(what="an embedded document is not read", fix="paste its text into this one")
            )

    def _head(self, level: int, text: str) -> None:
        if level == 0 and not self.title:
            self.title, self._shift = text, 1
        self.builder.heading(level + self._shift if level else 1, text)

    def _level(self, paragraph: "Element") -> int | None:
        """Return 1 for the highest heading, 0 for the document's title, None for text."""
        own = child(paragraph, "pPr", "outlineLvl")
        style = child(paragraph, "pPr", "pStyle")
        if own is not None:
            return _outline(own)
        return self._levels.get(attribute(style, "val") or "") if style is not None else None

    def _text(self, paragraph: "Element") -> tuple[str, list["Element"]]:
        """Return a paragraph's text with its notes in brackets at the end, and what is anchored in
        it: the blocks of text boxes, charts and diagrams.
        """
        out, notes, anchored = "", list[str](), list["Element"]()
        for run in descend(paragraph, frozenset(["r"]), _DELETED):
            look = child(run, "rPr")
            if look is not None and self._is_unseen(look):
                continue
            text = ""
            for element in descend(run, _INLINE, _UNREAD):
                name = local(element)
                if name == "txbxContent":
                    anchored += descend(element, _BLOCKS)
                elif name in GRAPHICS:
                    anchored.append(element)
                elif name.endswith("Reference"):
                    known = self._notes.get(name.replace("Reference", "s"), {})
                    notes.append(known.get(attribute(element, "id") or "", ""))
                else:
                    text += _SIGNS.get(name) or element.text or ""
            out += raised(out, text) if _is_raised(look) else text
        said = cleaned(re.sub(r"[ \t]+", " ", out).strip())
        return " ".join([said, *(f"[{note}]" for note in notes if note)]).strip(), anchored

    def _is_unseen(self, look: "Element") -> bool:
        """Return whether a run is struck out, or hidden, which is counted."""
        hidden = _is_on(child(look, "vanish"))
        self._hidden += hidden
        return hidden or _is_on(child(look, "strike")) or _is_on(child(look, "dstrike"))

    def _table(self, element: "Element") -> None:
        grid, heads, merged = list[list[str]](), 0, 1
        for row in descend(element, frozenset(["tr"])):
            cells, above = list[str](), grid[-1] if grid else []
            for cell in descend(row, frozenset(["tc"])):
                width = _span(child(cell, "tcPr", "gridSpan"))
                down = child(cell, "tcPr", "vMerge")
                goes_on = down is not None and attribute(down, "val") != "restart"
                at = len(cells)
                text = above[at] if goes_on and at < len(above) else self._cell(cell)
                cells += [text] * width
                merged = max(merged, 2) if not grid and (width > 1 or down is not None) else merged
            heads += _is_on(child(row, "trPr", "tblHeader")) and heads == len(grid)
            grid.append(cells)
        write_grid(self.builder, grid, heads or merged)

    def _cell(self, cell: "Element") -> str:
        said = (self._text(paragraph) for paragraph in descend(cell, frozenset(["p"])))
        return "\n".join(text for text, _ in said if text)


def _is_on(element: "Element | None") -> bool:
    return element is not None and (attribute(element, "val") or "1") not in _OFF


def _is_raised(look: "Element | None") -> bool:
    up = child(look, "vertAlign")
    return up is not None and attribute(up, "val") == "superscript"


def _is_list(paragraph: "Element") -> bool:
    style = child(paragraph, "pPr", "pStyle")
    return style is not None and (attribute(style, "val") or "").startswith("List")


def _span(element: "Element | None") -> int:
    said = (attribute(element, "val") or "") if element is not None else ""
    return max(1, min(int(said), 63)) if said.isdecimal() else 1


def _outline(element: "Element") -> int | None:
    said = attribute(element, "val") or ""
    return int(said) + 1 if said.isdecimal() and int(said) < _BODY_LEVEL else None


def _levels(styles: "Element") -> dict[str, int | None]:
    """Style -> level of heading, by its name, its outline level, or that of the style it is based
    on.
    """
    own, based = dict[str, int | None](), dict[str, str]()
    for style in (each for each in styles if local(each) == "style"):
        name, key = child(style, "name"), attribute(style, "styleId") or ""
        called = (attribute(name, "val") or "").lower() if name is not None else ""
        outline, parent = child(style, "pPr", "outlineLvl"), child(style, "basedOn")
        if called in _TITLES:
            own[key] = 0
        elif found := _HEADING.match(called):
            own[key] = int(found[1])
        elif outline is not None:
            own[key] = _outline(outline)
        elif parent is not None:
            based[key] = attribute(parent, "val") or ""
    return {key: own.get(_rooted(key, own, based)) for key in [*own, *based]}


def _rooted(style: str, own: dict[str, int | None], based: dict[str, str]) -> str:
    """Return the nearest base style with a level; styles may refer to each other in a circle."""
    seen = set[str]()
    while style not in own and style not in seen:
        seen.add(style)
        style = based.get(style, style)
    return style


def _notes(root: "Element") -> dict[str, str]:
    found = {}
    for note in root:
        said = (
            "".join(each.text or "" for each in descend(p, frozenset(["t"]), _UNREAD))
            for p in descend(note, frozenset(["p"]))
        )
        found[attribute(note, "id") or ""] = " ".join(" ".join(said).split())
    return found
