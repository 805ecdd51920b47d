"""Compute the automatic numbers of Word's paragraphs: they are not in the text, only the rules to
make them (ECMA-376, part 1, 17.9).
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from slipway.knowledge.readers.office import attribute, child, local
from slipway.types import Record

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_DEEPEST = 9
_ROMAN: dict[str, int] = {
    "m": 1000,
    "cm": 900,
    "d": 500,
    "cd": 400,
    "c": 100,
    "xc": 90,
    "l": 50,
    "xl": 40,
    "x": 10,
    "ix": 9,
    "v": 5,
    "iv": 4,
    "i": 1,
}


class _Level(Record, frozen=True, kw_only=True):
    start: int = 1
    kind: str = "decimal"
    text: str = ""
    style: str = ""


class Label(Record, frozen=True, kw_only=True):
    """A paragraph's number as it is shown (`2.2`; empty for a bullet), and its depth in the list."""

    text: str
    depth: int


class Numbering:
    """The numbering of one document; ask for labels in the order of the paragraphs."""

    def __init__(self, numbering: "Callable[[], Element] | None", styles: "Element | None") -> None:
        """`numbering` parses the definitions; it is called at the first number, if there is one."""
        self._definitions = numbering
        self._elements: dict[str, Element] = {}  # abstract list -> its definition
        self._lists: dict[str, dict[int, _Level]] = {}  # abstract list -> its levels, once used
        self._list_of: dict[str, str] = {}  # number id -> abstract list
        self._restarts: dict[str, dict[int, int]] = {}  # number id -> level -> first number
        self._counts: dict[str, dict[int, int]] = {}  # abstract list -> level -> last number
        self._styles = _style_numbers(styles) if styles is not None else {}

    def _read(self, element: "Element") -> None:
        name, key = local(element), attribute(element, "abstractNumId") or ""
        if name == "abstractNum":
            self._elements[key] = element
        elif name == "num":
            number = attribute(element, "numId") or ""
            self._list_of[number] = _value(child(element, "abstractNumId"))
            overrides = (each for each in element if local(each) == "lvlOverride")
            self._restarts[number] = {
                _number(each, "ilvl"): int(start)
                for each in overrides
                if (start := _value(child(each, "startOverride"))).isdecimal()
            }

    def _levels(self, number: str) -> dict[int, _Level]:
        """Return the levels of a number's list. Word files define many lists that nobody uses."""
        if number and self._definitions is not None:
            definitions, self._definitions = self._definitions(), None
            for element in definitions:
                self._read(element)
        key = self._list_of.get(number, "")
        if key not in self._lists:
            levels = (each for each in self._elements.get(key, ()) if local(each) == "lvl")
            self._lists[key] = {_number(each, "ilvl"): _level(each) for each in levels}
        return self._lists[key]

    def label(self, paragraph: "Element") -> Label | None:
        """Return the paragraph's label and count it; None if it has no number."""
        number, depth = self._place(paragraph)
        levels = self._levels(number)
        if not levels or depth not in levels:
            return None
        level = levels[depth]
        counts = self._counts.setdefault(self._list_of[number], {})
        if depth in (restarts := self._restarts.get(number, {})):
            counts[depth] = restarts.pop(depth) - 1
        counts[depth] = counts.get(depth, level.start - 1) + 1
        for deeper in [each for each in counts if each > depth]:
            del counts[deeper]
        if level.kind == "bullet":
            return Label(text="", depth=depth)

        def shown(found: re.Match[str]) -> str:
            at = int(found[1]) - 1
            each = levels.get(at, level)
            return _shown(counts.get(at, each.start), each.kind)

        return Label(text=re.sub(r"%([1-9])", shown, level.text).strip(), depth=depth)

    def _place(self, paragraph: "Element") -> tuple[str, int]:
        """Return (number id, level), from the paragraph or its style."""
        style = _value(child(paragraph, "pPr", "pStyle"))
        number, depth = self._styles.get(style, ("", None))
        own = child(paragraph, "pPr", "numPr")
        if own is not None:
            number = _value(child(own, "numId")) or number
            said = _value(child(own, "ilvl"))
            depth = int(said) if said.isdecimal() else depth
        if depth is None:
            levels = self._levels(number)
            depth = next((at for at, each in levels.items() if each.style == style), 0)
        return number, min(depth, _DEEPEST - 1)


def _style_numbers(styles: "Element") -> dict[str, tuple[str, int | None]]:
    """Return style -> (number id, level), inherited from the style that it is based on."""
    own, based = dict[str, tuple[str, int | None]](), dict[str, str]()
    for style in (each for each in styles if local(each) == "style"):
        key = attribute(style, "styleId") or ""
        based[key] = _value(child(style, "basedOn"))
        number = child(style, "pPr", "numPr")
        if number is not None:
            depth = _value(child(number, "ilvl"))
            own[key] = (
                _value(child(number, "numId")),
                int(depth) if depth.isdecimal() else None,
            )
    found = dict[str, tuple[str, int | None]]()
    for key in based:
        name, seen = key, set[str]()
        while name not in own and name not in seen:
            seen.add(name)
            name = based.get(name, "")
        if name in own:
            found[key] = own[name]
    return found


def _level(element: "Element") -> _Level:
    start = _value(child(element, "start"))
    return _Level(
        start=int(start) if start.isdecimal() else 1,
        kind=_value(child(element, "numFmt")) or "decimal",
        text=_value(child(element, "lvlText")),
        style=_value(child(element, "pStyle")),
    )


def _value(element: "Element | None") -> str:
    return (attribute(element, "val") or "") if element is not None else ""


def _number(element: "Element", name: str) -> int:
    said = attribute(element, name) or ""
    return int(said) if said.isdecimal() else 0


def _shown(number: int, kind: str) -> str:
    if kind in ("lowerRoman", "upperRoman"):
        text = _roman(number)
        return text if kind == "lowerRoman" else text.upper()
    if kind in ("lowerLetter", "upperLetter") and number > 0:
        text = chr(97 + (number - 1) % 26) * ((number - 1) // 26 + 1)
        return text if kind == "lowerLetter" else text.upper()
    return "" if kind == "none" else f"{number:02}" if kind == "decimalZero" else str(number)


def _roman(number: int) -> str:
    out = ""
    for letters, value in _ROMAN.items() if 0 < number < 4000 else ():
        count, number = divmod(number, value)
        out += letters * count
    return out or str(number)
