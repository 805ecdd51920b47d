"""Read PowerPoint: each slide is a page with its title as heading and the speaker's notes at the
end. Hidden slides are left out.
"""

from typing import TYPE_CHECKING

from slipway.knowledge.readers.document import (
    DocumentBuilder,
    OnPage,
    ParsedDocument,
    UnreadableFile,
    one_line,
    table,
)
from slipway.knowledge.readers.office import OfficePackage, attribute, child, descend, local

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_SHAPES = frozenset(["sp", "tbl"])
_TITLES = frozenset(["title", "ctrTitle"])
_UNSAID = frozenset(
    ["dt", "ftr", "sldNum", "hdr", "sldImg"]
)  # placeholders repeated on every slide
_LEVEL = 1  # of all titles: slides have no ranks


def pptx(data: bytes, fallback: str, on_page: OnPage) -> ParsedDocument:
    """Read slides in order, numbered as PowerPoint does, hidden ones counted. Raises
    UnreadableFile with the slide as page.
    """
    package, builder = OfficePackage(data), DocumentBuilder()
    main = package.main("ppt/presentation.xml")
    parts = package.relations(main)
    listed = child(package.xml(main), "sldIdLst")
    for number, entry in enumerate(listed if listed is not None else [], start=1):
        on_page(number)
        builder.page()
        _, part = parts.get(_relation(entry), ("", f"ppt/slides/slide{number}.xml"))
        if part not in package:
            raise UnreadableFile(
                "It is damaged: a slide is missing",
                "open it in PowerPoint and save it again",
                number,
            )
        slide = package.xml(part, number)
        if slide.get("show") not in ("0", "false"):
            _read(builder, slide, number)
            _read_notes(builder, package, part, number)
    meta = package.meta()
    first = builder.headings[0].text if builder.headings else ""
    return builder.document(meta.get("title") or first or fallback, meta)


def _relation(entry: "Element") -> str:
    """Return `r:id`; the `id` without namespace is something else."""
    return next((value for key, value in entry.attrib.items() if key.endswith("}id")), "")


def _read(builder: DocumentBuilder, slide: "Element", number: int) -> None:
    shapes = [shape for shape in descend(slide, _SHAPES) if _placeholder(shape) not in _UNSAID]
    titles = [shape for shape in shapes if _placeholder(shape) in _TITLES and _words(shape)]
    if titles:
        builder.heading(_LEVEL, _words(titles[0]))
    else:
        first = next((found[0][1] for shape in shapes if (found := _paragraphs(shape))), "")
        builder.name(_LEVEL, first if 0 < len(first) <= 80 else f"Slide {number}")
    for shape in shapes:
        if local(shape) == "tbl":
            _write_table(builder, shape)
        elif shape not in titles[:1]:
            builder.block("\n".join(_lines(shape)))


def _read_notes(builder: DocumentBuilder, package: OfficePackage, part: str, number: int) -> None:
    notes = next(
        (name for kind, name in package.relations(part).values() if kind == "notesSlide"), ""
    )
    if notes in package:
        shapes = descend(package.xml(notes, number), frozenset(["sp"]))
        said = [line for shape in shapes if _placeholder(shape) == "body" for line in _lines(shape)]
        builder.block("\n".join(["Notes:", *said]) if said else "")


def _write_table(builder: DocumentBuilder, element: "Element") -> None:
    rows = [
        [_words(cell) for cell in descend(row, frozenset(["tc"]))]
        for row in descend(element, frozenset(["tr"]))
    ]
    for part in table(rows) if any(map(any, rows)) else []:
        builder.block(part)


def _placeholder(shape: "Element") -> str:
    """Return the shape's placeholder type; empty if it is no placeholder."""
    found = child(shape, "nvSpPr", "nvPr", "ph")
    return "" if found is None else found.get("type", "obj")


def _words(shape: "Element") -> str:
    return " ".join(text for _, text in _paragraphs(shape))


def _lines(shape: "Element") -> list[str]:
    """Return the paragraphs as lines; several become a list, indented by depth."""
    found = _paragraphs(shape)
    return [f"{'  ' * depth}- {text}" if len(found) > 1 else text for depth, text in found]


def _paragraphs(shape: "Element") -> list[tuple[int, str]]:
    """Return (list depth, text) of the paragraphs with text."""
    found = []
    for paragraph in descend(shape, frozenset(["p"])):
        said = (
            " " if local(each) == "br" else each.text or ""
            for each in descend(paragraph, frozenset(["t", "br"]))
        )
        depth = (
            attribute(properties, "lvl")
            if (properties := child(paragraph, "pPr")) is not None
            else None
        )
        if text := one_line("".join(said)):
            found.append((min(int(depth), 8) if depth and depth.isdecimal() else 0, text))
    return found
