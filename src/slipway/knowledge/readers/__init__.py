"""A file's bytes become a `Document`: its text, its headings and the places where it may be cut,
all as offsets in that text.

For Markdown, reStructuredText and plain text the text is the decoded file: the byte order mark
dropped, line ends normalised to `\\n`, nothing else changed. For the other kinds it is the readable
text, with tables as in Markdown. A kind of document is one row of `READERS`.
"""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import PurePosixPath
from typing import cast

from slipway.knowledge.readers.document import Document, Heading, OnPage, Unreadable, one_line

__all__ = ["READERS", "Document", "Heading", "Reader", "Unreadable", "read"]

_LONGEST_TEXT = 20_000_000

Reader = Callable[
    [bytes, str, OnPage], Document
]  # (the file, a title if it has none of its own, progress) -> Document

READERS: dict[
    str, tuple[str, str]
] = {  # suffix -> (module, function); imported where such a file is read, and its library with it
    ".md": (".markdown", "markdown"),
    ".markdown": (".markdown", "markdown"),
    ".html": (".html", "html"),
    ".htm": (".html", "html"),
    ".txt": (".text", "plain"),
    ".rst": (".text", "restructured"),
    ".pdf": (".pdf", "pdf"),
    ".docx": (".docx", "docx"),
    ".pptx": (".pptx", "pptx"),
    ".xlsx": (".xlsx", "xlsx"),
    ".csv": (".xlsx", "separated"),
    ".tsv": (".xlsx", "separated"),
}


def read(data: bytes, path: str, on_page: OnPage = lambda page: None) -> Document:
    """Reads a file by its suffix, in this process: `parsing` does it for files that nobody vouches
    for. Raises Unreadable.
    """
    if not data.strip():
        raise Unreadable("It is empty", "add text, or remove the file")
    module, function = READERS[PurePosixPath(path).suffix.lower()]
    reader = cast(Reader, getattr(import_module(module, __package__), function))
    document = reader(data, _humanised(path), on_page)
    if not document.text[document.body :].strip():
        raise Unreadable("It has no readable text", "add some, or remove the file")
    if len(document.text) > _LONGEST_TEXT:
        raise Unreadable(
            f"It has more than {_LONGEST_TEXT / 1e6:.0f} million characters of text",
            "split it into smaller files",
        )
    return document


def _humanised(path: str) -> str:
    words = one_line(re.sub(r"[-_.]+", " ", PurePosixPath(path).stem))
    return words[:1].upper() + words[1:] or path
