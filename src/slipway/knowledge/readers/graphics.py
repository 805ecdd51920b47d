"""Read the charts and SmartArt of office files (DrawingML)."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from slipway.knowledge.readers.document import DocumentBuilder, one_line, table
from slipway.knowledge.readers.number_format import GENERAL, shown_number
from slipway.knowledge.readers.office import OfficePackage, attribute, child, descend, local

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_LINKS = frozenset(["parTrans", "sibTrans", "pres"])  # SmartArt's points that hold no text


def write_chart(builder: DocumentBuilder, root: "Element") -> None:
    """Write a chart as its title and a table: a row for each category, a column for each series."""
    chart = child(root, "chart")
    title = child(chart, "title")
    builder.block(_rich_text(title) if title is not None else "")
    series = list(descend(root, frozenset(["ser"])))
    names = [_name(each, number) for number, each in enumerate(series, start=1)]
    columns = [dict(_points(each, "val", "yVal")) for each in series]
    categories = dict[int, str]()
    for each in series:
        categories |= {
            at: text for at, text in _points(each, "cat", "xVal") if at not in categories
        }
    at_all = sorted({*categories, *(at for column in columns for at in column)})
    rows = [[categories.get(at, ""), *(column.get(at, "") for column in columns)] for at in at_all]
    for part in table([[_axis_title(root), *names], *rows]) if rows else ():
        builder.block(part)


def _name(series: "Element", number: int) -> str:
    named = child(series, "tx")
    texts = descend(named, frozenset(["v"])) if named is not None else []
    return one_line(" ".join(each.text or "" for each in texts)) or f"Series {number}"


def _points(series: "Element", *names: str) -> Iterator[tuple[int, str]]:
    """Yield (index, text) of the first of the named parts that the series has."""
    part = next((found for name in names if (found := child(series, name)) is not None), None)
    if part is None:
        return
    code = next((each.text for each in descend(part, frozenset(["formatCode"]))), None) or GENERAL
    levels = list(descend(part, frozenset(["lvl"]))) or [part]
    for point in descend(levels[0], frozenset(["pt"])):
        value, at = child(point, "v"), point.get("idx", "")
        if value is not None and at.isdecimal():
            yield int(at), _shown(value.text or "", code)


def _shown(text: str, code: str) -> str:
    try:
        return shown_number(float(text), code)
    except ValueError:
        return one_line(text)


def _axis_title(root: "Element") -> str:
    """Return the title of the axis of categories; empty if it has none."""
    axis = next(descend(root, frozenset(["catAx", "dateAx"])), None)
    title = child(axis, "title")
    return _rich_text(title) if title is not None else ""


def _rich_text(title: "Element") -> str:
    return one_line(" ".join(each.text or "" for each in descend(title, frozenset(["t"]))))


def write_diagram(builder: DocumentBuilder, root: "Element") -> None:
    """Write the texts of a SmartArt diagram as a list."""
    texts = []
    for point in descend(root, frozenset(["pt"])):
        if point.get("type") not in _LINKS and (text := child(point, "t")) is not None:
            paragraphs = descend(text, frozenset(["p"]))
            said = " ".join(
                "".join(each.text or "" for each in descend(p, frozenset(["t"])))
                for p in paragraphs
            )
            texts.append(one_line(said))
    builder.block("\n".join(f"- {text}" for text in texts if text))


GRAPHICS = frozenset(["chart", "relIds"])  # elements that refer to a chart or a diagram


def graphics_of(
    package: OfficePackage, relations: Mapping[str, tuple[str, str]], element: "Element"
) -> "Iterator[Element]":
    """Yield the root of the chart or diagram that an element refers to."""
    name = "id" if local(element) == "chart" else "dm"
    _, part = relations.get(attribute(element, name) or "", ("", ""))
    if part in package:
        yield package.xml(part)


def write_graphic(builder: DocumentBuilder, root: "Element") -> None:
    """Write a chart or a diagram."""
    (write_diagram if local(root) == "dataModel" else write_chart)(builder, root)
