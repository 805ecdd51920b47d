"""Write HTML and SVG as nested calls. Every string is escaped on the way in, so that an answer can
never become markup.
"""

from collections.abc import Iterator
from html import escape

VOID = frozenset({"br", "circle", "line", "meta", "path", "polyline", "rect"})
# Whatever a page shows of an answer, nothing runs and nothing is fetched
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class Markup(str):
    """Text made by `tag`, which is not escaped again."""

    __slots__ = ()


def tag(element: str, /, *children: "str | Iterator[str]", **attributes: object) -> Markup:
    """Return an element. `class_` and `for_` lose their underscore, other underscores become
    hyphens; an attribute that is None is left out, one that is True gets no value.
    """
    attributes_text = "".join(
        _attribute(key, value)
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if element in VOID:
        return Markup(f"<{element}{attributes_text}/>")
    return Markup(
        f"<{element}{attributes_text}>{''.join(_inner(child) for child in children)}</{element}>"
    )


def joined(*children: "str | Iterator[str]") -> Markup:
    return Markup("".join(_inner(child) for child in children))


def html_page(title: str, style: str, *parts: Markup | str) -> str:
    """Return a whole page, without network or scripts; `style` is CSS."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", title),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        Markup(f"<style>{style}</style>"),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', tag('main', *parts)), lang='en')}\n"


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
