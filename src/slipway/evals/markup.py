"""HTML and SVG as nested calls. Every string is escaped where it goes in, so that an answer is
never more than text.
"""

from collections.abc import Iterator
from html import escape

VOID = frozenset({"br", "circle", "line", "meta", "path", "polyline", "rect"})


class Markup(str):
    """Was made by `tag`, and goes in as it is."""

    __slots__ = ()


def tag(element: str, /, *children: "str | Iterator[str]", **attributes: object) -> Markup:
    """`class_` and `for_` lose their underscore, others become hyphens; an attribute that is None
    is left out, one that is True has no value.
    """
    told = "".join(
        _attribute(key, value)
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if element in VOID:
        return Markup(f"<{element}{told}/>")
    return Markup(f"<{element}{told}>{''.join(_inner(child) for child in children)}</{element}>")


def joined(*children: "str | Iterator[str]") -> Markup:
    return Markup("".join(_inner(child) for child in children))


def _inner(child: "str | Iterator[str]") -> str:
    if isinstance(child, Markup):
        return child
    return escape(child) if isinstance(child, str) else "".join(map(_inner, child))


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-") if key != "viewBox" else key
    return (
        f" {name}"
        if value is True
        else f' {name}="{escape(f"{value:g}" if isinstance(value, float) else str(value))}"'
    )
