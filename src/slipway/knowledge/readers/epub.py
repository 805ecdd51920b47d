"""Read e-books (EPUB 2 and 3): the chapters in reading order, each an HTML page."""

import posixpath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from slipway.knowledge.readers.document import (
    DocumentBuilder,
    Loss,
    OnPage,
    ParsedDocument,
    UnreadableFile,
    counted,
    described,
)
from slipway.knowledge.readers.encoding import decoded
from slipway.knowledge.readers.html import html_text
from slipway.knowledge.readers.office import OfficePackage, descend, local

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_PAGES = ("application/xhtml+xml", "text/html")


def epub(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read the chapters that the spine names. Raises UnreadableFile if they are encrypted."""
    package, builder = OfficePackage(data), DocumentBuilder()
    main = next((each.get("full-path", "") for each in _named(package, "rootfile")), "")
    root = package.xml(main)
    folder = posixpath.dirname(main)
    files = {
        each.get("id", ""): posixpath.normpath(
            posixpath.join(folder, unquote(each.get("href", "")))
        )
        for each in descend(root, frozenset(["item"]))
        if each.get("media-type") in _PAGES and "nav" not in each.get("properties", "").split()
    }
    missing = 0
    for entry in descend(root, frozenset(["itemref"])):
        part = files.get(entry.get("idref", ""))
        if part is None:
            continue
        if part not in package:
            missing += 1
            continue
        builder.include(html_text(decoded(package.bytes(part), markup=True).text, ""))
    if "META-INF/rights.xml" in package or (missing and not builder.breaks):
        raise UnreadableFile("It is protected against copying", "get a file without protection")
    if missing:
        what = counted(missing, "chapter is", "chapters are")
        builder.losses.append(Loss(what=f"{what} missing in the file", fix="get a whole file"))
    said = {local(each): each.text or "" for each in root.iter() if not len(each)}
    meta = described(said.get("title"), said.get("creator"), said.get("date", "")[:10])
    first = builder.headings[0].text if builder.headings else ""
    return builder.document(meta.get("title") or first or fallback, meta)


def _named(package: OfficePackage, name: str) -> "list[Element]":
    return list(descend(package.xml("META-INF/container.xml"), frozenset([name])))
