"""Read Word: headings by style, lists, tables and footnotes. The file has no pages: Word makes
them when it shows or prints it.
"""

import re
from typing import TYPE_CHECKING

from slipway.knowledge.readers.document import DocumentBuilder, OnPage, ParsedDocument, table
from slipway.knowledge.readers.office import OfficePackage, attribute, child, descend, local

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_HEADING = re.compile(
    r"(?:heading|überschrift|titre|título|titolo|kop|заголовок|標題|标题|見出し) ?([1-9])$",
    re.IGNORECASE,
)
_TITLES = frozenset(["title", "titel", "titre", "título", "titolo"])
_BLOCKS = frozenset(["p", "tbl"])
_BODY_LEVEL = 9  # Word's outline level of body text
_INLINE = frozenset(
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
_SAID = {"tab": " ", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_UNREAD = frozenset(
    ["pPr", "rPr", "del", "moveFrom", "instrText"]
)  # formats, and text deleted while changes were tracked


def docx(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read a Word file. Its title is the paragraph in style Title, else the file property, else the
    first heading.
    """
    package = OfficePackage(data)
    main = package.main("word/document.xml")
    root = package.xml(main)
    reading = _Reading(package, main)
    for block in descend(root, _BLOCKS):
        reading.block(block)
    reading.end_list()
    meta = package.meta()
    first = reading.builder.headings[0].text if reading.builder.headings else ""
    return reading.builder.document(reading.title or meta.get("title") or first or fallback, meta)


class _Reading:
    """Walk over the body. List items wait until the list ends, so that it becomes one block."""

    def __init__(self, package: OfficePackage, main: str) -> None:
        parts = {kind: part for kind, part in package.relations(main).values() if part in package}
        self._levels = _levels(package.xml(parts["styles"])) if "styles" in parts else {}
        kinds = [kind for kind in ("footnotes", "endnotes") if kind in parts]
        self._notes: dict[str, dict[str, str]] = {
            kind: _notes(package.xml(parts[kind])) for kind in kinds
        }
        self.builder, self.title = DocumentBuilder(), ""
        self._items: list[str] = []
        self._shift = 0  # 1 if there is a title, so that headings are below it

    def block(self, element: "Element") -> None:
        if local(element) == "tbl":
            self.end_list()
            self._table(element)
            return
        text, more = self._text(element)
        level = self._level(element)
        if text and level is not None:
            self.end_list()
            self._head(level, text)
        elif text and (depth := _list_depth(element)) is not None:
            self._items.append(f"{'  ' * depth}- {text}")
        elif text:
            self.end_list()
            self.builder.block(text)
        for each in more:
            self.block(each)

    def end_list(self) -> None:
        self.builder.block("\n".join(self._items))
        self._items = []

    def _head(self, level: int, text: str) -> None:
        if level == 0 and not self.title:
            self.title, self._shift = text, 1
        self.builder.heading(level + self._shift if level else 1, text)

    def _level(self, paragraph: "Element") -> int | None:
        """1 for the highest heading, 0 for the document's title, None for text."""
        own = child(paragraph, "pPr", "outlineLvl")
        style = child(paragraph, "pPr", "pStyle")
        if own is not None:
            return _outline(own)
        return self._levels.get(attribute(style, "val") or "") if style is not None else None

    def _text(self, paragraph: "Element") -> tuple[str, list["Element"]]:
        """What a paragraph says, its notes in brackets behind it; and the blocks of text boxes that
        are anchored in it.
        """
        out, notes, boxes = list[str](), list[str](), list["Element"]()
        for element in descend(paragraph, _INLINE, _UNREAD):
            name = local(element)
            if name == "txbxContent":
                boxes += descend(element, _BLOCKS)
            elif name.endswith("Reference"):
                known = self._notes.get(name.replace("Reference", "s"), {})
                notes.append(known.get(attribute(element, "id") or "", ""))
            else:
                out.append(_SAID.get(name) or element.text or "")
        said = re.sub(r"[ \t]+", " ", "".join(out)).strip()
        return " ".join([said, *(f"[{note}]" for note in notes if note)]).strip(), boxes

    def _table(self, element: "Element") -> None:
        rows = [
            [self._cell(cell) for cell in descend(row, frozenset(["tc"]))]
            for row in descend(element, frozenset(["tr"]))
        ]
        rows = [row for row in rows if any(row)]
        if rows and max(map(len, rows)) == 1:  # a frame around text
            for row in rows:
                self.builder.block(row[0])
        elif rows:
            for part in table(rows):
                self.builder.block(part)

    def _cell(self, cell: "Element") -> str:
        said = (self._text(paragraph) for paragraph in descend(cell, frozenset(["p"])))
        return "\n".join(text for text, _ in said if text)


def _list_depth(paragraph: "Element") -> int | None:
    number = child(paragraph, "pPr", "numPr")
    style = child(paragraph, "pPr", "pStyle")
    if number is None:
        return (
            0 if style is not None and (attribute(style, "val") or "").startswith("List") else None
        )
    level = child(number, "ilvl")
    said = attribute(level, "val") if level is not None else "0"
    return min(int(said), 8) if said and said.isdecimal() else 0


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
