"""Read PowerPoint: each slide is a page with its title as heading and the speaker's notes at the
end. Hidden slides are left out.
"""

from typing import TYPE_CHECKING

from slipway.knowledge.readers.document import (
    DocumentBuilder,
    Loss,
    OnPage,
    ParsedDocument,
    UnreadableFile,
    counted,
    one_line,
    raised,
    write_grid,
)
from slipway.knowledge.readers.encoding import cleaned
from slipway.knowledge.readers.graphics import GRAPHICS, graphics_of, write_graphic
from slipway.knowledge.readers.office import OfficePackage, attribute, child, descend, local

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_SHAPES = GRAPHICS | frozenset(["sp", "tbl"])
_TITLES = frozenset(["title", "ctrTitle"])
_REPEATED = frozenset(
    ["dt", "ftr", "sldNum", "hdr", "sldImg"]
)  # placeholders repeated on every slide
_TRUE = frozenset(["1", "true"])
_LEVEL = 1  # of all titles: slides have no ranks


def pptx(data: bytes, fallback: str, on_page: OnPage) -> ParsedDocument:
    """Read slides in order, numbered as PowerPoint does, hidden ones counted. Raises
    UnreadableFile with the slide as page.
    """
    package, builder, hidden = OfficePackage(data), DocumentBuilder(), 0
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
        if slide.get("show") in ("0", "false"):
            hidden += 1
        else:
            _read(builder, slide, number)
            _read_graphics(builder, package, part, slide)
            _read_notes(builder, package, part, number)
    if hidden:
        what = counted(hidden, "hidden slide is", "hidden slides are")
        builder.losses.append(Loss(what=f"{what} left out", fix="show them in PowerPoint"))
    meta = package.meta()
    first = builder.headings[0].text if builder.headings else ""
    return builder.document(meta.get("title") or first or fallback, meta)


def _relation(entry: "Element") -> str:
    """Return `r:id`; the `id` without namespace is something else."""
    return next((value for key, value in entry.attrib.items() if key.endswith("}id")), "")


def _read(builder: DocumentBuilder, slide: "Element", number: int) -> None:
    shapes = [shape for shape in descend(slide, _SHAPES) if _placeholder(shape) not in _REPEATED]
    titles = [shape for shape in shapes if _placeholder(shape) in _TITLES and _words(shape)]
    if titles:
        builder.heading(_LEVEL, _words(titles[0]))
    else:
        first = next((found[0][1] for shape in shapes if (found := _paragraphs(shape))), "")
        builder.name(_LEVEL, first if 0 < len(first) <= 80 else f"Slide {number}")
    for shape in shapes:
        if local(shape) == "tbl":
            _write_table(builder, shape)
        elif local(shape) == "sp" and shape not in titles[:1]:
            builder.block("\n".join(_lines(shape)))


def _read_graphics(
    builder: DocumentBuilder, package: OfficePackage, part: str, slide: "Element"
) -> None:
    relations = package.relations(part)
    for element in descend(slide, GRAPHICS):
        for root in graphics_of(package, relations, element):
            write_graphic(builder, root)


def _read_notes(builder: DocumentBuilder, package: OfficePackage, part: str, number: int) -> None:
    notes = next(
        (name for kind, name in package.relations(part).values() if kind == "notesSlide"), ""
    )
    if notes in package:
        shapes = descend(package.xml(notes, number), frozenset(["sp"]))
        said = [line for shape in shapes if _placeholder(shape) == "body" for line in _lines(shape)]
        builder.block("\n".join(["Notes:", *said]) if said else "")


def _write_table(builder: DocumentBuilder, element: "Element") -> None:
    grid, merged = list[list[str]](), 1
    for row in descend(element, frozenset(["tr"])):
        out, above = list[str](), grid[-1] if grid else []
        for cell in descend(row, frozenset(["tc"])):
            at, text = len(out), _words(cell)
            if cell.get("vMerge") in _TRUE and at < len(above):
                text = above[at]
            elif cell.get("hMerge") in _TRUE and out:
                text = out[-1]
            merged = 2 if not grid and ({"gridSpan", "rowSpan"} & {*cell.keys()}) else merged
            out.append(text)
        grid.append(out)
    write_grid(builder, grid, merged)


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
        said = _runs(paragraph)
        depth = (
            attribute(properties, "lvl")
            if (properties := child(paragraph, "pPr")) is not None
            else None
        )
        if text := cleaned(one_line(said)):
            found.append((min(int(depth), 8) if depth and depth.isdecimal() else 0, text))
    return found


def _runs(paragraph: "Element") -> str:
    """Return the paragraph's text, with superscripts set apart and struck-out runs left out."""
    out = ""
    for run in descend(paragraph, frozenset(["r", "br", "fld"])):
        look = child(run, "rPr")
        struck = look is not None and (look.get("strike") or "noStrike") != "noStrike"
        text = "".join(each.text or "" for each in descend(run, frozenset(["t"])))
        up = look is not None and (look.get("baseline") or "0").lstrip("0")
        if local(run) == "br":
            out += " "
        elif up and not str(up).startswith("-"):
            out += raised(out, text)
        elif not struck:
            out += text
    return out
